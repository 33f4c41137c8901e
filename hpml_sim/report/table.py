"""The comparison as a table for the terminal (rich)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING, Literal

from rich import box, get_console
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from hpml_sim.report.inference_words import words_of_inference
from hpml_sim.report.metric_words import MetricWords, words_of
from hpml_sim.report.other_metrics import named_others
from hpml_sim.report.summary import Cost, TargetSummary, summarize, times_of
from hpml_sim.report.wording import listing, names, time_label
from hpml_sim.results import Row
from hpml_sim.units.formatting import digits, si, span

if TYPE_CHECKING:
    from hpml_sim.units.bands import Band

_MARKS = "¹²³⁴⁵⁶⁷⁸⁹"
_FEW = 5
_NARROWEST_NAME = 12
_WORDS = {"estimated": "estimated", "measured": "measured"}
_SHORT_WORDS = {"estimated": "est.", "measured": "meas."}
_PHASES = {"prefill": " prompt", "decode": " token"}


class _Footnotes:
    """Numbers the notes in the order in which the cells name them; a note on several targets keeps one number."""

    def __init__(self) -> None:
        self._who: dict[str, list[str]] = {}

    def mark(self, note: str, name: str) -> str:
        found = self._who.setdefault(note, [])
        if name not in found:
            found.append(name)
        return self._sign(list(self._who).index(note))

    def lines(self) -> list[str]:
        return [f"{self._sign(i)} {names(who)}: {note}" for i, (note, who) in enumerate(self._who.items())]

    @staticmethod
    def _sign(number: int) -> str:
        return _MARKS[number] if number < len(_MARKS) else f"({number + 1})"


@dataclass
class _Column:
    """Header and cells of one column, and its name in the note on columns that there is no room for."""

    header: Text
    called: str
    justify: Literal["left", "right"]
    cells: list[Text]
    score: bool = False

    @property
    def width(self) -> int:
        return max(cell_len(line) for cell in (self.header, *self.cells) for line in cell.plain.split("\n"))


def comparison_table(rows: Sequence[Row], *, width: int | None = None, all_notes: bool = False) -> Table:
    """The comparison for a terminal: two lines for each batch size and provenance of a target's cost.

    The second line of a cell is its spread: the scope under the target, ± under a score, low to high under others.
    Estimated and measured figures are on lines of their own, marked as such. Several seeds are averaged. Where the
    terminal is too narrow, whole columns are left out and named; no figure is ever cut.

    Args:
        rows: results of one run.
        width: characters of a line; None takes the terminal's width. About 96 show everything in full, 80 with
            abbreviations.
        all_notes: print all notes on the targets; False only counts them where there are more than a few.

    Raises:
        HpmlError: there are no rows.
    """
    width = width or get_console().width
    targets = summarize(rows)
    times: list[float | None] = [*times_of(targets)] or [None]
    metric = words_of(targets)
    roomy, gap, words = True, 2, _WORDS
    columns, notes = _columns(targets, times, metric, words, roomy)
    if _needed(columns, gap) > width:
        roomy, gap, words = False, 1, _SHORT_WORDS
        columns, notes = _columns(targets, times, metric, words, roomy)
    left_out = []
    while _needed(columns, gap) > width and (victim := _least_needed(columns)) is not None:
        left_out.append(columns.pop(victim).called)
    unit = f" in {metric.sign}" if metric.sign else ""
    since = "" if times == [None] else f": {metric.name}{unit} at a time since programming"
    others = named_others(rows)
    table = Table(
        box=box.SIMPLE_HEAD,
        title=Text(f"{rows[0].model} on {rows[0].data}{since}"),
        title_style="bold",
        title_justify="left",
        caption=_caption(targets, metric, others, notes, words, left_out, all_notes),
        caption_justify="left",
        caption_style="",
        pad_edge=False,
        padding=(0, gap, 0, 0),
        show_edge=False,
    )
    for position, column in enumerate(columns):
        table.add_column(column.header, justify=column.justify, no_wrap=position > 0, overflow="fold")
    ends = [i for i, name in enumerate(columns[0].cells) if i and name.plain] + [len(columns[0].cells)]
    for i, cells in enumerate(zip(*(column.cells for column in columns), strict=True)):
        table.add_row(*cells, end_section=i + 1 in ends)
    return table


def _columns(
    targets: list[TargetSummary], times: list[float | None], metric: MetricWords, words: dict[str, str], roomy: bool
) -> tuple[list[_Column], _Footnotes]:
    notes = _Footnotes()
    columns = [_Column(_two("target", "scope"), "target", "left", [])]
    for time in times:
        called = metric.name if time is None else f"{metric.name} at {time_label(time)}"
        columns.append(_Column(_score_head(metric, time, roomy), called, "right", [], score=True))
    columns.append(_Column(_two("batch", "provenance"), "batch", "left", []))
    of = words_of_inference(targets)
    rate = "tokens/s" if of.noun == "token" else "/s"
    units = {"energy": of.short, "latency": "/batch", "rate": rate, "area": "mm²"}
    columns += [_Column(_two(name, unit), name, "right", []) for name, unit in units.items()]
    for target in targets:
        for position, cost in enumerate([*target.costs, *target.decodes] or [None]):
            leads = position == 0
            line = [_two(target.name, target.card.scope, style="bold") if leads else Text("")]
            line += [_score(target, t, metric, notes) if leads else Text("") for t in times]
            line += _cost(target, cost, words, notes)
            for column, cell in zip(columns, line, strict=True):
                column.cells.append(cell)
    return columns, notes


def _needed(columns: list[_Column], gap: int) -> int:
    """Width of the table; a long name may be folded."""
    widths = [column.width for column in columns]
    return min(widths[0], _NARROWEST_NAME) + sum(widths[1:]) + gap * len(columns)


def _least_needed(columns: list[_Column]) -> int | None:
    """Which column goes first for want of room: area, rate, times from the middle, latency; never the energy."""
    times = [i for i, column in enumerate(columns) if column.score]
    called = ["" if column.score else column.called for column in columns]
    for name in ("area", "rate"):
        if name in called:
            return called.index(name)
    if len(times) > 2:
        return times[len(times) // 2]
    return called.index("latency") if "latency" in called else None


def _two(first: str, second: str, *, style: str = "") -> Text:
    return Text.assemble((first, style), "\n", (second, "dim"))


def _score_head(metric: MetricWords, time: float | None, roomy: bool) -> Text:
    """A time over the unit, or the metric's name over it; a long name is broken between its words."""
    if time is None:
        return _two("\n".join(wrap(metric.name, 11)), metric.sign)
    if roomy:
        return _two(time_label(time), metric.sign)
    number, _, unit = time_label(time).rpartition(" ")
    return _two(number, unit)


