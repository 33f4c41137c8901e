"""Docstrings of the package: complete, one parameter an entry, with examples that run."""

from __future__ import annotations

import doctest
import importlib
import inspect
from pathlib import Path

import docstrings
import pytest

WITH_EXAMPLES = [
    path
    for path in docstrings.source_files()
    if ">>> " in path.read_text(encoding="utf-8") and path.name != "__main__.py"
]


def module_of(path: Path) -> str:
    """Its dotted name; `baselines` is installed inside the package."""
    parts = path.relative_to(docstrings.ROOT).with_suffix("").parts
    parts = parts[:-1] if parts[-1] == "__init__" else parts
    return ".".join(parts if parts[0] == "hpml_sim" else ("hpml_sim", *parts))


def test_every_parameter_is_described_in_an_entry_of_its_own() -> None:
    wrong = docstrings.faults()
    assert not wrong, "\n".join([*wrong, f"{len(wrong)} faults"])


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=module_of)
def test_examples_run(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    result = doctest.testmod(importlib.import_module(module_of(path)), optionflags=options)
    assert result.attempted > 0
    assert result.failed == 0, "see above for what each example gave"


def test_the_names_that_need_an_example_are_found() -> None:
    """The check reads source text; here the same modules are asked when they are loaded."""
    for module in docstrings.WITH_EXAMPLES:
        loaded = importlib.import_module(module)
        names = {
            name
            for name, thing in vars(loaded).items()
            if not name.startswith("_")
            and (inspect.isfunction(thing) or inspect.isclass(thing))
            and thing.__module__.startswith("hpml_sim")
        }
        names &= set(getattr(loaded, "__all__", names))
        found = {name for _, name in docstrings.public_definitions([module])}
        if module != "hpml_sim.networks.models":  # it also uses functions of other modules
            assert names <= found | {"TypeVar"}, module


GOOD = '''
def product(rows, cols, *args):
    """A product.

    Args:
        rows: inputs of one group, which may be several: 1 or more.
        cols: outputs.
    """
'''
DATACLASS = '''
@dataclass
class Row:
    """A row.

    Attributes:
        x: where it stands.
    """

    x: int
'''
BAD = {
    "stands within the entry of 'rows'": GOOD.replace("1 or more.", "1 or more. cols: outputs.").replace(
        "        cols: outputs.\n", ""
    ),
    "does not describe cols": GOOD.replace("        cols: outputs.\n", ""),
    "share an entry": GOOD.replace("        cols: outputs.\n", "").replace("rows:", "rows, cols:"),
    "describes depth, which it does not take": GOOD.replace("cols: outputs.", "cols: outputs.\n        depth: steps."),
    "say it in full": GOOD.replace("outputs.", "likewise."),
    "has no docstring": "def product(rows): ...",
    "has no Example": GOOD,
    "does not describe steps": DATACLASS + "    steps: int\n",
}


@pytest.mark.parametrize("fault", BAD)
def test_each_fault_is_found(fault: str) -> None:
    examples = {"product"} if fault == "has no Example" else set()
    (found,) = [one for one in docstrings.faults_of_text(BAD[fault], {"product", "Row"}, examples) if fault in one]
    assert found[0].isdigit()


def test_what_is_right_passes() -> None:
    assert docstrings.faults_of_text(GOOD, {"product"}, set()) == []
    assert docstrings.faults_of_text('def half(x):\n    """Half of it."""\n', set(), set()) == []
    assert docstrings.faults_of_text("def _inside(x): ...", set(), set()) == []
    field = '@dataclass\nclass Row:\n    """A row."""\n    x: int\n    """What it is."""\n'
    assert docstrings.faults_of_text(field, {"Row"}, set()) == []
