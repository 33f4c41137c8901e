"""The integer twin of a spiking row: the same network in integers that carry as much as its spikes.

A neuron that fires in some of T steps tells its readers one of T + 1 numbers. An integer network whose activations have
ceil(log2(T + 1)) bits tells as much in one pass: whether spikes pay, or few bits do, is seen beside it alone. Weights
have the bits of the card's synapses, at most 8.

Source: Yan, Bai, Tang and Wong, arXiv 2409.08290 (v4): a network of ceil(log2(T + 1)) bits is the fair baseline.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from hpml_sim.cards import NeuromorphicCard, load_card
from hpml_sim.compress.matrices import matrices
from hpml_sim.conversion.compression import is_quantized
from hpml_sim.errors import HpmlError
from hpml_sim.experiments.plan import Point
from hpml_sim.spiking.own_network import spikes_by_itself
from hpml_sim.targets import Digital, Spiking

PEER = "hailo-8"
"""Where a run has no digital machine: an accelerator of 8-bit integers for the edge, as neuromorphic chips are."""
_BITS = 8
"""Of weights where the card says nothing, and the most that digital machines have integer units for."""


def twin_bits(target: Spiking) -> tuple[int, int]:
    """Bits of a weight, and of an activation, that carry as much as a spiking network on a machine.

    Args:
        target: the machine and its time steps.

    Example:
        >>> import hpml_sim as hs
        >>> twin_bits(hs.Spiking("loihi-2", steps=15))
        (8, 4)
    """
    card = load_card(target.card)
    assert isinstance(card, NeuromorphicCard)  # its target checked it
    weight = _BITS if card.core.weight_bits is None else int(card.core.weight_bits)
    return max(2, min(weight, _BITS)), min(math.ceil(math.log2(target.steps + 1)), _BITS)


def with_integer_twins(points: Sequence[Point], network: nn.Module, *, finetuned: bool) -> list[Point]:
    """The machines of a comparison, and digital ones that run the integer twins of its spiking rows.

    One a digital card of the run, or on an edge accelerator where it has none. Networks that spike by themselves, or
    are quantized already, have no twin: nobody knows their integer network.

    Args:
        points: the machines.
        network: of the run.
        finetuned: whether networks are trained on after conversion; the twins then are as well.
    """
    spiking = [point for point in points if isinstance(point.target, Spiking)]
    if not spiking or spikes_by_itself(network) or is_quantized(network) or spiking[0].compressing.numbers is not None:
        return list(points)
    try:
        matrices("integer twin", network, None, None)
    except HpmlError:
        return list(points)  # nothing with weights that could be rounded
    machines: dict[str, Digital] = {}
    for point in points:
        if isinstance(point.target, Digital):
            machines.setdefault(point.target.card, Digital(point.target.card))
    twins: dict[tuple[int, int], list[str]] = {}
    for point in spiking:
        assert isinstance(point.target, Spiking)
        twins.setdefault(twin_bits(point.target), []).append(point.label)
    found = list(points)
    for card, target in (machines or {PEER: Digital(PEER)}).items():
        for (weight, inputs), labels in twins.items():
            own = replace(spiking[0].compressing, numbers="int8", weight_bits=weight, input_bits=inputs)
            label = f"{card}, integer twin of {' and '.join(labels)}"
            found.append(Point(label, target, digital_finetuned=finetuned, compressing=own))
    return found
