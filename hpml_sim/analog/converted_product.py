"""The product of vectors with a matrix through both converters, in one compiled pass without gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from hpml_sim.analog.converters import Converters
from hpml_sim.analog.effective_weights import EffectiveWeights
from hpml_sim.kernels.common.noise_keys import NoiseKeys
from hpml_sim.targets import Analog


class _Crossbar(Protocol):
    """What is used here of a `Crossbar`, whose file imports this one."""

    target: Analog

    def converters(self) -> Converters: ...


def converted_product(
    crossbar: _Crossbar,
    x: Tensor,
    unit: Tensor | None,
    effective_weights: EffectiveWeights,
    keys: Callable[[int], NoiseKeys],
) -> Tensor:
    """The products of chips.

    Args:
        crossbar: of the layer.
        x: shape (chips or 1, groups, vectors, row tiles, height).
        unit: what each vector is divided by before the DAC, shape (chips or 1, groups, vectors, 1); None: nothing.
        effective_weights: of these chips.
        keys: of the noise of each of these chips, counted from 0.

    Returns:
        Shape (chips, groups, vectors, cols).
    """
    from hpml_sim.kernels.crossbar_product import crossbar_product

    c = crossbar.converters()
    return crossbar_product(
        x,
        effective_weights.matrix,
        (effective_weights.scale * (c.dac_range * c.lsb)).squeeze(-2),
        dac_gain=c.dac_gain,
        dac_qmax=c.dac_qmax,
        adc_gain=c.adc_gain,
        adc_qmax=c.adc_qmax,
        unit=None if unit is None else unit.squeeze(-1),
        sigma=c.output_noise / c.lsb,
        keys=keys,
        slices=crossbar.target.slices,
    )
