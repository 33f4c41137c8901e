"""What one inference is called: of a language model energy and throughput are by the token, of others by the sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hpml_sim.cost import Estimate
from hpml_sim.report.summary import TargetSummary


@dataclass(frozen=True)
class InferenceWords:
    """Words for what the figures of a run are of.

    Attributes:
        one: what energy is of, such as "one inference" or "reading one token of a prompt of 512".
        per: the same behind a figure: "per inference", "per token".
        rate: unit of the throughput.
        batch: what is handed over together.
        latency: what the latency is of.
        short: unit of energy in a narrow table.
        title: what a machine does, as a heading says it; "" where nothing needs to be said.
    """

    one: str = "one inference"
    per: str = "per inference"
    rate: str = "inferences/s"
    batch: str = "samples"
    latency: str = "batch 1"
    short: str = "/sample"
    title: str = ""

    @property
    def noun(self) -> str:
        """What is counted: "inference" or "token"."""
        return self.per.removeprefix("per ")


@dataclass(frozen=True)
class Question:
    """One thing that machines are ranked by at system scope.

    Attributes:
        name: "" or, of a language model, "decode" or "prefill".
        words: what the figures are of.
        systems: of each target that has some: its name and its estimates, batch 1 first.
    """

    name: str
    words: InferenceWords
    systems: tuple[tuple[str, tuple[Estimate, ...]], ...]

    def ranked(self, *, best: bool = False) -> list[tuple[str, Estimate]]:
        """(name, estimate), least energy first.

        Args:
            best: at the best batch, in place of batch 1.
        """
        found = [(name, estimates[-1 if best else 0]) for name, estimates in self.systems]
        return sorted(found, key=lambda item: item[1].energy_j.nominal)


def words_of_inference(targets: Sequence[TargetSummary]) -> InferenceWords:
    """Words for the costs of a run.

    Args:
        targets: of the run.
    """
    tokens = max((cost.tokens for target in targets for cost in target.costs), default=0)
    return _prompt(tokens) if tokens else InferenceWords()


def questions(targets: Sequence[TargetSummary]) -> list[Question]:
    """What the machines of a run are ranked by: of a language model making a token first, then reading a prompt.

    Args:
        targets: of the run; those without an estimate at system scope are left out.
    """
    found = []
    decodes = tuple((t.name, t.decode_systems) for t in targets if t.decode_systems)
    if decodes:
        context = round(decodes[0][1][0].mapping.get("context", 0.0))
        found.append(Question("decode", _token(context), decodes))
    others = tuple((t.name, t.systems) for t in targets if t.systems)
    if others:
        tokens = max(e.tokens for _, estimates in others for e in estimates)
        found.append(Question("prefill" if tokens else "", _prompt(tokens) if tokens else InferenceWords(), others))
    return found


def _prompt(tokens: int) -> InferenceWords:
    one = f"reading a token of a prompt of {tokens:,}"
    title = f"Reading a prompt of {tokens:,} tokens"
    return InferenceWords(one, "per token", "tokens/s", "prompts", "of a prompt", "/token", title)


def _token(context: int) -> InferenceWords:
    one = f"making a token, with {context:,} in the cache"
    title = f"Making a token, with {context:,} in the cache"
    return InferenceWords(one, "per token", "tokens/s", "sequences", "of a token", "/token", title)
