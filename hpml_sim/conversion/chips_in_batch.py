"""Modules that must know how many chips lie side by side in their batch, where a user puts them there."""

from __future__ import annotations

from torch import nn

from hpml_sim.errors import HpmlError


class ChipsInBatch(nn.Module):
    """A module whose first dimension is (chips x ... x batch), and which must know the chips to find what lies in it.

    Programmed chips (`hs.program`) do not lie in the batch: their network runs as it is, for each of them.

    Attributes:
        chips: simulated chips side by side, outermost in the first dimension, >= 1; 1 by default.
            Setting it sets it in all such modules inside as well.
    """

    def __init__(self) -> None:
        super().__init__()
        self._chips = 1

    @property
    def chips(self) -> int:
        """Chips that lie side by side in the first dimension."""
        return self._chips

    @chips.setter
    def chips(self, value: int) -> None:
        if value < 1:
            raise HpmlError(f"{type(self).__name__}.chips={value!r} must be >= 1")
        for module in self.modules():
            if isinstance(module, ChipsInBatch):
                module._chips = value
