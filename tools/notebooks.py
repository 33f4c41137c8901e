#!/usr/bin/env python3
"""Build and run the notebooks: `make notebooks`, or `tools/notebooks.py build|run [NAME ...]`.

Sources are jupytext percent scripts in notebooks/src; those of week14 carry nbgrader's metadata. Everything made from
them goes to build/notebooks, which git ignores:

    instructor/week14   solutions and all checks, no outputs: nbgrader's "source"
    student/week14      blanks instead of solutions, no hidden checks: nbgrader's "release", for handing out
    research            notebooks that have no blanks
    executed            instructor's and research notebooks run once by nbmake, without hidden checks: for the docs
    html                the same as pages that need no network, and the week on one page

The folder is a course folder of nbgrader: copy it away, then `nbgrader autograde week14` and so on work in the copy.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import jupytext
import nbformat

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "notebooks" / "src"
BUILD = ROOT / "build" / "notebooks"
ASSIGNMENT = "week14"
LONGEST_S = 300
"""A cell that runs longer fails. On two quiet cores whole notebooks take less; `run` prints how long each took."""
_KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
_HIDDEN = re.compile(r"^ *### BEGIN HIDDEN TESTS\n.*?^ *### END HIDDEN TESTS\n?", re.MULTILINE | re.DOTALL)
_MARKS = re.compile(r"^ *### (BEGIN|END) SOLUTION\n?", re.MULTILINE)


def sources(names: Collection[str] = ()) -> list[Path]:
    """The scripts whose path contains one of `names` (all without names), in order.

    Raises:
        SystemExit: a name that fits no script.
    """
    found = sorted(SOURCES.rglob("*.py"))
    for name in names:
        if not any(name in str(path.relative_to(SOURCES)) for path in found):
            sys.exit(f"no notebook fits {name!r}; there are {', '.join(path.stem for path in found)}")
    return [path for path in found if not names or any(name in str(path.relative_to(SOURCES)) for name in names)]


def build(folder: Path = BUILD, names: Collection[str] = ()) -> None:
    """Write the instructor's, the students' and the research notebooks into `folder`.

    Raises:
        SystemExit: nbgrader refuses a notebook (no blanks, an id given twice, ...).
    """
    for made in ("instructor", "student", "research"):
        shutil.rmtree(folder / made, ignore_errors=True)
    for path in sources(names):
        target = folder / ("instructor" if path.parent.name == ASSIGNMENT else "research")
        write(jupytext.read(path), target / path.relative_to(SOURCES).with_suffix(".ipynb"))
    shutil.copy(ROOT / "notebooks" / "nbgrader_config.py", folder)
    if (folder / "instructor").exists():
        (folder / "gradebook.db").unlink(missing_ok=True)
        nbgrader(folder, "generate_assignment", ASSIGNMENT, "--create", "--force")


def nbgrader(folder: Path, *arguments: str) -> None:
    """nbgrader's command in a course folder.

    Raises:
        SystemExit: it failed; with what it said.
    """
    environment = kernel_environment()
    # it calls its database tool by name, whether or not the environment is activated
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", "")])
    command = [sys.executable, "-m", "nbgrader", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"nbgrader {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")


def run(folder: Path = BUILD) -> None:
    """Run the solved notebooks once with nbmake, and keep what they showed in `executed` and `html`.

    Raises:
        SystemExit: a cell failed, warned, or left a figure unshown.
    """
    executed, pages = folder / "executed", folder / "html"
    for made in (executed, pages):
        shutil.rmtree(made, ignore_errors=True)
    for made in ("instructor", "research"):
        if (folder / made).exists():
            shutil.copytree(folder / made, executed, dirs_exist_ok=True)
    # -c: the options of our own tests are not for these; --durations: so that a slow notebook is seen
    command = ["-m", "pytest", "-c", os.devnull, "--rootdir", str(executed), "-p", "no:cacheprovider", "-q"]
    command += ["-n", "2", "--nbmake", "--overwrite", f"--nbmake-timeout={LONGEST_S}", "--durations=0", str(executed)]
    # two at a time share the cores; more threads than cores only wait for each other
    environment = {**kernel_environment(), "OMP_NUM_THREADS": "1"}
    if subprocess.run([sys.executable, *command], env=environment, cwd=ROOT, check=False).returncode:
        sys.exit("a solved notebook failed")
    warned = []
    for path in sorted(executed.rglob("*.ipynb")):
        notebook = without_hidden_checks(nbformat.read(path, as_version=4))
        warned += [f"{path.stem}: {text}" for text in _warnings(notebook)]
        write(notebook, path)
        page = pages / path.relative_to(executed).with_suffix(".html")
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(html(notebook, path.stem), encoding="utf-8")
    if panels := summary_panels(executed / ASSIGNMENT):
        (pages / f"{ASSIGNMENT}_summary.html").write_text(summary(panels), encoding="utf-8")
    if warned:
        sys.exit("notebooks that warn:\n" + "\n".join(warned))


def kernel_environment() -> dict[str, str]:
    """What kernels need: this package, figures in the notebook, no progress bars, kernels simulated without a GPU."""
    import torch

    environment = dict(os.environ, HPML_SIM_QUIET="1")
    environment.pop("MPLBACKEND", None)  # "Agg" would keep the figures out of the notebook
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), environment.get("PYTHONPATH")]))
    environment["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"
    if not torch.cuda.is_available():
        environment.setdefault("NUMBA_ENABLE_CUDASIM", "1")
    return environment


def without_hidden_checks(notebook: Any) -> Any:
    """The notebook without the checks that students do not see, and without nbgrader's marks around solutions."""
    for cell in notebook.cells:
        cell.source = _MARKS.sub("", _HIDDEN.sub("", cell.source)).rstrip("\n")
    return notebook


