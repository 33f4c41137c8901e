"""Measured matrix products of language models: gpu_products.csv."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hpml_sim.cards import DigitalCard
from hpml_sim.cost.digital.bands import PRODUCT, PRODUCT_LENT, around
from hpml_sim.cost.digital.estimating import fitted
from hpml_sim.cost.digital.products import Products
from hpml_sim.cost.validation.records.machines import machine
from hpml_sim.cost.validation.records.reading import number, rows, whole
from hpml_sim.cost.validation.records.record import Record, Skipped
from hpml_sim.units.bands import Band

COLUMNS = ("gpu", "model", "layer", "tensor_parallel", "m_tokens", "k", "n", "median_ms_fp16")
GROUPS = ((16, "to 16 tokens"), (128, "to 128"), (1024, "to 1,024"), (float("inf"), "above 1,024"))


def read_products(path: Path) -> Iterator[Record | Skipped]:
    """The time of each product, in fp16.

    Args:
        path: of the file.
    """
    by_gpu: dict[str, list[tuple[dict[str, str], list[float]]]] = defaultdict(list)
    for line, row in enumerate(rows(path, COLUMNS), start=2):
        sizes = [float(whole(path, row, name, line)) for name in ("m_tokens", "k", "n")]
        by_gpu[row["gpu"]].append((row, [*sizes, 1e-3 * number(path, row, "median_ms_fp16", line)]))
    for gpu, found in by_gpu.items():
        card = machine(gpu)
        if not isinstance(card, DigitalCard) or card.kernels is None or "fp16" not in card.peak:
            why = f"no card of {gpu}" if card is None else f"card {card.name} has no table [kernels] or no fp16"
            yield from (Skipped(path.name, gpu, why) for _ in found)
            continue
        model = Products.of(card, "fp16")
        m, k, n, _ = np.array([figures for _, figures in found]).T
        floors = np.maximum(2 * m * k * n / model.rate, 2 * (m * k + k * n + m * n) / model.bandwidth)
        factor = PRODUCT if fitted(card) else PRODUCT_LENT
        for (row, (tokens, *_, took)), seconds, floor in zip(found, model.time_s(m, k, n), floors, strict=True):
            band = around(Band.exact(float(seconds)), factor, float(floor))
            yield Record(
                gpu=gpu,
                name=f"{row['model']} {row['layer']} / {row['tensor_parallel']}, {tokens:.0f} tokens",
                measured=took,
                estimate=band.nominal,
                low=band.low,
                high=band.high,
                quantity="time",
                group=next(name for most, name in GROUPS if tokens <= most),
            )
