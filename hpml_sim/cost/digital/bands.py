"""How wide the bands of estimates on CPUs and GPUs are, from what was left over on measured records."""

from __future__ import annotations

import numpy as np

from hpml_sim.units.bands import Band

PRODUCT = 1.25
"""A single matrix product on a GPU whose constants are fitted: 94 to 98 % of 2,856 measured ones lie within."""
PRODUCT_LENT = 1.35
"""The same on a GPU that has the constants of another one."""
NETWORK = 1.4
"""A network on a machine with records, and energies: 97 % of 355 measured image networks lie within."""
LENT = 1.4
"""A network on a GPU that has the constants of another one."""


def around(band: Band, factor: float, floor: float = 0.0) -> Band:
    """A band that reaches at least from nominal / factor to nominal x factor, and nowhere below a floor.

    Args:
        band: what is known.
        factor: at least 1.
        floor: the least that is possible; a nominal value below it stays as it is.
    """
    low = min(band.low, band.nominal / factor)
    return Band(min(max(low, floor), band.nominal), band.nominal, max(band.high, band.nominal * factor))


def ordered(corners: np.ndarray) -> Band:
    """The band from the least of three figures to the largest; the middle one is nominal.

    A layer waits less where the one before took longer, so that the corners of one layer need not be in order.

    Args:
        corners: three figures.
    """
    return Band(float(corners.min()), float(corners[1]), float(corners.max()))
