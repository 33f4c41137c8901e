"""What an estimate is of: the workload of a network, counted first, and the target that a converted network brings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hpml_sim.cards import BaseCard, Card, DigitalCard, NeuromorphicCard, load_card
from hpml_sim.conversion import Converted, convert
from hpml_sim.conversion.modules import check_network
from hpml_sim.counting import Workload, workload
from hpml_sim.counting.count_network import Inputs, workload_of_shapes
from hpml_sim.errors import HpmlError, shown
from hpml_sim.targets import Digital, PerLayer, Spiking, Target, as_target

AnyTarget = Target | PerLayer | Card | str | Path
"""What the estimate of a network takes: a target, or a card by itself, its name or its path."""
_NEXT = "give input_shape= (one sample, without the batch) or data= (a batch of samples)"


@dataclass(frozen=True)
class Subject:
    """What is estimated.

    Attributes:
        workload: its operation counts.
        target: the machine.
        remarks: what was taken for granted, one sentence each.
    """

    workload: Workload
    target: AnyTarget
    remarks: tuple[str, ...] = ()


def subject(what: Any, target: Any, *, input_shape: Sequence[int] | None, data: Inputs | None) -> Subject:
    """What an estimate is of: a network is converted for the target and counted, unless it is already.

    Args:
        what: a workload, a network, or a converted network.
        target: a target or a card; None takes that of a converted network.
        input_shape: of one sample, for a network.
        data: a batch of samples, for a network.

    Raises:
        HpmlError: no target, a second one, no input to count on, or a network that cannot be converted or counted.
    """
    if isinstance(what, Workload):
        if input_shape is not None or data is not None:
            raise HpmlError(
                "estimate: input_shape= and data= are for a network; the workload was counted on an input of its own"
            )
        return Subject(what, _target_of(what, target))
    if not isinstance(what, nn.Module):
        raise HpmlError(
            f"estimate: what={shown(what)}: must be a network, a converted network (hs.convert(network, target)) or a "
            "workload (hs.workload(network, data=samples))"
        )
    network = check_network("estimate: what", what)
    if isinstance(network, Converted):
        if target is not None and not _same(target, network.target):
            raise HpmlError(
                f"estimate: target={shown(target)}: the network was converted for {network.target!r}, which is what "
                "is estimated; leave target= out, or give the network that it was made from"
            )
        return _of_converted(network, input_shape, data)
    if target is None:
        raise no_target(target)
    if input_shape is None and data is None:
        raise HpmlError(f"estimate: a network says nothing of its input; {_NEXT}")
    return _of_network(network, target, input_shape, data)


def for_target(network: nn.Module, target: Any) -> tuple[nn.Module, Any]:
    """A network that is to be counted for a target, converted where the target has crossbars, and the target.

    Args:
        network: converted or not.
        target: the machine; None takes that of a converted network.

    Raises:
        HpmlError: no target, or another one than the network was converted for.
    """
    if isinstance(network, Converted):
        if target is not None and not _same(target, network.target):
            raise HpmlError(
                f"estimate: target={shown(target)}: the network was converted for {network.target!r}, which is what "
                "is estimated; leave target= out, or give the network that it was made from"
            )
        return network, network.target
    if target is None:
        raise no_target(target)
    card = load_card(target) if isinstance(target, (str, Path)) else target
    if isinstance(card, (DigitalCard, Digital)):
        return network, target
    converted = convert(network, target)
    return converted, converted.target


def _of_network(network: nn.Module, target: Any, input_shape: Sequence[int] | None, data: Inputs | None) -> Subject:
    """Convert for the target, then count. A digital machine runs the network as it is: nothing is converted."""
    card = load_card(target) if isinstance(target, (str, Path)) else target
    if isinstance(card, (DigitalCard, Digital)):
        return Subject(workload(network, input_shape=input_shape, data=data), target)
    if isinstance(target, BaseCard):
        raise HpmlError(
            f"estimate: target=<card {target.name!r}>: a network is converted first, for a target or for a card by its "
            "name or path; with a card as an object, give its workload: hs.estimate(hs.workload(network, ...), card)"
        )
    if isinstance(card, (NeuromorphicCard, Spiking)):
        counts = workload(network, input_shape=input_shape, data=data)
        if counts.kind == "spiking":  # its neurons are there already
            return Subject(counts, target)
    converted = convert(network, target)
    return Subject(workload(converted, input_shape=input_shape, data=data), converted.target)


def _of_converted(network: Converted, input_shape: Sequence[int] | None, data: Inputs | None) -> Subject:
    if input_shape is not None or data is not None:
        return Subject(workload(network, input_shape=input_shape, data=data), network.target)
    seen = network.last_input
    if seen is None or not seen.samples:
        raise HpmlError(
            f"estimate: this network was not called yet, so that the shape of its input is not known; {_NEXT}"
        )
    device = next((value.device for value in (*network.parameters(), *network.buffers())), torch.device("cpu"))
    args, kwargs = seen.zeros(device)
    return Subject(
        workload_of_shapes(network, args, kwargs),
        network.target,
        (f"an inference is on one sample of shape {seen}: the shape of the last call, since none was given",),
    )


def _target_of(what: Workload, target: Any) -> AnyTarget:
    """The target of a workload: the one given, or that of the converted network that was counted."""
    if target is not None:
        return target
    if what.mapping is None:
        raise no_target(target)
    targets = {product.name: product.target for product in what.mapping.products.values()}
    first, *others = targets.values()
    return PerLayer(targets) if any(other != first for other in others) else first


def _same(target: Any, own: Any) -> bool:
    """Whether a target, or a card's name, is what a network was converted for."""
    if isinstance(target, (str, Path)) and not isinstance(own, PerLayer):
        return bool(as_target(target) == own)
    return bool(target == own)


def no_target(target: Any) -> HpmlError:
    """The error that names what can be a target.

    Args:
        target: what was given.
    """
    return HpmlError(
        f"estimate: target={shown(target)}: must be a card's name, such as 'pcm-hermes', a card, or a target, "
        "such as hs.Analog('pcm-hermes')"
    )
