"""Pages of the documentation that are made from code and data: reference, cards, validation, notebooks.

`conf.py` calls `write_pages` before each build; they go to docs/generated, which git ignores.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

REFERENCE = {
    "hpml_sim": "The public names, as `import hpml_sim as hs`",
    "hpml_sim.analog": "Crossbar layers, programmed chips, training in memory, exchange with aihwkit",
    "hpml_sim.spiking": "Neurons, encoders, conversion of ReLU networks, exchange by NIR",
    "hpml_sim.compress": "Fewer weights and fewer bits: networks that every target takes",
    "hpml_sim.analog.nn": "Layers to put into a network by hand",
    "hpml_sim.baselines": "Digital engines and CUDA kernels",
    "hpml_sim.targets": "How a network runs: a card and its options",
    "hpml_sim.conversion": "A network made ready for a target",
    "hpml_sim.networks.models": "Built-in networks",
    "hpml_sim.networks.architectures": "Large networks by shape, without weights",
    "hpml_sim.data": "Data sets by name, or your own",
    "hpml_sim.cards": "Device cards: value, unit and source of every number",
    "hpml_sim.counting": "Operation counts of a network on data",
    "hpml_sim.cost": "Energy, latency, throughput and area from counts and a card",
    "hpml_sim.cost.roofline_points": "Layers, tiles and cores as points under a roofline",
    "hpml_sim.tasks": "What is learned and what is measured",
    "hpml_sim.training": "Training and evaluation",
    "hpml_sim.training.distributed": "Training on several processes",
    "hpml_sim.measurement": "Clocks, power meters and ceilings of this machine",
    "hpml_sim.measurement.profiling": "Where a network's time goes, layer by layer",
    "hpml_sim.measurement.ceilings": "What this machine reaches at most",
    "hpml_sim.measurement.ceilings_card": "Those ceilings as a device card",
    "hpml_sim.experiments.search_result": "What a search found",
    "hpml_sim.experiments.assigning": "Which layers go onto crossbars",
    "hpml_sim.experiments.assignment_trials": "What was tried to find that out",
    "hpml_sim.experiments.preview": "What a dry run says",
    "hpml_sim.results": "Rows on disk and what is made of them",
    "hpml_sim.report.plots": "The plots",
    "hpml_sim.report.html": "The one-file report",
    "hpml_sim.cost.validation": "Published machines against our equations",
    "hpml_sim.errors": "What is raised",
    "hpml_sim.units.bands": "Figures with a low, a nominal and a high value",
    "hpml_sim.units.times": "Times since programming",
}
"""Module -> what it is for: the pages of the reference, in order. `tests/test_docs.py` holds them against the tree."""

REPOSITORY = {
    "benchmarks/README.md": "benchmarks.md",
    "devices/README.md": "add_a_card.md",
    "notebooks/README.md": "teach_week_14.md",
    "baselines/README.md": "kernels.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
"""Texts that lie where people of the repository look for them -> their pages here. The instructor's guide
(notebooks/GUIDE.md) stays out: it says what is right, and students read these pages."""


def write_pages(docs: Path) -> None:
    """Write all generated pages into docs/generated; a page that has not changed keeps its date."""
    pages: dict[str, str] = {}
    pages.update(reference_pages())
    pages.update(card_pages())
    pages["validation.md"] = validation_page()
    pages.update(repository_pages())
    folder = docs / "generated"
    for name, text in pages.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
    notebooks = write_notebooks(folder / "notebooks")
    wanted = {folder / name for name in pages} | notebooks
    for path in folder.rglob("*"):
        if path.is_file() and path not in wanted:
            path.unlink()


# ----------------------------------------------------------------------------------------------------------- reference


def public_names(module: str) -> list[str]:
    """What a module offers: its `__all__`, what it re-exports by "import x as x", or what it defines itself."""
    loaded = importlib.import_module(module)
    if (named := getattr(loaded, "__all__", None)) is not None:
        return [name for name in named if not inspect.ismodule(getattr(loaded, name))]
    tree = ast.parse(inspect.getsource(loaded))
    exported = [
        alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname == alias.name and not alias.name.startswith("_")
    ]
    defined = [
        node.name
        for node in tree.body
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_")
    ]
    return [name for name in dict.fromkeys(exported + defined) if not inspect.ismodule(getattr(loaded, name))]


def reference_pages() -> dict[str, str]:
    """A page a module; each name is described once, on the first page that has it, and linked to from the others."""
    described: dict[int, str] = {}
    pages = {}
    for module, title in REFERENCE.items():
        loaded = importlib.import_module(module)
        lines = [f"# {module}", "", f"{title}.", ""]
        summary, details, elsewhere = [], [], []
        for name in public_names(module):
            thing = getattr(loaded, name)
            if id(thing) in described:
                elsewhere.append(f"{{py:obj}}`{name} <{described[id(thing)]}.{name}>`")
                continue
            described[id(thing)] = module
            summary.append(f"| {{py:obj}}`{name} <{module}.{name}>` | {_first_line(thing)} |")
            details += ["```{eval-rst}", *_directive(module, name, thing), "```", ""]
        if summary:
            lines += ["| name | what it is |", "|---|---|", *summary, ""]
        if elsewhere:
            lines += [f"Also here: {', '.join(elsewhere)}.", ""]
        pages[f"reference/{module}.md"] = "\n".join([*lines, *details])
    return pages


def _first_line(thing: Any) -> str:
    """The first line of a docstring, with its code in backticks; nothing for constants, whose type has a docstring."""
    if not (inspect.isclass(thing) or inspect.isroutine(thing)):
        return ""
    first = (inspect.getdoc(thing) or "").partition("\n")[0]
    return "`".join(part if k % 2 else _cell(part) for k, part in enumerate(first.split("`")))


def _directive(module: str, name: str, thing: Any) -> Iterator[str]:
    if inspect.isclass(thing):
        yield f".. autoclass:: {module}.{name}"
        yield "   :members:"
        if issubclass(thing, BaseException):
            yield "   :show-inheritance:"
    elif inspect.isroutine(thing):
        yield f".. autofunction:: {module}.{name}"
    else:
        yield f".. py:data:: {module}.{name}"
        if isinstance(thing, (dict, list, tuple, set, frozenset)):
            yield ""
            yield f"   {', '.join(f'`{item}`' for item in thing)}"


# --------------------------------------------------------------------------------------------------------------- cards


def card_pages() -> dict[str, str]:
    """A table of all shipped cards, and a page for each with every number and where it stands."""
    from hpml_sim.cli.cards import card_json, cards_json

    folder = ROOT / "devices"
    entries = [e for e in cards_json() if (folder / f"{e['name']}.toml").exists()]  # not those of whoever builds
    lines = [
        "# Device cards",
        "",
        f"{len(entries)} machines as shipped, each with a source for every number. *Weak* counts the numbers that are "
        "a projection, scaled, an assumption or unverified; estimates name those they use. `hpml-sim cards show NAME` "
        "prints the same.",
        "",
    ]
    for kind, heading in (
        ("digital", "CPUs and GPUs"),
        ("crossbar", "Crossbars"),
        ("neuromorphic", "Spiking machines"),
    ):
        lines += [
            f"## {heading}",
            "",
            "| card | what it is | scope | year | numbers | weak |",
            "|---|---|---|--:|--:|--:|",
        ]
        lines += [
            f"| [{e['name']}](cards/{e['name']}.md) | {_cell(e['title'])}{'' if e['silicon'] else ' (never built)'} "
            f"| {e['scope']} | {e['year']} | {e['numbers']} | {e['weak_numbers'] or ''} |"
            for e in entries
            if e["kind"] == kind
        ]
        lines.append("")
    hidden = ["```{toctree}", ":hidden:", ":maxdepth: 1", "", *(f"cards/{e['name']}" for e in entries), "```", ""]
    pages = {"cards.md": "\n".join([*lines, *hidden])}
    for entry in entries:
        pages[f"cards/{entry['name']}.md"] = _card_page(card_json(folder / f"{entry['name']}.toml"))
    return pages


def _card_page(card: dict[str, Any]) -> str:
    built = "built" if card["silicon"] else "never built"
    lines = [f"# {card['name']}", "", f"**{_cell(card['title'])}.** {_cell(card['summary'])}.", ""]
    lines += [f"Kind {card['kind']}, scope {card['scope']}, {card['year']}, {built}, version {card['version']}.", ""]
    for name, value in card["settings"].items():
        lines += [f"`{name}`: {_cell(value)}", ""]
    lines += [
        "## Numbers",
        "",
        "| field | value | low to high | status | where it stands, how it was got |",
        "|---|--:|---|---|---|",
    ]
    for q in card["quantities"]:
        unit = "" if q["unit"] == "1" else f" {q['unit']}"
        bounds = [q["value"] if q[b] is None else q[b] for b in ("low", "high")]
        band = "" if q["low"] is None and q["high"] is None else f"{bounds[0]:g} to {bounds[1]:g}"
        source = q["source"] + (f" (bounds {q['band_source']})" if q["band_source"] else "")
        where = f"{source}: {'; '.join(part for part in (q['where'], q['note']) if part)}"
        row = [f"`{q['path']}`", f"{q['value']:g}{unit}", band, q["status"], _cell(where)]
        lines.append(f"| {' | '.join(row)} |")
    lines.append("")
    if noise := card.get("noise"):
        lines += ["## Noise and drift", "", "| | |", "|---|---|"]
        lines += [
            f"| {name} | {_cell(_plain(value))} |" for name, value in noise.items() if value not in (None, "", [], {})
        ]
        lines.append("")
    if card["limits"]:
        lines += ["## What the figures leave out", "", *(f"- {_cell(limit)}" for limit in card["limits"]), ""]
    lines += ["## Sources", ""]
    for key, source in card["sources"].items():
        place = (
            f" <https://doi.org/{source['doi']}>"
            if source.get("doi")
            else f" <{source['url']}>"
            if source.get("url")
            else ""
        )
        opened = f" Opened: {_cell(source['opened'])}" if source.get("opened") else ""
        lines += [f"- **{key}**: {_cell(source['cite'])}.{place}{opened}"]
    return "\n".join([*lines, ""])


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} = {v:g}" if isinstance(v, float) else f"{name} = {v}" for name, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in value)
    return str(value)


def _cell(text: object) -> str:
    """Text that Markdown takes as it is."""
    escaped = str(text).replace("\\", "\\\\")
    for character in "|*_<[]$`#~":
        escaped = escaped.replace(character, f"\\{character}")
    return escaped


# ---------------------------------------------------------------------------------------------------------- repository


def repository_pages() -> dict[str, str]:
    """The repository's own texts; pictures and links to what has no place here become the name of the file."""
    return {page: _relinked(source) for source, page in REPOSITORY.items() if (ROOT / source).exists()}


