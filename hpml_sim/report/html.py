"""The report: one HTML file that works offline, holds its data, and loads nothing."""

from __future__ import annotations

import base64
import gzip
import json
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from hpml_sim.errors import HpmlError
from hpml_sim.report import findings, plots
from hpml_sim.report._format import digits, listing, names, percent, ranges, si, span, time_label
from hpml_sim.report.summary import SCOPES, Cost, TargetSummary, summarise, times_of
from hpml_sim.results import BandRow, Row, to_frame

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_log = logging.getLogger(__name__)

MAX_BYTES = 1_000_000
"""What a report may weigh, so that it can be sent by mail."""
_PLAIN_BYTES = 150_000
"""Results up to this size are embedded as they are, larger ones compressed."""

_COST_HEADS = ("energy", "latency", "rate, 1/s", "area, mm²")
_SCOPE_WORDS = {
    "core": "one computing core or macro: array and converters, no transport, no memory outside",
    "chip": "the whole die, its static power included; nothing beside it",
    "board": "the accelerator card: chip, its memory, its power conversion",
    "system": "the machine that answers: host, memory and accelerator",
}
_COMPONENT_WORDS = {
    "adc": "analog-to-digital conversion",
    "array": "the crossbar itself",
    "buffer": "on-chip buffers of activations",
    "clocks": "running clocks, above idle",
    "compute": "arithmetic with its operands' traffic on chip",
    "dac": "digital-to-analog conversion",
    "digital": "digital arithmetic beside the crossbars",
    "hop": "packets from core to core",
    "host": "the processor that manages the chip",
    "idle": "what the machine draws while it does nothing, for the time of the inference",
    "link": "transport between tiles",
    "memory": "traffic of layers that memory limits",
    "mvm": "matrix-vector products in the array, converters included",
    "off-chip": "transport between chips",
    "reset": "clearing the neurons between inferences",
    "sop": "synaptic operations: a spike arriving at a synapse",
    "spike": "sending spikes",
    "static": "what the chip draws without events, for the time of the inference",
    "update": "updates of neurons at each time step",
}
_LINK = re.compile(r"https?://[^\s<>\"']+[^\s<>\"'.,;)]|doi:\s?(10\.\S+[^\s.,;)])|arXiv[:\s]\s?(\d{4}\.\d{4,5})")


@dataclass(frozen=True)
class _Cell:
    """A cell of the table: text, what stands below it in small, the value to sort by, a mark of a footnote."""

    text: str
    below: str = ""
    sort: str = ""
    note: int = 0
    cite: tuple[int, ...] = ()
    quiet: bool = False


@dataclass(frozen=True)
class _Line:
    """One line of the table: a target at one batch, known in one way."""

    target: TargetSummary
    how: str
    scope: str
    batch: int | None
    cells: tuple[_Cell, ...]
    words: str


@dataclass
class _Notes:
    """Notes under the table: what is said of several targets is said once, with their names."""

    who: dict[str, list[str]] = field(default_factory=dict)

    def number(self, text: str, name: str) -> int:
        found = self.who.setdefault(text, [])
        if name not in found:
            found.append(name)
        return list(self.who).index(text) + 1

    @property
    def texts(self) -> list[str]:
        return [f"{names(found)}: {text}" for text, found in self.who.items()]


@dataclass(frozen=True)
class _Source:
    number: int
    key: str
    cite: Markup
    used: str


def write_report(
    rows: Sequence[Row], path: str | Path, *, title: str | None = None, run: dict[str, Any] | None = None
) -> Path:
    """Write the report of a run.

    Args:
        rows: results of one run.
        path: the file to write; folders on the way are made.
        title: heading; None says network, data set and number of machines.
        run: what was asked for (the contents of `run.json`), shown under "How it was run".

    Returns:
        The path.

    Raises:
        HpmlError: there are no rows, or the file cannot be written.
    """
    path = Path(path)
    page = render_report(rows, title=title, run=run)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise HpmlError(
            f"{path}: the report could not be written ({error}); the results themselves are safe"
        ) from error
    return path


