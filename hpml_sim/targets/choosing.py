"""A target from a card's name, and what of a target holds its weights."""

from __future__ import annotations

from pathlib import Path

from hpml_sim.cards import CrossbarCard, DigitalCard, load_card
from hpml_sim.errors import HpmlError, shown
from hpml_sim.targets.analog import Analog, InMemory, PerLayer
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


def crossbar_targets(target: Target | PerLayer) -> tuple[Analog | InMemory, ...]:
    """All crossbars that hold weights, each once; none where no weight lies on a crossbar.

    Args:
        target: any target, also one for each layer.
    """
    if isinstance(target, PerLayer):
        return tuple(dict.fromkeys(target.layers.values()))
    analog = analog_part(target)
    return () if analog is None else (analog,)


def cards_of(target: Target | PerLayer) -> tuple[str, ...]:
    """The cards that a target names: its own, or those of its layers, each once.

    Args:
        target: any target, also one for each layer.
    """
    if isinstance(target, PerLayer):
        return tuple(dict.fromkeys(own.card for own in target.layers.values()))
    return (target.card,)


def in_memory(target: Target | PerLayer) -> bool:
    """Whether the weights are devices that are trained in place: no chip is programmed, and no time counts from it.

    Args:
        target: any target.
    """
    return any(isinstance(own, InMemory) for own in crossbar_targets(target))


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
