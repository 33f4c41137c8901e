"""`Rule`: how a class of layers is counted."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from hpml_sim.counting.operation_counts import LayerCount

Counter = Callable[[Any, tuple[Any, ...], Any], Iterable[LayerCount]]
"""(module, inputs, output) -> what this call did, all samples of the batch together.

`LayerCount.name` stays "" or names a part of the module ("ih_l0": weight_ih_l0 and bias_ih_l0 belong to it)."""


@dataclass(frozen=True)
class Rule:
    """How a class is counted.

    Attributes:
        counter: counts one call; None looks inside instead.
        sub_layers: layers called inside count themselves; otherwise the counter speaks for all that happens inside.
    """

    counter: Counter | None
    sub_layers: bool = False
