"""Energy, latency, throughput and area from a workload and a machine; every figure with its band, scope and sources.

The equations, where they come from and what they leave out: docs/equations.md.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

from torch import nn

from hpml_sim.cards import BaseCard, Card, CrossbarCard, DigitalCard, NeuromorphicCard, Precision, Scope, load_card
from hpml_sim.conversion.compression import Numbers
from hpml_sim.conversion.mapping import Mapping as LayerMapping
from hpml_sim.cost.compression_plan import CompressionPlan, ZeroPattern
from hpml_sim.cost.counted import AnyTarget, Subject, for_target, no_target, subject
from hpml_sim.cost.crossbar import Layout, Mode, as_counted, as_mapped, estimate_crossbar
from hpml_sim.cost.digital import Weights, estimate_digital
from hpml_sim.cost.digital.quantized import arithmetic_of, is_quantized
from hpml_sim.cost.named import (
    Asked,
    Parallel,
    copies_of,
    counted,
    estimate_sizes,
    language_sizes,
    refuse_tokens,
    side_by_side,
    sizes_for,
    stored_precision,
    usual_precision,
)
from hpml_sim.cost.neuromorphic import estimate_neuromorphic
from hpml_sim.cost.result import Estimate
from hpml_sim.cost.serving.request import Phase
from hpml_sim.cost.serving.stored_weights import stored_weights
from hpml_sim.cost.system.duty import at_rate, with_idle
from hpml_sim.cost.system.whole import as_system
from hpml_sim.cost.target_options import TargetOptions, target_options
from hpml_sim.counting import Workload
from hpml_sim.counting.count_network import Inputs
from hpml_sim.errors import HpmlError, UnknownNameError, check_choice, check_real, check_switch, check_whole, shown
from hpml_sim.networks.generation import sizes_of
from hpml_sim.targets import Analog, EstimatedEngine, InMemory, PerLayer, Target, analog_part


def estimate(
    what: nn.Module | Workload | str | Path,
    target: Target | PerLayer | Card | str | Path | Mapping[str, Analog | InMemory | str | Path] | None = None,
    *,
    input_shape: Sequence[int] | None = None,
    data: Inputs | None = None,
    batch: int | Literal["best"] = 1,
    precision: Precision | None = None,
    engine: EstimatedEngine | None = None,
    weights: Weights | None = None,
    mode: Mode | None = None,
    replicate: bool = True,
    digital_layers: Collection[str] = (),
    input_bits: int | None = None,
    output_bits: int | None = None,
    chips: int | None = None,
    phase: Phase | None = None,
    sequence: int | None = None,
    context: int | None = None,
    output: int | None = None,
    prefix_cached: float = 0.0,
    draft_tokens: int = 0,
    draft_accepted: float = 0.7,
    kv_bits: int | None = None,
    prune: ZeroPattern | None = None,
    quantize: Numbers | None = None,
    devices: int | None = None,
    parallel: Parallel = None,
    scope: Scope | None = None,
    rate_hz: float | None = None,
) -> Estimate:
    """What one inference costs on a machine.

    A network is converted for the target and counted; what `hs.convert` gave brings its target and its mapping, so
    that energy is of the tiles that its accuracy is of: layers that stay digital, slices, converters and packed groups.

    Args:
        what: a converted network (`hs.convert`), a network, a workload (`hs.workload`), the name of a known network
            (`hpml-sim networks`), or the path of a Hugging Face `config.json`.
        target: a target (`hs.Digital`, `hs.Analog`, `hs.InMemory`, `hs.Spiking`), which brings its card, precision,
            engine, converter bits and slices; or a card, or the name or path of one; for a network also targets by the
            names of layers, as `hs.convert` takes them. None takes that of a converted network.
        input_shape: of a network: shape of one sample, without the batch.
        data: of a network: a batch of samples, over which spikes and zeros are averaged. Without `input_shape` and
            `data` a converted network is estimated on the shape of its last call, in `fit`, say; `assumptions` names
            it.
        batch: samples handed over together, at least 1. "best" takes the smallest batch that reaches 95 % of the best
            throughput within the machine's memory.
        precision: digital cards: arithmetic and storage of weights and activations; None is "fp32", or the first
            precision of a card without it.
        engine: digital cards: what runs the network, as in `hs.Digital`; None is "torch", operator by operator. "fused"
            is an inference runtime such as TensorRT, which has norms, activations and sums inside the products and
            replays a recorded graph; it can be estimated and does not run here.
        weights: digital cards: "int8" or "int4" weights that are multiplied in `precision`; None: stored in it.
        mode: crossbar cards: "preset" (a measured total for each MVM) or "component" (sum of converters, array, ...);
            None takes the preset where the card has one. The two are never mixed in one estimate.
        replicate: crossbar cards: copy slow layers onto tiles that would stay empty.
        digital_layers: crossbar cards: names of layers that stay digital although they have weights; of a network that
            was not converted.
        input_bits: crossbar cards, component mode: bits of an input, where not the card's.
        output_bits: crossbar cards: bits of a conversion, where not the card's (in preset mode the card must say what
            share of an MVM its converters take).
        chips: crossbar and neuromorphic cards: how many chips are powered, from what the network needs to 2^31 - 1;
            None powers as few as hold the network. On crossbars, idle chips add their area and static power where the
            card has them for a whole chip, and nothing where it has them for a tile in use; with `replicate`, layers
            that others wait for are copied onto them, as far as a layer has input vectors. A spiking network is spread
            over all cores of the chips.
        phase: language models by name: "prefill" reads a prompt, "decode" makes a token, "serve" (on GPUs) makes the
            tokens of answers to a stream of requests, in continuous batches of `batch` sequences; None is "prefill".
        sequence: tokens of a prompt; None takes as many as is usual.
        context: tokens in the key-value cache of a sequence (decode); None takes as many as is usual.
        output: tokens of an answer (serve); None is 400.
        prefix_cached: share of a prompt that the cache has already (prefix caching), 0 to 1.
        draft_tokens: tokens that are proposed and checked at once (speculative decoding); 0: none.
        draft_accepted: share of the proposed tokens that are right, one by one, 0 to 1.
        kv_bits: language models on GPUs: bits of a key or value in the cache, 4, 8 or 16; None: as an activation.
        prune: networks by name: estimate as if half of the weights were zero, "unstructured" or "2:4".
        quantize: networks by name: estimate as if `hs.quantize` had been called with this scheme. Networks with weights
            are given pruned and quantized.
        devices: CPUs or GPUs. A language model by name is cut over GPUs, of any other network each has a copy. None
            takes as few as hold it.
        parallel: how GPUs share a language model: ways by name ("tensor", "pipeline", "expert", "data"), which multiply
            to `devices`, or "best", the fastest split (the most frugal one is named among the assumptions). None cuts
            every matrix over all.
        scope: what the figures include. None is the card's own scope; "system" adds what that leaves out, from
            components with sources and bounds of their own (`Estimate.added`): digital units, buffers, links, caches,
            static power, host, conversion of power and cooling.
        rate_hz: inferences a second that are asked for; between them the machine waits at its idle power. None: one
            after another without a pause.

    Returns:
        Energy, latency, throughput and area with low, nominal and high values, and what they leave out.

    Raises:
        HpmlError: an argument does not fit the card's kind, the target or the mapping says it already, the network
            cannot run on the machine, there is no input to count it on, a scope that the card does not have, or a rate
            beyond what the machine can do.
        ConversionError: the network cannot be converted for the target.
        UnknownNameError: no card, engine or layer has this name.
        CardError: the card's file is not there, or breaks a rule.

    Example:
        >>> import hpml_sim as hs
        >>> counts = hs.workload(hs.models.mlp(784, 128, 10), input_shape=(1, 28, 28))
        >>> print(f"{hs.estimate(counts, 'pcm-hermes').energy_j.nominal:.2e} J")
        1.21e-07 J
        >>> hs.estimate(counts, hs.Digital("h200", precision="bf16"), batch="best").batch
        65536
        >>> analog = hs.convert(hs.models.mlp(784, 128, 10), hs.Analog("pcm-hermes"), skip="3")
        >>> hs.estimate(analog, input_shape=(1, 28, 28)).mapping["tiles"] == analog.mapping.tiles
        True
    """
    if weights is not None:
        check_choice("estimate: weights", weights, get_args(Weights))
    _check_scope(scope, rate_hz)
    _check(batch=batch, replicate=replicate, engine=engine, input_bits=input_bits, output_bits=output_bits, chips=chips)
    asked = Asked(
        phase, sequence, context, output, prefix_cached, draft_tokens, draft_accepted, devices, parallel, kv_bits
    )
    plan = CompressionPlan.of(prune, quantize)
    if plan is not None and not isinstance(what, (str, Path)):
        raise HpmlError(
            "estimate: prune=, quantize=: are for networks by name, which have no weights; give this network pruned "
            "and quantized (hs.prune, hs.quantize)"
        )
    phased = isinstance(what, nn.Module) and asked.of_tokens and sizes_of(what) is not None
    if not isinstance(what, Workload) and (isinstance(what, (str, Path)) or phased):
        if input_shape is not None or data is not None:
            raise HpmlError(
                f"estimate: {shown(what)}: a network by name, or with phase=, sequence= or context=, comes with its "
                "own input; leave out input_shape= and data="
            )
        if isinstance(what, nn.Module):
            what, target = for_target(what, target)
        bare = Subject(Workload(()), _given(target))
        options = _options(bare, precision=precision, engine=engine, input_bits=input_bits, output_bits=output_bits)
        if (sizes := sizes_for(what, options.card)) is not None and isinstance(options.card, DigitalCard):
            foreign = {
                "mode": mode,
                "digital_layers": digital_layers or None,
                "input_bits": input_bits,
                "output_bits": output_bits,
                "chips": chips,
            }
            _refuse_foreign(options.card, {name for name, value in foreign.items() if value is not None})
            found = estimate_sizes(
                sizes,
                options.card,
                asked,
                batch=batch,
                precision=options.precision,
                engine=options.engine,
                weights=weights,
                stored=stored_weights(what, sizes) if isinstance(what, nn.Module) else plan and plan.stored(sizes),
            )
            found = found if plan is None else replace(found, assumptions=(*found.assumptions, plan.sentence()))
            return at_scope(found, options.card, None, scope, rate_hz)
        what_counted = counted(what, asked)
        few_bits = is_quantized(what_counted) or (plan is not None and plan.quantize is not None)
        if isinstance(options.card, DigitalCard) and isinstance(target, (str, Path, BaseCard)) and not few_bits:
            precision = precision or stored_precision(what, options.card)
        what = what_counted if plan is None else plan.counts(what_counted, language_sizes(what))
    else:
        refuse_tokens(asked)
    of = subject(what, target, input_shape=input_shape, data=data)
    counts = of.workload
    if not counts.layers:
        raise HpmlError("the workload has no layers: nothing to estimate; pass the workload of a network (hs.workload)")
    options = _options(of, precision=precision, engine=engine, input_bits=input_bits, output_bits=output_bits)
    layer_names = _layer_names(counts, digital_layers)
    given = {
        "precision": options.precision,
        "engine": options.engine,
        "weights": weights,
        "mode": mode,
        "digital_layers": layer_names or None,
        "input_bits": options.input_bits,
        "output_bits": options.output_bits,
        "chips": chips,
    }
    card = options.card
    _refuse_foreign(card, {name for name, value in given.items() if value is not None})
    copies = copies_of(asked, card)
    match card:
        case DigitalCard():
            own = batch if batch == "best" else _part(batch, copies)
            arithmetic = options.precision or usual_precision(card)
            if is_quantized(counts):
                arithmetic, remark = arithmetic_of(counts, card, options.precision, weights)
                options = replace(options, precision=arithmetic, remarks=(*options.remarks, remark))
            one = estimate_digital(
                counts,
                card,
                batch=own,
                precision=arithmetic,
                engine=options.engine or "torch",
                weights=weights,
                channels_last=options.channels_last,
            )
            found = side_by_side(one, copies)
        case CrossbarCard():
            layout = _layout(of, card, options, layer_names)
            found = estimate_crossbar(
                counts, layout, card, batch=batch, mode=mode, replicate=replicate, chips=chips, system=scope == "system"
            )
        case NeuromorphicCard():
            found = estimate_neuromorphic(counts, card, batch=batch, chips=chips)
    remarks = (*options.remarks, *of.remarks, *([] if plan is None else [plan.sentence()]))
    if isinstance(card, DigitalCard) and "fp32" not in card.peak:
        used = options.precision or usual_precision(card)
        remarks += (f"arithmetic in {used}: card {card.name!r} has no fp32",)
    found = replace(found, assumptions=(*found.assumptions, *remarks)) if remarks else found
    return at_scope(found, card, counts, scope, rate_hz)


def at_scope(
    found: Estimate, card: Card, counts: Workload | None, scope: Scope | None, rate_hz: float | None
) -> Estimate:
    """The estimate at a scope and a rate.

    Args:
        found: at the card's own scope; of crossbars, with components already in place around the tiles.
        card: of the machine.
        counts: what was counted; None for a language model by its sizes.
        scope: that of the card, or "system"; None: that of the card.
        rate_hz: inferences a second; None: one after another.

    Raises:
        HpmlError: a scope that the card does not have, or a rate beyond what the machine can do.
    """
    if scope not in (None, "system", card.scope):
        raise HpmlError(
            f"estimate: scope={scope!r}: card {card.name!r} is of scope {card.scope!r}; leave it out, or take 'system'"
        )
    if counts is not None:
        read = {name: counts.extra[name] for name in ("tokens", "context") if name in counts.extra}
        found = replace(found, mapping={**found.mapping, "operations": 2 * counts.total("macs"), **read})
    found = with_idle(found, card)
    if scope == "system":
        found = as_system(found, card, counts)
    return found if rate_hz is None else at_rate(found, rate_hz)


def _layout(of: Subject, card: CrossbarCard, options: TargetOptions, digital_layers: Collection[str]) -> Layout:
    """Which product lies on which tiles: by the mapping of a converted network, else by what was counted."""
    counts = of.workload
    if counts.mapping is None:
        return as_counted(
            counts,
            card,
            digital_layers=digital_layers,
            slices=options.slices,
            input_bits=options.input_bits,
            output_bits=options.output_bits,
        )
    own = tuple(product.target for product in counts.mapping.products.values())
    if isinstance(of.target, Target):
        agrees = all(target == analog_part(of.target) for target in own)
    else:
        agrees = isinstance(of.target, PerLayer) or all(load_card(target.card) == card for target in own)
    names = ", ".join(dict.fromkeys(map(repr, own)))
    if not agrees:
        raise HpmlError(
            f"estimate: target={_short(of.target)}: the workload is of a network that was converted for {names}; leave "
            "target= out, or count the network that it was made from (hs.workload)"
        )
    said = {"digital_layers": digital_layers or None}
    if not isinstance(of.target, Target):
        said |= {"input_bits": options.input_bits, "output_bits": options.output_bits}
    for name, value in said.items():
        if value is not None:
            raise HpmlError(
                f"{name}={shown(value)}: the network was converted for {names}, which decides it; convert it anew "
                "(hs.convert: target=, skip=), or give the workload of the network that it was made from"
            )
    return as_mapped(counts, counts.mapping)


def _part(batch: int, copies: int) -> int:
    """The batch of each of some copies."""
    if batch % copies:
        raise HpmlError(
            f"estimate: batch={batch}: {copies} devices have a copy of the network each and need equal parts; take a "
            f"multiple of {copies}, or batch='best'"
        )
    return batch // copies


MAX_COUNT = 2**31 - 1
"""The largest batch, number of bits or number of chips: far above any machine, and exact in floating point."""
_OPTIONS = {
    "digital": {"precision", "engine", "weights"},
    "crossbar": {"mode", "digital_layers", "input_bits", "output_bits", "chips"},
    "neuromorphic": {"chips"},
}


def _check(*, batch: int | str, replicate: bool, engine: EstimatedEngine | None, **whole: int | None) -> None:
    """Refuse what cannot be an argument, whatever the machine."""
    if batch != "best":
        check_whole("estimate: batch", batch, low=1, high=MAX_COUNT, hint="or batch='best'")
    for name, value in whole.items():
        if value is not None:
            check_whole(f"estimate: {name}", value, low=1, high=MAX_COUNT, hint="or leave it out")
    check_switch("estimate: replicate", replicate)
    if engine is not None:
        check_choice("estimate: engine", engine, get_args(EstimatedEngine))


def _check_scope(scope: Scope | None, rate_hz: float | None) -> None:
    if scope is not None:
        check_choice("estimate: scope", scope, get_args(Scope))
    if rate_hz is not None:
        check_real("estimate: rate_hz", rate_hz, above=0, hint="inferences a second, or leave it out")


def _given(target: Any) -> Any:
    if target is None:
        raise no_target(target)
    return target


def _options(
    of: Subject,
    *,
    precision: Precision | None,
    engine: EstimatedEngine | None,
    input_bits: int | None,
    output_bits: int | None,
) -> TargetOptions:
    """The card and its options, from a target or from a card and what was given beside it."""
    target = of.target
    if isinstance(target, (str, Path)):
        target = load_card(target)
    if isinstance(target, BaseCard):
        options = TargetOptions(target, precision, engine, input_bits=input_bits, output_bits=output_bits)
        mapping = of.workload.mapping if isinstance(target, CrossbarCard) else None
        # what the converters of the network's own target leave unsaid stays said when its card is named alone
        return options if mapping is None else replace(options, remarks=_mapped_options(mapping).remarks)
    if not isinstance(target, (Target, PerLayer)):
        raise no_target(target)
    twice = {"precision": precision, "engine": engine, "input_bits": input_bits, "output_bits": output_bits}
    for name, value in twice.items():
        if value is not None:
            raise HpmlError(
                f"{name}={value!r}: the target {_short(target)} decides it; change the target, or give the card's name "
                "in its place"
            )
    if isinstance(target, PerLayer):
        if of.workload.mapping is None:
            raise no_target(target)
        return _mapped_options(of.workload.mapping)
    return target_options(target)


def _short(target: AnyTarget) -> str:
    """A target as an error shows it."""
    return f"{type(target).__name__}({target.card!r}, ...)" if isinstance(target, Target) else shown(target)


def _mapped_options(mapping: LayerMapping) -> TargetOptions:
    """The card of the first product, and what its and all other targets ask for that no figure follows."""
    found = [target_options(target) for target in dict.fromkeys(p.target for p in mapping.products.values())]
    remarks = tuple(dict.fromkeys(remark for options in found for remark in options.remarks))
    return TargetOptions(found[0].card, remarks=remarks)


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
