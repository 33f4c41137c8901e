"""What became of one layer of a network that was made ready for a target."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LayerReport:
    """What became of one layer.

    Attributes:
        layer: dotted name.
        was: class before.
        became: class after, or "digital".
        tiles: crossbar tiles, >= 1; None off crossbars.
        utilization: share of the cells of those tiles that are in use, 0 to 1; None off crossbars.
        input_range: how the full scale of its inputs is found, "" until data have passed, and off crossbars.
        converter_db: power of its exact outputs over that of what its converters lose, decibels, without any noise of
            devices; None until data have passed, and off crossbars.
        why: the reason when the layer was left as it is; else what is worth knowing of it.
    """

    layer: str
    was: str
    became: str
    tiles: int | None = None
    utilization: float | None = None
    input_range: str = ""
    converter_db: float | None = None
    why: str = ""