def render_report(rows: Sequence[Row], *, title: str | None = None, run: dict[str, Any] | None = None) -> str:
    """The report as text: the same rows give the same characters.

    Args and raises: as `write_report`.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    targets = summarise(rows)
    environment = Environment(
        loader=PackageLoader("hpml_sim", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        si=_si, span=_span, percent=percent, figure=findings.figure, swatch=_swatch, ranges=ranges
    )
    template = environment.get_template("report.html.j2")
    page = template.render(_context(rows, targets, title, run))
    if len(page.encode()) > MAX_BYTES:
        _log.warning("the report takes %.1f MB, more than a mail likes; fewer rows make it smaller", len(page) / 1e6)
    return page


def _context(
    rows: Sequence[Row], targets: list[TargetSummary], title: str | None, run: dict[str, Any] | None
) -> dict[str, Any]:
    times: list[float | None] = [*times_of(targets)] or [None]
    sources = _sources(targets)
    notes = _Notes()
    lines = [line for target in targets for line in _lines(target, times, notes, sources)]
    models, data = _distinct(r.model for r in rows), _distinct(r.data for r in rows)
    resources = files("hpml_sim.report")
    return {
        "title": title
        or f"{listing(models)} on {listing(data)}, {len(targets)} machine{'s'[: len(targets) != 1]} compared",
        "compared": _compared(rows, targets, models, data),
        "findings": findings.findings(targets),
        "targets": targets,
        "time_heads": ["Accuracy" if t is None else time_label(t) for t in times],
        "cell_heads": [*("accuracy, %" if t is None else f"{time_label(t)}, %" for t in times), *_COST_HEADS],
        "lines": lines,
        "notes": notes.texts,
        "scopes": sorted({line.scope for line in lines}, key=_scope_order),
        "hows": _distinct(line.how for line in lines),
        "plots": _plots(rows, targets),
        "sources": sources.values(),
        "source_numbers": {key: source.number for key, source in sources.items()},
        "scope_words": [(s, _SCOPE_WORDS[s], [t.name for t in targets if s in _scopes_of(t)]) for s in SCOPES],
        "conversions": _conversions(targets),
        "glossary": [(c, _COMPONENT_WORDS[c]) for c in _distinct(_codes(targets)) if c in _COMPONENT_WORDS],
        "layers": [(t, _by_layer(t)) for t in targets if t.estimates],
        "limits": [(t, _limits(t)) for t in targets],
        "simulated": [(t, _linked(t.accuracy_model)) for t in targets if t.accuracy_model],
        "gaps": [(t, findings.gaps_of(t)) for t in targets if findings.gaps_of(t)],
        "origins": _origins(targets),
        "settings": _settings(rows, run),
        "configs": [(t, [(k.replace("_", " "), _setting(v)) for k, v in t.config.items()]) for t in targets],
        "downloads": _downloads(rows),
        "css": Markup((resources / "report.css").read_text(encoding="utf-8")),
        "js": Markup((resources / "report.js").read_text(encoding="utf-8")),
    }


def _limits(target: TargetSummary) -> list[str]:
    left_out = [sentence for e in target.estimates for sentence in e.not_counted]
    assumed = [f"Assumed: {sentence}" for e in target.estimates for sentence in e.assumptions]
    return _distinct([*left_out, *assumed, *target.notes])


def _codes(targets: list[TargetSummary]) -> list[str]:
    return [component.name for target in targets for component in target.components]


def _distinct(items: Any) -> list[str]:
    return list(dict.fromkeys(str(item) for item in items))


def _si(value: float, unit: str) -> str:
    return si(value, unit, micro="µ")


def _span(band: BandRow) -> str:
    return span(band, micro="µ")


def _scope_order(scope: str) -> int:
    return SCOPES.index(scope) if scope in SCOPES else len(SCOPES)


def _scopes_of(target: TargetSummary) -> set[str]:
    return {c.scope for c in target.costs if c.how == "estimated"} or {target.card.scope}


def _compared(rows: Sequence[Row], targets: list[TargetSummary], models: list[str], data: list[str]) -> str:
    samples = _distinct(f"{a.samples:,}" for r in rows if (a := r.accuracy))
    tested = f", {listing(samples)} test samples" if samples else ""
    seeds = sorted({r.seed for r in rows})
    chips = sorted({a.n for r in rows if (a := r.accuracy) and a.over == "chips"})
    where = names([t.name for t in targets])
    text = f"One network ({listing(models)}) and one data set ({listing(data)}{tested}) on {where}"
    if chips:
        text += f"; {listing([str(c) for c in chips])} programmed chips of each analog machine"
    many = f"{len(seeds)} seeds ({listing([str(s) for s in seeds])})" if len(seeds) > 1 else f"seed {seeds[0]}"
    return f"{text}; {many}."


# ------------------------------------------------------------------------------------------------------------- table


def _lines(
    target: TargetSummary, times: list[float | None], notes: _Notes, sources: dict[tuple[str, str], _Source]
) -> Iterator[_Line]:
    accuracies = tuple(_accuracy_cell(target, time, notes) for time in times)
    costs: Sequence[Cost | None] = target.costs or [None]
    for cost in costs:
        how, scope, batch = ("none", target.card.scope, None) if cost is None else (cost.how, cost.scope, cost.batch)
        words = " ".join((target.name, target.card.name, target.card.title, target.card.kind, scope, how)).lower()
        yield _Line(target, how, scope, batch, (*accuracies, *_cost_cells(target, cost, notes, sources)), words)


def _accuracy_cell(target: TargetSummary, time: float | None, notes: _Notes) -> _Cell:
    shown = target.at(time)
    if shown is None:
        reasons = " ".join(target.reasons.get(time) or ("no accuracy was computed",))
        return _Cell("—", note=notes.number(reasons, target.name))
    spread = f"± {percent(shown.std)}" if shown.n > 1 else ""
    return _Cell(percent(shown.mean), spread, f"{shown.mean:.9f}", quiet=time is not None and not target.drifts)


def _cost_cells(
    target: TargetSummary, cost: Cost | None, notes: _Notes, sources: dict[tuple[str, str], _Source]
) -> tuple[_Cell, ...]:
    if cost is None:
        return (_Cell("—"),) * 4
    cite: tuple[int, ...] = ()
    if cost.how == "estimated":
        used = [e for e in target.estimates if e.batch == cost.batch]
        keys = {key for e in used for term in e.terms for key in term.sources}
        cite = tuple(sorted({sources[(k, t)].number for e in used for k, t in e.sources.items() if k in keys}))
    if cost.energy_j is None:
        reason = cost.energy_reason or "the card has no figure for it"
        energy = _Cell("—", note=notes.number(f"no energy {cost.how}: {reason}", target.name))
    else:
        energy = _banded(cost.energy_j, "J", cite)
    area = _Cell("—")
    if cost.area_mm2 is not None:
        area = _Cell(digits(cost.area_mm2.nominal), _span(cost.area_mm2), repr(cost.area_mm2.nominal))
    return energy, _banded(cost.latency_s, "s"), _banded(cost.throughput_hz, ""), area


def _banded(band: BandRow, unit: str, cite: tuple[int, ...] = ()) -> _Cell:
    return _Cell(_si(band.nominal, unit), _span(band), repr(band.nominal), cite=cite)


# ---------------------------------------------------------------------------------------------------- the other parts


def _sources(targets: list[TargetSummary]) -> dict[tuple[str, str], _Source]:
    """(key, citation) -> numbered source; two cards may use one key for different texts, so both make the identity."""
    used: dict[tuple[str, str], dict[str, list[str]]] = {}
    for target in targets:
        for estimate in target.estimates:
            for key, cite in estimate.sources.items():
                parts = [t.component for t in estimate.terms if key in t.sources]
                used.setdefault((key, cite), {}).setdefault(target.name, []).extend(parts)
    found = {}
    for number, (identity, by_target) in enumerate(used.items(), start=1):
        words = []
        for name, parts in by_target.items():
            distinct = _distinct(parts)
            words.append(f"{name} ({', '.join(distinct)})" if distinct else name)
        found[identity] = _Source(number, identity[0], _linked(identity[1]), "; ".join(words))
    return found


def _linked(text: str) -> Markup:
    """Text with its addresses, DOIs and arXiv numbers as links; everything else is escaped."""
    pieces, end = [], 0
    for match in _LINK.finditer(text):
        doi, arxiv = match[1], match[2]
        address = f"https://doi.org/{doi}" if doi else f"https://arxiv.org/abs/{arxiv}" if arxiv else match[0]
        pieces += [
            escape(text[end : match.start()]),
            Markup('<a href="{}" rel="noreferrer">{}</a>').format(address, match[0]),
        ]
        end = match.end()
    return Markup("").join([*pieces, escape(text[end:])])


def _conversions(targets: list[TargetSummary]) -> list[dict[str, Any]]:
    """The conversion reports with what the mapping took; targets with the same report share it."""
    found: dict[str, dict[str, Any]] = {}
    for target in targets:
        columns = list(dict.fromkeys(name for layer in target.layers for name in layer))
        kept = [c for c in columns if any(layer.get(c) not in (None, "") for layer in target.layers)]
        body = [[_value(name, layer.get(name)) for name in kept] for layer in target.layers]
        digital = sum(str(layer.get("became", "")) == "digital" for layer in target.layers)
        report = {"heads": kept, "body": body, "digital": digital, "open": len(body) <= 12, "names": [], "mappings": []}
        entry = found.setdefault(repr((kept, body)), report)
        entry["names"].append(target.name)
        first = min(target.estimates, key=lambda e: e.batch, default=None)
        if first is not None and first.mapping:
            entry["mappings"].append((target.name, [_named_value(n, v) for n, v in first.mapping.items()]))
    return list(found.values())


_UNITS = {"w": "W", "j": "J", "s": "s", "hz": "Hz", "bytes": "B", "m": "m"}


def _named_value(name: str, value: float) -> tuple[str, str]:
    """A number of the mapping in words: its unit is the end of its name ("mean_power_w")."""
    head, _, unit = name.rpartition("_")
    if head and unit in _UNITS:
        return (name if unit == "bytes" else head).replace("_", " "), _si(value, _UNITS[unit])
    if unit in ("share", "utilisation"):
        return name.replace("_", " "), f"{percent(value, 1)} %"
    return name.replace("_", " "), _value(name, value)


def _value(name: str, value: Any) -> str:
    if value is None or value == "":
        return "—"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if "utilisation" in name:
        return f"{percent(value, 1)} %"
    return f"{value:,.0f}" if float(value).is_integer() else digits(value)


def _by_layer(target: TargetSummary) -> list[tuple[str, BandRow, float]]:
    """Energy of each layer at the smallest batch of the first seed, in the order of the network."""
    sums: dict[str, list[float]] = {}
    for term in target.estimates[0].terms:
        entry = sums.setdefault(term.layer or "whole machine", [0.0, 0.0, 0.0])
        for i, value in enumerate((term.energy_j.low, term.energy_j.nominal, term.energy_j.high)):
            entry[i] += value
    total = sum(entry[1] for entry in sums.values())
    return [
        (name, BandRow(low=e[0], nominal=e[1], high=e[2]), e[1] / total if total else 0.0) for name, e in sums.items()
    ]


def _origins(targets: list[TargetSummary]) -> dict[str, str]:
    """What stands behind each of the three passes in this run, in words."""
    estimated = _distinct(c.origin for t in targets for c in t.costs if c.how == "estimated")
    measured = _distinct(c.origin for t in targets for c in t.costs if c.how == "measured")
    devices = _distinct(c.device for t in targets for c in t.costs if c.device)
    return {
        "estimated": listing([how.removeprefix("estimated:") for how in estimated]),
        "measured": ", ".join(measured),
        "device": listing(devices),
    }


_SHOWN_ELSEWHERE = frozenset({"run", "hash", "targets", "card_versions"})
"""Entries of `run.json` that the page has in a better form: the configurations, the cards, the run's hash."""


