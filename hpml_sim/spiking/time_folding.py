"""Modules that know how time is folded into the batch: what neurons, encoders, pooling and dropout in time share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from hpml_sim.conversion.chips_in_batch import ChipsInBatch
from hpml_sim.errors import HpmlError

if TYPE_CHECKING:
    from hpml_sim.spiking.state import Carry


class TimeFolded(ChipsInBatch):
    """A module that knows how time is folded: (chips x steps x batch, ...), chips outermost, batch innermost.

    Attributes:
        steps: time steps. chips: simulated chips that run side by side.
        carry: set by `state.py` for the length of a call whose states come from an earlier one; otherwise None.
    """

    carry: Carry | None = None

    def __init__(self, steps: int = 1, chips: int = 1):
        super().__init__()
        for name, value in (("steps", steps), ("chips", chips)):
            if value < 1:
                raise HpmlError(f"{type(self).__name__}: {name}={value!r} must be >= 1")
        self.steps = steps
        self.chips = chips

    def unfold(self, x: Tensor) -> Tensor:
        """(chips x steps x batch, ...) -> (chips, steps, batch, ...)."""
        if x.dim() < 1 or x.shape[0] % (self.chips * self.steps):
            raise HpmlError(
                f"{type(self).__name__}: input of shape {tuple(x.shape)} does not hold {self.steps} steps of "
                f"{self.chips} chip(s) in its first dimension; a layer before it must have changed the batch"
            )
        return x.reshape(self.chips, self.steps, x.shape[0] // (self.chips * self.steps), *x.shape[1:])


class TimeFoldedMaxPool(TimeFolded):
    """A maximum of spike counts: at each step the largest count in the window so far, less that of the step before.

    Over all steps the output has as many spikes as the busiest input of the window, which a maximum of the spikes of
    each step, a logical OR, exceeds: that one suits networks trained as spiking ones, this one rates. Currents are
    summed up alike.

    Source: B. Rueckauer et al., Front. Neurosci. 11:682 (2017), section 2.2 (the pass of the neuron that fires most).

    Args:
        pool: a max pooling layer. steps, chips: how time is folded.
    """

    def __init__(self, pool: nn.Module, *, steps: int = 1, chips: int = 1):
        super().__init__(steps, chips)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        """(chips x steps x batch, ...) -> the pooled shape, the same steps in front."""
        in_time = self.unfold(x)
        start = None if self.carry is None else self.carry.start(in_time[:, 0])
        before = torch.zeros_like(in_time[:, 0]) if start is None else start[0]
        counts = torch.cat([before.unsqueeze(1), in_time], dim=1).cumsum(dim=1)
        if self.carry is not None:
            self.carry.keep((counts[:, -1],))
        largest = self.pool(counts.flatten(0, 2))
        largest = largest.unflatten(0, (self.chips, self.steps + 1, in_time.shape[2]))
        return largest.diff(dim=1).flatten(0, 2)


class TimeFoldedBatchNorm(TimeFolded):
    """A batch norm that sees one step after the other in training, as in a loop over time: statistics of each step.

    Args:
        norm: the batch norm. steps, chips: how time is folded.
    """

    def __init__(self, norm: nn.Module, *, steps: int = 1, chips: int = 1):
        super().__init__(steps, chips)
        self.norm = norm

    @property
    def by_step(self) -> bool:
        """Whether what it does depends on which samples it sees together."""
        return self.training or getattr(self.norm, "running_mean", self.norm) is None

    def forward(self, x: Tensor) -> Tensor:
        """The shape stays."""
        if not self.by_step:
            return self.norm(x)
        steps = [self.norm(step.flatten(0, 1)) for step in self.unfold(x).unbind(1)]
        return torch.stack([step.unflatten(0, (self.chips, -1)) for step in steps], 1).flatten(0, 2)


class TimeFoldedDropout(TimeFolded):
    """Dropout with one mask a sample for all steps, so that a dropped neuron is silent throughout, as in a real pass.

    Args:
        p: probability of dropping, in [0, 1). channels: drop whole channels (as `Dropout2d` does).
    """

    def __init__(self, p: float, *, channels: bool = False, steps: int = 1, chips: int = 1):
        super().__init__(steps, chips)
        self.p = p
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        """The shape stays; identity in evaluation mode."""
        if not self.training or self.p == 0:
            return x
        in_time = self.unfold(x)
        shape = list(in_time.shape)
        shape[1] = 1
        if self.channels:
            shape[4:] = [1] * len(shape[4:])
        mask = torch.nn.functional.dropout(torch.ones(shape, dtype=x.dtype, device=x.device), self.p)
        return (in_time * mask).reshape(x.shape)

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        return f"p={self.p}, channels={self.channels}, steps={self.steps}"
