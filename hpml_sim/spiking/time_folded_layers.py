"""Pools, batch norms and dropout that must know time: `nn` layers whose batch holds all steps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hpml_sim.conversion.modules import check_network
from hpml_sim.errors import check_real, check_switch
from hpml_sim.spiking.layer_state import StepState
from hpml_sim.spiking.time_folding import TimeFolded


class TimeFoldedMaxPool(TimeFolded):
    """A maximum of spike counts: at each step the largest count in the window so far, less that of the step before.

    Over all steps the output has as many spikes as the busiest input of the window. A maximum of the spikes of each
    step, a logical OR, has more: it suits networks trained as spiking ones, this one networks converted by rates.
    Where currents come in, their sums so far are compared.

    Source: B. Rueckauer et al., Front. Neurosci. 11:682 (2017), section 2.2 (the neuron that fires most passes).

    Args:
        pool: a max pooling layer.
        steps: time steps, >= 1.
        chips: simulated chips that lie side by side in the batch, >= 1.

    Raises:
        HpmlError: `pool` is no module, or steps or chips are no whole numbers >= 1.

    Example:
        >>> import torch, hpml_sim as hs
        >>> pool = hs.spiking.TimeFoldedMaxPool(torch.nn.MaxPool1d(2), steps=4)
        >>> spikes = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0]])  # (steps, 2): 3 spikes and 1
        >>> pool(spikes.unsqueeze(1)).flatten().tolist()  # 3 spikes pass; an OR gives 4
        [1.0, 0.0, 1.0, 1.0]
    """

    def __init__(self, pool: nn.Module, *, steps: int = 1, chips: int = 1):
        super().__init__(steps, chips)
        self.pool = check_network("TimeFoldedMaxPool: pool", pool)

    def forward(self, x: Tensor) -> Tensor:
        """The pooled spikes.

        Args:
            x: spikes (chips x steps x batch, ...).

        Returns:
            The pooled shape, the same steps in front.
        """
        unfolded = self.unfold(x)
        start = None if self.layer_state is None else self.layer_state.initial(unfolded[:, 0])
        before = torch.zeros_like(unfolded[:, 0]) if start is None else start[0]
        counts = torch.cat([before.unsqueeze(1), unfolded], dim=1).cumsum(dim=1)
        if self.layer_state is not None:
            self.layer_state.store((counts[:, -1],))
        largest = self.pool(counts.flatten(0, 2))
        largest = largest.unflatten(0, (self.chips, self.steps + 1, unfolded.shape[2]))
        return largest.diff(dim=1).flatten(0, 2)


class TimeFoldedMean(TimeFolded):
    """A layer that sees the mean of its inputs so far: its outputs add up to steps x what it gives for their mean.

        y[t] = t f(m[t]) - (t - 1) f(m[t - 1]),  m[t] the mean of the first t inputs

    For layers whose output is not proportional to their input, such as attention and layer norms, in networks converted
    by rates: what they make of the spikes of one step says nothing about the rates.

    Source: Z. Huang et al., "Towards high-performance spiking transformers from ANN to SNN conversion", ACM Multimedia
    2024 (expectation compensation).

    Args:
        layer: takes (batch, ...) of one or several tensors; of a tuple that it gives the first tensor counts.
        steps: time steps, >= 1.
        chips: simulated chips that lie side by side in the batch, >= 1.

    Raises:
        HpmlError: `layer` is no module, or steps or chips are no whole numbers >= 1.

    Example:
        >>> import torch, hpml_sim as hs
        >>> norm = hs.spiking.TimeFoldedMean(torch.nn.LayerNorm(3), steps=4)
        >>> spikes = (torch.rand(4, 3) < 0.5).float()  # (steps x batch, features)
        >>> torch.allclose(norm(spikes).mean(0), torch.nn.LayerNorm(3)(spikes.mean(0)), atol=1e-5)
        True
    """

    def __init__(self, layer: nn.Module, *, steps: int = 1, chips: int = 1):
        super().__init__(steps, chips)
        self.layer = check_network("TimeFoldedMean: layer", layer)

    def forward(self, *inputs: Tensor, **options: Any) -> Any:
        """What the layer gives, steps in front.

        Args:
            inputs: of the layer, each (chips x steps x batch, ...).
            options: of the layer, the same at every step.
        """
        unfolded = [self.unfold(x) for x in inputs]
        like = unfolded[0][:, 0]
        start = None if self.layer_state is None else self.layer_state.initial(like)
        *before, count = start if start is not None else (*(x.new_zeros(x[:, 0].shape) for x in unfolded), 0 * like)
        sums = [torch.cat([b.unsqueeze(1), x], 1).cumsum(1) for b, x in zip(before, unfolded, strict=True)]
        if self.layer_state is not None:
            self.layer_state.store((*(total[:, -1] for total in sums), count + self.steps))
        first = float(count.flatten()[0]) if count.numel() else 0.0
        steps = torch.arange(self.steps + 1, device=like.device, dtype=like.dtype) + first

        def by_step(values: Tensor) -> Tensor:
            return steps.reshape(1, -1, *[1] * (values.dim() - 2))

        means = [(total / by_step(total).clamp(min=1)).flatten(0, 2) for total in sums]
        given = self.layer(*means, **options)
        value = given if isinstance(given, Tensor) else given[0]
        value = value.unflatten(0, (self.chips, self.steps + 1, like.shape[1]))
        value = (value * by_step(value)).diff(dim=1).flatten(0, 2)
        return value if isinstance(given, Tensor) else (value, None)


class TimeFoldedBatchNorm(TimeFolded):
    """A batch norm that sees one step after the other in training, as in a loop over time.

    Its statistics are those of each step, not of all steps together, and its running statistics move once a step.

    Args:
        norm: the batch norm.
        steps: time steps, >= 1.
        chips: simulated chips that lie side by side in the batch, >= 1.

    Raises:
        HpmlError: `norm` is no module, or steps or chips are no whole numbers >= 1.

    Example:
        >>> import torch, hpml_sim as hs
        >>> norm = hs.spiking.TimeFoldedBatchNorm(torch.nn.BatchNorm1d(3), steps=4)
        >>> norm(torch.rand(4 * 8, 3)).shape
        torch.Size([32, 3])
        >>> int(norm.norm.num_batches_tracked)
        4
    """

    def __init__(self, norm: nn.Module, *, steps: int = 1, chips: int = 1):
        super().__init__(steps, chips)
        self.norm = check_network("TimeFoldedBatchNorm: norm", norm)

    @property
    def uses_batch_statistics(self) -> bool:
        """Whether what it does depends on which samples it sees together, so that steps must stay apart."""
        return self.training or getattr(self.norm, "running_mean", self.norm) is None

    def forward(self, x: Tensor) -> Tensor:
        """The normalized values; the shape stays.

        Args:
            x: (chips x steps x batch, ...).
        """
        if not self.uses_batch_statistics:
            return self.norm(x)
        steps = [self.norm(step.flatten(0, 1)) for step in self.unfold(x).unbind(1)]
        return torch.stack([step.unflatten(0, (self.chips, -1)) for step in steps], 1).flatten(0, 2)


class TimeFoldedDropout(TimeFolded):
    """Dropout with one mask a sample for all steps, so that a dropped neuron is silent throughout.

    A new mask at each step would drop a neuron for a moment only, which dropout before conversion never did.

    Args:
        p: probability of dropping, 0 to 1.
        channels: drop whole channels, as `Dropout2d` does.
        steps: time steps, >= 1.
        chips: simulated chips that lie side by side in the batch, >= 1.

    Raises:
        HpmlError: p outside [0, 1], or steps or chips are no whole numbers >= 1.

    Example:
        >>> import torch, hpml_sim as hs
        >>> drop = hs.spiking.TimeFoldedDropout(0.5, steps=10)
        >>> masks = drop(torch.ones(10 * 4, 7)).reshape(10, 4, 7)
        >>> bool((masks == masks[0]).all())  # the same at every step
        True
    """

    def __init__(self, p: float, *, channels: bool = False, steps: int = 1, chips: int = 1):
        super().__init__(steps, chips)
        self.p = check_real("TimeFoldedDropout: p", p, low=0, high=1)
        self.channels = check_switch("TimeFoldedDropout: channels", channels)

    def forward(self, x: Tensor) -> Tensor:
        """The values that are left, scaled by 1 / (1 - p); the values themselves in evaluation mode.

        Args:
            x: (chips x steps x batch, ...); the shape stays.
        """
        if not self.training or self.p == 0:
            return x
        unfolded = self.unfold(x)
        shape = list(unfolded.shape)
        shape[1] = 1
        if self.channels:
            shape[4:] = [1] * len(shape[4:])
        mask = torch.nn.functional.dropout(torch.ones(shape, dtype=x.dtype, device=x.device), self.p)
        if isinstance(self.layer_state, StepState):  # in a loop over the steps, the first one draws for all
            kept = self.layer_state.initial(unfolded[:, 0])
            mask = mask.expand_as(unfolded) if kept is None else kept[0].unsqueeze(1)
            self.layer_state.store((mask[:, 0],))
        return (unfolded * mask).reshape(x.shape)

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        return f"p={self.p}, channels={self.channels}, steps={self.steps}"
