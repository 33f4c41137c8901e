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
        why: the reason when the layer was left as it is; else what is worth knowing of it.
    """

    layer: str
    was: str
    became: str
    tiles: int | None = None
    utilization: float | None = None
    why: str = ""
