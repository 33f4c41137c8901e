"""Week 14 as a course: what students get, and what nbgrader makes of what they hand in.

The solved notebooks are run once, by `make notebooks`; here only the shortest one is, to hold nbgrader to full points.
"""

import importlib.util
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import jupytext
import nbformat
import pytest
from nbgrader.api import Gradebook

ROOT = Path(__file__).resolve().parent.parent
COURSE = sorted((ROOT / "notebooks" / "src" / "week14").glob("*.py"))
CHEATS = ROOT / "tests" / "cheats"
SHORTEST = "exercise_1_roofline"
pytestmark = pytest.mark.timeout(1800)  # eighteen notebooks are graded in one fixture: minutes where others are at work


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("notebooks_tool", ROOT / "tools" / "notebooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def course(tool, tmp_path_factory) -> Path:
    """All notebooks built as `make notebooks` builds them."""
    folder = tmp_path_factory.mktemp("course")
    tool.build(folder)
    return folder


def kinds(notebook) -> dict[str, dict]:
    """nbgrader's metadata of each cell that has some, by its id."""
    return {c.metadata.nbgrader["grade_id"]: c.metadata.nbgrader for c in notebook.cells if "nbgrader" in c.metadata}


def read(path: Path):
    return nbformat.read(path, as_version=4)


@pytest.mark.parametrize("source", COURSE, ids=lambda path: path.stem)
def test_what_students_get_has_blanks_and_no_answers(course, source):
    solved = read(course / "instructor" / "week14" / f"{source.stem}.ipynb")
    handed_out = read(course / "student" / "week14" / f"{source.stem}.ipynb")
    text = "\n".join(cell.source for cell in handed_out.cells)
    assert "raise NotImplementedError()" in text
    assert "SOLUTION" not in text
    assert "HIDDEN TESTS" not in text
    assert all(not cell.get("outputs") for cell in (*handed_out.cells, *solved.cells))
    graded = [kind for kind in kinds(handed_out).values() if kind["grade"]]
    assert any(kind["solution"] for kind in graded), "an open question, marked by hand"
    for kind in graded:
        assert kind["points"] > 0
    hidden = [c.source for c in solved.cells if c.metadata.get("nbgrader", {}).get("grade") and c.cell_type == "code"]
    assert all("### BEGIN HIDDEN TESTS" in cell for cell in hidden), "every check has a part that students do not see"


@pytest.mark.parametrize("source", COURSE, ids=lambda path: path.stem)
def test_heading_says_time_points_and_hardware(source):
    notebook = jupytext.read(source)
    heading, _, line, *_ = notebook.cells[0].source.splitlines()
    assert heading.startswith("# ")
    points = sum(kind["points"] for kind in kinds(notebook).values() if kind["grade"])
    assert f"{points} points" in line
    assert "minutes" in line
    assert "needs a GPU: no" in line
    assert "## Sources" in notebook.cells[-1].source


def solutions(course: Path, name: str) -> dict[str, str]:
    """The solved cells of a notebook by id."""
    notebook = read(course / "instructor" / "week14" / f"{name}.ipynb")
    return {
        cell.metadata.nbgrader["grade_id"]: cell.source
        for cell in notebook.cells
        if cell.metadata.get("nbgrader", {}).get("solution")
    }


def cheats(name: str) -> dict[str, str]:
    """The cheats for a notebook by the id of the blank."""
    notebook = jupytext.read(CHEATS / f"{name}.py")
    return {cell.metadata["title"]: cell.source for cell in notebook.cells if "title" in cell.metadata}


@dataclass(frozen=True)
class Graded:
    """A notebook as nbgrader gives it back: points, of how many, for each automatic check; and the cells as run."""

    points: dict[str, tuple[float, float]]
    cells: list


def grade(tool, course: Path, folder: Path, answers: dict[str, dict[str, str]]) -> dict[str, Graded]:
    """Hand in the students' version with the cells named in `answers` (notebook -> id -> source) replaced.

    In a course folder of its own, so that several may be graded at once.
    """
    shutil.copytree(course, folder)
    for name, cells in answers.items():
        notebook = read(folder / "student" / "week14" / f"{name}.ipynb")
        for cell in notebook.cells:
            cell.source = cells.get(cell.metadata.get("nbgrader", {}).get("grade_id"), cell.source)
        path = folder / "submitted" / "ada" / "week14" / f"{name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, path)
    tool.nbgrader(folder, "autograde", "week14", "--create")
    with Gradebook(f"sqlite:///{folder}/gradebook.db") as gradebook:
        return {
            notebook.name: Graded(
                {g.cell.name: (g.auto_score, g.max_score) for g in notebook.grades if g.cell.cell_type == "code"},
                read(folder / "autograded" / "ada" / "week14" / f"{notebook.name}.ipynb").cells,
            )
            for notebook in gradebook.find_submission("week14", "ada").notebooks
            if notebook.name in answers
        }


@pytest.fixture(scope="module")
def graded(tool, course, tmp_path_factory) -> dict[str, dict[str, Graded]]:
    """What nbgrader makes of a solution, a blank sheet and a cheat: two graded at a time."""
    sheets = {
        "solution": {SHORTEST: solutions(course, SHORTEST)},
        "blank": {path.stem: {} for path in COURSE},
        "cheat": {path.stem: cheats(path.stem) for path in COURSE},
    }
    folder = tmp_path_factory.mktemp("graded")
    with ThreadPoolExecutor(2) as pool:
        runs = {kind: pool.submit(grade, tool, course, folder / kind, answers) for kind, answers in sheets.items()}
        return {kind: run.result() for kind, run in runs.items()}


def errors(cells: list) -> list[str]:
    """Names of the exceptions that cells ended with, in order."""
    return [o.ename for cell in cells for o in cell.get("outputs", ()) if o.output_type == "error"]


@pytest.mark.slow
def test_nbgrader_gives_a_solution_full_points(graded):
    points = graded["solution"][SHORTEST].points
    assert len(points) >= 4
    assert all(got == most > 0 for got, most in points.values())


@pytest.mark.slow
def test_nbgrader_gives_a_blank_sheet_nothing_and_it_stops_at_the_first_blank(graded):
    assert len(graded["blank"]) == len(COURSE)
    for name, sheet in graded["blank"].items():
        assert {got for got, _ in sheet.points.values()} == {0}, f"{name}: {sheet.points}"
        assert errors(sheet.cells)[0] == "NotImplementedError"


@pytest.mark.slow
def test_nbgrader_gives_answers_copied_from_the_visible_checks_nothing(course, graded):
    for name, sheet in graded["cheat"].items():
        blanks = {blank for blank, source in solutions(course, name).items() if "### BEGIN SOLUTION" in source}
        assert set(cheats(name)) == blanks, f"tests/cheats/{name}.py: a cell for each blank, titled with its id"
        assert {got for got, _ in sheet.points.values()} == {0}, f"{name}: {sheet.points}"
        # fails by a check's message, not by an accident
        checks = [c for c in sheet.cells if c.cell_type == "code" and c.metadata.get("nbgrader", {}).get("grade")]
        assert set(errors(checks)) == {"CheckError"}, name


def test_notebooks_are_those_that_the_readme_lists():
    text = (ROOT / "notebooks" / "README.md").read_text(encoding="utf-8")
    for path in sorted((ROOT / "notebooks" / "src").rglob("*.py")):
        assert f"`{path.relative_to(ROOT / 'notebooks' / 'src')}`" in text


def test_no_notebook_with_outputs_is_kept_in_git():
    assert not list((ROOT / "notebooks").rglob("*.ipynb"))
