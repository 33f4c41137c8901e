"""How layers are assigned: a greedy order, a bisection along it, and exchanges, with few evaluations.

1. Everything that saves energy goes onto crossbars. If that holds the floor, nothing takes less energy.
2. What each layer loses alone is measured, or taken from what its converters lose.
3. Steps from digital to crossbars are put in order by what is lost for each joule saved (of several candidates of a
   layer, those on the convex hull), and the longest beginning of that order that holds is found by bisection.
4. What is left of the budget tries exchanges: one step more, or one more and another one back, the best guess first.

Losses of single layers add up only roughly, so they decide what is tried and never what is taken.

Source: greedy steps along the convex hull are those of the linear relaxation of the multiple-choice knapsack problem:
P. Sinha, A. A. Zoltners, Operations Research 27(3), 503 (1979). Layers in order of their sensitivity under a floor over
the time of drift: C. Lammie et al., LionHeart, IEEE Transactions on Emerging Topics in Computing (2025).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

Choice = dict[str, int]
"""Layer -> number of the candidate that it takes; layers that are not in it stay digital."""
_KEPT = 3
"""Evaluations that are kept for exchanges when it is decided how sensitivities are found."""
_LEAST_GAIN = 0.002
"""Share of what everything saves below which a difference is not worth an evaluation."""
_HOPELESS = 2.0
"""An exchange whose predicted loss is so many times what may be lost is not tried."""


class Trials(Protocol):
    """What a search asks: energies, which are cheap, and evaluations, which are not."""

    @property
    def left(self) -> int:
        """Evaluations that may still be made."""
        ...

    def energy_j(self, choice: Choice) -> float:
        """Joules an inference.

        Args:
            choice: an assignment.
        """
        ...

    def lost(self, choice: Choice, purpose: str) -> float:
        """What an assignment loses at the worst of all times; one evaluation.

        Args:
            choice: an assignment.
            purpose: why it is asked.
        """
        ...

    def lost_alone(self, layer: str, candidate: int) -> float:
        """What is lost when one layer alone is on crossbars; one evaluation, which may be a rougher one.

        Args:
            layer: its name.
            candidate: the candidate that it takes.
        """
        ...


@dataclass(frozen=True)
class Step:
    """A layer takes a candidate that saves more than what it had before.

    Attributes:
        layer: its name.
        candidate: number of the candidate.
        lost: what it loses more, >= 0, as measured or predicted for the layer alone.
        saved_j: joules that it saves more.
    """

    layer: str
    candidate: int
    lost: float
    saved_j: float


@dataclass
class Found:
    """What a search found.

    Attributes:
        choice: the assignment that holds with the least energy; None: none that was tried holds.
        steps: the order in which layers leave digital; empty where everything held at once.
        losses: what each layer loses alone, by candidate; empty where everything held at once.
        measured: whether these were measured on chips.
        tried: all assignments that were evaluated in full, with what they lose.
    """

    choice: Choice | None = None
    steps: tuple[Step, ...] = ()
    losses: dict[str, list[float]] = field(default_factory=dict)
    measured: bool = False
    tried: list[tuple[Choice, float]] = field(default_factory=list)


class Search:
    """The search for one network.

    Args:
        trials: what answers.
        saved_j: joules that each layer saves, by candidate; of a candidate that saves nothing 0 or less.
        names: what the candidates are called.
        allowed: what may be lost, >= 0, as `Trials.lost` counts it.
    """

    def __init__(self, trials: Trials, saved_j: Mapping[str, Sequence[float]], names: Sequence[str], allowed: float):
        self._trials, self._saved, self._names, self._allowed = trials, saved_j, names, allowed
        self._seen: dict[frozenset[tuple[str, int]], float] = {}
        self._energies: dict[frozenset[tuple[str, int]], float] = {}
        self._everything: Choice = {}
        self.found = Found()

    def run(self, errors: Mapping[str, Sequence[float]], *, measure: bool | None) -> Found:
        """Search until the budget is spent or nothing promising is left.

        Args:
            errors: power of the error of each layer's converters over that of its outputs, by candidate.
            measure: whether what each layer loses alone is measured; None: where the budget allows it.
        """
        options = {layer: [k for k, j in enumerate(saved) if j > 0] for layer, saved in self._saved.items()}
        options = {layer: which for layer, which in options.items() if which}
        if not options:
            return self.found
        everything = {layer: self._most(layer, which, errors[layer]) for layer, which in options.items()}
        self._everything = everything
        if self._holds(everything, "everything that saves energy") or not self._trials.left:
            return self.found
        alike = [self._lost(everything)] * len(self._names)
        if len(self._names) > 1:
            for k, name in enumerate(self._names):
                choice = {layer: k for layer, which in options.items() if k in which}
                if choice and (self._trials.left or self._key(choice) in self._seen):
                    self._holds(choice, f"everything on {name}")
                    alike[k] = self._lost(choice)
        if self.found.choice and self._energy(self.found.choice) - self._energy(everything) < self._least_gain():
            return self.found
        losses = self._sensitivities(options, errors, alike, measure)
        steps = greedy_steps({layer: [(k, self._saved[layer][k], losses[layer][k]) for k in options[layer]]
                              for layer in options})  # fmt: skip
        self.found.losses, self.found.steps = losses, tuple(steps)
        self._bisect(steps)
        while self._trials.left and (choice := next(self._exchanges(options, losses), None)) is not None:
            self._holds(choice, "an exchange")
        return self.found

    def _least_gain(self) -> float:
        """Joules below which nothing is worth an evaluation: chips of another seed would decide otherwise."""
        return _LEAST_GAIN * max(self._energy({}) - self._energy(self._everything), 0.0)

    def _most(self, layer: str, which: Sequence[int], errors: Sequence[float]) -> int:
        """The candidate that saves most; of those that save as much, the one whose converters lose least."""
        most = max(self._saved[layer][k] for k in which)
        return min((k for k in which if self._saved[layer][k] >= (1 - _LEAST_GAIN) * most), key=errors.__getitem__)

    # ------------------------------------------------------------------------------------------------- evaluations

    def _key(self, choice: Choice) -> frozenset[tuple[str, int]]:
        return frozenset(choice.items())

    def _lost(self, choice: Choice) -> float:
        return self._seen[self._key(choice)]

    def _energy(self, choice: Choice) -> float:
        key = self._key(choice)
        if key not in self._energies:
            self._energies[key] = self._trials.energy_j(choice)
        return self._energies[key]

    def _holds(self, choice: Choice, purpose: str) -> bool:
        """Whether an assignment holds the floor; it is evaluated once, and taken if nothing better is known."""
        key = self._key(choice)
        if key not in self._seen:
            self._seen[key] = self._trials.lost(choice, purpose)
            self.found.tried.append((choice, self._seen[key]))
        if self._seen[key] > self._allowed:
            return False
        if self.found.choice is None or self._energy(choice) < self._energy(self.found.choice):
            self.found.choice = choice
        return True

    def _sensitivities(
        self,
        options: Mapping[str, Sequence[int]],
        errors: Mapping[str, Sequence[float]],
        alike: Sequence[float],
        measure: bool | None,
    ) -> dict[str, list[float]]:
        """What each layer loses alone on each candidate, >= 0."""
        pairs = sum(map(len, options.values()))
        room = self._trials.left - math.ceil(math.log2(pairs + 1)) - _KEPT
        if measure is None:
            measure = len(options) <= room
        self.found.measured = measure
        if not measure:
            sums = [sum(errors[layer][k] for layer in options) for k in range(len(self._names))]
            return {
                layer: [errors[layer][k] / (sums[k] or 1.0) * max(alike[k], 0.0) for k in range(len(self._names))]
                for layer in options
            }
        each = pairs <= room
        losses: dict[str, list[float]] = {}
        for layer, which in options.items():
            losses[layer] = [math.inf] * len(self._names)
            cheapest = self._most(layer, which, errors[layer])
            for k in which if each else [cheapest]:
                if self._trials.left:
                    losses[layer][k] = max(self._trials.lost_alone(layer, k), 0.0)
            for k in () if each else which:  # as much better or worse as everything on this candidate is
                share = alike[k] / alike[cheapest] if alike[cheapest] > 0 else 1.0
                losses[layer][k] = losses[layer][cheapest] * max(share, 0.0)
        return losses

    # ---------------------------------------------------------------------------------------------- what is tried

    def _bisect(self, steps: Sequence[Step]) -> None:
        """Find the longest beginning of the steps that holds, of those that take less energy than what holds now."""
        beginnings = list(_beginnings(steps))
        low, high = 0, len(beginnings)
        if self.found.choice is not None:
            least = self._energy(self.found.choice)
            while low < high - 1 and self._energy(beginnings[low]) >= least:
                low += 1
        while high - low > 1 and self._trials.left:
            middle = (low + high) // 2
            if self._holds(beginnings[middle], f"the first {middle} of the order"):
                low = middle
            else:
                high = middle

    def _exchanges(
        self, options: Mapping[str, Sequence[int]], losses: Mapping[str, Sequence[float]]
    ) -> Iterator[Choice]:
        """Assignments near the best one that take less energy, the most promising first."""
        now = self.found.choice or {}
        base = self._lost(now) if now else 0.0

        def change(layer: str, k: int | None) -> tuple[float, float]:
            """(joules saved more, lost more) if a layer goes over to a candidate."""
            before = now.get(layer)
            gain = (0.0 if k is None else self._saved[layer][k]) - (
                0.0 if before is None else self._saved[layer][before]
            )
            more = (0.0 if k is None else losses[layer][k]) - (0.0 if before is None else losses[layer][before])
            return gain, more

        moves = [
            (layer, k, *change(layer, k))
            for layer, which in options.items()
            for k in (None, *which)
            if k != now.get(layer)
        ]
        up = [move for move in moves if move[2] > 0]
        down = [move for move in moves if move[2] <= 0 or move[3] < 0]
        both = [(one, other) for one in up for other in down if one[0] != other[0]]
        found = []
        for group in [*((move,) for move in up), *both]:
            gain, predicted = sum(move[2] for move in group), base + sum(move[3] for move in group)
            if gain >= self._least_gain() and predicted <= _HOPELESS * self._allowed:
                hopeful = predicted <= self._allowed
                found.append((not hopeful, -gain if hopeful else predicted, group))
        for _, _, group in sorted(found, key=lambda entry: entry[:2]):
            moved = {move[0]: move[1] for move in group}
            choice = {layer: k for layer, k in {**now, **moved}.items() if k is not None}
            if choice and self._key(choice) not in self._seen and (not now or self._energy(choice) < self._energy(now)):
                yield choice


def greedy_steps(options: Mapping[str, Sequence[tuple[int, float, float]]]) -> list[Step]:
    """The steps from all digital to the largest saving, in order of what they lose for each joule.

    Args:
        options: of each layer, (number of the candidate, joules saved > 0, loss >= 0) for each candidate; one whose
            loss is infinite, because it is not known, is left out.

    Returns:
        The steps; those of one layer follow each other in this order, each saving more than the one before.

    Example:
        >>> steps = greedy_steps({"a": [(0, 2.0, 0.4), (1, 1.0, 0.0)], "b": [(0, 4.0, 0.1)]})
        >>> [(step.layer, step.candidate) for step in steps]
        [('a', 1), ('b', 0), ('a', 0)]
    """
    steps: list[Step] = []
    for layer, given in options.items():
        saved = lost = 0.0
        left = [option for option in given if math.isfinite(option[2])]
        while left := [option for option in left if option[1] > saved]:
            # the next corner of the hull: the least lost for each joule; of several the one that saves most
            k, j, loss = min(left, key=lambda option: (max(option[2] - lost, 0.0) / (option[1] - saved), -option[1]))
            steps.append(Step(layer, k, max(loss - lost, 0.0), j - saved))
            saved, lost = j, max(loss, lost)
    return sorted(steps, key=lambda step: (step.lost / step.saved_j, -step.saved_j))


def _beginnings(steps: Sequence[Step]) -> Iterator[Choice]:
    """The assignments after no step, one step, two, ..."""
    choice: Choice = {}
    yield dict(choice)
    for step in steps:
        choice[step.layer] = step.candidate
        yield dict(choice)
