"""The machines of a run, each under a label: from names of cards, targets, and tables of a file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator

from hpml_sim.cards import CrossbarCard, DigitalCard, load_card
from hpml_sim.errors import HpmlError, shown
from hpml_sim.targets import Analog, Digital, InMemory, Spiking, Target, as_target
from hpml_sim.targets.checking import checked

TargetsLike = Sequence[str | Target] | Mapping[str, str | Target]
"""What the calls take: names of cards and targets, or a mapping from labels of one's own to either."""
_EXAMPLE = "such as ['cpu', 'pcm-hermes']"


def labeled_targets(given: Any) -> dict[str, Target]:
    """Targets by label: the card's name, unless a mapping gives labels of its own.

    Args:
        given: a list of names of cards, targets, and tables such as {"card": "loihi", "steps": 5}; or a mapping from
            labels to such.

    Raises:
        UnknownNameError: no card has this name.
        HpmlError: no list and no mapping, a label that stands twice, or a target that cannot be.
    """
    if isinstance(given, (str, Path, Target)) or not isinstance(given, Iterable):
        raise HpmlError(f"targets={shown(given)}: must be a list of cards or targets, {_EXAMPLE}")
    if isinstance(given, Mapping):
        return {str(label): _target(target) for label, target in given.items()}
    found: dict[str, Target] = {}
    for entry in given:
        target = _target(entry)
        label = target_label(target)
        if label in found:
            raise HpmlError(
                f"targets: {label!r} stands twice; give a mapping from labels of your own to the targets, such as "
                f"{{'first': {label!r}, ...}}"
            )
        found[label] = target
    return found


def target_label(target: Target) -> str:
    """What a target is called that was given no label: its card's name, and that of its synapses.

    Args:
        target: any target.
    """
    if isinstance(target, Spiking) and target.synapses is not None:
        return f"{target.card}+{target.synapses.card}"
    return target.card


def _target(given: Any) -> Target:
    """A target from a table as well: the kind of its card picks the class, and an in-memory one names its device."""
    if not isinstance(given, (str, Path, Target, Mapping)):
        raise HpmlError(f"targets: {shown(given)} is no machine; give a card's name, a target, or a table with a card")
    if not isinstance(given, Mapping):
        return as_target(given)
    if "card" not in given:
        raise HpmlError(f"targets: {dict(given)!r} has no card; add it, such as card = 'pcm-hermes'")
    card = load_card(str(given["card"]))
    if isinstance(card, CrossbarCard):
        kind = InMemory if "device" in given else Analog
    else:
        kind = Digital if isinstance(card, DigitalCard) else Spiking
    return checked(kind, given, where=f"target on {given['card']}")


def as_tables(targets: Mapping[str, Target]) -> list[str] | dict[str, Any]:
    """The targets as plain values, which `labeled_targets` reads: a list of cards where that says it all.

    Args:
        targets: label -> target.
    """
    if all(label == target.card and target == as_target(label) for label, target in targets.items()):
        return list(targets)
    return {label: asdict(target) for label, target in targets.items()}


Targets = Annotated[dict[str, Target], BeforeValidator(labeled_targets)]
"""Label -> target, read from Python, TOML and the command line alike."""
