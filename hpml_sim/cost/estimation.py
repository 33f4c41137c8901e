"""Energy, latency, throughput and area from a workload and a card; every figure with its band, scope and sources.

The equations, where they come from and what they leave out: docs/equations.md.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Literal

from hpml_sim.cards import Card, CrossbarCard, DigitalCard, NeuromorphicCard, Precision, load_card
from hpml_sim.cost.crossbar import estimate_crossbar
from hpml_sim.cost.digital import estimate_digital
from hpml_sim.cost.neuromorphic import estimate_neuromorphic
from hpml_sim.cost.result import Estimate
from hpml_sim.counting import Workload
from hpml_sim.errors import HpmlError
from hpml_sim.targets import Engine


def estimate(
    workload: Workload,
    card: Card | str | Path,
    *,
    batch: int | Literal["best"] = 1,
    precision: Precision | None = None,
    engine: Engine | None = None,
    mode: Literal["preset", "component"] | None = None,
    replicate: bool = True,
    digital_layers: Collection[str] = (),
    input_bits: int | None = None,
    output_bits: int | None = None,
    chips: int | None = None,
) -> Estimate:
    """What one inference costs on the machine that the card describes.

    Args:
        workload: what there is to do.
        card: a card, or its name or path.
        batch: samples handed over together. "best" takes the smallest batch that reaches 95 % of the best throughput
            within the machine's memory.
        precision: digital cards: arithmetic and storage of weights and activations; None is fp32.
        engine: digital cards: what runs the network, as in `hs.Digital`; None is "torch", operator by operator.
        mode: crossbar cards: "preset" (a measured total for each MVM) or "component" (sum of converters, array, ...);
            None takes the preset where the card has one. The two are never mixed in one estimate.
        replicate: crossbar cards: copy slow layers onto tiles that would stay empty.
        digital_layers: crossbar cards: names of layers that stay digital although they have weights.
        input_bits: crossbar cards, component mode: bits of an input, where not the card's.
        output_bits: crossbar cards: bits of a conversion, where not the card's (in preset mode the card must say what
            share of an MVM its converters take).
        chips: crossbar and neuromorphic cards: how many chips are powered, where the network needs no more; a spiking
            network is spread over all their cores.

    Raises:
        HpmlError: an argument does not fit the card's kind, or the network cannot run on it.
        UnknownNameError, CardError: see `load_card`.
    """
    if isinstance(card, (str, Path)):
        card = load_card(card)
    if batch != "best" and not (isinstance(batch, int) and batch >= 1):
        raise HpmlError(f"batch={batch!r}: must be a whole number >= 1, or 'best'")
    if chips is not None and chips < 1:
        raise HpmlError(f"chips={chips!r}: must be >= 1")
    if not isinstance(workload, Workload):
        raise HpmlError(
            f"estimate takes a workload, not {type(workload).__name__}: hs.estimate(hs.workload(network, data=samples), "
            "card), or input_shape= in place of data="
        )
    if not workload.layers:
        raise HpmlError("the workload has no layers: nothing to estimate; pass the workload of a network (hs.workload)")
    given = {
        "precision": precision,
        "engine": engine,
        "mode": mode,
        "digital_layers": digital_layers or None,
        "input_bits": input_bits,
        "output_bits": output_bits,
        "chips": chips,
    }
    _refuse_foreign(card, {name for name, value in given.items() if value is not None})
    match card:
        case DigitalCard():
            return estimate_digital(
                workload, card, batch=batch, precision=precision or "fp32", engine=engine or "torch"
            )
        case CrossbarCard():
            return estimate_crossbar(
                workload,
                card,
                batch=batch,
                mode=mode,
                replicate=replicate,
                digital_layers=digital_layers,
                input_bits=input_bits,
                output_bits=output_bits,
                chips=chips,
            )
        case NeuromorphicCard():
            return estimate_neuromorphic(workload, card, batch=batch, chips=chips)


_OPTIONS = {
    "digital": {"precision", "engine"},
    "crossbar": {"mode", "digital_layers", "input_bits", "output_bits", "chips"},
    "neuromorphic": {"chips"},
}


def _refuse_foreign(card: Card, given: set[str]) -> None:
    if foreign := sorted(given - _OPTIONS[card.kind]):
        raise HpmlError(
            f"{', '.join(foreign)}: not for card {card.name!r} of kind {card.kind!r}, "
            f"which takes batch, {', '.join(sorted(_OPTIONS[card.kind]))}"
        )
