"""Estimates of networks that are named and not built: known ones, and the `config.json` of any other.

A language model on a GPU whose card has a model of its kernels is estimated from its sizes; all else is built without
weights, counted, and estimated like any network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import nn

from hpml_sim.cards import Card, DigitalCard
from hpml_sim.cost.serving.estimating import estimate_language
from hpml_sim.cost.serving.request import Phase, Request
from hpml_sim.cost.serving.splits import check_devices
from hpml_sim.cost.serving.stored_weights import StoredWeights
from hpml_sim.counting import Workload, workload
from hpml_sim.errors import HpmlError, UnknownNameError, shown
from hpml_sim.networks.architectures import ARCHITECTURES, Known, find, shape
from hpml_sim.networks.generation import phase_workload, sizes_of

if TYPE_CHECKING:
    from hpml_sim.cards import Precision
    from hpml_sim.cost.digital import Weights
    from hpml_sim.cost.result import Estimate
    from hpml_sim.networks.architectures import Architecture
    from hpml_sim.networks.language import TransformerShape
    from hpml_sim.targets import EstimatedEngine

Parallel = Mapping[str, int] | Literal["best"] | None


class Asked(NamedTuple):
    """What is asked of a language model, as `estimate` takes it.

    Attributes:
        phase: "prefill", "decode" or "serve"; None: prefill.
        sequence: tokens of a prompt.
        context: tokens in the cache.
        output: tokens of an answer.
        prefix_cached: share of a prompt that the cache has.
        draft_tokens: tokens that are proposed and checked at once.
        draft_accepted: share of these that are right.
        devices: GPUs; None: as few as hold a language model, and one copy of any other network.
        parallel: how they share the network.
        kv_bits: bits of a key or value in the cache; None: as an activation.
    """

    phase: Phase | None = None
    sequence: int | None = None
    context: int | None = None
    output: int | None = None
    prefix_cached: float = 0.0
    draft_tokens: int = 0
    draft_accepted: float = 0.7
    devices: int | None = None
    parallel: Parallel = None
    kv_bits: int | None = None

    @property
    def of_tokens(self) -> bool:
        """Whether it says what an inference of a language model is."""
        return any(name in self.given() for name in ("phase", "sequence", "context"))

    def given(self) -> list[str]:
        """Names of what differs from the defaults, in the order of the class."""
        return [name for name, value in self._asdict().items() if value != self._field_defaults[name]]


def sizes_for(what: str | Path | nn.Module, card: Card) -> TransformerShape | None:
    """The sizes of a language model that is estimated from these alone; None for all that is counted.

    Args:
        what: name of a network, or a network.
        card: of the machine.
    """
    if not (isinstance(card, DigitalCard) and card.device == "cuda" and card.kernels is not None):
        return None
    return language_sizes(what)


def language_sizes(what: str | Path | nn.Module) -> TransformerShape | None:
    """The sizes of a network that reads tokens; None of all others.

    Args:
        what: name of a network, or a network.
    """
    if isinstance(what, nn.Module):
        return sizes_of(what)
    known = find(str(what))
    return None if known is None else known.language


def estimate_sizes(
    sizes: TransformerShape,
    card: DigitalCard,
    asked: Asked,
    *,
    batch: int | Literal["best"],
    precision: Precision | None,
    engine: EstimatedEngine | None,
    weights: Weights | None = None,
    stored: StoredWeights | None = None,
) -> Estimate:
    """The estimate of a language model from its sizes.

    Args:
        sizes: of the network.
        card: one GPU.
        asked: of the network.
        batch: sequences at a time.
        precision: of the arithmetic; None takes what the weights are stored in.
        engine: what starts the kernels; None takes a recorded graph, and so has an inference runtime ("fused").
        weights: what the weights are stored in where that is less than `precision`.
        stored: what pruning and quantizing made of the matrices; None: nothing.
    """
    request = Request(
        asked.phase or "prefill",
        batch,
        asked.sequence,
        asked.context,
        asked.output,
        asked.prefix_cached,
        asked.draft_tokens,
        asked.draft_accepted,
        asked.kv_bits,
    )
    return estimate_language(
        sizes,
        card,
        request,
        precision=precision,
        engine="cuda-graph" if engine == "fused" else engine,
        weights=weights,
        devices=asked.devices,
        parallel=asked.parallel,
        stored=stored,
    )


def stored_precision(what: str | Path | nn.Module, card: DigitalCard) -> Precision:
    """The precision that a published network is stored in, where the card computes in it; otherwise its usual one.

    Args:
        what: name of a network, or one that generates text.
        card: of the machine.
    """
    if isinstance(what, nn.Module):
        sizes = sizes_of(what)
        dtype = torch.float32 if sizes is None else Known.of(sizes).dtype
    else:
        known = find(str(what))
        dtype = torch.float32 if known is None else known.dtype
    if dtype is torch.float32:
        return usual_precision(card)
    order: tuple[Precision, ...] = ("bf16", "fp16") if dtype is torch.bfloat16 else ("fp16", "bf16")
    for precision in order:
        if precision in card.peak:
            return precision
    return usual_precision(card)


def usual_precision(card: DigitalCard) -> Precision:
    """The precision where none is asked for: fp32, or the first of a card that lacks it (accelerators of integers).

    Args:
        card: of the machine.
    """
    return "fp32" if "fp32" in card.peak else next(iter(card.peak))


def built(name: str, asked: Asked) -> Architecture:
    """The network of a name without weights, and one sample.

    Args:
        name: of a network.
        asked: of the network; only lengths and the phases "prefill" and "decode" mean something here.

    Raises:
        UnknownNameError: no such network.
        HpmlError: something that only a language model on a GPU has a use for.
    """
    if find(name) is None:
        raise UnknownNameError(
            "network", name, ARCHITECTURES, hint="Or give an nn.Module, or the path of a Hugging Face config.json."
        )
    _refuse_serving(asked)
    phase = "decode" if asked.phase == "decode" else "prefill"
    return shape(name, phase=phase, sequence=asked.sequence, context=asked.context)


def _refuse_serving(asked: Asked) -> None:
    """Refuse what only a language model on a GPU has a use for."""
    for option in asked.given():
        if option in ("output", "prefix_cached", "draft_tokens", "draft_accepted", "kv_bits") or asked.phase == "serve":
            option = "phase" if asked.phase == "serve" else option
            raise HpmlError(
                f"estimate: {option}={shown(getattr(asked, option))}: is for language models on GPUs whose card has a "
                "table [kernels], such as 'h100'"
            )


def counted(what: str | Path | nn.Module, asked: Asked) -> Workload:
    """The operation counts of a named network, or of one that generates text.

    Args:
        what: name of a network, or a network.
        asked: as in `built`.

    Raises:
        HpmlError: a network that makes no text token by token, or what only a language model on a GPU has a use for.
    """
    if isinstance(what, nn.Module):
        sizes = sizes_of(what)
        _refuse_serving(asked)
        assert sizes is not None  # estimate() asks only for such networks
        request = Request(asked.phase or "prefill", 1, asked.sequence, asked.context).checked(sizes)
        phase: Literal["prefill", "decode"] = "decode" if asked.phase == "decode" else "prefill"
        return phase_workload(what, phase, (request.context if phase == "decode" else request.sequence) or 0)
    name = str(what)
    module, example = built(name, asked)
    return workload(module, data=example, extra=tokens_of(name, asked))


def tokens_of(name: str, asked: Asked) -> dict[str, float]:
    """Tokens that one inference of a named network reads or makes, and those in its cache; none of other networks.

    Args:
        name: of a network.
        asked: of it.
    """
    sizes = language_sizes(name)
    if sizes is None:
        return {}
    phase: Literal["prefill", "decode"] = "decode" if asked.phase == "decode" else "prefill"
    return Request(phase, 1, asked.sequence, asked.context).checked(sizes).sizes()


def refuse_tokens(asked: Asked) -> None:
    """Refuse what only a named network takes: for any other, the sample says how many tokens there are.

    Args:
        asked: of the network.
    """
    for option in asked.given():
        if option not in ("devices", "parallel"):
            raise HpmlError(
                f"estimate: {option}={shown(getattr(asked, option))}: is for language models by name, such as "
                "'smollm2-135m' or 'llama-3-8b', by their config.json, or as networks that generate text "
                "with a cache that is known here (of hs.load_network or transformers); of any other network, give "
                "input_shape= or data="
            )


def copies_of(asked: Asked, card: Card) -> int:
    """How many copies of a counted network run side by side: on CPUs and GPUs only, each with a part of the batch.

    Args:
        asked: of the network.
        card: of the machine.

    Raises:
        HpmlError: another way of spreading it, or another kind of machine.
    """
    ways = asked.parallel
    if asked.devices is None and ways is None:
        return 1
    devices = check_devices(1 if asked.devices is None else asked.devices)
    if not isinstance(card, DigitalCard):
        raise HpmlError(f"estimate: devices={devices}: is for CPUs and GPUs; a card of kind {card.kind!r} takes chips=")
    if ways in (None, "best") or ways == {"data": devices}:
        return devices
    raise HpmlError(
        f"estimate: parallel={shown(ways)}: only language models by name or config.json, on GPUs, are cut; of any "
        f"other network each device has a copy: leave it out, or {{'data': {devices}}}"
    )


def side_by_side(one: Estimate, copies: int, more: Any = ()) -> Estimate:
    """The estimate of copies that each work on a part of a batch.

    Args:
        one: of one copy.
        copies: how many.
        more: sentences to add to what is assumed.
    """
    if copies == 1:
        return one
    sentence = f"{copies} devices with a copy of the network each, and an equal part of the batch"
    return replace(
        one,
        batch=one.batch * copies,
        throughput_hz=one.throughput_hz * float(copies),
        area_mm2=None if one.area_mm2 is None else one.area_mm2 * float(copies),
        mapping={**one.mapping, "devices": one.mapping.get("devices", 1.0) * copies, "data": float(copies)},
        assumptions=(*one.assumptions, sentence, *more),
    )
