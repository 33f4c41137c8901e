"""Spiking neurons as modules: time is folded into the batch, state lives inside one call."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from hpml_sim.errors import HpmlError, UnknownNameError
from hpml_sim.spiking import _snntorch


class InTime(nn.Module):
    """A module that knows how time is folded: (chips x steps x batch, ...), chips outermost, batch innermost.

    Attributes:
        steps: time steps. chips: simulated chips that run side by side.
    """

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


class LeakyNeurons(InTime):
    """Leaky integrate-and-fire neurons over all steps: snnTorch's `Leaky`, its equations in `kernels/lif.py`.

    (chips x steps x batch, ...) -> spikes of the same shape. Each call starts from membrane potential 0 and keeps
    nothing, so there is no state to reset, copy or mix up.

    Args:
        beta: decay of the membrane in one step, in [0, 1]; a number, or a tensor that broadcasts to one sample.
        threshold: firing threshold, > 0; likewise.
        reset: "subtract", "zero" or "none": what a spike does at the next step.
        surrogate, slope: gradient of the spike, "atan" (alpha) or "fast_sigmoid" (slope); None is snnTorch's default.
        steps, chips: how time is folded.
        engine: "fused" (our kernels) or "snntorch" (the genuine neuron, step by step); equal bit for bit.
        learn_beta, learn_threshold: make them parameters.

    Attributes:
        spike_count: spikes of the last call in evaluation mode, all chips, steps and samples together; None before.
        neurons: neurons of one sample in that call. samples: samples x chips in that call.

    Raises:
        HpmlError: beta outside [0, 1], threshold <= 0, steps < 1. UnknownNameError: reset, surrogate, engine.
    """

    beta: Tensor
    threshold: Tensor

    def __init__(
        self,
        beta: float | Tensor = 0.95,
        threshold: float | Tensor = 1.0,
        *,
        reset: Literal["subtract", "zero", "none"] = "subtract",
        surrogate: Literal["atan", "fast_sigmoid"] = "atan",
        slope: float | None = None,
        steps: int = 1,
        chips: int = 1,
        engine: Literal["fused", "snntorch"] = "fused",
        learn_beta: bool = False,
        learn_threshold: bool = False,
    ):
        super().__init__(steps, chips)
        for what, value, allowed in (
            ("reset", reset, ("subtract", "zero", "none")),
            ("surrogate", surrogate, ("atan", "fast_sigmoid")),
            ("engine", engine, ("fused", "snntorch")),
        ):
            if value not in allowed:
                raise UnknownNameError(what, value, allowed)
        decay = torch.as_tensor(beta, dtype=torch.get_default_dtype()) if not isinstance(beta, Tensor) else beta
        theta = torch.as_tensor(threshold, dtype=decay.dtype) if not isinstance(threshold, Tensor) else threshold
        if not bool(((decay >= 0) & (decay <= 1)).all()):
            raise HpmlError(f"LeakyNeurons: beta={beta!r} must lie in [0, 1]: the share of the membrane kept in a step")
        if not bool((theta > 0).all()):
            raise HpmlError(f"LeakyNeurons: threshold={threshold!r} must be > 0, or neurons fire without input")
        self._hold("beta", decay, learn_beta)
        self._hold("threshold", theta, learn_threshold)
        self.reset: Literal["subtract", "zero", "none"] = reset
        self.surrogate: Literal["atan", "fast_sigmoid"] = surrogate
        self.slope = slope
        self.engine = engine
        self.spike_count: int | None = None
        self.neurons = 0
        self.samples = 0

    def _hold(self, name: str, value: Tensor, learn: bool) -> None:
        value = value.detach().clone()
        if learn:
            self.register_parameter(name, nn.Parameter(value))
        else:
            self.register_buffer(name, value)

    def forward(self, x: Tensor) -> Tensor:
        """Spikes (0 or 1) of x's shape and dtype."""
        in_time = self.unfold(x)
        spikes = self.run(in_time)[0]
        if not self.training and not x.is_meta:
            self.spike_count = int(torch.count_nonzero(spikes))
            self.samples = in_time.shape[0] * in_time.shape[2]
            self.neurons = in_time[0, 0, 0].numel() if self.samples else 0
        return spikes.reshape(x.shape)

    def run(self, in_time: Tensor) -> tuple[Tensor, Tensor]:
        """Spikes and membrane potentials for currents (chips, steps, batch, ...), each of that shape."""
        if self.engine == "snntorch":
            return self._run_snntorch(in_time)
        from hpml_sim.kernels.lif import leaky

        return leaky(
            in_time,
            self.beta,
            self.threshold,
            reset=self.reset,
            surrogate=self.surrogate,
            slope=self.slope,
            time_dim=1,
        )

    def _run_snntorch(self, in_time: Tensor) -> tuple[Tensor, Tensor]:
        neuron = _snntorch.leaky(self.beta, self.threshold, self.reset, self.surrogate, self.slope)
        membrane = torch.zeros_like(in_time[:, 0])
        spikes, membranes = [], []
        for current in in_time.unbind(1):  # never in_time[:, t]: its backward makes time quadratic
            spike, membrane = neuron(current, membrane)
            spikes.append(spike.to(in_time.dtype))
            membranes.append(membrane)
        return torch.stack(spikes, dim=1), torch.stack(membranes, dim=1)

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        return f"steps={self.steps}, reset={self.reset!r}, surrogate={self.surrogate!r}, engine={self.engine!r}"


class DropoutInTime(InTime):
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
