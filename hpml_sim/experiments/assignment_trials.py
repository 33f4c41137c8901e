"""What the assignment of layers asks of the library: energies of any choice from one count, and scores on chips."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from hpml_sim.analog import calibrate, program
from hpml_sim.cards import CrossbarCard
from hpml_sim.conversion import Converted, convert
from hpml_sim.conversion.converting import LayerChoice
from hpml_sim.conversion.mapping import MappedLayer
from hpml_sim.conversion.mapping import Mapping as LayerMapping
from hpml_sim.cost import Estimate, estimate
from hpml_sim.counting import workload
from hpml_sim.data.batches import Samples
from hpml_sim.experiments.assignment_search import Choice
from hpml_sim.targets import Analog
from hpml_sim.targets.cards import card_named
from hpml_sim.tasks.metric import Metric
from hpml_sim.tasks.score import Score
from hpml_sim.tasks.task import Task
from hpml_sim.training.evaluation import scores
from hpml_sim.training.progress import Step, quiet
from hpml_sim.units.times import format_time

_MOST_SWAPS = 400
"""Pairs of layers that a step of `Costs.least_energy` looks at: of large networks single layers only."""
_DIGITAL = "no target for this layer"
_FEWER = 3
"""A layer alone is evaluated on so many times fewer chips than an assignment."""


@dataclass(frozen=True)
class Evaluation:
    """One assignment on programmed chips.

    Attributes:
        purpose: why it was evaluated.
        layers: the layers that were on crossbars, each with its target.
        scores: by seconds since programming; of a layer alone at the last time only.
        lost: what the mean over the chips lost against the digital network at the worst of these times, in the metric's
            unit; below 0 where it gained.
        energy_j: nominal joules an inference.
        holds: whether it stays within what may be lost; None of a layer alone, which is not judged.
    """

    purpose: str
    layers: dict[str, Analog]
    scores: dict[float, Score]
    lost: float
    energy_j: float
    holds: bool | None

    def __repr__(self) -> str:
        at = ", ".join(f"{format_time(time_s)}: {score.short()}" for time_s, score in self.scores.items())
        return f"Evaluation({self.purpose}: {len(self.layers)} layers on crossbars, {at})"


class Costs:
    """Energies of all assignments of a network, from one count of its operations.

    Args:
        model: the network.
        candidates: targets that a layer may take.
        inputs: some samples, on which operations are counted and ranges found.
        only: as in `hs.convert`.
        skip: as in `hs.convert`.

    Attributes:
        converted: the network with all layers on crossbars, once for each candidate, calibrated.
        layers: names of the layers that can be on crossbars, in the order of the network.
    """

    def __init__(
        self,
        model: nn.Module,
        candidates: Sequence[Analog],
        inputs: Any,
        *,
        only: LayerChoice,
        skip: LayerChoice,
    ):
        self.candidates = candidates
        self._energies: dict[frozenset[tuple[str, int]], float] = {}
        self.converted = [convert(model, target, only=only, skip=skip) for target in candidates]
        with _costs_are_told():
            for converted in self.converted:
                calibrate(converted, _batch(inputs))
        self._counts = workload(self.converted[0], data=inputs)
        self._mappings = [_mapping(converted) for converted in self.converted]
        self.layers = [layer.layer for layer in self._mappings[0].layers if layer.products]

    def errors(self) -> dict[str, list[float]]:
        """Power of the error of each layer's converters over that of its outputs, by candidate."""
        tables = [{layer.layer: layer.converter_db for layer in c.layers_now()} for c in self.converted]
        return {name: [_share(table[name]) for table in tables] for name in self.layers}

    def decibels(self) -> dict[str, list[float | None]]:
        """What the converters of each layer lose, as reports show it, by candidate."""
        tables = [{layer.layer: layer.converter_db for layer in c.layers_now()} for c in self.converted]
        return {name: [table[name] for table in tables] for name in self.layers}

    def digital(self) -> Estimate:
        """The whole network beside the first candidate's crossbars, in digital."""
        names = [layer.name for layer in self._counts.layers]
        card = card_named(self.candidates[0].card, CrossbarCard)
        return estimate(replace(self._counts, mapping=None), card, digital_layers=names, scope="system")

    def savings(self) -> dict[str, list[float]]:
        """Joules that each layer saves on each candidate, all others being where energy is least.

        A layer saves far more where it is the only one on crossbars: of the time that digital layers take, the whole
        machine pays for each second, and tiles bring digital units with them. What counts is the last step.
        """
        least = self.least_energy()
        found = {}
        for layer in self.layers:
            others = {name: k for name, k in least.items() if name != layer}
            without = self._nominal(others)
            found[layer] = [without - self._nominal({**others, layer: k}) for k in range(len(self.candidates))]
        return found

    def least_energy(self) -> Choice:
        """The assignment of least energy, whatever it loses, as far as steps from all on crossbars find it.

        A step takes a layer off the crossbars, puts one back, or does both; each takes the best of all.
        """
        uniform = [dict.fromkeys(self.layers, k) for k in range(len(self.candidates))]
        now = min(uniform, key=self._nominal)
        candidate = next(iter(now.values()))
        while True:
            fewer = [{n: k for n, k in now.items() if n != layer} for layer in now]
            beside = [layer for layer in self.layers if layer not in now]
            steps = [*fewer, *({**now, layer: candidate} for layer in beside)]
            if len(now) * len(beside) <= _MOST_SWAPS:
                steps += [{**others, layer: candidate} for others in fewer for layer in beside]
            best = min(steps, key=self._nominal)
            if self._nominal(best) >= self._nominal(now):
                return now
            now = best

    def _nominal(self, choice: Choice) -> float:
        key = frozenset(choice.items())
        if key not in self._energies:
            self._energies[key] = self.of(choice).energy_j.nominal
        return self._energies[key]

    def of(self, choice: Choice) -> Estimate:
        """The estimate of an assignment.

        Args:
            choice: of layers to candidates.
        """
        if not choice:
            return self.digital()
        rows = []
        for number, layer in enumerate(self._mappings[0].layers):
            chosen = choice.get(layer.layer)
            if chosen is None:
                rows.append(
                    MappedLayer(layer.layer, layer.was, "digital", layer.why if not layer.products else _DIGITAL)
                )
            else:
                rows.append(self._mappings[chosen].layers[number])
        counted = self._counts.mapping
        names = [] if counted is None else [layer.layer for layer in counted.layers]
        prefix = names[0][: len(names[0]) - len(rows[0].layer)].rstrip(".") if names else ""
        mapping = LayerMapping(tuple(rows))
        return estimate(replace(self._counts, mapping=mapping.below(prefix) if prefix else mapping), scope="system")


