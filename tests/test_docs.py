"""The documentation: every snippet runs, every command is understood, every public name is described."""

from __future__ import annotations

import functools
import importlib
import inspect
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import jupytext
import nbformat
import pytest
from nbformat import NotebookNode

import hpml_sim as hs
from hpml_sim import cli

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(p for p in DOCS.rglob("*.md") if "generated" not in p.parts)
FENCE = re.compile(r"^```(?:\{code-block\} )?(\w+)\n((?:^:\w+:.*\n)*)(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> Iterator[tuple[int, str, str, str]]:
    """(line, language, options, code) of each fenced block."""
    text = page.read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        yield text.count("\n", 0, found.start(3)) + 1, found[1], found[2], found[3]


def commands(page: Path) -> list[str]:
    """What stands behind a prompt."""
    lines = [line for _, language, _, code in blocks(page) if language == "console" for line in code.splitlines()]
    return [line[2:] for line in lines if line.startswith("$ ")]


def with_defaults(function, **defaults):
    """The function with other arguments, whatever the snippet asks for."""
    return lambda *args, **options: function(*args, **{**options, **defaults})


@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set")  # of Trainer, where there is no GPU
@pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec")  # of Lightning, with torch 2.13
@pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers")
@pytest.mark.parametrize("page", [p for p in PAGES if "```python\n" in p.read_text()], ids=lambda p: p.stem)
def test_snippets_run_in_order(page: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each page is one session. Trainings are cut to one epoch: what is tested is that the code works."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hs, "fit", with_defaults(hs.fit, epochs=1))
    few = {"epochs": 1, "finetune_epochs": 1, "chips": 2, "times": ["1 s"], "seeds": 1, "jobs": 1}
    monkeypatch.setattr(hs, "compare", with_defaults(hs.compare, **few))
    monkeypatch.setattr(hs, "sweep", with_defaults(hs.sweep, **few))
    monkeypatch.setattr(hs, "measure", with_defaults(hs.measure, min_window_s=0.02, warmup_s=0.02))
    session: dict[str, object] = {"__name__": page.stem}
    for line, language, options, code in blocks(page):
        if language != "python":
            continue
        compiled = compile("\n" * (line - 1) + code, str(page), "exec")
        if caption := re.search(r":caption: (\S+\.py)", options):
            Path(caption[1]).write_text(code)
        elif "dask_jobqueue" not in code:  # there is no Slurm here
            exec(compiled, session)


@pytest.mark.parametrize("page", [p for p in PAGES if commands(p)], ids=lambda p: p.stem)
def test_commands_are_understood(page: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys) -> None:
    """Every `hpml-sim` line is parsed by the command itself, with nothing behind its verbs."""
    monkeypatch.chdir(tmp_path)
    done: list[str] = []
    for verb, function in list(cli.VERBS.items()):
        if verb not in ("run", "init"):  # `run` reads the file that `init` writes

            def nothing(*args, _verb=verb, **options) -> int:
                done.append(_verb)
                return 0

            monkeypatch.setitem(cli.VERBS, verb, functools.wraps(function)(nothing))
    monkeypatch.setattr(cli.runs, "_execute", lambda *args, **options: done.append("run") or 0)
    for command in commands(page):
        words = shlex.split(command, comments=True)
        if words[0] == "hpml-sim":
            with pytest.raises(SystemExit) as status:
                cli.main(words[1:])
            assert status.value.code == 0, f"{command}: {capsys.readouterr()}"
        elif words[0] == "make":
            assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), command


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """What writes the generated pages."""
    monkeypatch.setattr(sys, "path", [str(DOCS), *sys.path])
    return importlib.import_module("pages")


def lines(notebook: NotebookNode) -> set[str]:
    """All lines of its cells, without their indentation."""
    return {line.strip() for cell in notebook.cells for line in cell.source.splitlines()}


def test_pages_show_no_solution_no_model_answer_and_no_hidden_check(pages: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / "notebooks"
    pages.write_notebooks(folder)
    notebooks = {path.stem: nbformat.read(path, as_version=4) for path in folder.glob("*.ipynb")}
    others = {line.strip() for text in pages.repository_pages().values() for line in text.splitlines()}
    shown = others.union(*map(lines, notebooks.values()))
    secret_parts = re.compile(r"### BEGIN (SOLUTION|HIDDEN TESTS)\n.*?### END \1", re.DOTALL)
    for source in sorted((ROOT / "notebooks" / "src" / "week14").glob("*.py")):
        assert "raise NotImplementedError()" in lines(notebooks[source.stem])
        solved = jupytext.read(source)
        everything = lines(solved)
        for cell in solved.cells:
            is_answer = cell.cell_type == "markdown" and cell.metadata.get("nbgrader", {}).get("solution")
            cell.source = "" if is_answer else secret_parts.sub("", cell.source)
        secrets = {line for line in everything - lines(solved) if len(line) > 12}
        assert len(secrets) > 10
        assert not secrets & shown, source.stem


def test_every_public_name_is_described_once(pages: ModuleType) -> None:
    text = "".join(pages.reference_pages().values())
    described = re.findall(r"^\.\. (?:autoclass|autofunction|py:data):: (\S+)", text, re.MULTILINE)
    assert len(described) == len(set(described))
    for name in pages.public_names("hpml_sim"):
        assert f"hpml_sim.{name}" in described
    public = {p.parent.name if p.name == "__init__.py" else p.stem for p in (ROOT / "hpml_sim").glob("*/__init__.py")}
    shown = {module.split(".")[1] for module in pages.REFERENCE if "." in module}
    # what is for the inside, or only loads others when needed
    assert public - shown <= {"cli", "course", "devices", "kernels"}


def documented(pages: ModuleType) -> Iterator[tuple[str, object]]:
    """(dotted name, function, method or class) of everything that the reference describes."""
    for module in pages.REFERENCE:
        loaded = importlib.import_module(module)
        for name in pages.public_names(module):
            thing = getattr(loaded, name)
            if inspect.isclass(thing):
                yield f"{module}.{name}", thing
                for inner, member in vars(thing).items():
                    if inspect.isfunction(member) and not inner.startswith("_"):
                        yield f"{module}.{name}.{inner}", member
            elif inspect.isroutine(thing):
                yield f"{module}.{name}", thing


def test_no_parameter_is_swallowed_by_the_one_before_it(pages: ModuleType) -> None:
    """What Sphinx makes of each docstring has every documented parameter as one of its own."""
    from sphinx.ext.napoleon import Config
    from sphinx.ext.napoleon.docstring import GoogleDocstring

    config = Config(napoleon_use_param=True, napoleon_use_ivar=True)
    second = re.compile(r"[.;?)] ([a-z_]\w*): ")
    checked, wrong = 0, []
    for name, thing in documented(pages):
        docstring = inspect.getdoc(thing) or ""
        if not re.search(r"^(Args|Attributes):$", docstring, re.MULTILINE):
            continue
        rendered = str(GoogleDocstring(docstring, config, what="class" if inspect.isclass(thing) else "function"))
        fields = re.findall(r"^:(?:param|ivar) ([^:]+):(.*(?:\n +.*)*)", rendered, re.MULTILINE)
        checked += len(fields)
        parameters = [n for n in inspect.signature(thing).parameters if n not in ("self", "args", "kwargs")]
        known = {field.lstrip("\\*") for field, _ in fields}
        if not inspect.isclass(thing):
            wrong += [f"{name}: {parameter} is missing" for parameter in parameters if parameter not in known]
        wrong += [f"{name}: {field}: {hit[0]}" for field, text in fields for hit in [second.search(text)] if hit]
    assert checked > 200
    assert wrong == []
