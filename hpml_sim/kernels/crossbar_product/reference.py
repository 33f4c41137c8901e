r"""The converters of a crossbar product in torch: the definition.

For each chip and group, with vectors v, row tiles t, slices s, rows i of a tile and columns j:

    c[t,v,i]   = clip(round(x[t,v,i] / u[v] * dac_gain), -dac_qmax, dac_qmax)
    y[t,v,sj]  = sum over i of c[t,v,i] * matrix[t,sj,i]
    k[t,v,sj]  = clip(round(y[t,v,sj] * adc_gain + sigma * normal[t,v,sj]), -adc_qmax, adc_qmax)
    z[v,j]     = u[v] * sum over t, then s, of k[t,v,sj] * scale[t,sj]

u is 1 where ranges are static, and the largest magnitude of each vector where they are dynamic.

Every product and sum but those of y is rounded on its own, in the order written (no fused multiply-add; halves round to
even), so that for equal y the three engines give the same bits. y comes from the BLAS of the device, which chooses its
own order: there, a result may differ in the last bit, and a code of the ADC by one where y falls between two.

The three implementations (this one, `cpu.py`, `cuda.py`) have the same two functions, `dac` and `adc`, on contiguous
tensors. Chips are groups to them: those of one chip lie behind those of the one before.

Source: the forward pass of aihwkit (`rpu_forward_backward_pass.cpp`).
"""

from __future__ import annotations

from torch import Tensor


def dac(x: Tensor, unit: Tensor | None, gain: float, qmax: int, codes: Tensor) -> None:
    """Fill codes.

    Args:
        x: inputs, shape (groups, vectors, tiles, height).
        unit: what each vector is divided by first, shape (groups, vectors); None: nothing.
        gain: codes in one unit of x.
        qmax: largest code.
        codes: result, whole numbers in [-qmax, qmax] of x's type, shape (groups, tiles, vectors, height).
    """
    x = x if unit is None else x / unit[..., None, None]
    codes.copy_((x * gain).round_().clamp_(-qmax, qmax).transpose(1, 2))


def adc(
    y: Tensor,
    noise: Tensor,
    noisy: bool,
    sigma: float,
    gain: float,
    qmax: int,
    scale: Tensor,
    unit: Tensor | None,
    z: Tensor,
) -> None:
    """Fill z.

    Args:
        y: products, shape (groups, tiles, vectors, slices * cols).
        noise: standard normal numbers, of y's shape; not read if not `noisy`.
        noisy: whether noise is added.
        sigma: noise, in codes.
        gain: codes in one unit of y.
        qmax: largest code.
        scale: what one code of each column counts, shape (groups, tiles, slices * cols).
        unit: what each result is multiplied with, shape (groups, vectors); None: nothing.
        z: result, shape (groups, vectors, cols).
    """
    k = y * gain
    if noisy:
        k += noise * sigma
    k = k.round_().clamp_(-qmax, qmax) * scale.unsqueeze(-2)
    z.zero_()
    for tile in k.unbind(1):
        for part in tile.split(z.shape[-1], -1):
            z += part
    if unit is not None:
        z *= unit.unsqueeze(-1)
