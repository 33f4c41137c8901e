"""Continuous batching: from the requests that an engine serves to its steps, its tokens a second and joules a token.

Each step makes a token for all sequences that are being answered; for each that ends, a new prompt is read. With b
sequences and answers of n tokens, b / n prompts are read a step. Where that is less than one, most steps read none, and
the median step is shorter than the mean one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from hpml_sim.cost.serving.operations import Step
from hpml_sim.cost.serving.step import StepCost, StepModel

LENGTH_SPREAD = 1.541
"""Mean of squared answer lengths over the square of their mean.

A sequence that is looked at any time has n / 2 of these tokens in its cache on average, as long answers are met longer.
From the batches at which 80 GB are full in the served records: docs/gpu_validation.md.
"""
MEDIAN_BELOW = 1.334
"""Prompts a step by which the median step reads fewer than the mean one: few prompts are long. As above."""


@dataclass(frozen=True)
class Load:
    """What an engine has to serve.

    Attributes:
        batch: sequences that are being answered, on average, of one copy of the network.
        prompt: tokens of a prompt, on average.
        output: tokens of an answer, on average.
        known: share of a prompt's tokens that the cache has already (prefix caching), 0 to 1.
        drafts: tokens that a draft proposes a step (speculative decoding); 0: none.
        accepted: share of the proposed tokens that are right, one by one, 0 to 1.
        spread: mean of squared answer lengths over the square of their mean, at least 1.
        median_below: prompts a step by which the median step reads fewer than the mean one.
    """

    batch: float
    prompt: float
    output: float
    known: float = 0.0
    drafts: int = 0
    accepted: float = 0.7
    spread: float = LENGTH_SPREAD
    median_below: float = MEDIAN_BELOW

    @property
    def context(self) -> float:
        """Tokens in the cache of a sequence, on average over time."""
        return self.prompt + self.output / 2 * self.spread

    @property
    def tokens_a_step(self) -> float:
        """Tokens that a sequence gets from one step.

        Source: Y. Leviathan et al., "Fast inference from transformers via speculative decoding", ICML 2023, equation 1.
        """
        if self.accepted == 1:
            return self.drafts + 1.0
        return (1 - self.accepted ** (self.drafts + 1)) / (1 - self.accepted)

    def step(self, prompts: float) -> Step:
        """A step that reads so many prompts.

        Args:
            prompts: on average, >= 0.
        """
        new = self.prompt * (1 - self.known)
        return Step(
            decodes=self.batch,
            context=self.context,
            prompts=prompts * new,
            before=self.prompt * self.known + new / 2,
            finished=prompts,
            checked=self.drafts + 1,
        )


class Served(NamedTuple):
    """What an engine does with a load; of all copies where there are several.

    Attributes:
        step_s: mean seconds of a step.
        between_s: median seconds between two tokens of an answer.
        first_s: seconds from a request to its first token, without queueing.
        tokens_hz: output tokens a second, of all GPUs.
        token_j: joules of an output token, prompts included.
        power_w: mean watts of one GPU.
        decode: the step without prompts.
    """

    step_s: float
    between_s: float
    first_s: float
    tokens_hz: float
    token_j: float
    power_w: float
    decode: StepCost


def serve(model: StepModel, load: Load, *, draft: StepModel | None = None) -> Served:
    """Steps, tokens and joules of a load.

    Args:
        model: the network on its GPUs.
        load: what is asked of it.
        draft: the network that proposes tokens, with `load.drafts`; None: proposing costs nothing.
    """
    a_step = load.tokens_a_step
    prompts = load.batch * a_step / load.output
    decode = model.cost(load.step(0))
    if prompts <= 1:
        reads = model.cost(load.step(1))
        time_s = decode.time_s + prompts * (reads.time_s - decode.time_s)
        energy_j = decode.energy_j + prompts * (reads.energy_j - decode.energy_j)
    else:
        reads = model.cost(load.step(prompts))
        time_s, energy_j = reads.time_s, reads.energy_j
    typical = max(prompts - load.median_below, 0.0)
    between_s = model.cost(load.step(typical)).time_s if typical else decode.time_s
    if draft is not None:
        proposed = draft.cost(Step(decodes=load.batch, context=load.context))
        time_s += load.drafts * proposed.time_s
        between_s += load.drafts * proposed.time_s
        energy_j += load.drafts * proposed.energy_j
    copies = model.split.data
    return Served(
        step_s=time_s,
        between_s=between_s / a_step,
        first_s=time_s / 2 + reads.time_s,
        tokens_hz=copies * load.batch * a_step / time_s,
        token_j=energy_j / (load.batch * a_step),
        power_w=energy_j / time_s / decode.devices,
        decode=decode,
    )