def _settings(rows: Sequence[Row], run: dict[str, Any] | None) -> list[tuple[str, str]]:
    found = {
        "run": listing(_distinct(r.run for r in rows)),
        "seeds": ", ".join(str(s) for s in sorted({r.seed for r in rows})),
    }
    for name, value in (run or {}).items():
        if name == "times_s" and isinstance(value, (list, tuple)):
            found["times"] = ", ".join(time_label(t) for t in value)
        elif name not in _SHOWN_ELSEWHERE:
            found[name.replace("_", " ")] = _setting(value)
    return [
        *found.items(),
        ("rows", f"{len(rows):,}"),
        ("cards", ", ".join(_distinct(f"{r.card.name} (version {r.card.version})" for r in rows))),
        ("versions", "; ".join(_distinct(_pairs(r.versions) for r in rows))),
        ("machine", "; ".join(_distinct(_pairs(r.machine) for r in rows))),
    ]


def _pairs(values: dict[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _setting(value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, str):
        return value
    if isinstance(value, (list, tuple)) and not any(isinstance(item, (list, tuple, dict)) for item in value):
        return ", ".join(_setting(item) for item in value) or "none"
    return json.dumps(value, default=str, ensure_ascii=False)


def _plots(rows: Sequence[Row], targets: list[TargetSummary]) -> dict[str, dict[str, Any]]:
    time = [
        (g[0], names([t.name for t in g]) + (" (same line)" if len(g) > 1 else "")) for g in plots.same_line(targets)
    ]
    energy = [(t, t.name) for t in targets if any(c.energy_j for c in t.costs) and t.supported]
    alts = {
        "time": f"Accuracy over time. {findings.accuracy(targets)} {findings.drift(targets)}",
        "energy": f"Energy against accuracy. {findings.energy(targets)}",
        "parts": f"Energy by component. {findings.components(targets)}",
    }
    figures: dict[str, Callable[[bool], Figure]] = {
        "time": lambda narrow: plots.accuracy_over_time(rows, narrow=narrow, legend=False),
        "energy": lambda narrow: plots.energy_against_accuracy(rows, narrow=narrow, legend=False),
        "parts": lambda narrow: plots.energy_by_component(rows, narrow=narrow),
    }
    legends = {"time": time, "energy": energy, "parts": []}
    return {
        name: {
            "wide": _themed(plots.to_svg(draw(False), prefix=f"{name}-w-")),
            "narrow": _themed(plots.to_svg(draw(True), prefix=f"{name}-n-")),
            "alt": alts[name].strip(),
            "legend": legends[name],
        }
        for name, draw in figures.items()
    }


def _themed(svg: str) -> Markup:
    """A plot whose ink, grid and background follow the page's theme, hidden from screen readers (its frame speaks)."""
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>\s*", "", svg, flags=re.DOTALL)  # it would hold for the page
    svg = svg.replace(plots.INK, "currentColor").replace(plots.GRID, "var(--plot-grid)")
    svg = svg.replace(plots.PAPER, "var(--surface)").replace("#0072b2", "var(--plot-blue)")
    svg = re.sub(
        r'^<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true" focusable="false">', svg
    )
    return Markup(svg.replace("xlink:href", "href"))


_SHAPES = {
    "o": '<circle cx="7" cy="7" r="4.6"/>',
    "s": '<path d="M2.6 2.6h8.8v8.8H2.6z"/>',
    "^": '<path d="M7 1.8 12.2 12H1.8z"/>',
    "D": '<path d="M7 1.2 12.8 7 7 12.8 1.2 7z"/>',
    "v": '<path d="M7 12.2 1.8 2h10.4z"/>',
    "P": '<path d="M5 1.8h4V5h3.2v4H9v3.2H5V9H1.8V5H5z"/>',
    "X": '<path d="M4 1.8 7 4.6l3-2.8L12.2 4 9.4 7l2.8 3-2.2 2.2L7 9.4l-3 2.8L1.8 10l2.8-3-2.8-3z"/>',
    "<": '<path d="M1.8 7 12 1.8v10.4z"/>',
    ">": '<path d="M12.2 7 2 1.8v10.4z"/>',
    "p": '<path d="M7 1.6 12.4 5.6 10.3 12H3.7L1.6 5.6z"/>',
}


def _swatch(target: TargetSummary) -> Markup:
    """The marker that stands for the target in the plots."""
    style = plots.style_of(target)
    colour = style.colour.replace("#0072b2", "var(--plot-blue)")
    shape = _SHAPES[style.marker]
    return Markup(f'<svg class="swatch" viewBox="0 0 14 14" aria-hidden="true" style="fill:{colour}">{shape}</svg>')


def _downloads(rows: Sequence[Row]) -> list[dict[str, str]]:
    """The data inside the page: every row as JSON Lines, and the flat table as CSV."""
    lines = "".join(row.model_dump_json() + "\n" for row in rows).encode()
    table = to_frame(rows).to_csv(index=False).encode()
    found = []
    for name, kind, content, what in (
        ("results.jsonl", "application/x-ndjson", lines, "every row with all its figures"),
        ("table.csv", "text/csv;charset=utf-8", table, "one line a row and batch, SI units"),
    ):
        size = len(content)
        if size > _PLAIN_BYTES:
            name, kind, content = f"{name}.gz", "application/gzip", gzip.compress(content, 9, mtime=0)
        found.append(
            {
                "name": name,
                "what": what,
                "size": f"{si(size, 'B')}",
                "href": f"data:{kind};base64,{base64.b64encode(content).decode()}",
            }
        )
    return found
