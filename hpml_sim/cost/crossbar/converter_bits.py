"""Which resolutions of the converters a card's figures can follow, and in which mode."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from hpml_sim.cost.adc import MAX_BITS, MIN_BITS
from hpml_sim.errors import HpmlError

if TYPE_CHECKING:
    from hpml_sim.cards import CrossbarCard, Quantity

Mode = Literal["preset", "component"]
_ANY_BITS = (1, 16)


def choose_mode(card: CrossbarCard, mode: Mode | None, input_bits: int | None, output_bits: int | None) -> Mode:
    """The mode of an estimate: the one asked for, or the card's preset where it has one.

    Args:
        card: the machine.
        mode: "preset", "component", or None for the first that the card has.
        input_bits: resolution of the inputs; None takes the card's.
        output_bits: resolution of a conversion; None takes the card's.

    Raises:
        HpmlError: the card has no energy at all, lacks this mode, or none of its figures follows these bits.
    """
    have: list[Mode] = []
    if card.preset is not None:
        have.append("preset")
    if card.component is not None:
        have.append("component")
    if not have:
        raise HpmlError(
            f"card {card.name!r} describes devices only (neither [preset] nor [component]): there is no energy to "
            "estimate from; take the card of a whole machine, such as 'pcm-hermes'"
        )
    mode = mode or have[0]
    if mode not in have:
        raise HpmlError(f"mode={mode!r}: card {card.name!r} has {' and '.join(have)} only")
    choosable = _choosable_bits(card)
    for name, bits in (("input_bits", input_bits), ("output_bits", output_bits)):
        if bits is None:
            continue
        if name not in choosable:
            raise HpmlError(f"{name}={bits}: card {card.name!r} {_fixed(card, name)}; leave them at the card's")
        fewest, most = choosable[name]
        if not fewest <= bits <= most:
            raise HpmlError(f"{name}={bits}: card {card.name!r} follows {fewest} to {most} bits")
    return mode


def followed_bits(
    card: CrossbarCard, *, dac_bits: int | Literal["ideal"] | None, adc_bits: int | Literal["ideal"] | None
) -> tuple[int | None, int | None]:
    """Of a target's converter resolutions, those that an estimate on the card follows: its `input_bits`, `output_bits`.

    None stands for the card's own: not asked for, or no figure of the card would follow, as of an ideal converter. A
    converter whose readings the card merges into wider outputs does not follow either: an output bit is then no bit of
    the converter.

    Args:
        card: the machine.
        dac_bits: of the input converters, as in `hs.Analog`; None takes the card's.
        adc_bits: of the output converters, as in `hs.Analog`; None takes the card's.
    """
    choosable, part = _choosable_bits(card), card.component

    def followed(name: str, bits: int | Literal["ideal"] | None, own: Quantity, converter: Quantity) -> int | None:
        if bits is None or bits == "ideal" or bits == int(own) or int(own) != int(converter) or name not in choosable:
            return None
        fewest, most = choosable[name]
        return bits if fewest <= bits <= most else None

    io = card.io
    return (
        followed("input_bits", dac_bits, io.dac_bits, io.dac_bits if part is None else part.input_bits),
        followed("output_bits", adc_bits, io.adc_bits, io.adc_bits if part is None else part.output_bits),
    )


def _choosable_bits(card: CrossbarCard) -> dict[str, tuple[int, int]]:
    """Which of `input_bits` and `output_bits` energy and time follow, with the fewest and the most."""
    regression = (MIN_BITS, MAX_BITS)
    part = card.component
    if part is None:
        known = (
            card.preset is not None
            and card.preset.adc_share is not None
            and MIN_BITS <= int(card.io.adc_bits) <= MAX_BITS
        )
        return {"output_bits": regression} if known else {}
    found: dict[str, tuple[int, int]] = {"input_bits": _ANY_BITS}
    own = int(part.output_bits)
    if part.step_energy is not None:
        found["output_bits"] = _ANY_BITS
    elif part.conversion_energy is not None and MIN_BITS <= own <= MAX_BITS:
        found["output_bits"] = regression
    elif part.adc is not None:
        # the regression holds for effective bits, which lie below the nominal ones that a caller names
        shift = own - part.adc.bits.si
        found["output_bits"] = (math.ceil(MIN_BITS + shift), math.floor(MAX_BITS + shift))
    return found


def _fixed(card: CrossbarCard, name: str) -> str:
    """Why these bits are fixed, as the end of a sentence about the card."""
    if card.component is not None:
        return "has no energy of a conversion that would follow them"
    if name == "input_bits":
        return "is a published total for one input resolution"
    return "is a published total, and how much of it the converters take is not known (preset.adc_share)"
