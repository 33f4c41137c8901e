"""The call of a crossbar product: what it takes, which implementation runs, and how many chips go at a time.

The CPU runs chip by chip: what lies between the two converters never leaves the cache, and nothing of the size of all
chips is allocated but the result. No gradients: training has passes of its own (`training.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hpml_sim.errors import HpmlError
from hpml_sim.kernels.common.engines import Engine, choose_engine
from hpml_sim.kernels.common.memory import BLOCKS
from hpml_sim.kernels.common.noise_keys import NoiseKeys
from hpml_sim.kernels.crossbar_product import cpu, reference

Normal = Callable[[int, Tensor], None]
"""(chip, buffer): fills the buffer (groups, tiles, vectors, slices * cols) with standard normal numbers."""
KeysOf = Callable[[int], NoiseKeys]
"""What numbers the noise of a chip."""

_TOGETHER = 1 << 17
"""Values before and after a product that are worked on together on a CPU: they should stay in the cache."""


def _implementation(engine: str) -> Any:
    """The module with `dac` and `adc` of an engine."""
    if engine == "torch":
        return reference
    if engine == "numba":
        return cpu
    from hpml_sim.kernels.crossbar_product import cuda  # here, because not everyone has numba-cuda

    return cuda


def crossbar_product(
    x: Tensor,
    matrix: Tensor,
    scale: Tensor,
    *,
    dac_gain: float,
    dac_qmax: int,
    adc_gain: float,
    adc_qmax: int,
    unit: Tensor | None = None,
    sigma: float = 0.0,
    normal: Normal | None = None,
    keys: KeysOf | None = None,
    slices: int = 1,
    engine: Engine = "auto",
) -> Tensor:
    """Products of many chips through their converters; the equations stand in `reference.py`.

    Args:
        x: inputs, floating point, shape (chips, groups, vectors, tiles, height), or (1, ...): the same for all chips.
        matrix: weights, shape (chips, groups, tiles, slices * cols, height).
        scale: what one code of each column counts, shape (chips, groups, tiles, slices * cols).
        dac_gain: codes of the DAC in one unit of x.
        dac_qmax: largest code of the DAC.
        adc_gain: codes of the ADC in one unit of y.
        adc_qmax: largest code of the ADC.
        unit: what each vector is divided by before the DAC and multiplied with after the ADC, of x's type, shape (chips
            or 1, groups, vectors); None: nothing.
        sigma: noise before the ADC, in codes.
        normal: draws the noise; it or `keys` is needed if sigma > 0.
        keys: numbers the noise of each chip, which the engine "numba" then draws by itself; the same numbers as
            `fill_noise` draws, and none of them in memory.
        slices: columns whose readings are added up for one output.
        engine: "torch" (anything), "numba" (CPU tensors, float32 and float64), "numba-cuda" (CUDA tensors, or CPU
            tensors on numba's simulator, float32 and float64), or "auto": numba on the CPU, torch elsewhere.

    Returns:
        A tensor of shape (chips, groups, vectors, cols).

    Raises:
        UnknownNameError: no engine has this name.
        HpmlError: shapes, types or the engine do not fit, or there is noise without `normal` and `keys`.
    """
    chips, groups, vectors, tiles, height = _checked(x, matrix, scale, slices)
    if unit is not None and unit.shape not in ((len(x), groups, vectors), (1, groups, vectors)):
        raise HpmlError(f"crossbar_product: unit {tuple(unit.shape)} must be ({len(x)}, {groups}, {vectors})")
    if sigma > 0 and normal is None and keys is None:
        raise HpmlError(
            f"crossbar_product: sigma={sigma!r} needs normal=, a function (chip, buffer) that draws the noise, or keys="
        )
    if engine == "auto" and x.device.type != "cpu":
        engine = "torch"
    implementation = _implementation(choose_engine("crossbar_product", x, engine))
    drawn_inside = sigma > 0 and keys is not None and implementation is cpu
    draw = normal if sigma > 0 and not drawn_inside else None
    if sigma > 0 and normal is None and not drawn_inside:
        raise HpmlError(f"crossbar_product: keys= is for the engine 'numba'; engine={engine!r} needs normal=")
    columns = matrix.shape[3]
    z = BLOCKS.empty((chips, groups, vectors, columns // slices), like=x)
    x, scale = x.detach().contiguous(), scale.detach().contiguous()
    # What lies between the converters should stay in the cache, and calls should not cost more than the work in them:
    # so large layers go chip by chip, and of small ones several chips together.
    budget = _TOGETHER if x.device.type == "cpu" else 128 * _TOGETHER
    together = max(1, min(chips, budget // max(1, groups * tiles * vectors * max(columns, height))))
    codes = torch.empty((together * groups, tiles, vectors, height), dtype=x.dtype, device=x.device)
    y = torch.empty((together * groups, tiles, vectors, columns), dtype=x.dtype, device=x.device)
    noise = torch.empty_like(y) if draw is not None else y
    shared = len(x) < chips  # the DAC of an input that is the same for all chips runs once
    if shared:
        implementation.dac(x[0], None if unit is None else unit[0], dac_gain, dac_qmax, codes[:groups])
        codes.unflatten(0, (together, groups))[1:] = codes[:groups]
    x, scale, z_groups = x.flatten(0, 1), scale.flatten(0, 1), z.flatten(0, 1)
    units = None if unit is None else unit.expand(chips, -1, -1).flatten(0, 1).contiguous()
    weights = matrix.detach().flatten(0, 2).mT
    for begin in range(0, chips, together):
        some = min(together, chips - begin)
        part = slice(begin * groups, (begin + some) * groups)
        c, w, n = codes[: some * groups], y[: some * groups], noise[: some * groups]
        u = None if units is None else units[part]
        if not shared:
            implementation.dac(x[part], u, dac_gain, dac_qmax, c)
        torch.bmm(c.flatten(0, 1), weights[part.start * tiles : part.stop * tiles], out=w.flatten(0, 1))
        if drawn_inside and keys is not None:
            numbers = [keys(chip) for chip in range(begin, begin + some)]
            cpu.adc_with_noise(w, numbers, sigma, adc_gain, adc_qmax, scale[part], u, z_groups[part])
            continue
        if draw is not None:
            for chip, buffer in enumerate(n.unflatten(0, (some, groups)), begin):
                draw(chip, buffer)
        implementation.adc(w, n, draw is not None, sigma, adc_gain, adc_qmax, scale[part], u, z_groups[part])
    return z


def _checked(x: Tensor, matrix: Tensor, scale: Tensor, slices: int) -> tuple[int, ...]:
    if x.dim() != 5 or matrix.dim() != 5 or scale.dim() != 4:
        raise HpmlError(
            f"crossbar_product: x {tuple(x.shape)}, matrix {tuple(matrix.shape)} and scale {tuple(scale.shape)} must "
            "have 5, 5 and 4 dimensions"
        )
    _, groups, vectors, tiles, height = x.shape
    chips, columns = matrix.shape[0], matrix.shape[3]
    if (
        len(x) not in (1, chips)
        or matrix.shape != (chips, groups, tiles, columns, height)
        or scale.shape != (chips, groups, tiles, columns)
    ):
        raise HpmlError(
            f"crossbar_product: x {tuple(x.shape)} needs a matrix ({len(x)}, {groups}, {tiles}, columns, {height}) and "
            f"a scale ({len(x)}, {groups}, {tiles}, columns), got {tuple(matrix.shape)} and {tuple(scale.shape)}"
        )
    if slices < 1 or columns % slices:
        raise HpmlError(f"crossbar_product: slices={slices} must divide the {columns} columns of the matrix")
    if not x.dtype == matrix.dtype == scale.dtype or not x.is_floating_point():
        raise HpmlError(
            f"crossbar_product: x, matrix and scale must have one floating type, got {x.dtype}, {matrix.dtype} and "
            f"{scale.dtype}"
        )
    return chips, groups, vectors, tiles, height
