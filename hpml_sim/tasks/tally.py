"""What a metric has seen so far, batch by batch, and the score that it comes to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hpml_sim.conversion.network_call import map_tensors
from hpml_sim.errors import HpmlError, NotFiniteError
from hpml_sim.tasks.intervals import bootstrap
from hpml_sim.tasks.metric import Metric
from hpml_sim.tasks.score import Score

GROUPS = 1000
"""Groups of samples that the bootstrap draws from; up to so many samples, each is a group of its own."""
LEFT_OUT = 10
"""Groups of samples that are left out one at a time where torchmetrics measures: not all its states can be merged."""


class Tally:
    """One metric on one data set, for one network or for several chips.

    Args:
        metric: what is measured.
        chips: how many networks there are; 1 for a digital one.
        spread: whether the samples are kept apart in groups, which the interval of a single network needs.
    """

    def __init__(self, metric: Metric, chips: int = 1, *, spread: bool = True):
        self.metric = metric
        self.chips = chips
        self.samples = 0
        self._spread = spread and chips == 1
        self._sums: Tensor | None = None
        library = metric.from_torchmetrics
        self._states = [metric.accumulator() for _ in range(chips)] if library else None
        self._without = [metric.accumulator() for _ in range(LEFT_OUT)] if library and self._spread else []

    def add(self, outputs: Sequence[Tensor], labels: Any) -> None:
        """Take in a batch.

        Args:
            outputs: of each chip, (batch, ...).
            labels: of the batch.

        Raises:
            HpmlError: the metric's function fails, or gives something else than figures of samples.
        """
        count = len(outputs[0])
        try:
            if self._states is None:
                self._add_sums([self.metric.sums(one, labels) for one in outputs], count)
            else:
                self._update([one.cpu() for one in outputs], map_tensors(Tensor.cpu, labels))
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            if isinstance(error, HpmlError):
                raise
            shape = tuple(outputs[0].shape)
            raise HpmlError(
                f"metric {self.metric.name!r}: {type(error).__name__} on outputs {shape}: "
                f"{' '.join(str(error).split())[:200]}; give metrics that fit outputs and labels"
            ) from error
        self.samples += count

    def _add_sums(self, found: Sequence[Tensor], count: int) -> None:
        sums = torch.stack(list(found)).to("cpu")  # (chips, batch, parts)
        if self._sums is None:
            self._sums = torch.zeros(self.chips, GROUPS if self._spread else 1, sums.shape[-1], dtype=torch.float64)
        if not self._spread:
            self._sums[:, 0] += sums.sum(dim=1)
            return
        self._sums.index_add_(1, torch.arange(self.samples, self.samples + count) % GROUPS, sums)

    def _update(self, outputs: Sequence[Tensor], labels: Any) -> None:
        assert self._states is not None
        for state, one in zip(self._states, outputs, strict=True):
            state.update(one, labels)
        group = torch.arange(self.samples, self.samples + len(outputs[0])) % LEFT_OUT
        for number, state in enumerate(self._without):
            kept = group != number
            if bool(kept.any()):
                state.update(outputs[0][kept], map_tensors(lambda t, rows=kept: t[rows], labels))

    @property
    def sums(self) -> Tensor | None:
        """The sums over all samples, (chips, parts); None before the first batch, or where torchmetrics measures."""
        return None if self._sums is None else self._sums.sum(dim=1)

    def values(self, sums: Tensor | None = None) -> list[float]:
        """The metric of each chip over all samples so far.

        Args:
            sums: in the place of its own, such as those of all processes; None takes its own.

        Raises:
            HpmlError: torchmetrics cannot compute it.
        """
        if self._states is not None:
            return [float(state.compute()) for state in self._states]
        found = self.sums if sums is None else sums
        assert found is not None  # no data set is empty
        return [float(value) for value in self.metric.of_sums(found).reshape(-1)]

    def interval(self, values: Sequence[float]) -> tuple[float, float] | None:
        """The interval over samples of a single value; None for several, and where Wilson's holds.

        Args:
            values: of its chips.
        """
        if len(values) > 1 or self.metric.right_or_wrong:
            return None
        if self._states is not None:
            return self._finite(self._jackknife(values[0]), values[0])
        assert self._sums is not None
        sums = self._sums[0, : min(GROUPS, self.samples)]

        def of_draws(counts: np.ndarray) -> np.ndarray:
            return self.metric.of_sums(torch.from_numpy(counts).double() @ sums).numpy()

        return self._finite(bootstrap(len(sums), of_draws), values[0])

    @staticmethod
    def _finite(interval: tuple[float, float], value: float) -> tuple[float, float]:
        return interval if all(map(math.isfinite, interval)) else (value, value)

    def _jackknife(self, value: float) -> tuple[float, float]:
        """Interval from the values without a group at a time.

        Source: J. Shao, D. Tu, "The Jackknife and Bootstrap", 1995, section 2.3 (delete-a-group); Student's t with a
        degree of freedom less than there are groups.
        """
        from scipy.stats import t

        groups = min(LEFT_OUT, self.samples)
        if groups < 2:
            return value, value
        found = np.array([float(state.compute()) for state in self._without[:groups]])
        half = float(t.ppf(0.975, groups - 1)) * math.sqrt(
            (groups - 1) / groups * float(((found - found.mean()) ** 2).sum())
        )
        return value - half, value + half


def score_of(parts: Sequence[Tally], *, chips: bool = False) -> Score:
    """The score of a metric, of all chips.

    Args:
        parts: what some chips each came to, on the same samples; one for a network that is no chips.
        chips: whether the values are of programmed chips.

    Raises:
        NotFiniteError: the metric has no value on these data, such as R2 of labels that are all the same.
    """
    metric, samples = parts[0].metric, parts[0].samples
    values = [value for part in parts for value in part.values()]
    if not all(map(math.isfinite, values)):
        raise NotFiniteError(
            f"{metric.name} has no finite value on these {samples} samples: it is {values[0]:g}; the outputs are out "
            "of all bounds, or the labels lack what it needs (R2 needs labels that differ, F1 some of every class)"
        )
    return Score.of(
        values, samples, metric=metric.name, unit=metric.unit, higher_is_better=metric.higher_is_better,
        bounds=metric.limits, interval=parts[0].interval(values), chips=chips or len(values) > 1,
    )  # fmt: skip