def _score(target: TargetSummary, time: float | None, metric: MetricWords, notes: _Footnotes) -> Text:
    shown = target.at(time)
    if shown is None:
        reasons = " ".join(target.reasons.get(time) or (f"no {metric.name} was computed",))
        return Text(f"—{notes.mark(reasons, target.name)}")
    constant = time is not None and not target.drifts
    spread = f"±{metric.spread(shown.std, 1)}" if shown.n > 1 else ""
    if target.floating_point is not None:
        spread += f"{' ' if spread else ''}({metric.value(target.floating_point.mean, 1)})"
    return _two(metric.value(shown.mean, 1), spread, style="dim" if constant else "")


def _cost(target: TargetSummary, cost: Cost | None, words: dict[str, str], notes: _Footnotes) -> list[Text]:
    if cost is None:
        return [Text("—") for _ in range(5)]
    provenance = words[cost.provenance]
    if cost.energy_j is None:
        reason = cost.energy_reason or "the card has no figure"
        energy = Text(f"—{notes.mark(f'no energy {cost.provenance}: {reason}', target.name)}")
    else:
        energy = _banded(cost.energy_j, "J")
    area = Text("—") if cost.area_mm2 is None else _two(digits(cost.area_mm2.nominal), span(cost.area_mm2, figures=2))
    return [
        _two(
            f"{cost.batch}{_PHASES.get(cost.phase, '')}",
            provenance,
            style="bold" if cost.provenance == "measured" else "",
        ),
        energy,
        _banded(cost.latency_s, "s"),
        _banded(cost.throughput_hz, ""),
        area,
    ]


def _banded(band: Band, unit: str) -> Text:
    return _two(si(band.nominal, unit), span(band, figures=2))


def _caption(
    targets: list[TargetSummary],
    metric: MetricWords,
    others: str,
    notes: _Footnotes,
    words: dict[str, str],
    left_out: list[str],
    all_notes: bool,
) -> Text:
    lines = notes.lines()
    if left_out:
        lines.insert(0, f"no room for: {listing(left_out)}; a wider terminal and the report show all")
    spreads: dict[str, list[str]] = {}
    for target in targets:
        for _, figure in target.supported[:1]:
            spreads.setdefault(figure.spread, []).append(target.name)
    hint = f" ({metric.hint})" if metric.hint else ""
    lines += [f"{metric.name}{hint} over {spread}: {names(who)}" for spread, who in spreads.items()]
    if others:
        lines.append(f"also measured, in the report and in table.csv: {others}")
    if integers := [target.name for target in targets if target.floating_point is not None]:
        lines.append(f"in the machine's own integers, in brackets in floating point: {names(integers)}")
    devices = listing(list(dict.fromkeys(c.device for t in targets for c in t.costs if c.device)))
    lines.append(f"{words['estimated']}: from the device card, low to high is its band; best batch = highest rate")
    if devices:
        lines.append(f"{words['measured']}: on {devices}, low to high is the 10th to 90th percentile")
    scopes = list(dict.fromkeys(c.scope for t in targets for c in t.costs if c.provenance == "estimated"))
    if len(scopes) > 1:
        lines.append(f"scopes here: {listing(scopes)}; figures of different scope are not ranked")
    lines += [f"{t.name}: {t.card.title}" for t in targets]
    remarks = [f"{t.name}: {note}" for t in targets for note in t.notes]
    if len(remarks) <= _FEW or all_notes:
        lines += remarks
    else:
        lines.append(f"{len(remarks)} notes on what these figures exclude are in the report")
    return Text("\n".join(lines), style="dim")
