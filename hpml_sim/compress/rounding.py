"""Numbers of few bits: the nearest ones, with a scale for each group of weights.

Every format is symmetric, so that a zero stays zero: pruned weights can be quantized, and quantized ones pruned.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hpml_sim.conversion.compression import NumberFormat

_FP4 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
"""Magnitudes of fp4 (E2M1). Source: OCP Microscaling Formats specification 1.0, 2023, table 1."""
_LARGEST = {"int8": 127.0, "int8-weights": 127.0, "int4": 7.0, "fp8": 448.0, "fp4": 6.0, "ternary": 1.0}
"""Largest number of each format; of fp8 that of E4M3."""


def scales(matrix: Tensor, numbers: NumberFormat) -> Tensor:
    """The scale of each weight: its group's largest magnitude is the format's largest number.

    Of ternary weights it is the mean magnitude of those that are not zero.

    Args:
        matrix: (outputs, inputs).
        numbers: the format.

    Returns:
        (outputs, inputs), never 0.

    Source: ternary: S. Ma et al., "The era of 1-bit LLMs" (BitNet b1.58), arXiv:2402.17764, 2024, equation 3.
    """
    inputs = matrix.shape[1]
    group = min(numbers.group or inputs, inputs)
    padded = torch.nn.functional.pad(matrix, (0, -inputs % group)).unflatten(1, (-1, group)).abs()
    if numbers.numbers == "ternary":
        largest = padded.sum(2) / padded.count_nonzero(2).clamp(min=1)
    else:
        largest = padded.amax(2) / _largest(numbers)
    largest = torch.where(largest > 0, largest, torch.ones_like(largest))
    return largest.repeat_interleave(group, dim=1)[:, :inputs]


def _largest(numbers: NumberFormat) -> float:
    """Largest number of a format of weights; of integers with a sign 2^(bits - 1) - 1."""
    if numbers.weight_bits is None:
        return _LARGEST[numbers.numbers]
    return 2.0 ** (numbers.weight_bits - 1) - 1


def nearest(values: Tensor, numbers: NumberFormat) -> Tensor:
    """The nearest numbers of a format.

    Args:
        values: in units of the scale.
        numbers: the format.
    """
    if numbers.numbers == "fp8":
        largest = _LARGEST["fp8"]
        return values.clamp(-largest, largest).to(torch.float8_e4m3fn).to(values.dtype)
    if numbers.numbers == "fp4":
        grid = torch.tensor(_FP4, dtype=values.dtype, device=values.device)
        middles = (grid[1:] + grid[:-1]) / 2
        return grid[torch.bucketize(values.abs().contiguous(), middles)] * values.sign()
    largest = _largest(numbers)
    return values.round().clamp(-largest, largest)


def rounded(matrix: Tensor, numbers: NumberFormat) -> Tensor:
    """A matrix in the nearest numbers of a format, with a scale a group.

    Args:
        matrix: (outputs, inputs).
        numbers: the format.
    """
    scale = scales(matrix, numbers)
    return nearest(matrix / scale, numbers) * scale


class RoundInputs:
    """A hook that rounds what a layer is multiplied with, with a scale for each vector of features ("dynamic").

    Integers of other widths than the format's name says spend no bit on a sign where a vector has none: b bits have the
    levels 0 to 2^b - 1 then, else -(2^(b-1) - 1) to 2^(b-1) - 1. The gradient passes as if nothing were rounded.

    Args:
        numbers: the format, "int8" or "fp8".
        dims: dimensions of the input that share a scale.
    """

    def __init__(self, numbers: NumberFormat, dims: tuple[int, ...]):
        self.numbers, self.dims = numbers, dims

    def __call__(self, _layer: torch.nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The arguments of the layer, the first one rounded.

        Args:
            args: what the layer is called with, floating point.
        """
        x, *others = args
        given, bits = x.detach(), self.numbers.input_bits
        largest = given.abs().amax(self.dims, keepdim=True)
        if bits is None:
            scale = largest / _LARGEST[self.numbers.numbers]
        else:
            signed = given.amin(self.dims, keepdim=True) < 0
            scale = largest / torch.where(signed, max(2 ** (bits - 1) - 1, 1), 2**bits - 1)
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        exact = nearest(given / scale, self.numbers) if bits is None else (given / scale).round()
        exact = exact * scale
        return (x + (exact - x).detach(), *others)
