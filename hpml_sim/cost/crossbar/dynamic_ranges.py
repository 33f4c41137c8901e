"""The digital work of input ranges: each vector's largest value, and scaling before and after the array."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from hpml_sim.cost.breakdown import OTHER_WORKLOAD, CostBreakdown
from hpml_sim.units.bands import Band

if TYPE_CHECKING:
    from hpml_sim.cards import CrossbarCard
    from hpml_sim.cost.crossbar.mapping import Placement
    from hpml_sim.counting import LayerCount

COMPARE_J, MULTIPLY_J = 0.4e-12, 1.1e-12
"""One comparison, taken as an addition, and one multiplication in 16-bit floating point at 45 nm.

Source: M. Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC 2014, figure 1.1.9 (45 nm,
0.9 V), as several later works quote it; the paper itself was not at hand.
"""
_YOUNGER = 10.0
"""How far below 45 nm the same operation may lie on a young node: an assumption, the low end of the band."""


def range_operations(layer: LayerCount, *, dynamic: bool, by_channel: bool) -> tuple[float, float]:
    """Comparisons and multiplications of one inference.

    Args:
        layer: counts of a matrix on tiles.
        dynamic: |x| > max and x / max for each input, y max for each output.
        by_channel: x / s for each input.
    """
    inputs = layer.input_elements
    outputs = max(layer.output_elements, layer.vectors * layer.cols * layer.groups)
    return inputs * dynamic, inputs * (dynamic + by_channel) + outputs * dynamic


def charge_input_ranges(breakdown: CostBreakdown, card: CrossbarCard, placed: Placement) -> float:
    """Charge the digital work of a layer whose input vectors, or input channels, are scaled one by one.

    Args:
        breakdown: where it is noted.
        card: the machine; its energy of a digital operation, where it has one, is that of these operations.
        placed: the layer on its tiles.

    Returns:
        Operations of one inference.
    """
    layer = placed.layer
    if not (placed.dynamic or placed.by_channel):
        return 0.0
    compares, multiplies = range_operations(layer, dynamic=placed.dynamic, by_channel=placed.by_channel)
    own = card.digital.energy_per_op
    if own is not None:
        energy = breakdown.use(own, OTHER_WORKLOAD) * (compares + multiplies)
        breakdown.add(layer.name, "input-range", energy, own)
        return compares + multiplies
    high = compares * COMPARE_J + multiplies * MULTIPLY_J
    breakdown.add(layer.name, "input-range", Band(high / _YOUNGER, high / math.sqrt(_YOUNGER), high))
    at = (
        "in 16-bit floating point, 0.4 and 1.1 pJ at 45 nm (M. Horowitz, ISSCC 2014) to a tenth of that on a young "
        "node: the card has no energy for digital operations"
    )
    if placed.dynamic:
        breakdown.assume(
            "each vector of input ranges that are or may be dynamic takes a comparison and a multiplication an input "
            f"and a multiplication an output {at}"
        )
    if placed.by_channel:
        breakdown.assume(f"input ranges by channel take a multiplication an input {at}")
    return compares + multiplies
