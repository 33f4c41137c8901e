"""What a crossbar array does to a product beside its weights: IR drop along the columns, and read noise.

In units of full-scale weights w and full-scale inputs x, on a tile with n rows in use:

    read noise    y += r sqrt(sum_j |w_ij| x_j^2) xi
    IR drop       y -= d c_i sum_j w_ij x_j (1 - (1 - j/n)^2),   c = A (A (0.05 A - 0.2) + 0.5),
                  A_i = n R g_max sum_j |w_ij| |x_j|,            R: resistance from cell to cell

Source: aihwkit's forward pass (`rpu_forward_backward_pass.cpp`) with `w_noise_type=PCM_READ` and `ir_drop`.
"""

from __future__ import annotations

import torch
from torch import Tensor

WIRE_OHM = 0.35
"""Resistance of the wire from cell to cell, as aihwkit assumes it."""


def ir_drop(
    codes: Tensor,
    drive: Tensor,
    matrix: Tensor,
    unit: Tensor | None,
    *,
    used_rows: list[int],
    wire_drop: float,
    strength: float,
) -> Tensor:
    """What the voltage drop along the columns takes from `codes @ matrix.mT`.

    Args:
        codes: of the DAC, shape (chips, groups, row tiles, vectors, height).
        drive: the same in units of a full-scale input.
        matrix: weights, shape (chips, groups, row tiles, cols, height).
        unit: full scale of the columns where `matrix` is in units of the weights, shape (1, groups, row tiles, 1,
            cols); None where it is in units of the full scale.
        used_rows: n, rows in use of each row tile.
        wire_drop: R g_max, without unit.
        strength: d; 1 for wires of `WIRE_OHM`.

    Returns:
        shape (chips, groups, row tiles, vectors, cols), in codes times weights.
    """
    rows = torch.tensor(used_rows, dtype=codes.dtype, device=codes.device).view(-1, 1, 1)
    place = torch.arange(codes.shape[-1], dtype=codes.dtype, device=codes.device)
    # the share of the column's drop that a row sees grows along the column as a parabola, from 0 to 1
    reached = (1 - (1 - place / rows).square()).clamp(min=0)
    current = drive.abs() @ matrix.abs().mT
    a = (rows * wire_drop) * (current if unit is None else current / unit)
    share = a * (a * (0.05 * a - 0.2) + 0.5)
    return strength * share * ((codes * reached) @ matrix.mT)


@torch.no_grad()
def noise_sigma(
    drive: Tensor, matrix: Tensor, unit: Tensor | None, *, read_noise: float, output_noise: float
) -> Tensor:
    """Sigma of the noise before the ADC, of the array and of the output together.

    Both are independent and Gaussian, so one draw with the root of the summed variances has the same distribution as
    two draws.

    Args:
        drive: inputs in units of a full-scale input, shape (chips, groups, row tiles, vectors, height).
        matrix: weights, shape (chips, groups, row tiles, cols, height).
        unit: full scale of the columns where `matrix` is in units of the weights, else None.
        read_noise: r, of one full-scale device, in units of its conductance.
        output_noise: of the output, in full-scale products.

    Returns:
        shape (chips, groups, row tiles, vectors, cols), in full-scale products.
    """
    squares = drive.square() @ matrix.abs().mT
    read = read_noise**2 * (squares if unit is None else squares / unit)
    return (output_noise**2 + read).sqrt()
