"""What a GPU draws by what it does: idle, clocks that run, bytes moved, operations; networks and serving engines alike.

    joules = (idle + clocks) x seconds + bytes x price + operations x price
    power  = joules / seconds, bent at the board's limit

Source: docs/gpu_validation.md: the prices are fitted to served language models; of a GPU without records, scaled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from hpml_sim.cards import load_card

if TYPE_CHECKING:
    from hpml_sim.cards import DigitalCard, Precision, Quantity
    from hpml_sim.cards.schema.serving import WorkPower

SISTER = "h100"
"""The card whose tables stand in for those that a card does not have: fitted to the most records."""
CAP_SHARPNESS = 8
"""How sharply power bends at the board's limit: P / (1 + (P / limit)^s)^(1/s)."""


def sister() -> DigitalCard:
    """The card `SISTER`."""
    return cast("DigitalCard", load_card(SISTER))


def power_of(card: DigitalCard) -> WorkPower:
    """What work draws.

    Args:
        card: the GPU; without a table `[power]`, another one's, scaled.
    """
    return scaled_power(card, sister()) if card.power is None else card.power


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


def operation_j(card: DigitalCard, precision: Precision) -> float:
    """Joules of an operation: a GPU at its peak draws the same in every precision, so narrower ones take less.

    Args:
        card: the GPU.
        precision: of the arithmetic; the card has a peak for it.
    """
    return power_of(card).operation.si * _peak(card) / card.peak[precision].si


def capped(watts: float, limit: float) -> float:
    """Mean power where the board's limit bends it.

    Args:
        watts: what the work would draw.
        limit: of the board.
    """
    return 0.0 if limit <= 0 else watts / (1 + (watts / limit) ** CAP_SHARPNESS) ** (1 / CAP_SHARPNESS)


def _peak(card: DigitalCard) -> float:
    return next(card.peak[p].si for p in ("bf16", "fp16", "tf32", "fp32") if p in card.peak)


def _scaled(quantity: Quantity, factor: float) -> Quantity:
    return quantity.model_copy(update={"value": quantity.value * factor, "low": None, "high": None, "status": "scaled"})
