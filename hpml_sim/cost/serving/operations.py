"""What one GPU runs in one step of a transformer: products, attention, norms, embedding, head, sampling, collectives.

A step reads tokens of new prompts and makes a token for each sequence that is being answered, in one pass, as serving
engines with chunked prefill do. A prefill has no sequences that are being answered, a decode no prompts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

from hpml_sim.networks.language.shape import Experts, Layer, TransformerShape

Kind = Literal["product", "experts", "attention", "prefill", "values", "all-reduce", "all-gather", "send"]
"""What a kernel does: a product, one of experts, attention of decodes or of prompts, elementwise work, exchange."""

SAMPLING_PASSES = 6
"""Passes over the logits in float32: cast, temperature, softmax (two), noise, argmax."""
BLOCKS = (16, 64, 128)
"""Rows of the tiles of grouped products, where tables tuned for the GPU choose them."""
ROUTING_KERNELS = 4
"""Kernels of a mixture besides its products: softmax, top k, sort by expert, weighted sum."""


@dataclass(frozen=True)
class Step:
    """The tokens of one step.

    Attributes:
        decodes: sequences that get a new token.
        context: tokens in the cache of each of these, on average.
        prompts: tokens of prompts that are read.
        before: tokens that a prompt's token attends to, on average.
        finished: prompts whose last token is among them, which get their first new token.
        checked: tokens of a sequence that one step checks (speculative decoding); 1: the new one alone.
    """

    decodes: float = 0.0
    context: float = 0.0
    prompts: float = 0.0
    before: float = 0.0
    finished: float = 0.0
    checked: int = 1

    @property
    def tokens(self) -> float:
        """Rows of the products."""
        return self.decodes * self.checked + self.prompts

    @property
    def logits(self) -> float:
        """Rows of the head."""
        return self.decodes * self.checked + self.finished


@dataclass(frozen=True)
class Split:
    """How a network is spread over GPUs.

    Attributes:
        tensor: GPUs that share each matrix and the heads of attention.
        pipeline: GPUs that have some of the layers each.
        expert: GPUs that have some of the experts each, whole; they share attention as `tensor` does.
        data: copies of the whole.

    Example:
        >>> Split(tensor=4, data=2).devices
        8
    """

    tensor: int = 1
    pipeline: int = 1
    expert: int = 1
    data: int = 1

    @property
    def devices(self) -> int:
        """GPUs in all."""
        return self.tensor * self.pipeline * self.expert * self.data

    @property
    def sharing(self) -> int:
        """GPUs that share a layer."""
        return self.tensor * self.expert

    def __str__(self) -> str:
        parts = [f"{name}={n}" for name, n in vars(self).items() if n > 1]
        return " ".join(parts) or "one GPU"


@dataclass(frozen=True)
class Operation:
    """Kernels of one kind on one GPU; figures are of one of them.

    Attributes:
        name: of what they do.
        kind: of kernel.
        count: how often a step runs it.
        rows: rows of a product, those included to which an expert's is filled up; 0: no product.
        inputs: length of its sums.
        outputs: its columns.
        groups: products of these sizes in one kernel (experts).
        operations: floating-point operations.
        weights_bytes: weights that are read.
        moved_bytes: whatever else is read and written.
        sent_bytes: result of a collective.
    """

    name: str
    kind: Kind
    count: float
    rows: float = 0.0
    inputs: int = 0
    outputs: int = 0
    groups: float = 1.0
    operations: float = 0.0
    weights_bytes: float = 0.0
    moved_bytes: float = 0.0
    sent_bytes: float = 0.0

    @property
    def filled_operations(self) -> float:
        """Floating-point operations with those of the rows to which a product is filled up."""
        return 2 * self.groups * self.rows * self.inputs * self.outputs


@dataclass(frozen=True)
class Widths:
    """Bytes of one element.

    Attributes:
        weight: of a weight of the layers.
        value: of an activation.
        cache: of a key or value that is kept.
        edge: of a weight of embedding and head, which stay in 16 bits where the layers are quantized.
        values_rounded: whether values are rounded to 8 bits before each product of the layers.
        work: operations of the layers' products at the dense rate, over those that the sizes say: less where weights
            were taken out, or are zero in a pattern that the machine skips.
    """

    weight: float = 2.0
    value: float = 2.0
    cache: float = 2.0
    edge: float = 2.0
    values_rounded: bool = False
    work: float = 1.0


@dataclass(frozen=True)
class StepWork:
    """The kernels of one step on one GPU. A pipeline's stages are added up, as a token passes all of them.

    Attributes:
        shape: the network.
        step: its tokens, of one copy of the network.
        split: over GPUs.
        widths: bytes of weights and activations.
    """

    shape: TransformerShape
    step: Step
    split: Split = Split()
    widths: Widths = field(default=Widths())

    def operations(self) -> list[Operation]:
        """The kernels, in the order of the network; those of equal layers are one entry."""
        shape, step, ways = self.shape, self.step, self.split.sharing
        found = [self._values("embedding", 1, 2 * step.tokens * shape.width)]
        for layer in shape.kinds():
            found += self._attention_products(layer.count)
            found += self._attention(layer)
            found += self._feed_forward(layer.experts, layer.count)
            norms = shape.norms + shape.qk_norm
            elements = shape.norms * 3 * shape.width + shape.qk_norm * 2 * shape.heads * shape.head_width / ways
            found.append(self._values("norms and sums", layer.count * norms, step.tokens * elements / norms))
            if ways > 1:
                sent = step.tokens * shape.width * self.widths.value
                found.append(Operation("all-reduce", "all-reduce", 2 * layer.count, sent_bytes=sent))
        if self.split.pipeline > 1:
            sent = step.tokens * shape.width * self.widths.value
            found.append(Operation("to the next stage", "send", self.split.pipeline - 1, sent_bytes=sent))
        if self.widths.values_rounded:
            found += [
                self._values("quantization", y.count, 1.5 * self.step.tokens * y.inputs)
                for y in found
                if y.kind in ("product", "experts") and y.name != "router"
            ]
        return found + list(self._ends())

    def _ends(self) -> Iterator[Operation]:
        """What follows the layers: logits and sampling, or the pooler of an encoder."""
        shape, step, ways = self.shape, self.step, self.split.sharing
        if shape.pooler:
            yield self._product("pooler", 1, shape.width, shape.width, rows=step.finished, width=self.widths.edge)
        if not shape.decodes or not step.logits:
            return
        outputs = math.ceil(shape.vocabulary / ways)
        yield self._product("head", 1, shape.width, outputs, rows=step.logits, width=self.widths.edge)
        if ways > 1:
            yield Operation("gather of logits", "all-gather", 1, sent_bytes=2.0 * step.logits * shape.vocabulary)
        moved = SAMPLING_PASSES * 4.0 * step.logits * shape.vocabulary
        yield Operation("sampling", "values", 1, moved_bytes=moved)

    def _product(
        self, name: str, count: float, inputs: int, outputs: int, *, rows: float | None = None, width: float = 0.0
    ) -> Operation:
        rows = self.step.tokens if rows is None else rows
        return Operation(
            name,
            "product",
            count,
            rows,
            inputs,
            outputs,
            operations=2 * rows * inputs * outputs * (1.0 if width else self.widths.work),
            weights_bytes=inputs * outputs * (width or self.widths.weight),
            moved_bytes=rows * (inputs + outputs) * self.widths.value,
        )

    def _values(self, name: str, count: float, elements: float) -> Operation:
        return Operation(name, "values", count, moved_bytes=elements * self.widths.value)

    def _attention_products(self, count: int) -> list[Operation]:
        """Into attention by heads, out of it by their share of the sum; compressed vectors are made by every GPU."""
        ways, latent = self.split.sharing, self.shape.latent
        *into, (inputs, outputs) = self.shape.attention_weights()
        found = []
        for k, n in into:
            whole = latent is not None and n in (latent.query_rank, latent.kv_rank + latent.rotary_width)
            found.append(self._product("attention in", count, k, n if whole else math.ceil(n / ways)))
        return [*found, self._product("attention out", count, math.ceil(inputs / ways), outputs)]

    def _attention(self, layer: Layer) -> list[Operation]:
        """Scores and weighted sums: each decode reads its own cache, the tokens of a prompt share what they read."""
        shape, step, widths, ways = self.shape, self.step, self.widths, self.split.sharing
        heads, latent = shape.heads / ways, shape.latent
        if latent is None:
            query = value = wide = deep = shape.head_width
            kept = 2 * max(shape.kv_heads / ways, 1) * shape.head_width
        else:  # the compressed vector is key and value of all heads; over a prompt it is expanded
            query, value, kept = latent.kv_rank + latent.rotary_width, latent.kv_rank, shape.kv_width
            wide, deep = latent.plain_width + latent.rotary_width, latent.value_width
        window = math.inf if layer.window is None else layer.window
        found = []
        if step.decodes:
            seen = min(step.context + step.checked, window)
            tokens = step.decodes * step.checked
            moved = step.decodes * seen * kept * widths.cache + tokens * heads * (query + value) * widths.value
            operations = 2 * tokens * seen * heads * (query + value)
            found.append(
                Operation("attention", "attention", layer.count, operations=operations, moved_bytes=moved)
            )  # fmt: skip
        if step.prompts:
            seen = min(step.before, window)
            operations = 2 * step.prompts * seen * heads * (wide + deep)
            moved = step.prompts * (heads * (wide + deep) * widths.value + kept * widths.cache)
            found.append(
                Operation("attention of prompts", "prefill", layer.count, operations=operations, moved_bytes=moved)
            )  # fmt: skip
        moved = step.tokens * (2 * heads * query * widths.value + 2 * kept * widths.cache)
        return [*found, Operation("positions and cache", "values", layer.count, moved_bytes=moved)]

    def _feed_forward(self, experts: Experts | None, count: int) -> list[Operation]:
        if experts is None:
            return self._dense("feed-forward", count, self.shape.hidden)
        shape, tokens, split = self.shape, self.step.tokens, self.split
        touched = experts.touched(tokens)
        here = _busiest(touched, experts.count, split.expert)
        rows = tokens * experts.active / touched if touched else 0.0
        mean = tokens * experts.active / experts.count
        filled = self._filled(rows * _hottest(experts, split.expert), mean, experts.count / split.expert)
        routing = tokens * experts.count * 4.0
        (k, n), (k2, n2) = shape.feed_forward(experts.hidden)

        def part(name: str, inputs: int, outputs: int) -> Operation:
            one = self._product(name, count, inputs, outputs, rows=rows)
            return replace(
                one,
                kind="experts",
                rows=filled,
                groups=here,
                operations=here * one.operations,
                weights_bytes=here * one.weights_bytes,
                moved_bytes=here * one.moved_bytes,
            )

        act = 3 if shape.gated else 2
        spread = tokens * experts.active / split.expert
        found = [
            self._product("router", count, shape.width, experts.count, width=self.widths.edge),
            Operation("routing", "values", ROUTING_KERNELS * count, moved_bytes=routing),
            part("experts in", k, math.ceil(n / split.tensor)),
            self._values("activation", count, act * spread * experts.hidden / split.tensor),
            part("experts out", math.ceil(k2 / split.tensor), n2),
            self._values("sum over experts", count, (spread + tokens) * shape.width),
        ]
        return found + (self._dense("shared expert", count, experts.shared_hidden) if experts.shared_hidden else [])

    def _filled(self, rows: float, mean: float, experts: float) -> float:
        """Rows of an expert's product, filled up to whole blocks: one at least, and half of one left over on average.

        Source of the blocks: vLLM 0.11, `fused_moe.py`, `get_default_config`; where one GPU has all experts, the tuned
        tables beside it (E=128, N=768 on B200 and H100): the smallest of 16, 64 and 128 that holds an expert's rows.
        """
        if self.widths.values_rounded:
            block = 64
        elif self.split.expert == 1:
            block = next((size for size in BLOCKS if size >= mean), BLOCKS[-1])
        else:
            block = 16 if self.step.tokens <= experts else 64
        return max(block, rows + block / 2)

    def _dense(self, name: str, count: int, hidden: int) -> list[Operation]:
        shape, ways = self.shape, self.split.sharing
        (k, n), (k2, n2) = shape.feed_forward(hidden)
        act = 3 if shape.gated else 2
        return [
            self._product(f"{name} in", count, k, math.ceil(n / ways)),
            self._values("activation", count, act * self.step.tokens * hidden / ways),
            self._product(f"{name} out", count, math.ceil(k2 / ways), n2),
        ]


def _hottest(experts: Experts, ways: int) -> float:
    """Tokens of the GPU that gets most of them, over the mean: some experts are chosen more often than others."""
    uneven = experts.unevenness * math.sqrt(ways / experts.count * (1 - 1 / ways))
    return 1 + math.sqrt(2 * math.log(ways)) * uneven


def _busiest(touched: float, count: int, ways: int) -> float:
    """Experts with work on the GPU that has most of them, which the others wait for.

    Each of the count / ways experts of a GPU has work with probability touched / count; the largest of `ways` such sums
    lies about sqrt(2 ln ways) standard deviations above the mean.

    Source: the largest of n normal variables: S. Boucheron, G. Lugosi, P. Massart, "Concentration inequalities" (2013),
    section 2.5.
    """
    own = count / ways
    share = touched / count
    return min(own * share + math.sqrt(2 * math.log(ways) * own * share * (1 - share)), own)
