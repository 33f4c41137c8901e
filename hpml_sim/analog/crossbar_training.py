"""The product of one step of training on a CPU, in compiled passes with gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from hpml_sim.analog.converters import Converters
from hpml_sim.analog.devices import DeviceModel
from hpml_sim.analog.effective_weights import EffectiveWeights
from hpml_sim.analog.training_passes import noisy_tiles, product
from hpml_sim.conversion.tiling import Tiling
from hpml_sim.targets import Analog


class _Crossbar(Protocol):
    """What is used here of a `Crossbar`, whose file imports this one."""

    target: Analog
    tiling: Tiling
    training: bool
    training_noise: float | np.ndarray | None

    def has_noisy_tiles(self, weight: Tensor) -> bool: ...

    def limited(self, weight: Tensor, sigmas: float | None) -> tuple[Tensor, float]: ...

    def effective_weights(self, weight: Tensor) -> EffectiveWeights: ...

    @property
    def scales_vectors(self) -> bool: ...

    def converters(self) -> Converters: ...

    def seen_by_adc(self, x: Tensor, effective_weights: EffectiveWeights, y: Tensor) -> Tensor: ...

    def observe_output(self, y: Tensor) -> None: ...


def drop_connected(crossbar: _Crossbar, matrix: Tensor) -> Tensor:
    """The matrix with some weights taken as zero, in training.

    Args:
        crossbar: of the layer.
        matrix: any shape.
    """
    share = crossbar.target.drop_connect
    if not crossbar.training or share == 0:
        return matrix
    return matrix * (torch.rand(matrix.shape, dtype=matrix.dtype, device=matrix.device) >= share)


def noise_in_training(target: Analog, devices: Callable[[], DeviceModel]) -> float | np.ndarray | None:
    """Standard deviation of the weights' noise in training, in units of a column's full scale.

    Args:
        target: says which noise.
        devices: gives the devices of the card, where it is theirs.

    Returns:
        One for all weights, > 0; or a table over weights (`DeviceModel.programming_sigma`); None: there is no noise.
    """
    if target.training_noise != "programming":
        return target.training_noise or None
    table = devices().programming_sigma()
    return table if table.any() else None


def sigma_of_weights(noise: float | np.ndarray, weight: Tensor) -> float | Tensor:
    """Standard deviation of the noise of weights in training, in units of their column's full scale.

    Args:
        noise: one sigma for all, or a table over weights from -1 to 1 in equal steps.
        weight: in units of their column's full scale, any shape.

    Returns:
        The one sigma, or that of each weight; the descent does not follow it.
    """
    if not isinstance(noise, np.ndarray):
        return noise
    table, steps = torch.from_numpy(noise).to(weight), len(noise) // 2
    place = (weight.detach().clamp(-1, 1) + 1) * steps
    below = place.long().clamp(max=2 * steps - 1)
    return torch.lerp(table[below], table[below + 1], place - below)


def tiles_in_training(crossbar: _Crossbar, weight: Tensor) -> tuple[Tensor, Tensor]:
    """`Crossbar.effective_weights` of one step of training in a compiled pass, where `has_noisy_tiles`.

    Args:
        crossbar: of the layer.
        weight: the layer's weights, shape (groups * cols, rows).

    Returns:
        The tiles, shape (groups, row tiles, cols, height), and the full scale of each column.
    """
    target, tiling = crossbar.target, crossbar.tiling
    weight, limit = crossbar.limited(weight, target.weight_clip)
    shape = (tiling.groups, tiling.row_tiles, tiling.cols, tiling.height)
    matrix, scale = noisy_tiles(weight, limit, crossbar.training_noise, shape)
    return drop_connected(crossbar, matrix), scale


def product_in_training(
    crossbar: _Crossbar,
    x: Tensor,
    weight: Tensor,
    effective_weights: EffectiveWeights | None,
    places: int,
    *,
    learns: bool,
    shift: Tensor | None,
) -> Tensor:
    """Multiply vectors with the matrix, where `trains_in_one_pass`; as `Crossbar.forward`.

    Args:
        crossbar: of the layer.
        x: shape (groups, vectors, rows).
        weight: the layer's weights, shape (groups * cols, rows).
        effective_weights: the devices; None: those of this product alone.
        places: vectors of one sample that share a dynamic range.
        learns: whether the range of the ADC is observed.
        shift: what trains the input range, where it is trained.

    Returns:
        shape (groups, vectors, cols).
    """
    # without the axis of chips where it can be done without: each view is a step of the way back
    if effective_weights is None and crossbar.has_noisy_tiles(weight):
        matrix, scale = tiles_in_training(crossbar, weight)
    else:
        devices = crossbar.effective_weights(weight) if effective_weights is None else effective_weights
        matrix, scale = devices.matrix.squeeze(0), devices.scale.squeeze(-2).squeeze(0)
    converters, scaled = crossbar.converters(), crossbar.scales_vectors

    def watch(y: Tensor, unit: Tensor) -> None:
        of_columns = scale.unsqueeze(0).unsqueeze(-2)
        devices = EffectiveWeights(matrix.unsqueeze(0), of_columns, of_columns)
        drive = crossbar.tiling.cut_inputs(x / unit.unsqueeze(-1) if scaled else x).unsqueeze(0)
        products = y.unsqueeze(0) / (of_columns * converters.dac_gain)
        crossbar.observe_output(crossbar.seen_by_adc(drive.transpose(2, 3), devices, products))

    return product(
        x,
        matrix,
        scale,
        tiling=crossbar.tiling,
        converters=converters,
        places=places if scaled else 0,
        watch=watch if learns else None,
        log2_range=shift,
    )
