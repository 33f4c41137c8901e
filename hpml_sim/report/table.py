"""The comparison as a table for the terminal (rich)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from hpml_sim.report._format import digits, listing, names, percent, si, span, time_label
from hpml_sim.report.summary import Cost, TargetSummary, summarise, times_of
from hpml_sim.results import Row

if TYPE_CHECKING:
    from hpml_sim.results import BandRow

_MARKS = "¹²³⁴⁵⁶⁷⁸⁹"
_WIDE = 96
_FEW = 5


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


def comparison_table(rows: Sequence[Row], *, width: int = 100, all_notes: bool = False) -> Table:
    """The comparison for a terminal: two lines for each way in which the cost of a target is known.

    The second line of a cell is its spread: the scope under the target, ± under an accuracy, low to high under others.
    Estimated and measured figures stand in lines of their own, marked. Several seeds are averaged.

    Args:
        rows: results of one run.
        width: columns that the terminal has; below 96 the words are abbreviated, 80 is enough for four times.
        all_notes: print all that is noted of the targets; otherwise more than a few are only counted.

    Raises:
        HpmlError: there are no rows.
    """
    targets = summarise(rows)
    times: list[float | None] = [*times_of(targets)] or [None]
    words = {"estimated": "estimated", "measured": "measured"}
    if width < _WIDE:
        words = {"estimated": "est.", "measured": "meas."}
    since = "" if times == [None] else ": accuracy in % at a time since programming"
    notes = _Footnotes()
    table = Table(
        box=box.SIMPLE_HEAD,
        title=Text(f"{rows[0].model} on {rows[0].data}{since}"),
        title_style="bold",
        title_justify="left",
        caption_justify="left",
        caption_style="",
        pad_edge=False,
        padding=(0, 1, 0, 0) if width < _WIDE else (0, 2, 0, 0),
        show_edge=False,
        collapse_padding=True,
    )
    table.add_column(_two("target", "scope"), overflow="fold", min_width=min(13, max(len(t.name) for t in targets)))
    for time in times:
        head = ("accuracy", "%") if time is None else _time_head(time, width)
        table.add_column(_two(*head), justify="right", no_wrap=True)
    table.add_column(_two("batch", "how"), no_wrap=True)
    table.add_column(_two("energy", "/sample"), justify="right", no_wrap=True)
    table.add_column(_two("latency", "/batch"), justify="right", no_wrap=True)
    table.add_column(_two("rate", "/s"), justify="right", no_wrap=True)
    table.add_column(_two("area", "mm²"), justify="right", no_wrap=True)
    for target in targets:
        costs: Sequence[Cost | None] = target.costs or [None]
        for position, cost in enumerate(costs):
            leads = position == 0
            name = _two(target.name, target.card.scope, style="bold") if leads else Text("")
            accuracies = [_accuracy(target, t, notes) if leads else Text("") for t in times]
            table.add_row(name, *accuracies, *_cost(target, cost, words, notes), end_section=position == len(costs) - 1)
    table.caption = _caption(targets, notes, words, all_notes)
    return table


def _two(first: str, second: str, *, style: str = "") -> Text:
    return Text.assemble((first, style), "\n", (second, "dim"))


def _time_head(seconds: float, width: int) -> tuple[str, str]:
    label = time_label(seconds)
    if width >= _WIDE:
        return label, "%"
    number, _, unit = label.partition(" ")
    return number, unit


def _accuracy(target: TargetSummary, time: float | None, notes: _Footnotes) -> Text:
    shown = target.at(time)
    if shown is None:
        reasons = " ".join(target.reasons.get(time) or ("no accuracy was computed",))
        return Text(f"—{notes.mark(reasons, target.name)}")
    constant = time is not None and not target.drifts
    spread = f"±{percent(shown.std, 1)}" if shown.n > 1 else ""
    return _two(percent(shown.mean, 1), spread, style="dim" if constant else "")


def _cost(target: TargetSummary, cost: Cost | None, words: dict[str, str], notes: _Footnotes) -> list[Text]:
    if cost is None:
        return [Text("—") for _ in range(5)]
    how = words[cost.how]
    if cost.energy_j is None:
        reason = cost.energy_reason or "the card has no figure"
        energy = Text(f"—{notes.mark(f'no energy {cost.how}: {reason}', target.name)}")
    else:
        energy = _banded(cost.energy_j, "J")
    area = Text("—") if cost.area_mm2 is None else _two(digits(cost.area_mm2.nominal), span(cost.area_mm2, figures=2))
    return [
        _two(str(cost.batch), how, style="bold" if cost.how == "measured" else ""),
        energy,
        _banded(cost.latency_s, "s"),
        _banded(cost.throughput_hz, ""),
        area,
    ]


def _banded(band: BandRow, unit: str) -> Text:
    return _two(si(band.nominal, unit), span(band, figures=2))


def _caption(targets: list[TargetSummary], notes: _Footnotes, words: dict[str, str], all_notes: bool) -> Text:
    lines = notes.lines()
    spreads: dict[str, list[str]] = {}
    for target in targets:
        for _, figure in target.supported[:1]:
            spreads.setdefault(figure.spread, []).append(target.name)
    lines += [f"accuracy over {spread}: {names(who)}" for spread, who in spreads.items()]
    devices = listing(list(dict.fromkeys(c.device for t in targets for c in t.costs if c.device)))
    lines.append(f"{words['estimated']}: from the device card, low to high is its band; best batch = highest rate")
    if devices:
        lines.append(f"{words['measured']}: on {devices}, low to high is the 10th to 90th percentile")
    scopes = list(dict.fromkeys(c.scope for t in targets for c in t.costs if c.how == "estimated"))
    if len(scopes) > 1:
        lines.append(f"scopes here: {listing(scopes)}; figures of different scope are not ranked")
    lines += [f"{t.name}: {t.card.title}" for t in targets]
    said = [f"{t.name}: {note}" for t in targets for note in t.notes]
    if len(said) <= _FEW or all_notes:
        lines += said
    else:
        lines.append(f"{len(said)} notes on what these figures leave out stand in the report")
    return Text("\n".join(lines), style="dim")
