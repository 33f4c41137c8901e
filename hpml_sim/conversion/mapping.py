"""The mapping: where each product of a converted network lies, on which tiles, or why it stays digital.

`convert` makes it. The simulation multiplies by its tilings, the report is a view of it, and the estimate charges it.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping as Table
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from hpml_sim.cards import CrossbarCard
from hpml_sim.conversion.layer_report import LayerReport
from hpml_sim.conversion.tiling import Tiling
from hpml_sim.targets import Analog, InMemory
from hpml_sim.targets.cards import card_named
from hpml_sim.targets.checking import checked
from hpml_sim.units.display import html_table, text_table

if TYPE_CHECKING:
    import pandas as pd

ACTIVATION_PRODUCT = "product of two activations: digital"
"""Why a product stays digital whose two factors both depend on the input."""


def cells_per_weight(card: CrossbarCard, slices: int = 1) -> int:
    """Columns of a tile that one weight takes.

    Args:
        card: the machine.
        slices: digits of a weight, each with a column of its own, >= 1.
    """
    return max(1, int(card.array.cells_per_weight)) * slices


def tiling_on(card: CrossbarCard, rows: int, cols: int, groups: int = 1, slices: int = 1) -> Tiling:
    """How the matrices of a layer lie on the tiles of a card. All cells of a weight lie on one tile.

    Args:
        card: the machine.
        rows: inputs of one matrix.
        cols: outputs of one matrix.
        groups: independent matrices.
        slices: digits of a weight, >= 1.
    """
    width = max(1, int(card.array.cols) // cells_per_weight(card, slices))
    return Tiling(groups, rows, cols, int(card.array.rows), width)


@dataclass(frozen=True)
class MappedProduct:
    """One matrix product of a layer on crossbar tiles.

    Attributes:
        name: dotted name of the layer that holds the crossbar; of an LSTM, say, a layer inside of it.
        tiling: how the matrix lies on tiles: rows, columns, groups, row tiles, column tiles.
        target: the crossbars that it lies on.
        cells_per_weight: columns of a tile that one weight takes, slices included.
        slices: digits of a weight.
        dac_bits: resolution of the input converters.
        adc_bits: resolution of the output converters.
        copies: how often the matrix is stored, 1: an estimate alone copies slow layers onto tiles that stay empty.
        dynamic: whether each input vector is scaled by its own largest value, which takes digital work; of a target
            that leaves the choice to the data, whether it may be.
        by_channel: whether each input channel is scaled by a factor of its own.
    """

    name: str
    tiling: Tiling
    target: Analog | InMemory
    cells_per_weight: int
    slices: int
    dac_bits: int | Literal["ideal"]
    adc_bits: int | Literal["ideal"]
    copies: int = 1
    dynamic: bool = False
    by_channel: bool = False

    @classmethod
    def on(cls, target: Analog | InMemory, name: str, rows: int, cols: int, groups: int = 1) -> MappedProduct:
        """The product on the tiles of a target.

        Args:
            target: the crossbars.
            name: dotted name of the layer.
            rows: inputs of one matrix.
            cols: outputs of one matrix.
            groups: independent matrices.
        """
        card = card_named(target.card, CrossbarCard)
        slices = target.slices if isinstance(target, Analog) else 1
        return cls(
            name,
            tiling_on(card, rows, cols, groups, slices),
            target,
            cells_per_weight(card, slices),
            slices,
            int(card.io.dac_bits) if target.dac_bits is None else target.dac_bits,
            int(card.io.adc_bits) if target.adc_bits is None else target.adc_bits,
            dynamic=isinstance(target, Analog) and _may_be_dynamic(target, card),
            by_channel=isinstance(target, Analog) and target.input_range_by == "channel",
        )


def _may_be_dynamic(target: Analog, card: CrossbarCard) -> bool:
    """Whether each vector may be scaled by its own largest value: by the target, so that an estimate needs no data."""
    return card.io.can_range("dynamic") if target.input_range is None else target.input_range.name == "dynamic"


@dataclass(frozen=True)
class MappedLayer:
    """What became of one layer of a network.

    Attributes:
        layer: dotted name.
        was: class before.
        became: class after, or "digital".
        why: the reason when the layer was left as it is; else what is worth knowing of it.
        products: its matrix products on crossbars; empty where it stays digital.
    """

    layer: str
    was: str
    became: str
    why: str = ""
    products: tuple[MappedProduct, ...] = ()

    def report(self) -> LayerReport:
        """The row of the report."""
        if not self.products:
            return LayerReport(self.layer, self.was, self.became, why=self.why)
        tilings = [product.tiling for product in self.products]
        tiles = sum(tiling.tiles for tiling in tilings)
        used = sum(tiling.utilization * tiling.tiles for tiling in tilings) / tiles
        return LayerReport(self.layer, self.was, self.became, tiles, used, why=self.why)


@dataclass(frozen=True)
class Mapping:
    """Where the products of a network lie: one for simulation, report and estimate.

    Attributes:
        layers: what became of each layer, in the order of the network.

    Example:
        >>> import hpml_sim as hs
        >>> analog = hs.convert(hs.models.mlp(64, 32, 10), hs.Analog("pcm-hermes", adc_bits=6))
        >>> analog.mapping.tiles
        2
        >>> print(analog.mapping)
        2 tiles for 2 products
        layer  matrix   tiles  slices  cells  DAC  ADC  on          why
        0                                               digital     no weight matrix
        1      64 x 32  1 x 1       1      1    8    6  pcm-hermes
        2                                               digital     no weight matrix
        3      32 x 10  1 x 1       1      1    8    6  pcm-hermes
    """

    layers: tuple[MappedLayer, ...]

    @property
    def products(self) -> dict[str, MappedProduct]:
        """The products on crossbars by the name of their layer."""
        return {product.name: product for layer in self.layers for product in layer.products}

    @property
    def tiles(self) -> int:
        """Tiles of all layers."""
        return sum(product.tiling.tiles for product in self.products.values())

    def reports(self) -> tuple[LayerReport, ...]:
        """The rows of the report."""
        return tuple(layer.report() for layer in self.layers)

    def below(self, place: str) -> Mapping:
        """The same mapping with the names that its layers have inside of another module.

        Args:
            place: dotted name of the network in that module.
        """

        def inside(name: str) -> str:
            return f"{place}.{name}" if name else place

        return Mapping(
            tuple(
                replace(
                    layer,
                    layer=inside(layer.layer),
                    products=tuple(replace(product, name=inside(product.name)) for product in layer.products),
                )
                for layer in self.layers
            )
        )

    def table(self) -> pd.DataFrame:
        """One row a product or digital layer: its matrix, tiles, slices, cells, converters, card, and why.

        The columns are `layer`, `rows`, `cols`, `groups`, `tiles`, `row_tiles`, `col_tiles`, `copies`, `slices`,
        `cells_per_weight`, `dac_bits`, `adc_bits`, `target` and `why`.
        """
        import pandas as pd

        columns = ["layer", "rows", "cols", "groups", "tiles", "row_tiles", "col_tiles", "copies", "slices"]
        columns += ["cells_per_weight", "dac_bits", "adc_bits", "target", "why"]
        rows = []
        for layer, product in self._lines():
            if product is None:
                rows.append({"layer": layer.layer, "target": "digital", "why": layer.why})
                continue
            tiling = product.tiling
            rows.append(
                {name: getattr(product, name) for name in columns[7:12]}
                | {name: getattr(tiling, name) for name in columns[1:7]}
                | {"layer": product.name, "target": repr(product.target), "why": layer.why}
            )
        return pd.DataFrame(rows, columns=columns)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings, lists and dicts, for JSON; `Mapping.from_dict` reads it."""
        return {"layers": [_plain(layer) for layer in self.layers]}

    @classmethod
    def from_dict(cls, plain: Table[str, Any]) -> Mapping:
        """The mapping that `to_dict` wrote.

        Args:
            plain: the dict, as `to_dict` or JSON gives it.

        Raises:
            KeyError: a field is missing.
            TypeError: a field that a mapping does not have.
            HpmlError: a target that cannot be.
        """
        return cls(
            tuple(MappedLayer(**{**row, "products": tuple(map(_product, row["products"]))}) for row in plain["layers"])
        )

    def __str__(self) -> str:
        columns, rows = self._cells()
        return text_table(columns, rows, title=self._heading())

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        columns, rows = self._cells()
        return html_table(self._heading(), rows, columns=columns)

    def _lines(self) -> Iterator[tuple[MappedLayer, MappedProduct | None]]:
        for layer in self.layers:
            yield from ((layer, product) for product in layer.products or (None,))

    def _heading(self) -> str:
        tiles, products = self.tiles, len(self.products)
        return f"{tiles:,} tile{'s'[: tiles != 1]} for {products:,} product{'s'[: products != 1]}"

    def _cells(self) -> tuple[list[str], list[list[object]]]:
        columns = ["layer", "matrix", "tiles", "slices", "cells", "DAC", "ADC", "on", "why"]
        rows: list[list[object]] = []
        for layer, product in self._lines():
            if product is None:
                rows.append([layer.layer, *[None] * 6, "digital", layer.why])
                continue
            t = product.tiling
            matrix = f"{t.rows} x {t.cols}" + (f" x {t.groups}" if t.groups > 1 else "")
            tiles = f"{t.row_tiles} x {t.col_tiles}" if t.groups == 1 else t.tiles
            bits = [product.slices, product.cells_per_weight, product.dac_bits, product.adc_bits]
            rows.append([product.name, matrix, tiles, *bits, product.target.card, layer.why])
        return columns, rows


_KINDS: dict[str, type[Analog] | type[InMemory]] = {"Analog": Analog, "InMemory": InMemory}


def _plain(layer: MappedLayer) -> dict[str, Any]:
    products = [
        {**asdict(product), "target": {"kind": type(product.target).__name__, **asdict(product.target)}}
        for product in layer.products
    ]
    return {**{name: getattr(layer, name) for name in ("layer", "was", "became", "why")}, "products": products}


def _product(plain: Table[str, Any]) -> MappedProduct:
    options = dict(plain["target"])
    target = checked(_KINDS[options.pop("kind")], options, where="mapping: target")
    return MappedProduct(**{**plain, "tiling": Tiling(**plain["tiling"]), "target": target})
