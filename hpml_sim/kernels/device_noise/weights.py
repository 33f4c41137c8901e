"""The weights that a chip holds, straight from the matrix of a layer; the equations stand in `reference.py`.

One pass goes over the cells of a layer: it takes a weight, cuts it into digits, makes the targets of its devices,
programs and ages them, and writes what they amount to. Nothing is kept in between but a block of 1,024 cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from torch import Tensor

from hpml_sim.kernels.common.threads import in_threads
from hpml_sim.kernels.device_noise.blocks import LENGTH, WORK, block_memory, devices_block, physics
from hpml_sim.kernels.device_noise.law import NO_FAULTS, Aging, DeviceLaw, Faults


@dataclass(frozen=True)
class Cells:
    """The cells of one layer: its matrix, and how it is cut.

    Attributes:
        matrix: weights, float32, contiguous, on the CPU, shape (groups * cols, rows).
        full_scale: of each column of each piece, float32, contiguous, shape (groups, row tiles, cols).
        limit: weights beyond it are clipped to it, > 0; an infinite one clips nothing.
        height: rows of a piece.
        levels: conductances that a cell can be programmed to, >= 2; None: any.
        slices: cells that hold one weight as digits to the base `levels`, >= 1.
    """

    matrix: Tensor
    full_scale: Tensor
    limit: float
    height: int
    levels: int | None
    slices: int

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of the cells: (groups, row tiles, slices * cols, height)."""
        groups, row_tiles, cols = self.full_scale.shape
        return groups, row_tiles, self.slices * cols, self.height


class _Layout(NamedTuple):
    """`Cells` as numba takes them."""

    matrix: Any
    scale: Any
    limit: Any
    row_tiles: Any
    cols: Any
    height: Any
    levels: Any
    slices: Any
    devices: Any


def chip_weights(
    law: DeviceLaw,
    cells: Cells,
    out: Tensor,
    *,
    seed: int,
    aging: Aging | None = None,
    read_seed: int = 0,
    faults: Faults = NO_FAULTS,
) -> None:
    """What one chip multiplies with, right after programming or at a time.

    Args:
        law: of the devices.
        cells: the layer.
        out: result, in units of the column's full scale, float32, contiguous, of the cells' shape.
        seed: of what programming draws, in [0, 2^64).
        aging: what time has done; None: right after programming.
        read_seed: of what the time draws, in [0, 2^64).
        faults: stuck devices.
    """
    _, row_tiles, cols = cells.full_scale.shape
    layout = _Layout(
        cells.matrix.numpy(),
        cells.full_scale.reshape(-1).numpy(),
        np.float32(cells.limit),
        np.int64(row_tiles),
        np.int64(cols),
        np.int64(cells.height),
        np.int64(cells.levels or 0),
        np.int64(cells.slices),
        np.int64(law.devices),
    )
    flat = out.reshape(-1).numpy()
    numbers = physics(law, aging, faults, seed, read_seed)
    blocks = -(-flat.size // LENGTH)
    in_threads(lambda first, last: _blocks(layout, numbers, first, last, flat), blocks, flat.size * WORK)


@njit(cache=True, nogil=True)
def _load(layout, begin, n, x):
    """The weights of some cells in units of the column's full scale, cut into digits."""
    f = np.float32
    rows, height, cols = layout.matrix.shape[1], layout.height, layout.cols
    done = 0
    while done < n:
        column, h = (begin + done) // height, (begin + done) % height
        run = min(height - h, n - done)
        piece, c = column // (layout.slices * cols), column % cols  # (group, row tile), and the column in its group
        digit = column // cols % layout.slices
        group, tile = piece // layout.row_tiles, piece % layout.row_tiles
        used = min(max(rows - tile * height - h, 0), run)
        scale = layout.scale[piece * cols + c]
        source = layout.matrix[group * cols + c, tile * height + h : tile * height + h + used]
        part = x[done : done + run]
        for i in range(used):
            w = source[i]
            w = w if w < layout.limit else layout.limit
            w = w if w > -layout.limit else -layout.limit
            part[i] = w / scale
        for i in range(used, run):
            part[i] = f(0)
        if layout.levels > 0:
            _digits(part, layout.levels, layout.slices, digit, layout.devices)
        done += run


@njit(cache=True, nogil=True)
def _digits(x, levels, slices, digit, devices):
    """One digit of each weight, again as a weight in [-1, 1]; in place."""
    most = np.float64(levels**slices - 1)
    place = levels ** (slices - 1 - digit)
    for i in range(x.size):
        w = min(max(np.float64(x[i]), -1.0), 1.0)
        number = np.int64(np.rint((abs(w) if devices == 2 else (w + 1) / 2) * most))
        share = np.float64(number // place % levels) / (levels - 1)
        if devices == 2:
            x[i] = np.float32(share if w > 0 else (-share if w < 0 else 0.0))
        else:
            x[i] = np.float32(2 * share - 1)


@njit(cache=True, nogil=True)
def _target(x, p, devices, device, out):
    """Target conductances of one device of each weight."""
    f = np.float32
    span = p.g_max - p.g_min
    for i in range(x.size):
        w = -x[i] if device == 1 else x[i]
        low = f(-1) if devices == 1 else f(0)
        w = w if w > low else low
        w = w if w < f(1) else f(1)
        out[i] = (f(0.5) * span) * (w + f(1)) + p.g_min if devices == 1 else w * span + p.g_min


@njit(cache=True, nogil=True)
def _blocks(layout, p, first, last, out):
    f = np.float32
    memory = block_memory()
    x, target = np.zeros(LENGTH, f), np.empty(LENGTH, f)
    g = np.empty((2, LENGTH), f)
    span = p.g_max - p.g_min
    for block in range(first, last):
        begin = block * LENGTH
        n = min(LENGTH, out.size - begin)
        _load(layout, begin, n, x)
        for device in range(layout.devices):
            _target(x, p, layout.devices, device, target)
            devices_block(target, p, device, block, memory, g[device])
        o, plus, minus = out[begin : begin + n], g[0], g[1]
        if layout.devices == 2:
            for i in range(n):
                o[i] = (plus[i] - minus[i]) / span
        else:
            for i in range(n):
                o[i] = (plus[i] - p.g_min) * (f(2) / span) - f(1)
