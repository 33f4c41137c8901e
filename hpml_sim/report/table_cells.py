"""The cells of the page's table: one line for each target, batch size and provenance of its cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from hpml_sim.report.metric_words import MetricWords
from hpml_sim.report.sections import Source
from hpml_sim.report.summary import Cost, TargetSummary
from hpml_sim.report.wording import names, si_page, span_page
from hpml_sim.units.bands import Band
from hpml_sim.units.formatting import digits

COST_HEADS = ("energy", "latency", "rate, 1/s", "area, mm²")
"""Short, because a narrow window shows them in each cell."""


@dataclass(frozen=True)
class Cell:
    """A cell of the table.

    Attributes:
        text: what it shows.
        below: in small letters below the text.
        sort: the value to sort by; empty for a cell without a figure.
        note: number of its footnote; 0 for none.
        cite: numbers of its sources.
        quiet: whether it repeats what another cell of the line says.
    """

    text: str
    below: str = ""
    sort: str = ""
    note: int = 0
    cite: tuple[int, ...] = ()
    quiet: bool = False


@dataclass(frozen=True)
class Line:
    """One line of the table: a target at one batch size, with figures obtained in one way.

    Attributes:
        target: whose line it is.
        provenance: "estimated", "measured", or "none" where there is no cost.
        scope: what the costs include.
        batch: samples processed together; None where there is no cost.
        cells: scores at each time, then energy, latency, rate and area.
        words: what the search field of the page looks through.
        phase: of a language model, "prompt" or "token"; "" of others.
    """

    target: TargetSummary
    provenance: str
    scope: str
    batch: int | None
    cells: tuple[Cell, ...]
    words: str
    phase: str = ""


@dataclass
class Notes:
    """Notes under the table; a note on several targets appears once, with their names.

    Attributes:
        who: text of a note -> names of the targets that it is about.
    """

    who: dict[str, list[str]] = field(default_factory=dict)

    def number(self, text: str, name: str) -> int:
        """Add a note with this `text` on the target of this `name`; its number, from 1."""
        found = self.who.setdefault(text, [])
        if name not in found:
            found.append(name)
        return list(self.who).index(text) + 1

    @property
    def texts(self) -> list[str]:
        """The notes in the order of their numbers, with the names of their targets."""
        return [f"{names(found)}: {text}" for text, found in self.who.items()]


def table_lines(
    target: TargetSummary,
    times: list[float | None],
    words: MetricWords,
    notes: Notes,
    sources: Mapping[tuple[str, str], Source],
) -> Iterator[Line]:
    """The lines of one target.

    Args:
        target: what the rows say of it.
        times: since programming, seconds; a cell each. None is for targets that do not drift.
        words: of the run's main metric.
        notes: takes up the footnotes of the cells.
        sources: (key, citation) -> numbered source.
    """
    scores = tuple(_score_cell(target, time, words, notes) for time in times)
    costs: Sequence[Cost | None] = [*target.costs, *target.decodes] or [None]
    for cost in costs:
        provenance, scope, batch = (
            ("none", target.card.scope, None) if cost is None else (cost.provenance, cost.scope, cost.batch)
        )
        searched = " ".join(
            (target.name, target.card.name, target.card.title, target.card.kind, scope, provenance)
        ).lower()
        phase = "" if cost is None else {"prefill": "prompt", "decode": "token"}.get(cost.phase, "")
        cells = (*scores, *_cost_cells(target, cost, notes, sources))
        yield Line(target, provenance, scope, batch, cells, f"{searched} {phase}".rstrip(), phase)


def _score_cell(target: TargetSummary, time: float | None, words: MetricWords, notes: Notes) -> Cell:
    shown = target.at(time)
    if shown is None:
        reasons = " ".join(target.reasons.get(time) or (f"no {words.name} was computed",))
        return Cell("—", note=notes.number(reasons, target.name))
    spread = f"± {words.spread(shown.std)}" if shown.n > 1 else ""
    sort = f"{shown.mean:.9f}" if words.in_percent else f"{shown.mean:.9g}"
    return Cell(words.value(shown.mean), spread, sort, quiet=time is not None and not target.drifts)


def _cost_cells(
    target: TargetSummary, cost: Cost | None, notes: Notes, sources: Mapping[tuple[str, str], Source]
) -> tuple[Cell, ...]:
    if cost is None:
        return (Cell("—"),) * 4
    cite: tuple[int, ...] = ()
    if cost.provenance == "estimated":
        used = [e for e in target.estimates if e.batch == cost.batch]
        keys = {key for e in used for term in e.terms for key in term.sources}
        cite = tuple(sorted({sources[(k, t)].number for e in used for k, t in e.sources.items() if k in keys}))
    if cost.energy_j is None:
        reason = cost.energy_reason or "the card has no figure for it"
        energy = Cell("—", note=notes.number(f"no energy {cost.provenance}: {reason}", target.name))
    else:
        energy = _banded(cost.energy_j, "J", cite)
    area = Cell("—")
    if cost.area_mm2 is not None:
        area = Cell(digits(cost.area_mm2.nominal), span_page(cost.area_mm2), _to_sort(cost.area_mm2.nominal))
    return energy, _banded(cost.latency_s, "s"), _banded(cost.throughput_hz, ""), area


def _banded(band: Band, unit: str, cite: tuple[int, ...] = ()) -> Cell:
    return Cell(si_page(band.nominal, unit), span_page(band), _to_sort(band.nominal), cite=cite)


def _to_sort(value: float) -> str:
    return f"{value:.6g}"
