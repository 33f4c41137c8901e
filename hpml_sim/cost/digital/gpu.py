"""Seconds that a GPU takes for each layer, by the model of its kernels: products, convolutions, attention, the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hpml_sim.cost.digital.products import Products

if TYPE_CHECKING:
    from hpml_sim.cards import DigitalCard, Precision, Quantity
    from hpml_sim.cost.digital.work import Work
    from hpml_sim.targets import EstimatedEngine as Engine

CHANNELS_LAST, CHANNELS_FIRST, DEPTHWISE = 0.9, 0.65, 0.1
"""Where a card has no figures of its own: about the mean of those that were fitted to image networks."""
ATTENTION = 0.45
"""Share of the peak that fused attention reaches. Source: T. Dao, FlashAttention-2, ICLR 2024, Figure 5: forward, heads
of 64, A100: 0.4 to 0.6 of 312 TFLOP/s from 512 tokens on; shorter sequences less."""
_LAST = ("torch-compile", "fused")
"""Engines that choose the layout themselves: channels innermost."""


@dataclass(frozen=True)
class Gpu:
    """A GPU with a table `[kernels]`, in one precision.

    Attributes:
        products: its matrix products.
        convolution: speed of a convolution over that of the product of its shape.
        narrow_rate: operations a second of convolutions of single channels.
        attention_rate: operations a second of fused attention.
        cache: bytes of the last-level cache.
    """

    products: Products
    convolution: float
    narrow_rate: float
    attention_rate: float
    cache: float

    @classmethod
    def of(
        cls, card: DigitalCard, precision: Precision, engine: Engine, channels_last: bool, weights: float | None
    ) -> Gpu:
        """A card with a table `[kernels]`.

        Args:
            card: the GPU.
            precision: of activations and arithmetic.
            engine: what runs the network.
            channels_last: whether an eager network has its channels innermost.
            weights: bytes of a weight; None: as of an activation.
        """
        kernels = card.kernels
        assert kernels is not None, card.name
        # tensor cores want channels innermost; ordinary fp32 arithmetic does not mind
        last = channels_last or engine in _LAST or precision == "fp32"

        def share(quantity: Quantity | None, default: float) -> float:
            return default if quantity is None else quantity.si

        rate = card.peak[precision].si
        return cls(
            products=Products.of(card, precision, weights),
            convolution=share(kernels.channels_last, CHANNELS_LAST)
            if last
            else share(kernels.channels_first, CHANNELS_FIRST),
            narrow_rate=card.peak.get("fp32", card.peak[precision]).si * share(kernels.depthwise, DEPTHWISE),
            attention_rate=rate * ATTENTION,
            cache=0.0 if card.cache is None else card.cache.si,
        )

    def time_s(self, work: Work, batch: int, traffic: np.ndarray) -> np.ndarray:
        """Seconds of each layer's work on the GPU.

        Args:
            work: the layers.
            batch: samples.
            traffic: bytes of each layer to and from DRAM.
        """
        seconds = traffic / self.products.stream_rate
        operations = batch * work.operations
        chosen = work.products
        if chosen.any():
            vectors, rows, cols, groups = work.shape[:, chosen]
            moved = (batch * work.passed_bytes - work.kept(batch, self.cache))[chosen]
            convolves = work.convolves[chosen]
            stored: dict[str, Any] = {"weight_bytes": work.stored_width[chosen], "speedup": work.speedup[chosen]}
            whole = self.products.time_s(batch * vectors, rows, cols, groups, moved, **stored)
            unsplit = self.products.time_s(batch * vectors, rows, cols, groups, moved, splits=(1,), **stored)
            seconds[chosen] = np.where(convolves, unsplit / self.convolution, whole)
        seconds = np.where(work.depthwise, seconds + operations / self.narrow_rate, seconds)
        return np.where(work.attends, np.maximum(seconds, operations / self.attention_rate), seconds)
