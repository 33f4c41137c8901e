"""Energy of digital logic and SRAM at any node: between two published tables, and by a scaling law beyond them.

Source: A. Stillmaker, B. Baas, Integration 58, 74 (2017) for the law; the tables are components of their own.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

from hpml_sim.cards import load_component
from hpml_sim.units.bands import Band

if TYPE_CHECKING:
    from hpml_sim.cards import ComponentCard, Quantity

VOLTAGE = 0.9
"""Volts at which two nodes are compared: that of the table at 45 nm."""


def law(node_nm: float) -> float:
    """Energy of digital logic at a node, in units that cancel in a ratio: a V^2 + b V + c, by node in between.

    Args:
        node_nm: nanometers; outside of the table, the energy follows the square root of the node.

    Source: A. Stillmaker, B. Baas, Integration 58, 74 (2017), coefficients of their energy equation; straight lines
    between nodes, and the square root beyond them, as accelergy-library-plug-in has it.
    """
    curves = load_component("node-scaling").curves
    assert curves is not None
    known = sorted((int(node), a * VOLTAGE**2 + b * VOLTAGE + c) for node, (a, b, c) in curves.energy.items())
    first, last = known[0], known[-1]
    if node_nm <= first[0]:
        return first[1] * math.sqrt(node_nm / first[0])
    if node_nm >= last[0]:
        return last[1] * math.sqrt(node_nm / last[0])
    for (below, energy), (above, more) in pairwise(known):
        if node_nm <= above:
            return energy + (more - energy) * (node_nm - below) / (above - below)
    raise AssertionError("unreachable: the nodes are sorted")


def at_node(old: ComponentCard, young: ComponentCard, field: str, node_nm: float) -> Band:
    """A figure of two tables at a node: e = e_old^w e_young^(1 - w) with w = ln(n / n_young) / ln(n_old / n_young).

    The band is a factor either way (that of the component node-scaling), and holds what the scaling law says of the
    older table. Outside of the two nodes the law scales the nearer table.

    Args:
        old: the table at the larger node.
        young: the table at the smaller node.
        field: of both, such as "operations.mac_fp16".
        node_nm: nanometers.
    """
    assert old.node is not None
    assert young.node is not None
    assert old.curves is None
    curves = load_component("node-scaling").curves
    assert curves is not None
    ends = {card.node.si * 1e9: card.figure(field).band() for card in (old, young) if card.node is not None}
    (n_young, at_young), (n_old, at_old) = sorted(ends.items())
    by_law = [at_old.nominal * law(node_nm) / law(n_old)]
    if node_nm > n_old:
        scaled = at_old * (law(node_nm) / law(n_old))
    elif node_nm < n_young:
        scaled = at_young * (law(node_nm) / law(n_young))
        by_law = []
    else:
        w = math.log(node_nm / n_young) / math.log(n_old / n_young)
        scaled = Band(*(_between(a, b, w) for a, b in zip(_bounds(at_old), _bounds(at_young), strict=True)))
    return Band(min([scaled.low / curves.error, *by_law]), scaled.nominal, max([scaled.high * curves.error, *by_law]))


def figures_at(old: ComponentCard, young: ComponentCard, field: str) -> list[tuple[ComponentCard, Quantity]]:
    """The figures that `at_node` rests on, with the card of each.

    Args:
        old: as in `at_node`.
        young: as in `at_node`.
        field: as in `at_node`.
    """
    return [(old, old.figure(field)), (young, young.figure(field))]


def _bounds(band: Band) -> tuple[float, float, float]:
    return band.low, band.nominal, band.high


def _between(old: float, young: float, w: float) -> float:
    return math.exp(w * math.log(old) + (1 - w) * math.log(young))
