"""A target from a card's name, and what of a target holds its weights."""

from __future__ import annotations

from pathlib import Path

from hpml_sim.cards import CrossbarCard, DigitalCard, load_card
from hpml_sim.errors import HpmlError, shown
from hpml_sim.targets.analog import Analog, InMemory
from hpml_sim.targets.digital import Digital
from hpml_sim.targets.spiking import Spiking

Target = Digital | Analog | InMemory | Spiking
"""How a network runs."""


def analog_part(target: Target) -> Analog | InMemory | None:
    """What holds the weights on crossbars: the target itself, or the synapses of a spiking one.

    Args:
        target: any target.

    Returns:
        None where no weight lies on a crossbar.
    """
    if isinstance(target, Spiking):
        return target.synapses
    return None if isinstance(target, Digital) else target


def in_memory(target: Target) -> bool:
    """Whether the weights are devices that are trained in place: no chip is programmed, and no time counts from it.

    Args:
        target: any target.
    """
    return isinstance(analog_part(target), InMemory)


def as_target(target: Target | str | Path) -> Target:
    """A target from a target, or from a card's name or path.

    Args:
        target: a target, which is returned as it is, or a card: its kind picks `Digital`, `Analog` or `Spiking`.

    Raises:
        UnknownNameError: no card has this name.
        CardError: the card is broken.
        HpmlError: neither a target nor a name.
    """
    if isinstance(target, Target):
        return target
    if isinstance(target, type):
        example = f"call it: hs.{target.__name__}('pcm-hermes')" if target in (Analog, InMemory) else "call it"
        raise HpmlError(f"target: {target.__name__} is a class; {example}")
    if not isinstance(target, (str, Path)):
        raise HpmlError(
            f"target={shown(target)}: give a card's name, such as 'pcm-hermes', or a target, such as "
            "hs.Analog('pcm-hermes')"
        )
    card = load_card(target)
    kind = Digital if isinstance(card, DigitalCard) else Analog if isinstance(card, CrossbarCard) else Spiking
    return kind(str(target))
