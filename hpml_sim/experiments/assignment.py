"""`Assignment`: which layers of a network are analog, as `hs.convert` takes it, and how that was found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from hpml_sim.cost import Estimate
from hpml_sim.experiments.assignment_trials import Evaluation
from hpml_sim.targets import Analog
from hpml_sim.tasks.score import RATIO, SHARE, Score
from hpml_sim.units.display import html_table, text_table
from hpml_sim.units.formatting import digits, si
from hpml_sim.units.times import format_time

if TYPE_CHECKING:
    import pandas as pd

_MAX_LINES = 40
"""Layers that a terminal shows."""


@dataclass(frozen=True)
class AssignedLayer:
    """One layer of an assignment.

    Attributes:
        layer: its name.
        target: what it is on; None: it stays digital.
        place: its place among the layers by what is lost for each joule saved, from 1, the least sensitive; None of a
            layer that saves nothing, and where no order was needed.
        lost: what is lost when this layer alone is on the target (of a layer that stays digital, on the candidate that
            saves most), in the metric's unit, or what its converters let expect; None where no order was needed.
        saved_j: joules an inference that it saves on that target, all other layers being on crossbars.
        converter_db: power of its exact outputs over that of what the converters there lose, decibels.
        why: why it is where it is.
    """

    layer: str
    target: Analog | None
    place: int | None
    lost: float | None
    saved_j: float
    converter_db: float | None
    why: str


@dataclass(frozen=True, repr=False, eq=False)
class Assignment(Mapping[str, Analog]):
    """The layers on crossbars, each with its target: `hs.convert(network, found)` and `hs.compare` take it.

    Attributes:
        targets: layer -> target; layers that are not in it stay digital.
        layers: all layers that could be on crossbars, in the order of the network.
        evaluations: everything that was evaluated on chips, in order.
        digital: the score of the network itself.
        allowed: what may be lost against it, in the metric's unit.
        estimate: of this assignment.
        digital_estimate: of the same machine with all layers in digital.
        analog_estimate: with all layers on the candidates that save most.
        measured: whether what layers lose alone was measured on chips; else it is what their converters let expect.

    Example:
        >>> import hpml_sim as hs
        >>> net = hs.models.mlp(64, 64, 10)
        >>> _ = hs.fit(net, "digits", epochs=2, lr=1e-2)
        >>> found = hs.assign(net, "digits", loses_at_most=0.05, times=["1 day"], chips=2)
        >>> [(row.layer, row.why) for row in found.layers]
        [('1', 'all layers together hold'), ('3', 'takes no less energy on crossbars')]
    """

    targets: dict[str, Analog]
    layers: tuple[AssignedLayer, ...]
    evaluations: tuple[Evaluation, ...]
    digital: Score
    allowed: float
    estimate: Estimate
    digital_estimate: Estimate
    analog_estimate: Estimate
    measured: bool

    def __getitem__(self, layer: str) -> Analog:
        return self.targets[layer]

    def __iter__(self) -> Iterator[str]:
        return iter(self.targets)

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def scores(self) -> dict[float, Score]:
        """Its scores by seconds since programming, the mean and spread over the chips."""
        return self._own.scores

    @property
    def lost(self) -> float:
        """What it loses at the worst of these times, in the metric's unit."""
        return self._own.lost

    @property
    def saving(self) -> float | None:
        """Its share of what all layers on crossbars would save, nominal, which may exceed 1; None of nothing."""
        digital = self.digital_estimate.energy_j.nominal
        most = digital - self.analog_estimate.energy_j.nominal
        return (digital - self.estimate.energy_j.nominal) / most if most > 0 else None

    @property
    def sensitivity(self) -> list[str]:
        """Names of the layers by what each loses alone, most first; of those where nothing had to be found none."""
        known = [(layer.lost, layer.layer) for layer in self.layers if layer.lost is not None]
        return [name for _, name in sorted(known, key=lambda one: -one[0])]

    @property
    def _own(self) -> Evaluation:
        return next(one for one in reversed(self.evaluations) if one.holds and one.layers == self.targets)

    def table(self) -> pd.DataFrame:
        """One row a layer: layer, target, place, lost, saved_j, converter_db, why."""
        import pandas as pd

        rows = [{f.name: getattr(layer, f.name) for f in fields(AssignedLayer)} for layer in self.layers]
        frame = pd.DataFrame(rows, columns=[f.name for f in fields(AssignedLayer)])
        frame["target"] = [target_text(layer.target) for layer in self.layers]
        return frame

    def evaluations_table(self) -> pd.DataFrame:
        """One row for each evaluation and time: what was tried, why, what it scored and lost, and its energy."""
        import pandas as pd

        rows = [
            {
                "number": number,
                "purpose": one.purpose,
                "digital": ", ".join(layer.layer for layer in self.layers if layer.layer not in one.layers),
                "chips": score.n,
                "time_s": time_s,
                "mean": score.mean,
                "std": score.std,
                "lost": one.lost,
                "energy_j": one.energy_j,
                "holds": one.holds,
            }
            for number, one in enumerate(self.evaluations, 1)
            for time_s, score in one.scores.items()
        ]
        return pd.DataFrame(rows)

    def __str__(self) -> str:
        columns, rows = self._cells()
        left = len(rows) - _MAX_LINES
        note = f"{left} more layers: .table()\n" if left > 0 else ""
        head = "\n".join([self._title(), *(f"  {name:<8}  {text}" for name, text in self._facts())])
        return text_table(columns, rows[:_MAX_LINES], title=head, note=f"{note}{self._note()}", wrap=True)

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        columns, rows = self._cells()
        facts = "; ".join(f"{name}: {text}" for name, text in self._facts())
        return html_table(f"{self._title()}. {facts}", rows, columns=columns, note=self._note())

    def _title(self) -> str:
        here, count = len(self.targets), len(self.evaluations)
        return f"Assignment: {here} of {len(self.layers)} layers on crossbars, {count} evaluation{'s'[: count != 1]}"

    def _facts(self) -> list[tuple[str, str]]:
        metric, unit = self.digital.metric, self.digital.unit
        energies = [self.estimate, self.digital_estimate, self.analog_estimate]
        own, digital, analog = (si(one.energy_j.nominal, "J") for one in energies)
        share = "" if self.saving is None else f": {100 * self.saving:.1f} % of its saving"
        at = ", ".join(
            f"{figure(score.mean, unit)} after {format_time(time_s)}" for time_s, score in self.scores.items()
        )
        return [
            (metric, f"{at}; digital {figure(self.digital.mean, unit)}"),
            ("loses", f"{points(self.lost, unit)}, may lose {points(self.allowed, unit)}"),
            ("energy", f"{own}; digital {digital}, all on crossbars {analog}{share}"),
        ]

    def _note(self) -> str:
        how = "lost: that layer alone, after the last time" if self.measured else "lost: as its converters let expect"
        return (
            f"{how}; .evaluations, .table(), .estimate"
            if any(one.lost is not None for one in self.layers)
            else (".evaluations, .table(), .estimate")
        )

    def _cells(self) -> tuple[list[str], list[list[object]]]:
        unit = self.digital.unit
        columns = ["layer", "on", "place", "lost", "saves", "why"]
        rows: list[list[object]] = [
            [
                one.layer or "(network)",
                target_text(one.target),
                one.place,
                None if one.lost is None else points(one.lost, unit),
                si(one.saved_j, "J") if one.saved_j > 0 else "nothing",
                one.why,
            ]
            for one in self.layers
        ]
        return columns, rows


def target_text(target: Analog | None) -> str:
    """A target in a few words: its card, and the options that are not the default.

    Args:
        target: the target; None: digital.
    """
    if target is None:
        return "digital"
    usual = Analog(target.card)
    others = [f for f in fields(Analog) if f.name != "card" and getattr(target, f.name) != getattr(usual, f.name)]
    shown = []
    for f in others:
        value = getattr(target, f.name)
        shown.append(f"{f.name}={value.name if f.name == 'input_range' else value}")
    return " ".join([target.card, *shown])


def points(value: float, unit: str) -> str:
    """A difference of scores, as people read it: shares in points.

    Args:
        value: in the metric's unit.
        unit: of the metric.
    """
    if unit in (SHARE, RATIO):
        return f"{100 * value:.2f} points"
    return f"{digits(value) if value >= 0 else '-' + digits(-value)} {unit}".rstrip()


def figure(value: float, unit: str) -> str:
    """A score as people read it: shares in percent.

    Args:
        value: in the metric's unit.
        unit: of the metric.
    """
    return f"{100 * value:.2f} %" if unit in (SHARE, RATIO) else f"{value:.4g} {unit}".rstrip()
