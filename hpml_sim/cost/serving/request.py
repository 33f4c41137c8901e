"""What is asked of a language model: reading a prompt, making a token, or answering a stream of requests."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from hpml_sim.cost.serving.scheduling import Load
from hpml_sim.errors import HpmlError, check_choice, check_real, check_whole, shown

if TYPE_CHECKING:
    from hpml_sim.networks.language import TransformerShape

Phase = Literal["prefill", "decode", "serve"]
PHASES = ("prefill", "decode", "serve")
USUAL_ANSWER = 400
"""Tokens of an answer where none are given."""
CACHE_BITS = (4, 8, 16)
"""What engines keep keys and values in besides the type of the activations."""


@dataclass(frozen=True)
class Request:
    """What is asked of a language model.

    Attributes:
        phase: "prefill" (an inference is a prompt), "decode" (a token), "serve" (a token of the answers to a stream of
            requests, prompts included).
        batch: sequences at a time, of one copy; "best": the smallest that reaches 95 % of the best throughput.
        sequence: tokens of a prompt.
        context: tokens in the cache of a sequence that is decoded.
        output: tokens of an answer.
        prefix_cached: share of a prompt that the cache has already.
        draft_tokens: tokens that are proposed and checked at once (speculative decoding); 0: none.
        draft_accepted: share of these that are right.
        kv_bits: bits of a key or value in the cache, 4, 8 or 16; None: as an activation.
    """

    phase: Phase = "prefill"
    batch: int | Literal["best"] = 1
    sequence: int | None = None
    context: int | None = None
    output: int | None = None
    prefix_cached: float = 0.0
    draft_tokens: int = 0
    draft_accepted: float = 0.7
    kv_bits: int | None = None

    def checked(self, shape: TransformerShape) -> Request:
        """The same with what was left open filled in.

        Args:
            shape: the network that is asked.

        Raises:
            HpmlError: an argument that the phase has no use for, or lengths that the network was not made for.
        """
        name = shape.name
        check_choice(f"{name}: phase", self.phase, PHASES)
        if self.phase != "prefill" and not shape.decodes:
            raise HpmlError(f"{name}: phase={self.phase!r} needs a network that generates text; this one is an encoder")
        used = {"prefill": ("sequence",), "decode": ("context",), "serve": ("sequence", "output")}[self.phase]
        for argument in ("sequence", "context", "output"):
            value = getattr(self, argument)
            if value is None:
                continue
            if argument not in used:
                raise HpmlError(f"{name}: {argument}={value!r}: phase={self.phase!r} takes {' and '.join(used)}")
            check_whole(f"{name}: {argument}", value, low=0 if argument == "context" else 1)
        check_whole(f"{name}: batch", 1 if self.batch == "best" else self.batch, low=1)
        check_real(f"{name}: prefix_cached", self.prefix_cached, low=0, high=1)
        check_real(f"{name}: draft_accepted", self.draft_accepted, low=0, high=1)
        check_whole(f"{name}: draft_tokens", self.draft_tokens, low=0, high=64)
        if self.kv_bits not in (None, *CACHE_BITS):
            raise HpmlError(f"{name}: kv_bits={shown(self.kv_bits)}: must be one of {', '.join(map(str, CACHE_BITS))}")
        if self.kv_bits is not None and not shape.decodes:
            raise HpmlError(f"{name}: kv_bits={self.kv_bits}: an encoder keeps no keys and values; leave it out")
        if self.prefix_cached and self.phase == "decode":
            raise HpmlError(
                f"{name}: prefix_cached={self.prefix_cached!r}: is a share of a prompt; phase='decode' reads none"
            )
        if self.draft_tokens and self.phase == "prefill":
            raise HpmlError(
                f"{name}: draft_tokens={self.draft_tokens!r}: are proposed for answers; take phase='decode' or 'serve'"
            )
        answer = (USUAL_ANSWER if self.output is None else self.output) if self.phase == "serve" else 0
        room = shape.longest - (1 if self.phase == "decode" else answer)
        usual = min(shape.usual_tokens, 512 if self.phase == "serve" else shape.usual_tokens, room)
        given = self.context if self.phase == "decode" else self.sequence
        length = usual if given is None else given
        if length > room or room < 1:
            raise HpmlError(
                f"{name}: {length + shape.longest - room:,} tokens; it was made for at most {shape.longest:,}"
            )
        if self.phase == "decode":
            return replace(self, context=length)
        return replace(self, sequence=length, output=answer or None)

    @property
    def kept(self) -> float:
        """Tokens in the cache of a sequence, on average."""
        if self.phase == "decode":
            return (self.context or 0) + 1.0
        if self.phase == "prefill":
            return float(self.sequence or 0)
        return Load(1, self.sequence or 0, self.output or 1).context

    def sizes(self) -> dict[str, float]:
        """Tokens that one inference reads or makes and, of a decoded one, those in the cache, by name."""
        if self.phase == "decode":
            return {"tokens": 1.0, "context": float(self.context or 0)}
        return {"tokens": float(self.sequence or 0) if self.phase == "prefill" else 1.0}

    def inference(self) -> str:
        """What one inference is, in words."""
        if self.phase == "decode":
            return f"a token of one sequence, with {self.context:,} in the cache"
        if self.phase == "prefill":
            return f"reading a prompt of {self.sequence:,} tokens"
        return f"a token of an answer of {self.output:,} tokens, to one of many prompts of {self.sequence:,} tokens"
