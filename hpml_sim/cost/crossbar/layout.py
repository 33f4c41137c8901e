"""Which products of a workload lie on which tiles: by its mapping, or as a card's array cuts what was counted."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hpml_sim.cards import CrossbarCard
from hpml_sim.conversion.mapping import cells_per_weight, tiling_on
from hpml_sim.cost.crossbar.converter_bits import followed_bits
from hpml_sim.cost.crossbar.mapping import Placement, place_tiling
from hpml_sim.counting import LayerCount
from hpml_sim.errors import HpmlError
from hpml_sim.targets.cards import card_named

if TYPE_CHECKING:
    from hpml_sim.conversion.mapping import MappedProduct, Mapping
    from hpml_sim.counting import Workload

_CONVERT_CUTS_OTHERWISE = ("", "MultiheadAttention", "Bilinear")
"""Classes of modules, "" for products outside of any, whose matrices `convert` leaves digital or cuts up."""


@dataclass(frozen=True)
class Layout:
    """Where the products of a workload are computed.

    Attributes:
        placements: those on tiles, with the card of each, in order of execution.
        digital: counts of all other layers.
        remarks: what a reader of the estimate may doubt, one sentence each.
    """

    placements: tuple[tuple[CrossbarCard, Placement], ...]
    digital: tuple[LayerCount, ...]
    remarks: tuple[str, ...] = ()

    @property
    def cards(self) -> tuple[CrossbarCard, ...]:
        """The cards that any product lies on, each once."""
        return tuple({card.name: card for card, _ in self.placements}.values())


def as_mapped(workload: Workload, mapping: Mapping) -> Layout:
    """The layout of a converted network: that of its mapping.

    Args:
        workload: counts of the network.
        mapping: of the network, by the names of the workload.
    """
    products, seen, placements, digital = mapping.products, set(), [], []
    for layer in workload.layers:
        product = products.get(layer.name)
        # a product that the network computes with the layer's weights by itself is no call of the layer: digital
        if product is None or not layer.rows or not layer.module:
            digital.append(layer)
            continue
        seen.add(layer.name)
        placements.append(_placed(layer, product))
    remarks = []
    for name, product in products.items():
        if name not in seen:
            t = product.tiling
            count = LayerCount(name, "linear", rows=t.rows, cols=t.cols, groups=t.groups)
            placements.append(_placed(count, product))
            remarks.append(
                f"layer {name!r} takes tiles and spends no energy: it was not called in the pass that counted"
            )
    return Layout(tuple(placements), tuple(digital), tuple(remarks))


def _placed(layer: LayerCount, product: MappedProduct) -> tuple[CrossbarCard, Placement]:
    target = product.target
    card = card_named(target.card, CrossbarCard)
    placement = place_tiling(layer, product.tiling, product.cells_per_weight)
    placement.input_bits, placement.output_bits = followed_bits(
        card, dac_bits=target.dac_bits, adc_bits=target.adc_bits
    )
    placement.dynamic, placement.by_channel = product.dynamic, product.by_channel
    return card, placement


def as_counted(
    workload: Workload,
    card: CrossbarCard,
    *,
    digital_layers: Collection[str] = (),
    slices: int = 1,
    input_bits: int | None = None,
    output_bits: int | None = None,
) -> Layout:
    """The layout of a network that was not converted: every matrix that was counted lies on tiles.

    Args:
        workload: counts of the network.
        card: the machine.
        digital_layers: names of layers with weights that stay digital.
        slices: digits of a weight, each with a column of its own.
        input_bits: resolution of the inputs; None takes the card's.
        output_bits: resolution of a conversion; None takes the card's.

    Raises:
        HpmlError: a name in `digital_layers` is not a layer of the workload.
    """
    unknown = set(digital_layers) - {layer.name for layer in workload.layers}
    if unknown:
        raise HpmlError(f"digital_layers={sorted(unknown)}: no such layers in the workload")
    placements, digital = [], []
    for y in workload.layers:
        if not (y.rows > 0 and y.cols > 0) or y.name in digital_layers:
            digital.append(y)
            continue
        tiling = tiling_on(card, y.rows, y.cols, y.groups, slices)
        placement = place_tiling(y, tiling, cells_per_weight(card, slices))
        placement.input_bits, placement.output_bits = input_bits, output_bits
        placements.append((card, placement))
    return Layout(tuple(placements), tuple(digital), _differences([p.layer for _, p in placements], workload))


def _differences(on_tiles: list[LayerCount], workload: Workload) -> tuple[str, ...]:
    """Where a conversion would map otherwise. Counts that were made by hand have no modules, and say nothing."""
    if not any(layer.module for layer in workload.layers):
        return ()
    names = [layer.name for layer in on_tiles if layer.module in _CONVERT_CUTS_OTHERWISE]
    if not names:
        return ()
    return (
        f"{', '.join(names)}: counted on a network that was not converted, each as one matrix on tiles; hs.convert may "
        "cut it up or leave it digital: hs.estimate(hs.convert(network, target), ...) maps it as chips do",
    )
