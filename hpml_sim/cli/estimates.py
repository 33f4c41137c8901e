"""What `hpml-sim estimate` computes and shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from torch import nn

from hpml_sim.cards import CrossbarCard, DigitalCard, NeuromorphicCard, Precision, Scope, load_card
from hpml_sim.cli.networks import named_network
from hpml_sim.conversion import convert
from hpml_sim.cost import Estimate, estimate
from hpml_sim.cost.compression_plan import CompressionPlan
from hpml_sim.cost.digital.quantized import is_quantized
from hpml_sim.cost.estimation import at_scope
from hpml_sim.cost.named import (
    Asked,
    Parallel,
    built,
    estimate_sizes,
    language_sizes,
    sizes_for,
    stored_precision,
    tokens_of,
)
from hpml_sim.cost.serving.request import Request
from hpml_sim.counting import Workload, workload
from hpml_sim.data import load_data
from hpml_sim.data.batches import first
from hpml_sim.errors import HpmlError
from hpml_sim.experiments.compressing import AS_IT_IS, compressing
from hpml_sim.networks.architectures import ARCHITECTURES, find
from hpml_sim.targets import EstimatedEngine as Engine
from hpml_sim.units.formatting import DASH, digits, si, span

if TYPE_CHECKING:
    from rich.console import Group

    from hpml_sim.cost.digital import Weights

SAMPLES = 100
"""Samples of a data set over which spikes and zeros are averaged."""


def estimates(
    model: str,
    targets: Sequence[str],
    *,
    data: str | None,
    input_shape: Sequence[int] | None,
    asked: Asked,
    batch: int | Literal["best"],
    precision: Precision | None,
    engine: Engine | None,
    weights: Weights | None = None,
    prune: str | None = None,
    quantize: str | None = None,
    scope: Scope | None = None,
    rate_hz: float | None = None,
) -> list[Estimate]:
    """One estimate a card, in the order asked for.

    Args:
        model: a network by name, or code by name.
        targets: cards.
        data: a data set by name, whose samples are run to measure sparsity and spikes.
        input_shape: of one sample, without the batch.
        asked: of a language model: phase, lengths, devices.
        batch: samples handed over together, or "best".
        precision: arithmetic on digital cards; None takes what the network is stored in, or fp32.
        engine: what runs the network on digital cards; None takes torch, and a recorded graph for language models.
        weights: what weights alone are stored in on digital cards; None: as the arithmetic.
        prune: what goes of the network, such as "2:4" or "channels=0.3"; of a known name "unstructured" or "2:4".
        quantize: what it is quantized to, as `hs.quantize` takes it.
        scope: what the figures include; None is each card's own.
        rate_hz: inferences a second that are asked for; None: one after another.

    Raises:
        UnknownNameError: no network, data set or card has this name.
        HpmlError: an option that the network has no use for, or a network that a machine cannot run.
    """
    if not targets:
        raise HpmlError("targets: give at least one machine, such as cpu, h200 or pcm-hermes (`hpml-sim cards`)")
    cards = [load_card(name) for name in targets]
    known = find(model) is not None
    if known and (data is not None or input_shape is not None):
        raise HpmlError(f"{model}: comes with its own input and no weights; leave out --data and --input-shape")
    plan = CompressionPlan.of(prune, quantize) if known else None
    how = AS_IT_IS if known else compressing(prune, quantize)
    if not known and set(asked.given()) - {"devices", "parallel"}:
        raise HpmlError(f"{model}: --phase, --sequence and --context are for networks that generate text")
    network: nn.Module | None = None
    module: nn.Module | None = None
    samples: dict[str, Any] = {}
    counts: Workload | None = None
    found = []
    for name, card in zip(targets, cards, strict=True):
        if known and (sizes := sizes_for(model, card)) is not None and isinstance(card, DigitalCard):
            one = estimate_sizes(
                sizes, card, asked, batch=batch, precision=precision, engine=engine, weights=weights,
                stored=None if plan is None else plan.stored(sizes),
            )  # fmt: skip
            found.append(at_scope(one, card, None, scope, rate_hz))
            continue
        if counts is None or module is None:  # built and counted once, and only where sizes alone do not do
            if known:
                module, example = built(model, asked)
                samples = {"data": example}
            else:
                network, samples = _network(model, data, input_shape)
                module = network = how.of(network, None if data is None else load_data(data))
            figures = tokens_of(model, asked) if known else {}
            counts = workload(module, **samples, extra=figures)
            counts = counts if plan is None else plan.counts(counts, language_sizes(model))
        counted = counts
        if isinstance(card, NeuromorphicCard):
            counted = _spiking_counts(model, network, name, data)
        elif isinstance(card, CrossbarCard):
            # the layers that chips would hold, cut as chips hold them: the figure of hs.compare
            counted = workload(convert(module, name), **samples, extra=tokens_of(model, asked) if known else {})
        arithmetic = precision if isinstance(card, DigitalCard) else None
        if isinstance(card, DigitalCard) and not is_quantized(counted):
            arithmetic = precision or stored_precision(model, card)
        runs_on = engine if isinstance(card, DigitalCard) else None
        found.append(
            estimate(
                counted,
                card,
                batch=batch,
                precision=arithmetic,
                engine=runs_on,
                weights=weights if isinstance(card, DigitalCard) else None,
                devices=asked.devices,
                parallel=asked.parallel,
                scope=scope,
                rate_hz=rate_hz,
            )
        )
    return found if plan is None else [replace(e, assumptions=(*e.assumptions, plan.sentence())) for e in found]


def _network(model: str, data: str | None, input_shape: Sequence[int] | None) -> tuple[nn.Module, dict[str, Any]]:
    """A network, and what to count it on."""
    hint = "Or give package.module:callable or file.py:callable with --input-shape."
    network, input_shape = named_network(model, data, input_shape, others=ARCHITECTURES, hint=hint)
    if data is not None:
        return network, {"data": first(load_data(data).test, SAMPLES)[0]}
    return network, {"input_shape": input_shape}


def _spiking_counts(model: str, network: nn.Module | None, card: str, data: str | None) -> Workload:
    """Spikes cannot be known from shapes: the network is converted and run on samples."""
    if network is None or data is None:
        raise HpmlError(
            f"{model} on {card}: a spiking machine's energy depends on how often neurons fire, which shapes do not "
            "tell; give a network with weights (mlp, cnn, package.module:callable) and --data, or leave this card out"
        )
    return workload(convert(network, card), data=first(load_data(data).test, SAMPLES)[0])


def one_inference(model: str, asked: Asked) -> dict[str, str | int]:
    """What one inference of a network that reads tokens is: its phase and how many tokens; empty for other networks.

    Args:
        model: a network by name.
        asked: of it: phase, lengths, devices.
    """
    known = find(model)
    if known is None or known.language is None:
        return {}
    request = Request(asked.phase or "prefill", 1, asked.sequence, asked.context, asked.output).checked(known.language)
    lengths = {"decode": {"sequence": 1, "context": request.context}, "prefill": {"sequence": request.sequence}}
    found = lengths.get(request.phase, {"sequence": request.sequence, "output": request.output})
    return {"phase": request.phase, **{k: v for k, v in found.items() if v is not None}}


def machines(found: Estimate) -> dict[str, int]:
    """How many devices an estimate is of; empty for chips.

    Args:
        found: the estimate.
    """
    return {"devices": round(found.mapping["devices"])} if "devices" in found.mapping else {}


def ways(text: str | None) -> Parallel:
    """What `--parallel` says: "best", or ways by name such as "tensor=2,pipeline=4".

    Args:
        text: as it was given.

    Raises:
        HpmlError: something else.
    """
    if text is None or text == "best":
        return text  # type: ignore[return-value]
    found: dict[str, int] = {}
    for part in text.replace(",", " ").split():
        name, _, number = part.partition("=")
        if not number.isdecimal():
            raise HpmlError(f"--parallel {text}: must be best, or ways by name, such as tensor=2,pipeline=4")
        found[name] = int(number)
    return found


def estimates_table(model: str, found: Sequence[Estimate], inference: Mapping[str, str | int]) -> Group:
    """A line a card, and below it what the figures leave out and take for granted.

    Args:
        model: the network's name.
        found: the estimates.
        inference: what `one_inference` gave.
    """
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table

    from hpml_sim.report.ranking_words import order_of

    title = f"{model}: estimated for one inference{_tokens(inference)}, nominal (low to high)"
    table = Table(title=title)
    for name in ("card", "scope", "batch"):
        table.add_column(name)
    for name in ("energy", "latency of a batch", "inferences/s", "area", "needs"):
        table.add_column(name, justify="right")
    notes: list[str] = []
    for e in found:
        area = "—" if e.area_mm2 is None else f"{e.area_mm2.nominal:,.4g} mm²"
        figures = [f"{si(band.nominal, unit)} ({span(band)})" for band, unit in ((e.energy_j, "J"), (e.latency_s, "s"))]
        rate = e.throughput_hz
        slow = rate.nominal < 1  # "183 m" would read as 183 million
        low_high = f"{digits(rate.low)}{DASH}{digits(rate.high)}"
        figures.append(f"{digits(rate.nominal)} ({low_high})" if slow else f"{si(rate.nominal, '')} ({span(rate)})")
        scope = f"{e.scope}, projected" if e.projection else e.scope
        table.add_row(e.card, scope, f"{e.batch:,}", *figures, area, _needs(e))
        if e.added:
            parts = ", ".join(f"{part} ({names})" for part, names in _added(e).items())
            notes.append(f"{e.card}: added from components: {parts}")
        if "average_power_w" in e.reported_separately:
            power = e.reported_separately["average_power_w"]
            notes.append(f"{e.card}: {si(power.nominal, 'W')} ({span(power)}) on average at {e.rate_hz:g} a second")
        notes += [f"{e.card}: excluded: {sentence}" for sentence in e.excluded]
        notes += [f"{e.card}: assumed: {sentence}" for sentence in e.assumptions]
    scopes = {e.scope for e in found}
    if len(scopes) > 1:
        notes.append(f"Figures of different scope ({', '.join(sorted(scopes))}) are not ranked.")
    ranking = order_of([(e.card, e) for e in found]) if len(scopes) == 1 and len(found) > 1 else []
    lines = Table.grid(padding=(0, 1))
    for note in notes:
        lines.add_row("·", escape(note), style="dim")
    for sentence in ranking:
        lines.add_row("»", escape(sentence))
    return Group(table, lines)


def _added(e: Estimate) -> dict[str, str]:
    """Part -> the component that it was added from."""
    return {term.component: term.origin for term in e.added}


def _tokens(inference: Mapping[str, str | int]) -> str:
    if not inference:
        return ""
    if inference["phase"] == "decode":
        return f" (one token, with {inference['context']:,} in the cache)"
    if inference["phase"] == "serve":
        lengths = f"prompts of {inference['sequence']:,}, answers of {inference['output']:,} tokens"
        return f" (one token of an answer; {lengths})"
    return f" (reading a prompt of {inference['sequence']:,} tokens)"


def _needs(e: Estimate) -> str:
    """How much of the machine the network takes: devices, or chips with tiles or cores."""
    m = e.mapping
    unit = next((name for name in ("devices", "chips") if name in m), None)
    if unit is None:
        return "—"
    whole = f"{m[unit]:,.0f} {unit if m[unit] != 1 else unit[:-1]}"
    part = next((f", {m[name]:,.0f} {name}" for name in ("tiles", "cores") if name in m), "")
    return whole + part