def _relinked(source: str) -> str:
    here = (ROOT / source).parent

    def link(found: re.Match[str]) -> str:
        text, address = found[1], found[2]
        path, _, anchor = address.partition("#")
        if not path or "://" in address or address.startswith("mailto:"):
            return found[0]
        target = (here / path).resolve()
        name = target.relative_to(ROOT).as_posix() if target.is_relative_to(ROOT) else ""
        if name in REPOSITORY:
            return f"[{text}]({REPOSITORY[name]}{'#' + anchor if anchor else ''})"
        if name.startswith("docs/") and target.exists():
            return f"[{text}](../{name.removeprefix('docs/')}{'#' + anchor if anchor else ''})"
        return f"`{name}`" if name else text  # of an image: its words

    return re.sub(r"\[([^\]]*)\]\(([^)\s]+)\)", link, (ROOT / source).read_text(encoding="utf-8"))


# ---------------------------------------------------------------------------------------------------------- validation


def validation_page() -> str:
    """Every published point that `hpml-sim validate` holds the equations against."""
    from hpml_sim.cost.validation import validate

    points = validate()
    outside = [point for point in points if not point.ok]
    lines = [
        "# Validation",
        "",
        f"Our equations against machines that were built or published in detail: {len(points)} points, "
        f"{len(outside)} outside their tolerance. `hpml-sim validate` prints the same table; `--strict` fails if a "
        "point lies outside.",
        "",
        "| basis | what the point proves |",
        "|---|---|",
        "| prediction | no figure of the card comes from this measurement |",
        "| held out | the card was fitted to other points of the same measurement |",
        "| identity | the card's figure is this measurement, regrouped: a regression test |",
        "| calibrated | the card's figure was set at this very point |",
        "| lower bound | the estimate names what it leaves out, so it must not lie above |",
        "",
    ]
    sources: dict[str, int] = {}
    for basis in ("prediction", "held out", "lower bound", "calibrated", "identity"):
        group = [point for point in points if point.basis == basis]
        if not group:
            continue
        lines += [
            f"## {basis.capitalize()}",
            "",
            "| point | published | ours | error | tolerance | holds | stands in |",
            "|---|--:|--:|--:|---|---|---|",
        ]
        for p in group:
            unit = "" if p.unit == "1" else f" {p.unit}"
            note = f"<br><small>{_cell(p.note)}</small>" if p.note else ""
            number = sources.setdefault(p.source, len(sources) + 1)
            error = f"{p.error:+.1%}".replace("-0.0%", "0.0%").replace("+0.0%", "0.0%")
            lines.append(
                f"| {_cell(p.name)}{note} | {p.published:.4g}{unit} | {p.model:.4g}{unit} | {error} | {p.tolerance} "
                f"| {'yes' if p.ok else '**no**'} | [{number}](#sources) |"
            )
        lines.append("")
    cited = [f"{number}. {_cell(source)}" for source, number in sources.items()]
    return "\n".join([*lines, "## Sources", "", *cited, ""])


