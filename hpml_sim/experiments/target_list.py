"""The machines of a run, each under a label: from names of cards, targets, and tables of a file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator

from hpml_sim.cards import CrossbarCard, DigitalCard, list_cards, load_card
from hpml_sim.errors import HpmlError, shown
from hpml_sim.targets import Analog, Digital, InMemory, PerLayer, Spiking, Target, as_target, cards_of
from hpml_sim.targets.checking import checked

AnyTarget = Target | PerLayer
"""How a network runs, on one machine or on crossbars of different kinds."""
TargetsLike = Sequence[str | AnyTarget] | Mapping[str, str | AnyTarget | Mapping[str, Analog | InMemory | str]]
"""What the calls take: names of cards and targets, or a mapping from labels of one's own to either; crossbars by the
names of layers, as `hs.convert` takes them, are a target as well."""
_EXAMPLE = "such as ['cpu', 'pcm-hermes']"


def labeled_targets(given: Any) -> dict[str, AnyTarget]:
    """Targets by label: the card's name, unless a mapping gives labels of its own.

    Args:
        given: a list of names of cards, targets, and tables such as {"card": "loihi", "steps": 5} or, by the names of
            layers, {"head": "pcm-hermes"}; or a mapping from labels to such.

    Raises:
        UnknownNameError: no card has this name.
        HpmlError: no list and no mapping, a label that stands twice, or a target that cannot be.
    """
    if isinstance(given, (str, Path, AnyTarget)) or not isinstance(given, Iterable):
        raise HpmlError(f"targets={shown(given)}: must be a list of cards or targets, {_EXAMPLE}")
    if isinstance(given, Mapping):
        return {str(label): _target(target) for label, target in given.items()}
    found: dict[str, AnyTarget] = {}
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


def target_label(target: AnyTarget) -> str:
    """What a target is called that was given no label: its card's name, and that of its synapses.

    Args:
        target: any target.
    """
    if isinstance(target, PerLayer):
        return f"{'+'.join(cards_of(target))} by layer"
    if isinstance(target, Spiking) and target.synapses is not None:
        return f"{target.card}+{target.synapses.card}"
    return target.card


def _target(given: Any) -> AnyTarget:
    """A target from a table as well: the kind of its card picks the class, and an in-memory one names its device."""
    if isinstance(given, PerLayer):
        return given
    if not isinstance(given, (str, Path, Target, Mapping)):
        raise HpmlError(f"targets: {shown(given)} is no machine; give a card's name, a target, or a table with a card")
    if not isinstance(given, Mapping):
        return as_target(given)
    if "card" not in given and given and all(map(_is_crossbar, given.values())):
        return checked(PerLayer, {"layers": {str(name): _target(own) for name, own in given.items()}})
    if "card" not in given:
        raise HpmlError(f"targets: {dict(given)!r} has no card; add it, such as card = 'pcm-hermes'")
    card = load_card(str(given["card"]))
    if isinstance(card, CrossbarCard):
        kind = InMemory if "device" in given else Analog
    else:
        kind = Digital if isinstance(card, DigitalCard) else Spiking
    return checked(kind, given, where=f"target on {given['card']}")


def _is_crossbar(given: Any) -> bool:
    """Whether a value of a table is the target of a layer, and not an option of a target whose card was left out."""
    if isinstance(given, (str, Path)):
        return str(given) in list_cards() or str(given).endswith(".toml")
    return isinstance(given, (Analog, InMemory)) or (isinstance(given, Mapping) and "card" in given)


def as_tables(targets: Mapping[str, AnyTarget]) -> list[str] | dict[str, Any]:
    """The targets as plain values, which `labeled_targets` reads: a list of cards where that says it all.

    Args:
        targets: label -> target.
    """
    plain = {label: target for label, target in targets.items() if isinstance(target, Target)}
    if len(plain) == len(targets) and all(label == t.card and t == as_target(label) for label, t in plain.items()):
        return list(targets)
    return {
        label: asdict(target)["layers"] if isinstance(target, PerLayer) else asdict(target)
        for label, target in targets.items()
    }


Targets = Annotated[dict[str, AnyTarget], BeforeValidator(labeled_targets)]
"""Label -> target, read from Python, TOML and the command line alike."""
