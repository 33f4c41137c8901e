"""How the package is laid out: what stands at the front door, and where things are found."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

import hpml_sim as hs

MAX_LINES = 450
MAX_ENTRIES = 22


def test_only_public_names_are_reachable() -> None:
    names = [name for name in dir(hs) if not (name.startswith("__") and name.endswith("__"))]
    assert sorted(names) == sorted(hs.__all__)
    for name in hs.__all__:
        assert hasattr(hs, name), name


def test_few_entries_at_the_front(repository: Path) -> None:
    beside = {"__pycache__", "py.typed", "baselines", "devices"}
    entries = {path.name for path in (repository / "hpml_sim").iterdir()} - beside
    assert len(entries) <= MAX_ENTRIES, sorted(entries)


def test_no_module_is_named_like_a_public_verb() -> None:
    """Else `import hpml_sim.compare` would give a function, or hide one."""
    verbs = {name for name in hs.__all__ if name.islower() and callable(getattr(hs, name))}
    modules = [module.name for module in pkgutil.walk_packages(hs.__path__, "hpml_sim.")]
    assert len(modules) > 100
    assert [name for name in modules if name.rpartition(".")[2] in verbs] == []


def test_no_module_hides_behind_a_name_of_its_package() -> None:
    """`import hpml_sim.spiking.fixed_point` must not give a function of that name."""
    hidden = []
    for module in pkgutil.walk_packages(hs.__path__, "hpml_sim."):
        package, _, name = module.name.rpartition(".")
        thing = getattr(importlib.import_module(package), name, None)
        if thing is not None and not inspect.ismodule(thing):
            hidden.append(module.name)
    assert hidden == []


def test_importing_every_module_leaves_the_front_door_alone() -> None:
    code = (
        "import pkgutil, importlib, hpml_sim as hs\n"
        "before = {name: getattr(hs, name) for name in hs.__all__}\n"
        "[importlib.import_module(m.name) for m in pkgutil.walk_packages(hs.__path__, 'hpml_sim.')\n"
        " if not m.name.endswith('__main__') and m.name.count('.') == 1]\n"
        "print([name for name in before if getattr(hs, name) is not before[name]])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_files_are_short(repository: Path) -> None:
    folders = ("hpml_sim", "baselines", "tools", "docs", "benchmarks")
    files = [path for folder in folders for path in (repository / folder).rglob("*.py")]
    lengths = {path.relative_to(repository).as_posix(): path.read_text().count("\n") for path in files}
    assert {name: lines for name, lines in lengths.items() if lines > MAX_LINES} == {}


def test_no_two_modules_import_each_other() -> None:
    """`make layers` asks for more: that folders do not, either. Imports inside a function count in both."""
    graph = grimp.build_graph("hpml_sim", cache_dir=None)
    for module in sorted(graph.modules):
        for imported in graph.find_modules_directly_imported_by(module):
            chain = graph.find_shortest_chain(importer=imported, imported=module)
            assert chain is None, " -> ".join([module, *(chain or ())])


def paths_in(text: str) -> list[str]:
    """Paths in backticks that begin at the top of the repository or of the package."""
    return re.findall(r"`([\w./-]+(?:\.py|\.toml|\.md|/))`", text)


def test_what_the_architecture_names_exists(repository: Path) -> None:
    text = (repository / "docs" / "architecture.md").read_text(encoding="utf-8")
    paths = paths_in(text)
    assert len(paths) > 50
    gone = [p for p in paths if not any((repository / start / p).exists() for start in ("", "hpml_sim"))]
    assert gone == []


def test_where_is_it(repository: Path) -> None:
    """The list that a newcomer's guesses are held against: each question has one file, and it is there."""
    text = (repository / "docs" / "architecture.md").read_text(encoding="utf-8")
    _, _, part = text.partition("## Where is ...?")
    rows = re.findall(r"^\| (\d+) \| ([^|]+) \| `([^`]+)`", part, re.MULTILINE)
    assert [int(number) for number, _, _ in rows] == list(range(1, 31))
    assert len({question for _, question, _ in rows}) == 30
    for _, question, path in rows:
        assert (repository / path).exists(), question


@pytest.mark.parametrize("room", sorted(p.parent.name for p in Path(hs.__path__[0]).glob("*/__init__.py")))
def test_every_room_says_what_it_is_for(room: str, repository: Path) -> None:
    text = (repository / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert re.search(rf"`(?:hpml_sim/)?{room}/`", text), room
