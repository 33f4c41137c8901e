"""Networks that stand for several chips: what they give has the chips in front."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn


class ChipsInFront(nn.Module):
    """A network of several chips: it takes (batch, ...), and all that it gives is (chips, batch, ...).

    Attributes:
        n_chips: how many chips.
    """

    n_chips: int

    def parts(self) -> Iterator[ChipsInFront]:
        """Networks of as many of the chips as fit into the memory together, one after another: here all of them."""
        yield self
