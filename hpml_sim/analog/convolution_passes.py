"""A convolution of one training step on a CPU: compiled converters around the library's convolutions, one a row tile.

The equations stand in `converters.py`, the tiles in `row_tiles.py`, the compiled passes in
`kernels/crossbar_product/convolution.py`. Nothing is unfolded, and of the products of a tile only a few images are held
at a time: their gradient needs where the ADC did not clip, and no value.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hpml_sim.analog.converters import Converters
from hpml_sim.analog.row_tiles import (
    Geometry,
    RowTile,
    as_channels_last,
    as_images,
    in_pieces,
    library_convolution,
    row_tiles,
)
from hpml_sim.analog.training_passes import noise_base
from hpml_sim.conversion.tiling import Tiling
from hpml_sim.kernels.common.arrays import expanded_parts
from hpml_sim.kernels.common.noise_keys import NoiseKeys

_WATCHED = 256
"""About how many vectors of a step the output range is learned from."""


def dac_gains(peaks: Tensor, converters: Converters) -> Tensor:
    """Codes of the DAC in one unit of the input.

    Args:
        peaks: multiplies the range, shape (images or 1, groups or 1).
        converters: of the layer.
    """
    return converters.dac_gain / peaks


def rows_of(values: Tensor, part: slice) -> Tensor:
    """The values of some images; all where they are the same for every image.

    Args:
        values: shape (images or 1, ...).
        part: which images.
    """
    return values[part] if len(values) > 1 else values


class _Convolution(torch.autograd.Function):
    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.float32)  # the passes are of one type throughout
    def forward(
        ctx: Any,
        x: Tensor,
        matrix: Tensor,
        scale: Tensor,
        bias: Tensor | None,
        tiles: list[RowTile],
        geometry: Geometry,
        converters: Converters,
        watch: Callable[[list[Tensor]], None] | None,
        look: Callable[[Tensor, int], Tensor],
        log2_range: Tensor | None,
        peaks: Tensor | None,
    ) -> Tensor:
        from hpml_sim.kernels.crossbar_product import convolution as kernel

        peaks = scale.new_ones(1, 1) if peaks is None else peaks.detach()
        gains = dac_gains(peaks, converters)
        x, c, groups = x.detach().contiguous(), converters, geometry.groups
        images, sizes = len(x), geometry.places(x.shape[2:])
        flat, places, cols = x.flatten(2), math.prod(sizes), matrix.shape[0] * matrix.shape[2]
        codes = [x.new_empty(images, flat.shape[2], groups * tile.channels) for tile in tiles]
        for tile, code in zip(tiles, codes, strict=True):
            kernel.dac(flat, groups, tile.first, gains, c.dac_qmax, code)
        kernels = [tile.kernel(matrix[:, t], geometry.kernel) for t, tile in enumerate(tiles)]
        gain = (c.adc_gain / scale).transpose(0, 1).flatten(1)  # (tiles, groups * cols)
        count = (scale * (c.dac_range * c.lsb)).transpose(0, 1).flatten(1)
        inside = [torch.empty(images, places, cols, dtype=torch.bool) for _ in tiles]
        z = x.new_empty(images, cols, *sizes)
        base = noise_base() if c.output_noise > 0 else 0
        seen: list[list[Tensor]] = [[] for _ in tiles]
        pieces = in_pieces(images, places * cols)
        total = x.new_empty(pieces[0].stop if pieces else 0, places, cols)
        for part in pieces:
            some = total[: part.stop - part.start]
            for t in range(len(tiles)):
                y = as_channels_last(library_convolution(as_images(codes[t][part], x.shape[2:]), kernels[t], geometry))
                if watch is not None:
                    seen[t].append(look(y, images))
                kernel.adc(
                    y,
                    gain[t],
                    count[t],
                    c.adc_qmax,
                    some,
                    keys=NoiseKeys(base, row=part.start),
                    tile=t,
                    tiles=len(tiles),
                    sigma=c.output_noise / c.lsb,
                    adds=t > 0,
                    inside=inside[t][part],
                )
            added = None if bias is None else bias.detach()
            kernel.channels_first(some, rows_of(peaks, part), added, z[part].flatten(2))
        if watch is not None and pieces:
            watch([torch.cat(parts) for parts in seen])
        kept = z if log2_range is not None else None
        ctx.save_for_backward(x, matrix, kept, bias, peaks, *codes, *inside)
        ctx.constants = tiles, geometry, c
        return z

    @staticmethod
    @once_differentiable
    @torch.amp.custom_bwd(device_type="cpu")
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        from hpml_sim.kernels.crossbar_product import convolution as kernel

        tiles, geometry, c = ctx.constants
        x, matrix, z, bias, peaks, *arrays = ctx.saved_tensors
        codes, inside = arrays[: len(tiles)], arrays[len(tiles) :]
        images, places, cols = inside[0].shape
        flat, groups, none = x.flatten(2), geometry.groups, [0] * len(geometry.kernel)
        sizes = geometry.places(x.shape[2:])
        wants_x, wants_matrix = ctx.needs_input_grad[0] or z is not None, ctx.needs_input_grad[1]
        given = expanded_parts(grads[0].flatten(2))
        gains, factors = dac_gains(peaks, c), peaks * (c.dac_range / c.dac_qmax)
        grad_x = torch.empty_like(x) if wants_x else None
        grad_matrix = torch.zeros_like(matrix) if wants_matrix else None
        kernels = [tile.kernel(matrix[:, t], geometry.kernel) for t, tile in enumerate(tiles)]
        pieces = in_pieces(images, places * cols)
        grad_z = x.new_empty(pieces[0].stop if pieces else 0, places, cols)
        grad_y = torch.empty_like(grad_z)
        for part in pieces:
            some = part.stop - part.start
            # the column's gain and what its codes count cancel but for the DAC's
            kernel.channels_last(rows_of(given, part), rows_of(factors, part), grad_z[:some])
            for t, tile in enumerate(tiles):
                kernel.adc_backward(grad_z[:some], inside[t][part], grad_y[:some])
                of_codes, of_kernel, _ = torch.ops.aten.convolution_backward(
                    as_images(grad_y[:some], sizes),
                    # with the codes, not with x: the devices see what the DAC made of the input
                    as_images(codes[t][part], x.shape[2:]),
                    kernels[t],
                    None,
                    geometry.stride,
                    geometry.padding,
                    geometry.dilation,
                    False,
                    none,
                    groups,
                    [wants_x, wants_matrix, False],
                )
                if grad_matrix is not None:
                    rows = tile.rows(of_kernel).view(matrix.shape[0], matrix.shape[2], tile.used)
                    grad_matrix[:, t, :, : tile.used] += rows
                if grad_x is not None:
                    kernel.dac_backward(
                        as_channels_last(of_codes),
                        flat[part],
                        groups,
                        tile.first,
                        tile.lead > 0,
                        rows_of(gains, part),
                        c.dac_qmax,
                        grad_x.flatten(2)[part],
                    )
        grad_bias = grads[0].flatten(2).sum((0, 2)) if ctx.needs_input_grad[3] else None
        grad_range = None
        if z is not None:
            # z = a f(x / a) in the range a: what scales with it, less what x itself brings through both converters
            assert grad_x is not None
            scaled = z if bias is None else z - bias.view(-1, *[1] * len(none))
            grad_range = math.log(2) * ((grads[0] * scaled).sum() - (grad_x * x).sum())
        return grad_x, grad_matrix, None, grad_bias, None, None, None, None, None, grad_range, None


def some_vectors(y: Tensor, images: int) -> Tensor:
    """Some vectors of the products, from which the output range is learned, (vectors, cols).

    Args:
        y: products of some images, shape (images, places, cols).
        images: of the whole batch.
    """
    rows = y.flatten(0, 1)
    stride = max(1, images * y.shape[1] // _WATCHED)
    while stride > 1 and math.gcd(stride, y.shape[1]) > 1:  # else every sample is of the same few places
        stride += 1
    return rows[::stride].clone()


def largest_vector(y: Tensor, images: int) -> Tensor:
    """The largest magnitude of each column, (1, cols), where nothing may be cut off.

    Args:
        y: products of some images, shape (images, places, cols).
        images: of the whole batch.
    """
    return y.abs().amax((0, 1)).unsqueeze(0)


def convolution_in_training(
    x: Tensor,
    matrix: Tensor,
    scale: Tensor,
    bias: Tensor | None,
    *,
    tiling: Tiling,
    geometry: Geometry,
    converters: Converters,
    watch: Callable[[list[Tensor]], None] | None = None,
    look: Callable[[Tensor, int], Tensor] | None = None,
    log2_range: Tensor | None = None,
    peaks: Tensor | None = None,
) -> Tensor:
    """One convolution in training on a CPU: the equations of `converters.py`, forwards and backwards.

    Args:
        x: inputs, shape (images, groups * channels, *sizes).
        matrix: weights, shape (groups, row tiles, cols, height).
        scale: full scale of each column, shape (groups, row tiles, cols).
        bias: added in digital, shape (groups * cols,); None: nothing.
        tiling: of the layer.
        geometry: of the layer.
        converters: of the layer, with the range of this step.
        watch: is shown some of the products before the ADC, in codes times weights: for each row tile (vectors, groups
            * cols).
        look: which products of some images, (images, places, cols), of a batch of so many; None: `some_vectors`.
        log2_range: a scalar that gets the gradient of the loss by the logarithm to the base 2 of the DAC's range.
        peaks: multiplies the range of each image and group, shape (images, groups); None: 1. Without gradient.

    Returns:
        shape (images, groups * cols, *places).
    """
    tiles = row_tiles(tiling, geometry.kernel)
    return _Convolution.apply(
        x, matrix, scale, bias, tiles, geometry, converters, watch, look or some_vectors, log2_range, peaks
    )  # type: ignore[no-any-return]
