"""Energy, latency, throughput and area from a workload and a machine; every figure with its band, scope and sources.

The equations, where they come from and what they leave out: docs/equations.md.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

from hpml_sim.cards import BaseCard, Card, CrossbarCard, DigitalCard, NeuromorphicCard, Precision, load_card
from hpml_sim.cost.crossbar import Mode, estimate_crossbar
from hpml_sim.cost.digital import estimate_digital
from hpml_sim.cost.neuromorphic import estimate_neuromorphic
from hpml_sim.cost.result import Estimate
from hpml_sim.cost.target_options import TargetOptions, target_options
from hpml_sim.counting import Workload
from hpml_sim.errors import HpmlError, UnknownNameError, check_choice, check_switch, check_whole, shown
from hpml_sim.targets import Engine, Target


def estimate(
    what: Workload,
    target: Target | Card | str | Path,
    *,
    batch: int | Literal["best"] = 1,
    precision: Precision | None = None,
    engine: Engine | None = None,
    mode: Mode | None = None,
    replicate: bool = True,
    digital_layers: Collection[str] = (),
    input_bits: int | None = None,
    output_bits: int | None = None,
    chips: int | None = None,
) -> Estimate:
    """What one inference costs on a machine.

    Args:
        what: the workload of a network (`hs.workload`).
        target: a target (`hs.Digital`, `hs.Analog`, `hs.InMemory`, `hs.Spiking`), which brings its card, precision,
            engine, converter bits and slices; or a card, or the name or path of one.
        batch: samples handed over together, at least 1. "best" takes the smallest batch that reaches 95 % of the best
            throughput within the machine's memory.
        precision: digital cards: arithmetic and storage of weights and activations; None is "fp32".
        engine: digital cards: what runs the network, as in `hs.Digital`; None is "torch", operator by operator.
        mode: crossbar cards: "preset" (a measured total for each MVM) or "component" (sum of converters, array, ...);
            None takes the preset where the card has one. The two are never mixed in one estimate.
        replicate: crossbar cards: copy slow layers onto tiles that would stay empty.
        digital_layers: crossbar cards: names of layers that stay digital although they have weights.
        input_bits: crossbar cards, component mode: bits of an input, where not the card's.
        output_bits: crossbar cards: bits of a conversion, where not the card's (in preset mode the card must say what
            share of an MVM its converters take).
        chips: crossbar and neuromorphic cards: how many chips are powered, from what the network needs to 2^31 - 1;
            None powers as few as hold the network. On crossbars, idle chips add their area and static power where the
            card has them for a whole chip, and nothing where it has them for a tile in use; with `replicate`, layers
            that others wait for are copied onto them, as far as a layer has input vectors. A spiking network is spread
            over all cores of the chips.

    Returns:
        Energy, latency, throughput and area with low, nominal and high values, and what they leave out.

    Raises:
        HpmlError: an argument does not fit the card's kind, the target says it already, or the network cannot run on
            the machine.
        UnknownNameError: no card, engine or layer has this name.
        CardError: the card's file is not there, or breaks a rule.

    Example:
        >>> import hpml_sim as hs
        >>> counts = hs.workload(hs.models.mlp(784, 128, 10), input_shape=(1, 28, 28))
        >>> print(f"{hs.estimate(counts, 'pcm-hermes').energy_j.nominal:.2e} J")
        1.21e-07 J
        >>> hs.estimate(counts, hs.Digital("h200", precision="bf16"), batch="best").batch
        65536
    """
    _check(
        what,
        batch=batch,
        replicate=replicate,
        engine=engine,
        input_bits=input_bits,
        output_bits=output_bits,
        chips=chips,
    )
    layer_names = _layer_names(what, digital_layers)
    options = _options(target, precision=precision, engine=engine, input_bits=input_bits, output_bits=output_bits)
    given = {
        "precision": options.precision,
        "engine": options.engine,
        "mode": mode,
        "digital_layers": layer_names or None,
        "input_bits": options.input_bits,
        "output_bits": options.output_bits,
        "chips": chips,
    }
    card = options.card
    _refuse_foreign(card, {name for name, value in given.items() if value is not None})
    match card:
        case DigitalCard():
            found = estimate_digital(
                what, card, batch=batch, precision=options.precision or "fp32", engine=options.engine or "torch"
            )
        case CrossbarCard():
            found = estimate_crossbar(
                what,
                card,
                batch=batch,
                mode=mode,
                replicate=replicate,
                digital_layers=layer_names,
                input_bits=options.input_bits,
                output_bits=options.output_bits,
                chips=chips,
            )
        case NeuromorphicCard():
            found = estimate_neuromorphic(what, card, batch=batch, chips=chips)
    return replace(found, assumptions=(*found.assumptions, *options.remarks)) if options.remarks else found


MAX_COUNT = 2**31 - 1
"""The largest batch, number of bits or number of chips: far above any machine, and exact in floating point."""
_OPTIONS = {
    "digital": {"precision", "engine"},
    "crossbar": {"mode", "digital_layers", "input_bits", "output_bits", "chips"},
    "neuromorphic": {"chips"},
}


def _check(what: Workload, *, batch: int | str, replicate: bool, engine: Engine | None, **whole: int | None) -> None:
    """Refuse what cannot be an argument, whatever the machine."""
    if not isinstance(what, Workload):
        raise HpmlError(
            f"estimate takes a workload, not {type(what).__name__}: hs.estimate(hs.workload(network, data=samples), "
            "target), or input_shape= in place of data="
        )
    if not what.layers:
        raise HpmlError("the workload has no layers: nothing to estimate; pass the workload of a network (hs.workload)")
    if batch != "best":
        check_whole("estimate: batch", batch, low=1, high=MAX_COUNT, hint="or batch='best'")
    for name, value in whole.items():
        if value is not None:
            check_whole(f"estimate: {name}", value, low=1, high=MAX_COUNT, hint="or leave it out")
    check_switch("estimate: replicate", replicate)
    if engine is not None:
        check_choice("estimate: engine", engine, get_args(Engine))


def _options(
    target: Target | Card | str | Path,
    *,
    precision: Precision | None,
    engine: Engine | None,
    input_bits: int | None,
    output_bits: int | None,
) -> TargetOptions:
    """The card and its options, from a target or from a card and what was given beside it."""
    if isinstance(target, (str, Path)):
        return TargetOptions(load_card(target), precision, engine, input_bits, output_bits)
    if isinstance(target, BaseCard):
        return TargetOptions(target, precision, engine, input_bits, output_bits)
    if not isinstance(target, Target):
        raise HpmlError(
            f"estimate: target={shown(target)}: must be a card's name, such as 'pcm-hermes', a card, or a target, "
            "such as hs.Analog('pcm-hermes')"
        )
    twice = {"precision": precision, "engine": engine, "input_bits": input_bits, "output_bits": output_bits}
    for name, value in twice.items():
        if value is not None:
            raise HpmlError(
                f"{name}={value!r}: the target {type(target).__name__}({target.card!r}, ...) decides it; change the "
                "target, or give the card's name in its place"
            )
    return target_options(target)


def _layer_names(what: Workload, names: Collection[str]) -> tuple[str, ...]:
    """The names as a tuple; each must be a layer of the workload."""
    if not isinstance(names, Collection) or isinstance(names, bytes):
        raise HpmlError(
            f"estimate: digital_layers={shown(names)}: must be names of layers, such as ['3']; the workload's .table() "
            "has them"
        )
    names = (names,) if isinstance(names, str) else tuple(names)
    known = {layer.name for layer in what.layers}
    for name in names:
        if name not in known:
            raise UnknownNameError("layer in digital_layers=", str(name), known)
    return names


def _refuse_foreign(card: Card, given: set[str]) -> None:
    if foreign := sorted(given - _OPTIONS[card.kind]):
        raise HpmlError(
            f"{', '.join(foreign)}: not for card {card.name!r} of kind {card.kind!r}, "
            f"which takes batch, {', '.join(sorted(_OPTIONS[card.kind]))}"
        )
