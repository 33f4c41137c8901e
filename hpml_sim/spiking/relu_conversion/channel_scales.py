"""What one spike a step of a neuron stands for, and where its membrane starts: chosen for each channel on data."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from hpml_sim.errors import ConversionError
from hpml_sim.spiking.layer_kinds import RECTIFIERS

_SCALES = 30
"""Scales tried, from 0.1 to 1.2 times the largest activation of a channel."""
_STARTS = (0.5, 0.4, 0.6, 0.3, 0.7, 0.2, 0.8)
"""First membranes tried, as shares of the threshold: the middle first, so that it wins where all are alike."""
_VALUES = 4096
"""Activations of a channel that are looked at, at most."""
_SMALLEST = 0.02
"""Of the largest scale of a layer: a channel that was silent on the data must not spike at the least current."""


@dataclass(frozen=True)
class ChannelScale:
    """How the neurons in the place of a rectifier count.

    Attributes:
        scale: what 1 spike a step stands for, > 0, broadcasting to one sample.
        start: the first membrane as a share of the threshold, 0 to 1, of the same shape.
    """

    scale: Tensor
    start: Tensor

    def rates(self, currents: Tensor, steps: int) -> Tensor:
        """What neurons make of a constant current in so many steps, in the unit of the current.

        Args:
            currents: of each neuron, (batch, ...).
            steps: >= 1.
        """
        return _rates(currents, self.scale, self.start, steps)


@dataclass(frozen=True)
class Calibration:
    """What was chosen on data.

    Attributes:
        scales: of each rectifier, by its name.
        output_shift: what the outputs have lost on average, (outputs...): the network's less those with rates.
    """

    scales: dict[str, ChannelScale]
    output_shift: Tensor


@torch.no_grad()
def choose_scales(
    model: nn.Module, x: Tensor, steps: int, percentile: float | None, start: float | None
) -> Calibration:
    """The scale and the start of each channel of each rectifier.

    The network runs once. Each rectifier's choice is made on what it gives; then it gives rates of so many steps, so
    that the outputs show what is lost in all.

    Args:
        model: the ReLU network.
        x: inputs (batch, ...).
        steps: time steps of the spiking network, >= 1.
        percentile: of the positive activations of a channel, as its scale; None: the scale with the smallest error.
        start: first membranes as shares of the threshold; None: those with the smallest error.

    Raises:
        ConversionError: the network has no rectifier that runs.
    """
    rectifiers = {name: module for name, module in model.named_modules() if isinstance(module, RECTIFIERS)}
    rows = any(isinstance(module, (nn.Conv1d, nn.ConvTranspose1d)) for module in model.modules())
    chosen: dict[str, ChannelScale] = {}

    def note(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            if name in chosen:  # one module that runs twice has one scale
                return
            # of three dimensions (batch, channels, time) or (batch, tokens, features)
            axis = 1 if output.dim() != 3 or rows else 2
            found = _best(_some(output.movedim(axis, 0).flatten(1)), steps, percentile, start)
            shape = [1] * (output.dim() - 1)
            shape[axis - 1] = -1
            chosen[name] = ChannelScale(*(values.reshape(shape) for values in found))

        return hook

    def count(name: str) -> Any:
        return lambda _module, _inputs, output: chosen[name].rates(output, steps)

    want = _run_hooked(model, x, {module: note(name) for name, module in rectifiers.items()})
    if not chosen:
        raise ConversionError(f"calibrated: {type(model).__name__} has no nn.ReLU behind a layer with weights")
    got = _run_hooked(model, x, {rectifiers[name]: count(name) for name in chosen})
    return Calibration(chosen, (want - got).mean(0))


def _run_hooked(model: nn.Module, x: Tensor, hooks: dict[nn.Module, Any]) -> Tensor:
    handles = [module.register_forward_hook(hook) for module, hook in hooks.items()]
    try:
        return model(x)  # type: ignore[no-any-return]
    finally:
        for handle in handles:
            handle.remove()


def _best(wanted: Tensor, steps: int, percentile: float | None, start: float | None) -> tuple[Tensor, Tensor]:
    """Scale and start of each channel, (channels,): of those tried the pair with the smallest squared error.

    Args:
        wanted: activations of the ReLU network, (channels, values).
        steps: >= 1.
        percentile: see `choose_scales`.
        start: see `choose_scales`.
    """
    if percentile is None:
        scales = [share * wanted.amax(1) for share in torch.linspace(0.1, 1.2, _SCALES).tolist()]
    else:
        scales = [_percentile(wanted, percentile)]
    scales = [
        torch.maximum(scale, _SMALLEST * scale.max()).clamp(min=torch.finfo(scale.dtype).tiny) for scale in scales
    ]
    best, least = (scales[0], torch.full_like(scales[0], 0.5)), torch.full_like(scales[0], torch.inf)
    for scale, share in product(scales, _STARTS if start is None else (start,)):
        found = (_rates(wanted, scale[:, None], share, steps) - wanted).square().mean(1)
        better = found < least
        best = torch.where(better, scale, best[0]), torch.where(better, share, best[1])
        least = torch.minimum(least, found)
    return best


def _rates(currents: Tensor, scale: Tensor, start: Tensor | float, steps: int) -> Tensor:
    return (currents * (steps / scale) + start).floor().clamp(0, steps) * (scale / steps)


def _percentile(values: Tensor, percentile: float) -> Tensor:
    """Of the positive values of each channel; 0 where it has none."""
    positive = torch.where(values > 0, values, torch.nan).double()
    return torch.nan_to_num(torch.nanquantile(positive, percentile / 100, dim=1)).to(values.dtype)


def _some(values: Tensor) -> Tensor:
    """At most so many of each channel, drawn: at equal distances they could all lie in one column of an image."""
    count = values.shape[1]
    if count <= _VALUES:
        return values
    chosen = torch.randint(count, (_VALUES,), generator=torch.Generator().manual_seed(0))
    return values[:, chosen.to(values.device)]