def html(notebook: Any, title: str) -> str:
    """A page of an executed notebook that needs no network: formulas as MathML, no scripts."""
    from latex2mathml.converter import convert
    from nbconvert import HTMLExporter
    from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

    class Renderer(IPythonRenderer):
        def block_math(self, body: str) -> str:
            return convert(body, display="block")

        def inline_math(self, body: str) -> str:
            return convert(body)

    class Exporter(HTMLExporter):
        def default_filters(self):
            yield from super().default_filters()
            yield "markdown2html", lambda text: MarkdownWithMath(renderer=Renderer(escape=False)).render(text)

    offline = {"mathjax_url": "", "require_js_url": "", "jquery_url": "", "mermaid_js_url": ""}
    exporter = Exporter(exclude_input_prompt=True, exclude_output_prompt=True, **offline)
    page, _ = exporter.from_notebook_node(notebook, resources={"metadata": {"name": title}})
    return page


def summary_panels(executed: Path) -> list[dict[str, str]]:
    """What goes on the one page of the week: title, sentence and figure of each cell that has a `summary`.

    Raises:
        SystemExit: such a cell shows no figure.
    """
    panels = []
    for path in sorted(executed.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        title = notebook.cells[0].source.splitlines()[0].removeprefix("# ").removeprefix("Exercise ")
        for cell in notebook.cells:
            if text := cell.metadata.get("summary"):
                figures = [o.data["image/svg+xml"] for o in cell.outputs if "image/svg+xml" in o.get("data", ())]
                if not figures:
                    sys.exit(f"{path.stem}: the cell with the summary {text!r} shows no figure")
                image = base64.b64encode(figures[-1].encode()).decode()
                panels.append({"title": title, "text": text, "image": f"data:image/svg+xml;base64,{image}"})
    return panels


def summary(panels: list[dict[str, str]]) -> str:
    """The week on one page of A4's shape, landscape."""
    import jinja2

    template = (ROOT / "notebooks" / "summary.html.j2").read_text(encoding="utf-8")
    columns = 2 if len(panels) <= 4 else 3
    return jinja2.Environment(autoescape=True).from_string(template).render(panels=panels, columns=columns)


def write(notebook: Any, path: Path) -> None:
    """With the kernel named, so that Jupyter, nbgrader and nbmake start it without asking."""
    notebook.metadata = {"kernelspec": _KERNEL, "language_info": {"name": "python"}}
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)


def _warnings(notebook: Any) -> Iterator[str]:
    """What a reader should not have to see: warnings, and the name of a figure where the figure should be."""
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if output.get("name") == "stderr":
                yield output["text"].strip()
            data = output.get("data", {})
            if data.get("text/plain", "").startswith("<Figure") and not any(kind.startswith("image/") for kind in data):
                yield f"a figure that is not shown, after {cell.source.splitlines()[-1]!r}"


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line and do it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["build", "run"], nargs="?", default="run", help="run builds first (default)")
    parser.add_argument("names", nargs="*", help="parts of the names of notebooks; all without")
    options = parser.parse_args(arguments)
    build(names=options.names)
    if options.what == "run":
        run()
    with contextlib.suppress(ValueError):
        print(f"notebooks are in {BUILD.relative_to(Path.cwd())}")


if __name__ == "__main__":
    main()
