"""The tables `[serving]`, `[power]` and `[links]` of a card; of a card without them, another card's, scaled."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from hpml_sim.cards import load_card
from hpml_sim.errors import HpmlError

if TYPE_CHECKING:
    from hpml_sim.cards import DigitalCard, Quantity
    from hpml_sim.cards.schema.serving import Link, Serving, WorkPower

SISTER = "h100"
"""The card whose tables stand in for those that a card does not have: fitted to the most records."""


def _sister() -> DigitalCard:
    return cast("DigitalCard", load_card(SISTER))


def serving_of(card: DigitalCard) -> Serving:
    """The host and the kernels of a serving engine.

    Args:
        card: the GPU; without a table of its own, those of another one: hosts differ little, and shares of bandwidth
            and peak are shares.
    """
    found = card.serving or _sister().serving
    assert found is not None
    return found


def power_of(card: DigitalCard) -> WorkPower:
    """What work draws.

    Args:
        card: the GPU; without a table of its own, another one's, scaled.
    """
    return scaled_power(card, _sister()) if card.power is None else card.power


def scaled_power(card: DigitalCard, other: DigitalCard) -> WorkPower:
    """What work would draw on a GPU if it were built like another one.

    Clocks go by the limit of the board, operations by limit over peak in 16 bits, bytes by limit over bandwidth.

    Args:
        card: the GPU.
        other: one with a table `[power]`.
    """
    assert other.power is not None
    watts = card.power_max.si / other.power_max.si
    operations = watts * _peak(other) / _peak(card)
    bytes_ = watts * other.memory_bandwidth.si / card.memory_bandwidth.si
    factors = {
        "clocks": watts,
        "traffic": bytes_,
        "attention": bytes_,
        "operation": operations,
        "expert_operation": operations,
    }
    return other.power.model_copy(update={k: _scaled(getattr(other.power, k), v) for k, v in factors.items()})


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


def _peak(card: DigitalCard) -> float:
    return next(card.peak[p].si for p in ("bf16", "fp16", "tf32", "fp32") if p in card.peak)


def _scaled(quantity: Quantity, factor: float) -> Quantity:
    return quantity.model_copy(update={"value": quantity.value * factor, "low": None, "high": None, "status": "scaled"})