class ChipTrials:
    """Scores of assignments on programmed chips; it counts them.

    Args:
        model: the network.
        costs: its energies.
        samples: what it is scored on.
        task: what is measured.
        metric: of the task.
        inputs: what ranges are found on.
        times_s: seconds since programming, in order.
        chips: how many are programmed.
        seed: of the chips.
        digital: the score of the network itself.
        allowed: what may be lost.
        budget: evaluations.
        step: advances the display.
    """

    def __init__(
        self,
        model: nn.Module,
        costs: Costs,
        samples: Samples,
        task: Task,
        metric: Metric,
        inputs: Any,
        *,
        times_s: Sequence[float],
        chips: int,
        seed: int,
        digital: Score,
        allowed: float,
        budget: int,
        step: Step,
    ):
        self._model, self._costs, self._samples, self._task, self._metric = model, costs, samples, task, metric
        self._inputs, self._times, self._chips, self._seed = _batch(inputs), times_s, chips, seed
        self._digital, self.allowed, self._budget, self._step = digital, allowed, budget, step
        self.evaluations: list[Evaluation] = []

    @property
    def left(self) -> int:
        """Evaluations that may still be made."""
        return self._budget - len(self.evaluations)

    def energy_j(self, choice: Choice) -> float:
        """Nominal joules an inference.

        Args:
            choice: an assignment.
        """
        return self._costs.of(choice).energy_j.nominal

    def lost(self, choice: Choice, purpose: str) -> float:
        """What an assignment loses at the worst of all times.

        Args:
            choice: an assignment.
            purpose: why it is asked.
        """
        return self._evaluate(choice, purpose, self._times, self._chips, judged=True).lost

    def lost_alone(self, layer: str, candidate: int) -> float:
        """What is lost at the last time when one layer alone is on crossbars, on fewer chips.

        Args:
            layer: its name.
            candidate: the candidate that it takes.
        """
        few = math.ceil(self._chips / _FEWER)
        return self._evaluate({layer: candidate}, f"{layer} alone", self._times[-1:], few, judged=False).lost

    def _evaluate(
        self, choice: Choice, purpose: str, times_s: Sequence[float], chips: int, *, judged: bool
    ) -> Evaluation:
        layers = as_targets(choice, self._costs.candidates)
        with quiet(), _costs_are_told():
            analog = convert(self._model, layers).eval()
            calibrate(analog, self._inputs)
            programmed = program(analog, chips, self._seed)
            found = {t: scores(programmed.at(t), self._samples, self._task, [self._metric])[0] for t in times_s}
        lost = max(loss(self._digital, score) for score in found.values())
        holds = lost <= self.allowed if judged else None
        self.evaluations.append(Evaluation(purpose, layers, found, lost, self.energy_j(choice), holds))
        self._step(note=purpose)
        return self.evaluations[-1]


def as_targets(choice: Choice, candidates: Sequence[Analog]) -> dict[str, Analog]:
    """The assignment as `hs.convert` takes it.

    Args:
        choice: of layers to candidates.
        candidates: the targets.
    """
    return {layer: candidates[k] for layer, k in choice.items()}


def loss(digital: Score, other: Score) -> float:
    """What a mean loses against another one, in the metric's unit; below 0 where it gains.

    Args:
        digital: what it is held against.
        other: of the same metric.
    """
    difference = digital.mean - other.mean
    return difference if digital.higher_is_better else -difference


@contextmanager
def _costs_are_told() -> Iterator[None]:
    """Within the block nothing warns that converters lose much: that is what is tried, and the scores tell it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"\w+: the converters alone", RuntimeWarning)
        yield


def _mapping(converted: Converted) -> LayerMapping:
    if converted.mapping is None:
        raise TypeError("a network on crossbars has a mapping")
    return converted.mapping


def _share(decibels: float | None) -> float:
    return 0.0 if decibels is None else 10 ** (-decibels / 10)


def _batch(inputs: Any) -> Any:
    """A batch of inputs without labels, as `calibrate` takes it."""
    return inputs if isinstance(inputs, (Tensor, Mapping)) else [(inputs, None)]
