r"""Analog matrix-vector products of many chips in one pass: torch reference, numba CPU, numba-CUDA.

For each chip and group, with vectors v, row tiles t, slices s, rows i of a tile and columns j:

    c[t,v,i]   = clip(round(x[t,v,i] * dac_gain), -dac_top, dac_top)
    y[t,v,sj]  = sum over i of c[t,v,i] * matrix[t,sj,i]
    k[t,v,sj]  = clip(round(y[t,v,sj] * adc_gain + sigma * normal[t,v,sj]), -adc_top, adc_top)
    z[v,j]     = sum over t, then s, of k[t,v,sj] * scale[t,sj]

Every product and sum but those of y is rounded on its own, in the order written (no fused multiply-add; halves round to
even), so that for equal y the three engines give the same bits. y comes from the BLAS of the device, which chooses its
own order: there, a result may differ in the last bit, and a code of the ADC by one where y falls between two.

The CPU runs chip by chip: what lies between the two converters never leaves the cache, and nothing of the size of all
chips is allocated but the result. No gradients; `hpml_sim.analog.converters` has those.

Source: the forward pass of aihwkit (`rpu_forward_backward_pass.cpp`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from hpml_sim.errors import HpmlError, UnknownNameError
from hpml_sim.kernels._memory import BLOCKS
from hpml_sim.kernels._threads import allow_threads
from hpml_sim.kernels.normal import fill_normal

Engine = Literal["auto", "torch", "numba", "numba-cuda"]
ENGINES = ("auto", "torch", "numba", "numba-cuda")
Normal = Callable[[int, Tensor], None]
"""(chip, buffer): fills the buffer (groups, tiles, vectors, slices * cols) with standard normal numbers."""


def mvm(
    x: Tensor,
    matrix: Tensor,
    scale: Tensor,
    *,
    dac_gain: float,
    dac_qmax: int,
    adc_gain: float,
    adc_qmax: int,
    sigma: float = 0.0,
    normal: Normal | None = None,
    slices: int = 1,
    engine: Engine = "auto",
) -> Tensor:
    """Products of many chips through their converters; the equations stand above.

    Args:
        x: inputs, float32 or float64, shape (chips, groups, vectors, tiles, height).
        matrix: weights, shape (chips, groups, tiles, slices * cols, height).
        scale: what one code of each column counts, shape (chips, groups, tiles, slices * cols).
        dac_gain, adc_gain: codes in one unit of x, and of y. dac_top, adc_top: largest code.
        sigma: noise before the ADC, in codes.
        normal: draws the noise; needed if sigma > 0.
        slices: columns whose readings are added up for one output.
        engine: "torch", "numba" (CPU tensors), "numba-cuda" (CUDA tensors, or CPU tensors on numba's simulator), or
            "auto": numba on the CPU, torch elsewhere.

    Returns:
        shape (chips, groups, vectors, cols).

    Raises:
        UnknownNameError: no such engine. HpmlError: shapes or types that do not fit, or noise without `normal`.
    """
    if engine not in ENGINES:
        raise UnknownNameError("engine", engine, ENGINES)
    chips, groups, vectors, tiles, height = _checked(x, matrix, scale, slices)
    if sigma > 0 and normal is None:
        raise HpmlError(f"mvm: sigma={sigma!r} needs normal=, a function (chip, buffer) that draws the noise")
    if engine == "auto":
        fits = x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)
        engine = "numba" if fits else "torch"
    if engine != "torch" and x.dtype not in (torch.float32, torch.float64):
        raise HpmlError(f"mvm: engine={engine!r} does not take {x.dtype}; it must be float32 or float64")
    draw = normal if sigma > 0 else None
    columns = matrix.shape[3]
    z = BLOCKS.empty((chips, groups, vectors, columns // slices), like=x)
    x, scale = x.detach().contiguous(), scale.detach().contiguous()
    # small layers take several chips at a time, so that calls do not cost more than the work in them
    budget = _TOGETHER if x.device.type == "cpu" else 128 * _TOGETHER
    together = max(1, min(chips, budget // max(1, groups * tiles * vectors * max(columns, height))))
    codes = torch.empty((together * groups, tiles, vectors, height), dtype=x.dtype, device=x.device)
    y = torch.empty((together * groups, tiles, vectors, columns), dtype=x.dtype, device=x.device)
    noise = torch.empty_like(y) if draw is not None else y
    x, scale, z_groups = x.flatten(0, 1), scale.flatten(0, 1), z.flatten(0, 1)
    weights = matrix.detach().flatten(0, 2).mT
    dac, adc = _converters(engine, x)
    for begin in range(0, chips, together):
        some = min(together, chips - begin)
        part = slice(begin * groups, (begin + some) * groups)
        c, w, n = codes[: some * groups], y[: some * groups], noise[: some * groups]
        dac(x[part], dac_gain, dac_qmax, c)
        torch.bmm(c.flatten(0, 1), weights[part.start * tiles : part.stop * tiles], out=w.flatten(0, 1))
        if draw is not None:
            for chip, buffer in enumerate(n.unflatten(0, (some, groups)), begin):
                draw(chip, buffer)
        adc(w, n, draw is not None, sigma, adc_gain, adc_qmax, scale[part], z_groups[part])
    return z


_TOGETHER = 1 << 17
"""Values before and after a product that are worked on together on a CPU: they should stay in the cache."""


def _checked(x: Tensor, matrix: Tensor, scale: Tensor, slices: int) -> tuple[int, ...]:
    if x.dim() != 5 or matrix.dim() != 5 or scale.dim() != 4:
        raise HpmlError(
            f"mvm: x {tuple(x.shape)}, matrix {tuple(matrix.shape)} and scale {tuple(scale.shape)} must have 5, 5 and "
            "4 dimensions"
        )
    chips, groups, vectors, tiles, height = x.shape
    columns = matrix.shape[3]
    if matrix.shape != (chips, groups, tiles, columns, height) or scale.shape != (chips, groups, tiles, columns):
        raise HpmlError(
            f"mvm: x {tuple(x.shape)} needs a matrix ({chips}, {groups}, {tiles}, columns, {height}) and a scale "
            f"({chips}, {groups}, {tiles}, columns), got {tuple(matrix.shape)} and {tuple(scale.shape)}"
        )
    if slices < 1 or columns % slices:
        raise HpmlError(f"mvm: slices={slices} must divide the {columns} columns of the matrix")
    if not x.dtype == matrix.dtype == scale.dtype or not x.is_floating_point():
        raise HpmlError(
            f"mvm: x, matrix and scale must have one floating type, got {x.dtype}, {matrix.dtype} and {scale.dtype}"
        )
    return chips, groups, vectors, tiles, height


def _converters(engine: str, x: Tensor) -> tuple[Callable[..., None], Callable[..., None]]:
    if engine == "torch":
        return _torch_dac, _torch_adc
    if engine == "numba":
        if x.device.type != "cpu":
            raise HpmlError(f"mvm: engine='numba' runs on the CPU, the input lies on {x.device}")
        return _numba_dac, _numba_adc
    from hpml_sim.kernels import _cuda, mvm_cuda

    if x.device.type != "cuda" and not _cuda.SIMULATED:
        raise HpmlError(
            f"mvm: engine='numba-cuda' needs a CUDA tensor, the input lies on {x.device}; move it with .cuda(), or set "
            "NUMBA_ENABLE_CUDASIM=1 before Python starts to run the kernel in numba's simulator"
        )
    return mvm_cuda.dac, mvm_cuda.adc


# ------------------------------------------------------------------------------------------------------ torch reference


def _torch_dac(x: Tensor, gain: float, top: int, codes: Tensor) -> None:
    codes.copy_((x * gain).round_().clamp_(-top, top).transpose(1, 2))


def _torch_adc(
    y: Tensor, noise: Tensor, noisy: bool, sigma: float, gain: float, top: int, scale: Tensor, z: Tensor
) -> None:
    k = y * gain
    if noisy:
        k += noise * sigma
    k = k.round_().clamp_(-top, top) * scale.unsqueeze(-2)
    z.zero_()
    for tile in k.unbind(1):
        for part in tile.split(z.shape[-1], -1):
            z += part


# ----------------------------------------------------------------------------------------------------------- numba CPU
#
# The inner loops run over numbers that lie one behind the other, write one vector, and hold no branch but selections,
# so that the compiler uses vector instructions (numpy.rint rounds halves to even). Scalars have the data's type, or
# numba would compute in float64. The selections let NaN pass, as torch's clamp does.


@njit(cache=True, nogil=True, error_model="numpy")
def _dac_vector(x, gain, top, g, v, codes):
    for t in range(x.shape[2]):
        source, out = x[g, v, t], codes[g, t, v]
        for i in range(source.size):
            k = np.rint(source[i] * gain)
            k = top if k > top else k
            out[i] = -top if k < -top else k


@njit(cache=True, nogil=True, error_model="numpy")
def _adc_vector(y, noise, noisy, sigma, gain, top, scale, g, v, z):
    out = z[g, v]
    for j in range(out.size):
        out[j] = 0
    for t in range(y.shape[1]):
        for low in range(0, y.shape[3], out.size):
            read, drawn = y[g, t, v, low : low + out.size], noise[g, t, v, low : low + out.size]
            count = scale[g, t, low : low + out.size]
            if noisy:
                for j in range(out.size):
                    k = np.rint(read[j] * gain + drawn[j] * sigma)
                    k = top if k > top else k
                    k = -top if k < -top else k
                    out[j] += k * count[j]
            else:
                for j in range(out.size):
                    k = np.rint(read[j] * gain)
                    k = top if k > top else k
                    k = -top if k < -top else k
                    out[j] += k * count[j]


@njit(cache=True, nogil=True)
def _dac_serial(x, gain, top, codes):
    for g in range(x.shape[0]):
        for v in range(x.shape[1]):
            _dac_vector(x, gain, top, g, v, codes)


@njit(cache=True, nogil=True, parallel=True)
def _dac_parallel(x, gain, top, codes):
    vectors = x.shape[1]
    for job in prange(x.shape[0] * vectors):
        g = job // vectors
        _dac_vector(x, gain, top, g, job - g * vectors, codes)


@njit(cache=True, nogil=True)
def _adc_serial(y, noise, noisy, sigma, gain, top, scale, z):
    for g in range(z.shape[0]):
        for v in range(z.shape[1]):
            _adc_vector(y, noise, noisy, sigma, gain, top, scale, g, v, z)


@njit(cache=True, nogil=True, parallel=True)
def _adc_parallel(y, noise, noisy, sigma, gain, top, scale, z):
    vectors = z.shape[1]
    for job in prange(z.shape[0] * vectors):
        g = job // vectors
        _adc_vector(y, noise, noisy, sigma, gain, top, scale, g, job - g * vectors, z)


def _numba_dac(x: Tensor, gain: float, top: int, codes: Tensor) -> None:
    array = x.numpy()
    real = array.dtype.type
    run = _dac_parallel if allow_threads(x.numel()) > 1 else _dac_serial
    run(array, real(gain), real(top), codes.numpy())


def _numba_adc(
    y: Tensor, noise: Tensor, noisy: bool, sigma: float, gain: float, top: int, scale: Tensor, z: Tensor
) -> None:
    array = y.numpy()
    real = array.dtype.type
    run = _adc_parallel if allow_threads(y.numel()) > 1 else _adc_serial
    run(array, noise.numpy(), noisy, real(sigma), real(gain), real(top), scale.numpy(), z.numpy())


@njit(cache=True, nogil=True, error_model="numpy")
def _readout(weight, normal, sigma, gain, top, used, total):
    """Sums of whole numbers where there is an ADC: their order changes no bit."""
    for g in range(weight.shape[0]):
        for t in range(weight.shape[1]):
            for c in range(weight.shape[2]):
                w, xi = weight[g, t, c, : used[t]], normal[g, t, c, : used[t]]
                if top == 0:
                    value = 0.0
                    for i in range(w.size):
                        value += abs(np.float64(w[i] + xi[i] * sigma)) * gain
                    total[g, t, c] = value
                else:
                    count = np.int64(0)
                    for i in range(w.size):
                        k = np.rint((w[i] + xi[i] * sigma) * gain)
                        k = top if k > top else k
                        k = -top if k < -top else k
                        count += np.int64(abs(k))
                    total[g, t, c] = count


def readout(weight: Tensor, seed: int, *, sigma: float, gain: float, top: int, used: list[int]) -> Tensor:
    """What the ADCs say, in magnitude and summed over the rows, when each row in turn gets a full-scale input.

    Args:
        weight: of one chip, in units of the column's full scale, float32 on the CPU, (groups, tiles, cols, height).
        seed: of the noise.
        sigma: noise before the ADC, in units of a full-scale weight.
        gain: codes in one such unit; top: the largest code, 0: an ideal converter.
        used: rows of each tile that are in use.

    Returns:
        codes, shape (groups, tiles, cols), float32.
    """
    normal = torch.empty_like(weight)
    fill_normal(normal, seed)
    f = np.float32
    total = torch.empty(weight.shape[:-1], dtype=torch.float32)
    _readout(weight.numpy(), normal.numpy(), f(sigma), f(gain), f(top), np.array(used), total.numpy())
    return total


# ------------------------------------------------------------------------ numba CPU: the passes of training


@njit(cache=True, nogil=True, error_model="numpy")
def _tile_row(weight, limit, rel, normal, noisy, g, c, matrix, scale, lanes):
    row, height = weight[g * matrix.shape[2] + c], matrix.shape[3]
    for t in range(matrix.shape[1]):
        out = matrix[g, t, c]
        used = min(height, row.size - t * height)
        source = row[t * height : t * height + used]
        for i in range(used):
            w = source[i]
            w = limit if w > limit else w
            out[i] = -limit if w < -limit else w
        # one maximum for each place of a vector: a single one would be found number by number
        lanes[:] = 0
        whole = used - used % lanes.size
        for begin in range(0, whole, lanes.size):
            part = out[begin : begin + lanes.size]
            for i in range(lanes.size):
                lanes[i] = abs(part[i]) if abs(part[i]) > lanes[i] else lanes[i]
        largest = lanes.max()
        for i in range(whole, used):
            largest = max(largest, abs(out[i]))
        largest = largest if largest > 0 else weight.dtype.type(1)
        scale[g, t, c] = largest
        for i in range(used, height):
            out[i] = 0
        if noisy:
            sigma, drawn = rel * largest, normal[g, t, c]
            for i in range(height):
                out[i] += sigma * drawn[i]


@njit(cache=True, nogil=True)
def noisy_tiles(weight, limit, rel, normal, noisy, matrix, scale):
    """Clip a matrix, cut it into tiles, find each column's full scale, and add noise in units of it.

    Args:
        weight: (groups * cols, rows). limit: clip to [-limit, limit]. rel: noise, in units of a column's full scale.
        normal: standard normal numbers, as `matrix`; not read if not `noisy`.
        matrix: result, (groups, tiles, cols, height), zero-padded. scale: result, (groups, tiles, cols); 1 where all
            weights of a column are 0.
    """
    lanes = np.empty(32, weight.dtype)
    for g in range(matrix.shape[0]):
        for c in range(matrix.shape[2]):
            _tile_row(weight, limit, rel, normal, noisy, g, c, matrix, scale, lanes)


@njit(cache=True, nogil=True, error_model="numpy")
def _moments(flat):
    total, squares = np.zeros(32), np.zeros(32)
    whole = flat.size - flat.size % 32
    for begin in range(0, whole, 32):
        part = flat[begin : begin + 32]
        for i in range(32):
            total[i] += np.float64(part[i])
        for i in range(32):
            squares[i] += np.float64(part[i]) * np.float64(part[i])
    for i in range(whole, flat.size):
        total[0] += np.float64(flat[i])
        squares[0] += np.float64(flat[i]) * np.float64(flat[i])
    mean = total.sum() / flat.size
    return max(squares.sum() / flat.size - mean * mean, 0.0)


def spread(weight: Tensor) -> float:
    """Standard deviation of all numbers of a tensor on the CPU, accumulated in float64."""
    return math.sqrt(_moments(weight.detach().contiguous().view(-1).numpy()))


@njit(cache=True, nogil=True, error_model="numpy")
def tiles_backward(grad, weight, limit, result):
    """Gradient of the weights (groups * cols, rows) from that of their tiles (groups, tiles, cols, height).

    0 where a descent step would push a clipped weight further out.
    """
    zero = weight.dtype.type(0)
    height = grad.shape[3]
    for g in range(grad.shape[0]):
        for c in range(grad.shape[2]):
            row, out = weight[g * grad.shape[2] + c], result[g * grad.shape[2] + c]
            for t in range(grad.shape[1]):
                used = min(height, row.size - t * height)
                w, slope = row[t * height : t * height + used], grad[g, t, c]
                target = out[t * height : t * height + used]
                for i in range(used):
                    d = slope[i]
                    d = zero if w[i] > limit and d < zero else d
                    target[i] = zero if w[i] < -limit and d > zero else d


@njit(cache=True, nogil=True, error_model="numpy")
def adc_training(y, noise, noisy, sigma, gain, top, scale, z, inside):
    """The ADC of `mvm` with a gain for each column, (groups, tiles, cols); `inside` says where it did not clip."""
    for g in range(z.shape[0]):
        for v in range(z.shape[1]):
            out = z[g, v]
            out[:] = 0
            for t in range(y.shape[1]):
                read, drawn, kept = y[g, t, v], noise[g, t, v], inside[g, t, v]
                factor, count = gain[g, t], scale[g, t]
                if noisy:
                    for j in range(out.size):
                        read[j] = read[j] * factor[j] + drawn[j] * sigma
                else:
                    for j in range(out.size):
                        read[j] = read[j] * factor[j]
                for j in range(out.size):
                    kept[j] = abs(read[j]) <= top
                for j in range(out.size):
                    k = np.rint(read[j])
                    k = top if k > top else k
                    k = -top if k < -top else k
                    out[j] += k * count[j]


@njit(cache=True, nogil=True, error_model="numpy")
def adc_backward(grad, factor, inside, result):
    """Gradient of y (groups, tiles, vectors, cols) from that of z (groups, vectors, cols)."""
    zero = grad.dtype.type(0)
    for g in range(result.shape[0]):
        for t in range(result.shape[1]):
            for v in range(result.shape[2]):
                source, kept, out = grad[g, v], inside[g, t, v], result[g, t, v]
                for j in range(out.size):
                    out[j] = source[j] * factor if kept[j] else zero


@njit(cache=True, nogil=True, error_model="numpy")
def dac_backward(grad, x, gain, top, result):
    """Gradient of x (groups, vectors, tiles, height) from that of its codes (groups, tiles, vectors, height)."""
    zero = grad.dtype.type(0)
    for g in range(result.shape[0]):
        for v in range(result.shape[1]):
            for t in range(result.shape[2]):
                source, drive, out = grad[g, t, v], x[g, v, t], result[g, v, t]
                for i in range(out.size):
                    out[i] = source[i] * gain if abs(drive[i] * gain) <= top else zero


def dac_training(x: Tensor, gain: float, top: int, codes: Tensor) -> None:
    """The DAC of `mvm` on one chip: x (groups, vectors, tiles, height) -> codes (groups, tiles, vectors, height)."""
    _numba_dac(x, gain, top, codes)
