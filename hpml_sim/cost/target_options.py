"""What a target says of an estimate: its card, precision and engine, or the bits and slices of its crossbars."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hpml_sim.cards import Card, CrossbarCard, load_card
from hpml_sim.cost.crossbar import followed_bits
from hpml_sim.targets import Analog, Digital, Target, analog_part
from hpml_sim.targets.cards import card_named

if TYPE_CHECKING:
    from hpml_sim.cards import Precision
    from hpml_sim.targets import EstimatedEngine


@dataclass(frozen=True)
class TargetOptions:
    """The card of a target and the options of `estimate` that the target decides.

    Attributes:
        card: the machine.
        precision: of a digital target.
        engine: of a digital target, or given beside a card.
        channels_last: of a digital target.
        input_bits: of a target on crossbars: what the card's figures follow of its `dac_bits`; None: the card's own.
        output_bits: of a target on crossbars: what the card's figures follow of its `adc_bits`; None: the card's own.
        slices: of a target on crossbars: digits of a weight, each with a column of its own.
        remarks: one sentence for each resolution that no figure of the card follows.
    """

    card: Card
    precision: Precision | None = None
    engine: EstimatedEngine | None = None
    channels_last: bool = False
    input_bits: int | None = None
    output_bits: int | None = None
    slices: int = 1
    remarks: tuple[str, ...] = ()


def target_options(target: Target) -> TargetOptions:
    """What `estimate` has to know of a target.

    Args:
        target: any target; of a spiking one with synapses on crossbars, the crossbars are what is estimated.
    """
    if isinstance(target, Digital):
        return TargetOptions(load_card(target.card), target.precision, target.engine, target.channels_last)
    analog = analog_part(target)
    if analog is None:
        return TargetOptions(load_card(target.card))
    card = card_named(analog.card, CrossbarCard)
    into, out = followed_bits(card, dac_bits=analog.dac_bits, adc_bits=analog.adc_bits)
    asked = (
        ("dac_bits", analog.dac_bits, card.io.dac_bits, into),
        ("adc_bits", analog.adc_bits, card.io.adc_bits, out),
    )
    remarks = tuple(
        f"{name}={bits} of the target: no figure of card {card.name!r} follows it; energy, time and area are with the "
        f"card's {int(own)}"
        for name, bits, own, followed in asked
        if bits is not None and bits != int(own) and followed is None
    )
    slices = analog.slices if isinstance(analog, Analog) else 1
    return TargetOptions(card, input_bits=into, output_bits=out, slices=slices, remarks=remarks)
