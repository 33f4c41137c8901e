"""The tables `[serving]` and `[links]` of a card; of a card without the first, another card's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpml_sim.cost.digital.power import sister
from hpml_sim.errors import HpmlError

if TYPE_CHECKING:
    from hpml_sim.cards import DigitalCard
    from hpml_sim.cards.schema.serving import Link, Serving


def serving_of(card: DigitalCard) -> Serving:
    """The host and the kernels of a serving engine.

    Args:
        card: the GPU; without a table of its own, those of another one: hosts differ little, and shares of bandwidth
            and peak are shares.
    """
    found = card.serving or sister().serving
    assert found is not None
    return found


def link_of(card: DigitalCard) -> Link:
    """How GPUs of one machine are connected; the first link of the card.

    Args:
        card: the GPU.

    Raises:
        HpmlError: the card has no link.
    """
    for link in card.links.values():
        return link
    raise HpmlError(
        f"devices: card {card.name!r} says nothing of links between GPUs; take one device, or a card with a table "
        "[links], such as 'a100', 'h100', 'h200' or 'b200'"
    )
