"""Splits of a network over GPUs: which are possible, and which is the fastest or takes the least energy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from hpml_sim.cost.serving.operations import Split
from hpml_sim.errors import HpmlError, UnknownNameError, check_whole, shown

if TYPE_CHECKING:
    from hpml_sim.networks.language import TransformerShape

WAYS = tuple(field.name for field in fields(Split))
MOST_DEVICES = 4096
"""Far above what one engine spreads a network over."""


def check_devices(devices: Any) -> int:
    """Refuse what is no number of GPUs.

    Args:
        devices: what was given.
    """
    return check_whole("estimate: devices", devices, low=1, high=MOST_DEVICES)


def problem(shape: TransformerShape, split: Split) -> str | None:
    """Why a network cannot be spread so; None if it can.

    Args:
        shape: the network.
        split: over GPUs.
    """
    if shape.heads % split.sharing:
        return f"{split.sharing} GPUs cannot share its {shape.heads} heads of attention evenly"
    if split.expert > 1:
        if shape.experts is None:
            return "it has no experts"
        if shape.experts.count % split.expert:
            return f"{split.expert} GPUs cannot share its {shape.experts.count} experts evenly"
    if split.pipeline > shape.layers:
        return f"it has {shape.layers} layers"
    return None


def possible(shape: TransformerShape, devices: int) -> Iterator[Split]:
    """All splits of a network over so many GPUs.

    Args:
        shape: the network.
        devices: GPUs, all of them used.
    """
    for tensor in _divisors(devices):
        for pipeline in _divisors(devices // tensor):
            for expert in _divisors(devices // tensor // pipeline):
                split = Split(tensor, pipeline, expert, devices // tensor // pipeline // expert)
                if problem(shape, split) is None:
                    yield split


def chosen(shape: TransformerShape, devices: int, parallel: Mapping[str, int] | None) -> Split:
    """The split that was asked for; without one, by tensor and, of what heads do not divide into, by copies.

    Args:
        shape: the network.
        devices: GPUs.
        parallel: ways by name ("tensor", "pipeline", "expert", "data"); what is left out is 1.

    Raises:
        HpmlError: ways that are no numbers, do not multiply to `devices`, or that the network does not allow.
    """
    if parallel is None:
        tensor = max(n for n in _divisors(devices) if shape.heads % n == 0)
        return Split(tensor=tensor, data=devices // tensor)
    if not isinstance(parallel, Mapping):
        raise HpmlError(
            f"estimate: parallel={shown(parallel)}: must be 'best' or ways by name, such as {{'tensor': 2, 'data': 1}}"
        )
    ways(parallel)
    split = Split(**parallel)
    why = problem(shape, split)
    if split.devices != devices:
        why = f"they multiply to {split.devices}, and devices={devices}"
    if why is not None:
        raise HpmlError(
            f"estimate: parallel={dict(parallel)!r}: {shape.name} cannot be spread so: {why}; "
            f"{_allowed(shape, devices)}"
        )
    return split


def ways(parallel: Mapping[str, int]) -> list[int]:
    """The numbers of a split by name.

    Args:
        parallel: ways by name.

    Raises:
        HpmlError: an unknown name, or a number of GPUs that there cannot be.
    """
    for name, value in parallel.items():
        if name not in WAYS:
            raise UnknownNameError("way in parallel=", str(name), WAYS)
        check_whole(f"estimate: parallel: {name}", value, low=1, high=MOST_DEVICES)
    return list(parallel.values())


def _allowed(shape: TransformerShape, devices: int) -> str:
    found = [str(split).replace(" ", " x ") for split in possible(shape, devices)]
    if not found:
        return f"no split over {devices} devices is possible"
    more = f" and {len(found) - 6} more" if len(found) > 6 else ""
    return f"possible over {devices}: {', '.join(found[:6])}{more}, or parallel='best'"


def _divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]
