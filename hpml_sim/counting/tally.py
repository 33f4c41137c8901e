"""Sums over all calls and passes, and the rows of the workload that they make for one inference."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from hpml_sim.counting.operation_counts import ADDITIVE, LayerCount


@dataclass
class _Tally:
    """Sums for one row of the workload over all calls and forward passes."""

    first: LayerCount
    sums: dict[str, float] = field(default_factory=dict)
    calls: float = 0.0
    steps: int = 0
    leading: list[float] = field(default_factory=lambda: [0.0, 0.0])
    binary: bool = True
    weighted: dict[str, float] = field(default_factory=dict)
    weight_count: int = 0

    def add(self, count: LayerCount, weights: int, scale: float, leading: tuple[int, int]) -> None:
        for name in ADDITIVE:
            self.sums[name] = self.sums.get(name, 0.0) + scale * getattr(count, name)
        self.weight_count += weights
        self.calls += count.calls
        self.steps += count.steps
        self.leading = [total + scale * new for total, new in zip(self.leading, leading, strict=True)]
        self.binary = self.binary and count.binary_input
        for name in ("active_fraction", "input_mean_square"):
            value = getattr(count, name)
            if value is not None:
                self.weighted[name] = self.weighted.get(name, 0.0) + scale * value * count.input_elements


class Tallies:
    """A tally for every layer and operation that ran."""

    def __init__(self) -> None:
        self.samples = 0
        self.passes = 0
        self.softmax_in: set[str] = set()
        """Modules in which a softmax ran: their products of two inputs are attention."""
        self._tallies: dict[tuple[Any, ...], _Tally] = {}

    def add(self, count: LayerCount, weights: int, scale: float, leading: tuple[int, int]) -> None:
        """One call.

        Args:
            count: what it did for all its samples.
            weights: stored parameters that no other row has.
            scale: how often it counts; see `Origins.share`.
            leading: the first size of its input, and the product of the first two.
        """
        key = (count.name, count.op, count.rows, count.cols, count.groups)
        self._tallies.setdefault(key, _Tally(count)).add(count, weights, scale, leading)

    def rows(self, *, measured: bool) -> list[LayerCount]:
        """The layers, for one inference; not `measured`: without what depends on the values of the input."""
        tallies = self._tallies.values()
        steps = max((t.steps // self.passes for t in tallies if t.first.op == "neuron"), default=1)
        rows = [self._row(tally, steps) for tally in tallies]
        return rows if measured else [_without_values(row) for row in rows]

    def _row(self, tally: _Tally, steps: int) -> LayerCount:
        first = tally.first
        sums: dict[str, Any] = {name: total / self.samples for name, total in tally.sums.items()}
        op = "attention" if first.op == "matmul" and first.name in self.softmax_in else first.op
        row = replace(
            first,
            op=op,
            **sums,
            calls=tally.calls / self.passes,
            weight_count=tally.weight_count,
            binary_input=tally.binary,
        )
        if op == "neuron":
            own = max(tally.steps // self.passes, 1)
            row = replace(row, steps=own, neurons=round(row.updates / own))
        elif steps > 1:
            # time is in the calls, folded into the batch, or a dimension before it; else this layer ran once for all
            row = replace(row, steps=steps if any(n == steps * self.samples for n in tally.leading) else 1)
        if seen := tally.sums["input_elements"]:
            means = {name: total / seen for name, total in tally.weighted.items()}
            row = replace(
                row, active_fraction=means["active_fraction"], input_mean_square=means.get("input_mean_square")
            )
        return row


def _without_values(row: LayerCount) -> LayerCount:
    return replace(
        row,
        sops=row.dense_sops,
        effective_macs=row.dense_sops,
        effective_acs=0.0,
        spikes=0.0,
        zero_outputs=0.0,
        binary_input=False,
        active_fraction=1.0,
        input_mean_square=None,
    )