# ----------------------------------------------------------------------------------------------------------- notebooks


def write_notebooks(folder: Path) -> set[Path]:
    """Exercises as students get them; the other notebooks as `make notebooks` ran them, else without outputs.

    Returns:
        The files in `folder` that belong there.
    """
    import nbformat

    folder.mkdir(parents=True, exist_ok=True)
    written = set()
    exercises, research = [], []
    for source in sorted((ROOT / "notebooks" / "src").rglob("*.py")):
        path = folder / f"{source.stem}.ipynb"
        is_exercise = source.parent.name.startswith("week")
        nbformat.write(handed_out(source) if is_exercise else _as_run(source), path)
        written.add(path)
        (exercises if is_exercise else research).append(source.stem)
    index = folder / "index.md"
    lines = ["# Notebooks", ""]
    lines += [
        "The first ones stand here as `make notebooks` ran them before these pages were built; without that, text and "
        "code alone. Exercises stand here as they are handed out, with blanks to fill in: "
        "`make notebooks ARGS=build` writes them to `build/notebooks/student`. "
        "How they are made and marked: [Teach week 14](../teach_week_14.md).",
        "",
    ]
    for caption, names in (("For researchers", research), ("Week 14: exercises", exercises)):
        lines += ["```{toctree}", f":caption: {caption}", ":maxdepth: 1", "", *names, "```", ""]
    index.write_text("\n".join(lines), encoding="utf-8")
    return written | {index}


def handed_out(source: Path) -> Any:
    """An exercise without solutions, model answers and hidden checks, by the same steps as nbgrader's."""
    from nbconvert.exporters.exporter import ResourcesDict
    from nbgrader.preprocessors import ClearHiddenTests, ClearSolutions

    notebook, nothing = _read(source), ResourcesDict()
    for step in (ClearSolutions(), ClearHiddenTests()):
        notebook, _ = step.preprocess(notebook, nothing)
    return notebook


def _as_run(source: Path) -> Any:
    import nbformat

    ran = ROOT / "build" / "notebooks" / "executed" / f"{source.stem}.ipynb"
    if ran.exists() and ran.stat().st_mtime >= source.stat().st_mtime:
        return nbformat.read(ran, as_version=4)
    return _read(source)


def _read(source: Path) -> Any:
    import jupytext

    notebook = jupytext.read(source)
    notebook.metadata["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}
    return notebook
