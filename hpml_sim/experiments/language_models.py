"""What a run takes for granted of a language model: what stays digital, how a GPU serves it, what figures are of."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

from torch import Tensor, nn

from hpml_sim.cards import DigitalCard, load_card
from hpml_sim.conversion import Converted
from hpml_sim.cost import Estimate, estimate
from hpml_sim.cost.estimation import at_scope
from hpml_sim.cost.named import Asked, estimate_sizes, sizes_for
from hpml_sim.cost.serving.stored_weights import stored_weights
from hpml_sim.data import Data
from hpml_sim.data.batches import first
from hpml_sim.experiments.plan import Point
from hpml_sim.experiments.target_list import AnyTarget
from hpml_sim.networks.generation import phase_workload, sizes_of
from hpml_sim.targets import Digital, crossbar_targets
from hpml_sim.tasks.task import Task

_log = logging.getLogger(__name__)
Batch = int | Literal["best"]


class Figures(NamedTuple):
    """Estimates of one phase of a language model on one machine.

    Attributes:
        own: at the card's own scope, batch 1 first.
        systems: the same at system scope.
    """

    own: list[Estimate]
    systems: list[Estimate]


def usual_skip(network: nn.Module, points: Sequence[Point], *, came_trained: bool) -> tuple[str, ...]:
    """Layers that stay digital on crossbars where nobody said: the head of a language model that is taken as it is.

    Its outputs choose among tens of thousands of tokens, so that it loses most to the noise of devices.

    Args:
        network: of the run.
        points: its machines.
        came_trained: whether the network is taken as it is.
    """
    sizes = sizes_of(network)
    if sizes is None or not came_trained or not any(crossbar_targets(point.target) for point in points):
        return ()
    heads = [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and module.out_features == sizes.vocabulary
    ]
    if heads:
        _log.info("the head (%s) stays digital on crossbars; skip= names other layers, or none", ", ".join(heads))
    return tuple(heads)


def as_served(points: Sequence[Point], task: Task) -> list[Point]:
    """The machines of a language model: a GPU that was named without options computes in bf16, as it is served.

    Args:
        points: the machines.
        task: of the run.
    """
    if task.name != "language_model":
        return list(points)
    found = []
    for point in points:
        target = point.target
        says_it = point.compressing.numbers is not None  # numbers of a quantized network
        if (
            isinstance(target, Digital)
            and not says_it
            and point.label == target.card
            and target == Digital(target.card)
        ):
            card = load_card(target.card)
            if isinstance(card, DigitalCard) and card.device == "cuda" and "bf16" in card.peak:
                _log.info(
                    "%s: bf16, as language models are served; for another precision give the target a label of its "
                    'own, such as {"%s fp32": hs.Digital("%s")}', point.label, point.label, target.card,
                )  # fmt: skip
                point = replace(point, target=replace(target, precision="bf16"))
        found.append(point)
    return found


def tokens_of_sample(data: Data, task: Task) -> int:
    """Tokens of a sample of a language model's data; 0 where the task is another one.

    Args:
        data: of the run.
        task: of the run.
    """
    if task.name != "language_model":
        return 0
    _, labels = first(data.test, 1)
    return labels[0].numel() if isinstance(labels, Tensor) else 0


def generation_figures(target: AnyTarget, model: Converted, tokens: int) -> tuple[Figures, Figures] | None:
    """What reading a prompt and making a token cost; None of a network that makes no text with a cache.

    Args:
        target: the machine.
        model: the network, converted for it.
        tokens: of the prompt, and in the cache when a token is made.

    Raises:
        HpmlError: the card has no figures for it.
    """
    if sizes_of(model) is None or not tokens:
        return None
    return _phase(target, model, "prefill", tokens), _phase(target, model, "decode", tokens)


def _phase(target: AnyTarget, model: Converted, phase: Literal["prefill", "decode"], tokens: int) -> Figures:
    batches: tuple[Batch, ...] = (1, "best")  # sequences at a time, on any machine
    if isinstance(target, Digital):
        card = load_card(target.card)
        sizes = sizes_for(model, card)
        if isinstance(card, DigitalCard) and sizes is not None:
            asked = Asked(phase, **{"context" if phase == "decode" else "sequence": tokens})  # type: ignore[arg-type]
            # scores do not depend on the engine; a language model is served from recorded graphs
            engine = None if target.engine == "torch" else target.engine
            stored = stored_weights(model, sizes)
            found = [
                estimate_sizes(
                    sizes, card, asked, batch=batch, precision=target.precision, engine=engine, stored=stored
                )
                for batch in batches
            ]
            found = _distinct(found)
            return Figures(*([at_scope(e, card, None, s, None) for e in found] for s in (None, "system")))
    counts = phase_workload(model, phase, tokens)
    scopes: tuple[Literal["system"] | None, ...] = (None, "system")
    return Figures(*(_distinct([estimate(counts, target, batch=b, scope=s) for b in batches]) for s in scopes))


def _distinct(found: list[Estimate]) -> list[Estimate]:
    """One estimate a batch size: the best batch may be 1."""
    return list({e.batch: e for e in found}.values())
