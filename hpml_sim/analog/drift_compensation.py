"""Drift compensation: digital factors that restore the gain which drift takes from a tile or a column.

Right after programming, and again at each time, every row in turn gets a full-scale input and the ADCs read the
columns. The ratio of the two readings multiplies the results from then on. What it cannot restore is the spread:
devices drift by exponents of their own.

Source: aihwkit's `GlobalDriftCompensation` and `PerColumnDriftCompensation`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hpml_sim.analog.crossbar import Crossbar

_SINGLE_DEVICE = 1.25
"""Range of an ADC that can be set, while it reads one row: a device at full scale with its noise."""
_FLOOR = 1e-4
"""Smallest reading that is divided by, as in aihwkit."""


@torch.no_grad()
def read_columns(crossbar: Crossbar, weight: Tensor, seed: int) -> Tensor:
    """What drift compensation reads of one chip: the mean magnitude for each tile ("global") or each column.

    The readings go through the converters with their noise, as a chip would have to take them.

    Args:
        crossbar: of the layer; its target says whether a tile or a column is read.
        weight: in units of the column's full scale, shape (groups, row tiles, cols, height), float32, on the CPU.
        seed: of the noise.

    Returns:
        shape (groups, row tiles, cols), in units of a full-scale weight, at least 1e-4.
    """
    from hpml_sim.kernels.crossbar_product import readout

    target, tiling = crossbar.target, crossbar.tiling
    bound = _SINGLE_DEVICE if target.adc_bound is None else target.adc_bound
    lsb = bound / (crossbar.adc_qmax or bound)
    codes = readout(
        weight, seed, sigma=target.output_noise, gain=1 / lsb, qmax=crossbar.adc_qmax or 0, used=tiling.used_rows
    )
    columns = codes * (lsb / torch.tensor(tiling.used_rows).unsqueeze(-1))
    if target.compensation == "global":
        columns = columns.unflatten(-1, (-1, tiling.cols))  # the slices of a weight lie on one tile
        tiles = [
            # float64: CPUs add in different orders, and files of chips compare the result
            part.mean((-2, -1), keepdim=True, dtype=torch.float64).float().expand_as(part)
            for part in columns.split(tiling.tile_cols, -1)
        ]
        columns = torch.cat(tiles, -1).flatten(-2)
    return columns.clamp(min=_FLOOR)


def compensated_scale(crossbar: Crossbar, scale: Tensor, baseline: Tensor, weight: Tensor, seed: int) -> Tensor:
    """Digital factors of the columns of one chip at one time.

    Args:
        crossbar: of the layer.
        scale: what a column counts without drift, shape (groups, row tiles, cols).
        baseline: of this chip, what `read_columns` gave right after programming, same shape. It is the chip's own:
            chips differ by their programming errors, which another chip's baseline would turn into a gain error.
        weight: of this chip as it is read now, shape (groups, row tiles, cols, height).
        seed: of the noise of the reading now.
    """
    if crossbar.target.compensation == "none":
        return scale
    return scale * (baseline / read_columns(crossbar, weight, seed))
