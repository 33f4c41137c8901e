"""What a network and its key-value cache take of the memory of GPUs, and how many sequences fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hpml_sim.cost.serving.operations import Split, Widths

if TYPE_CHECKING:
    from hpml_sim.cards import DigitalCard
    from hpml_sim.networks.language.shape import TransformerShape

USABLE = 0.9
"""Share of the memory that an engine takes. Source: vLLM's default of `gpu_memory_utilization`."""
WORKSPACE_TOKENS = 8192
"""Tokens of the largest step, whose activations need room. Source: vLLM's default of `max_num_batched_tokens`."""


@dataclass(frozen=True)
class Memory:
    """Bytes on each GPU.

    Attributes:
        room: what an engine may use.
        weights: of the network's share.
        workspace: activations of the largest step.
        sequence: cache of one sequence.
    """

    room: float
    weights: float
    workspace: float
    sequence: float

    @classmethod
    def of(cls, card: DigitalCard, shape: TransformerShape, split: Split, widths: Widths, context: float) -> Memory:
        """The memory of one GPU.

        Args:
            card: the GPU.
            shape: the network.
            split: over GPUs.
            widths: bytes of weights, activations and cache.
            context: tokens that a sequence keeps, on average.
        """
        edges = shape.vocabulary * shape.width * (1 if shape.tied or not shape.decodes else 2)
        parts = split.sharing * split.pipeline
        weights = ((shape.parameters - edges) * widths.weight + edges * widths.edge) / parts
        # heads of keys and values that do not divide are kept twice
        heads = max(shape.kv_heads / split.sharing, 1.0) / shape.kv_heads if shape.latent is None else 1.0
        return cls(
            room=USABLE * card.memory.si,
            weights=weights,
            workspace=WORKSPACE_TOKENS * (4 * shape.width + 2 * shape.hidden / split.sharing) * widths.value,
            sequence=shape.cached(context) * heads / split.pipeline * widths.cache,
        )

    @property
    def sequences(self) -> int:
        """Sequences whose cache fits beside the weights; below 0: the weights alone do not fit."""
        left = self.room - self.weights - self.workspace
        if left < 0:
            return -1
        return int(left / self.sequence) if self.sequence else 2**31 - 1
