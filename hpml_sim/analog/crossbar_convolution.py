"""The product of a convolution on a crossbar, of whole images, in one of three ways that compute the same.

- a step of training on a CPU: compiled passes with gradients (`convolution_passes.py`);
- programmed chips on a CPU: compiled passes, chip by chip;
- everything else, such as GPUs, `torch.compile` and evaluation: operator by operator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from hpml_sim.analog.chip_pass import product_on_chips
from hpml_sim.analog.converters import quantize
from hpml_sim.analog.convolution_passes import (
    convolution_in_training,
    dac_gains,
    largest_vector,
    rows_of,
    some_vectors,
)
from hpml_sim.analog.crossbar import Crossbar
from hpml_sim.analog.effective_weights import EffectiveWeights
from hpml_sim.analog.row_tiles import (
    Geometry,
    as_channels_last,
    as_images,
    in_pieces,
    library_convolution,
    row_tiles,
)
from hpml_sim.kernels.common.memory import BLOCKS


def takes_whole_images(crossbar: Crossbar) -> bool:
    """Whether a convolution needs no input vectors of its own: each value is converted alike wherever the kernel is.

    Args:
        crossbar: of the layer.
    """
    if crossbar.calibrating is not None or crossbar.weight_probe is not None:
        return False
    if crossbar.array_disturbs or not crossbar.calibrated:
        return False
    if not crossbar.target.linear_adc:
        return False
    if crossbar.adc_qmax is not None and crossbar.adc_bound() == 0:  # not known yet
        return False
    # what the ADCs see of sliced weights is found from the vectors
    return not (crossbar.target.slices > 1 and crossbar.training and crossbar.programmed is None and crossbar.learns())


def convolve(crossbar: Crossbar, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """The convolution of whole images, where `takes_whole_images`.

    Args:
        crossbar: of the layer.
        x: shape (images, groups * channels, *sizes).
        weight: the layer's weights, shape (groups * cols, rows); not used where chips are programmed.
        bias: added in digital, shape (groups * cols,); None: nothing.
        geometry: of the layer.

    Returns:
        shape (images, groups * cols, *places).

    Raises:
        HpmlError: several chips are programmed, and the layer was called by itself.
    """
    crossbar.work.multiplied = True
    sizes = geometry.places(x.shape[2:])
    cols = crossbar.tiling.groups * crossbar.tiling.cols
    if crossbar.programmed is not None:

        def all_chips(flat: Tensor, chips: Sequence[int]) -> Tensor:
            return _on_chips(crossbar, flat.unflatten(-1, x.shape[1:]).squeeze(1), geometry, chips)

        # to what carries chips, an image is a vector
        y = product_on_chips(x.flatten(1).unsqueeze(0), all_chips, crossbar.programmed.n_chips)
        y = y.squeeze(0).unflatten(-1, (cols, *sizes))
        return y if bias is None else y + bias.view(-1, *[1] * len(sizes))
    effective = crossbar.effective_weights(weight)
    learns, shift = crossbar.observed(x)
    if crossbar.trains_in_one_pass(x):
        return _trained(crossbar, x, effective, bias, geometry, learns, shift)
    y = _by_operators(crossbar, x, effective, geometry, None, learns=learns, shift=shift)
    return y if bias is None else y + bias.view(-1, *[1] * len(sizes))


def _peaks(crossbar: Crossbar, x: Tensor) -> Tensor | None:
    """What multiplies the range of each image and group, (images, groups), where ranges are dynamic."""
    if not crossbar.scales_vectors:
        return None
    return crossbar.peaks(x.unflatten(1, (crossbar.tiling.groups, -1)).flatten(2)).squeeze(-1)


def _trained(
    crossbar: Crossbar,
    x: Tensor,
    effective: EffectiveWeights,
    bias: Tensor | None,
    geometry: Geometry,
    learns: bool,
    shift: Tensor | None,
) -> Tensor:
    """A step of training in compiled passes."""
    converters = crossbar.converters()
    scale = effective.scale.squeeze(-2).squeeze(0)  # (groups, row tiles, cols)

    def watch(found: list[Tensor]) -> None:
        unit = scale.transpose(0, 1).flatten(1).unsqueeze(1) * converters.dac_gain
        crossbar.observe_output(torch.stack(found) / unit)

    return convolution_in_training(
        x,
        effective.matrix.squeeze(0),
        scale,
        bias,
        tiling=crossbar.tiling,
        geometry=geometry,
        converters=converters,
        watch=watch if learns else None,
        look=some_vectors if crossbar.fixed_adc else largest_vector,
        log2_range=shift,
        peaks=_peaks(crossbar, x),
    )


def _on_chips(crossbar: Crossbar, x: Tensor, geometry: Geometry, chips: Sequence[int]) -> Tensor:
    """Products of programmed chips. x: (chips or 1, images, channels, *sizes) -> (chips, 1, images, cols * places)."""
    programmed = crossbar.programmed
    assert programmed is not None
    effective = programmed.effective_weights(chips)
    sizes, cols = geometry.places(x.shape[3:]), crossbar.tiling.groups * crossbar.tiling.cols
    slices = crossbar.target.slices
    z = BLOCKS.empty((len(chips), x.shape[1], slices * cols, *sizes), like=x)
    if crossbar.fuses(x):
        _compiled(crossbar, x, effective, geometry, chips, z)
    else:
        for i, chip in enumerate(chips):
            one = EffectiveWeights(effective.matrix[i : i + 1], effective.unit, effective.scale[i : i + 1])
            z[i] = _by_operators(crossbar, x[min(i, len(x) - 1)], one, geometry, chip)
    if slices > 1:
        z = torch.stack([_without_slices(crossbar, one) for one in z])
    return z.flatten(2).unsqueeze(1)


def _compiled(
    crossbar: Crossbar, x: Tensor, effective: EffectiveWeights, geometry: Geometry, chips: Sequence[int], z: Tensor
) -> None:
    """Chips in compiled passes; a few images at a time, so that what lies between the converters caches.

    Fills z, shape (chips, images, columns, *places), the columns of each slice apart.
    """
    from hpml_sim.kernels.crossbar_product import convolution as kernel

    programmed, c, groups = crossbar.programmed, crossbar.converters(), geometry.groups
    assert programmed is not None
    x = x.detach().contiguous()
    flat, result, inside = x.flatten(3), z.flatten(3), x.shape[3:]
    (images, cols, places), sigma = result.shape[1:], c.output_noise / c.lsb
    tiles = row_tiles(crossbar.tiling, geometry.kernel)
    counts = (effective.scale * (c.dac_range * c.lsb)).squeeze(-2).transpose(1, 2).flatten(2)  # (chips, tiles, cols)
    gain = torch.full_like(counts[0, 0], c.adc_gain)
    peaks = _peaks(crossbar, x.flatten(0, 1))
    peaks = x.new_ones(len(x), 1, 1) if peaks is None else peaks.unflatten(0, (len(x), images))
    gains = dac_gains(peaks, c)
    pieces = in_pieces(images, places * cols)
    most = pieces[0].stop if pieces else 0
    total = x.new_empty(most, places, cols)
    drives = [x.new_empty(most, flat.shape[3], groups * tile.channels) for tile in tiles]
    for i, chip in enumerate(chips):
        own = min(i, len(x) - 1)  # of the input: the first layer's is the same for all chips
        keys = programmed.noise_keys(chip, flat[own].flatten(1).unsqueeze(0))
        kernels = [tile.kernel(effective.matrix[i, :, t], geometry.kernel) for t, tile in enumerate(tiles)]
        for part in pieces:
            some, vectors, gains_here = total[: part.stop - part.start], flat[own, part], rows_of(gains[own], part)
            keys_here = replace(keys, row=part.start)
            for t, tile in enumerate(tiles):
                codes = drives[t][: len(some)]
                kernel.dac(vectors, groups, tile.first, gains_here, c.dac_qmax, codes)
                y = as_channels_last(library_convolution(as_images(codes, inside), kernels[t], geometry))
                kernel.adc(
                    y,
                    gain,
                    counts[i, t],
                    c.adc_qmax,
                    some,
                    keys=keys_here,
                    tile=t,
                    tiles=len(tiles),
                    sigma=sigma,
                    adds=t > 0,
                )
            kernel.channels_first(some, rows_of(peaks[own], part), None, result[i, part])


def _by_operators(
    crossbar: Crossbar,
    x: Tensor,
    effective: EffectiveWeights,
    geometry: Geometry,
    chip: int | None,
    *,
    learns: bool = False,
    shift: Tensor | None = None,
) -> Tensor:
    """The same operator by operator, on any device, with gradients. chip: None: the layer's own weights."""
    target, groups = crossbar.target, geometry.groups
    dac_qmax, adc_qmax = crossbar.dac_qmax, crossbar.adc_qmax
    learning = crossbar.training and chip is None
    dac_range = crossbar.dac_range()
    rows = x
    if shift is not None and crossbar.range_shift is not None:
        dac_range = dac_range.detach() * torch.exp2(shift - crossbar.range_shift.detach())
    peaks = _peaks(crossbar, x)
    if peaks is not None:
        peaks = peaks.view(*peaks.shape, *[1] * (x.dim() - 1))  # (images, groups, 1, ...)
        x = (x.unflatten(1, (groups, -1)) / peaks).flatten(1, 2)
    bound = crossbar.adc_bound() or 1.0
    lsb = bound / (adc_qmax or bound)
    gain = torch.as_tensor(1 / ((dac_qmax or 1) * lsb), dtype=x.dtype, device=x.device)
    codes = quantize(x, (dac_qmax or 1) / dac_range, dac_qmax)
    tiles = row_tiles(crossbar.tiling, geometry.kernel)
    noisy = target.output_noise > 0 and (learning or chip is not None)
    drawn = None
    by_column = (-1, *[1] * len(geometry.kernel))
    total: Tensor | None = None
    seen = []
    for t, tile in enumerate(tiles):
        part = codes
        if len(tiles) > 1:
            part = codes.unflatten(1, (groups, -1)).narrow(2, tile.first, tile.channels).flatten(1, 2)
        y = library_convolution(part, tile.kernel(effective.matrix[0, :, t], geometry.kernel), geometry)
        unit = None if effective.unit is None else effective.unit[0, :, t].reshape(by_column)
        of_unit = gain if unit is None else gain / unit
        if learns and len(x):
            vectors = (y.detach() * (of_unit * lsb * dac_range.detach())).flatten(2).transpose(1, 2)
            seen.append((some_vectors if crossbar.fixed_adc else largest_vector)(vectors, len(x)))
        noise = None
        if noisy:
            if drawn is None:
                drawn = _noise(crossbar, rows, y, len(tiles), chip)
            noise = drawn[t] * (target.output_noise / lsb)
        read = crossbar.read(y, of_unit, noise) * (effective.scale[0, :, t].reshape(by_column) * (dac_range * lsb))
        total = read if total is None else total + read
    assert total is not None
    if seen:
        crossbar.observe_output(torch.stack(seen))
    return total if peaks is None else (total.unflatten(1, (groups, -1)) * peaks).flatten(1, 2)


def _noise(crossbar: Crossbar, x: Tensor, y: Tensor, tiles: int, chip: int | None) -> Tensor:
    """Standard normal numbers for all row tiles. y: the products of one -> (tiles, *y.shape)."""
    if chip is None or crossbar.programmed is None:
        return torch.randn((tiles, *y.shape), dtype=y.dtype, device=y.device)
    like = y.new_empty(1, 1, tiles, len(y), y[0].numel())
    programmed, rows = crossbar.programmed, x.flatten(1).unsqueeze(0)
    drawn = programmed.normal(like, [chip], lambda number: programmed.noise_keys(number, rows))
    # channels last, as the compiled passes draw them
    return drawn[0, 0].unflatten(-1, (*y.shape[2:], y.shape[1])).movedim(-1, 2)


def _without_slices(crossbar: Crossbar, z: Tensor) -> Tensor:
    """The sum over the slices of each weight, whose factors hold what they count. z: (images, columns, *places)."""
    slices = crossbar.target.slices
    if slices == 1:
        return z
    z = z.unflatten(1, (crossbar.tiling.groups, slices, -1)).sum(2)
    return z.flatten(1, 2)
