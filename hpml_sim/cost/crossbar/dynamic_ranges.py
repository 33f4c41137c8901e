"""The digital work of dynamic input ranges: each vector's largest value, and scaling before and after the array."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from hpml_sim.cost.breakdown import OTHER_WORKLOAD, CostBreakdown
from hpml_sim.units.bands import Band

if TYPE_CHECKING:
    from hpml_sim.cards import CrossbarCard
    from hpml_sim.counting import LayerCount

COMPARE_J, MULTIPLY_J = 0.4e-12, 1.1e-12
"""One comparison, taken as an addition, and one multiplication in 16-bit floating point at 45 nm.

Source: M. Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC 2014, figure 1.1.9 (45 nm,
0.9 V), as several later works quote it; the paper itself was not at hand.
"""
_YOUNGER = 10.0
"""How far below 45 nm the same operation may lie on a young node: an assumption, the low end of the band."""


def range_operations(layer: LayerCount) -> tuple[float, float]:
    """Comparisons and multiplications of one inference: |x| > max and x / max for each input, y max for each output.

    Args:
        layer: counts of a matrix on tiles.
    """
    outputs = max(layer.output_elements, layer.vectors * layer.cols * layer.groups)
    return layer.input_elements, layer.input_elements + outputs


def charge_dynamic_range(breakdown: CostBreakdown, card: CrossbarCard, layer: LayerCount) -> float:
    """Charge the digital work of a layer whose input vectors are scaled one by one.

    Args:
        breakdown: where it is noted.
        card: the machine; its energy of a digital operation, where it has one, is that of these operations.
        layer: counts of the layer.

    Returns:
        Operations of one inference.
    """
    compares, multiplies = range_operations(layer)
    own = card.digital.energy_per_op
    if own is not None:
        energy = breakdown.use(own, OTHER_WORKLOAD) * (compares + multiplies)
        breakdown.add(layer.name, "input-range", energy, own)
        return compares + multiplies
    high = compares * COMPARE_J + multiplies * MULTIPLY_J
    breakdown.add(layer.name, "input-range", Band(high / _YOUNGER, high / math.sqrt(_YOUNGER), high))
    breakdown.assume(
        "each vector of input ranges that are or may be dynamic takes a comparison and a multiplication an input and a "
        "multiplication an output in 16-bit floating point, 0.4 and 1.1 pJ at 45 nm (M. Horowitz, ISSCC 2014) to a "
        "tenth of that on a young node: the card has no energy for digital operations"
    )
    return compares + multiplies
