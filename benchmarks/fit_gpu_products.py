"""Fits the constants of matrix products, `[kernels]` of a GPU's card, to measured products.

    python benchmarks/fit_gpu_products.py --records FOLDER [--gpus a100 h100] [--out FILE]

FOLDER has gpu_products.csv: gpu, model, m_tokens, k, n, median_ms_fp16. Eight constants a GPU, by Nelder-Mead from
those that its card has. What is minimized: mean |ln(estimate / measured)| plus 0.3 for each row that is more than about
20 % off (a ramp from 15 to 25 %), over the distinct products. Then: each network left out in turn, and each GPU by its
data sheet with the constants of another one. --out keeps these errors.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from fit_results import Rows, write
from scipy.optimize import minimize

from hpml_sim.cards import DigitalCard, load_card
from hpml_sim.cost.digital.products import Products

FITTED = (
    "tile_efficiency", "tile_half", "start_s", "overlap", "wave_share", "fill_depth", "split_traffic",
    "product_bandwidth",
)  # fmt: skip
SCALE = np.array([1, 30, 4e-6, 3, 0.3, 40, 1, 1])
LOWEST = np.array([0.1, 0, 1e-7, 1, 0, 0, 0, 0.1])
HIGHEST = np.array([1, 1000, 1e-4, 20, 1, 1000, 20, 1])
BANDS = ((0, 16), (16, 128), (128, 1024), (1024, 10**9))


@dataclass(frozen=True)
class Measured:
    """Products of one GPU: shapes, median seconds and the network that each belongs to."""

    m: np.ndarray
    k: np.ndarray
    n: np.ndarray
    seconds: np.ndarray
    network: np.ndarray

    def only(self, chosen: np.ndarray) -> Measured:
        """Some of the rows."""
        return Measured(*(x[chosen] for x in (self.m, self.k, self.n, self.seconds, self.network)))

    def error(self, products: Products) -> np.ndarray:
        """ln(estimate / measured) of each row."""
        return np.log(products.time_s(self.m, self.k, self.n) / self.seconds)

    def distinct(self) -> Measured:
        """One row a shape, with the median of its times."""
        found: dict[tuple[float, ...], list[int]] = defaultdict(list)
        for row, shape in enumerate(zip(self.m, self.k, self.n, strict=True)):
            found[shape].append(row)
        first = np.array([rows[0] for rows in found.values()])
        median = np.array([np.median(self.seconds[rows]) for rows in found.values()])
        return replace(self.only(first), seconds=median)


def read(folder: Path) -> dict[str, Measured]:
    """GPU -> its measured products."""
    rows: dict[str, list[dict[str, str]]] = defaultdict(list)
    with (folder / "gpu_products.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            rows[row["gpu"]].append(row)
    return {
        gpu: Measured(
            *(np.array([float(row[name]) for row in found]) for name in ("m_tokens", "k", "n")),
            np.array([1e-3 * float(row["median_ms_fp16"]) for row in found]),
            np.array([row["model"] for row in found]),
        )
        for gpu, found in rows.items()
    }


def objective(error: np.ndarray) -> float:
    """Mean deviation, and a ramp for those that are far off."""
    size = np.abs(error)
    return float(np.mean(size) + 0.3 * np.mean(np.clip((size - 0.15) / 0.1, 0, 1)))


def with_constants(products: Products, values: np.ndarray) -> Products:
    """The same GPU with other constants."""
    return replace(products, **dict(zip(FITTED, map(float, values), strict=True)))


def constants(products: Products) -> np.ndarray:
    """The constants of a GPU."""
    return np.array([getattr(products, name) for name in FITTED])


def fit(products: Products, measured: Measured, steps: int) -> Products:
    """The constants that suit the measured products best."""

    def loss(scaled: np.ndarray) -> float:
        values = scaled * SCALE
        if (values < LOWEST).any() or (values > HIGHEST).any():
            return 10.0
        return objective(measured.error(with_constants(products, values)))

    start = np.clip(constants(products), LOWEST * 1.02, HIGHEST * 0.98) / SCALE
    found = minimize(loss, start, method="Nelder-Mead", options={"maxfev": steps, "adaptive": True})
    return with_constants(products, found.x * SCALE)


def said(name: str, measured: Measured, products: Products) -> str:
    """Median |ln| and the share within 20 %: overall, and of each band of tokens."""
    error = measured.error(products)
    masks = [np.ones(len(error), bool), *((measured.m > low) & (measured.m <= high) for low, high in BANDS)]
    near = np.abs(np.expm1(error)) <= 0.2
    parts = [f"{np.median(np.abs(error[mask])):.3f} ({near[mask].mean():.0%})" for mask in masks if mask.any()]
    return f"{name:32}" + "  ".join(parts)


def figures(gpu: str, left_out: str, measured: Measured, products: Products) -> dict[str, object]:
    """A row of what is kept: the same figures."""
    error = measured.error(products)
    near = np.abs(np.expm1(error)) <= 0.2
    found: dict[str, object] = {"gpu": gpu, "left_out": left_out, "rows": len(error)}
    for name, (low, high) in zip(("all", "to 16", "to 128", "to 1024", "above"), ((0, 10**9), *BANDS), strict=True):
        mask = (measured.m > low) & (measured.m <= high)
        if mask.any():
            found[name] = [round(float(np.median(np.abs(error[mask]))), 3), round(float(near[mask].mean()), 3)]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=Path, required=True)
    parser.add_argument("--gpus", nargs="+", default=["a100", "h100"])
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--out", type=Path, help="keep the errors there, as JSON")
    options = parser.parse_args()
    records = read(options.records)
    fitted: dict[str, Products] = {}
    kept: Rows = []
    print("median |ln(estimate / measured)| (within 20 %): all, to 16, 128, 1,024 tokens, above")
    for gpu in options.gpus:
        card = load_card(gpu)
        assert isinstance(card, DigitalCard)
        measured, distinct = records[gpu], records[gpu].distinct()
        fitted[gpu] = fit(Products.of(card, "fp16"), distinct, options.steps)
        print(said(f"{gpu}: fitted", measured, fitted[gpu]))
        kept.append(figures(gpu, "nothing", measured, fitted[gpu]))
        for network in sorted(set(distinct.network)):
            # products of this shape in other networks are left out as well
            mine = {(k, n) for k, n, x in zip(measured.k, measured.n, measured.network, strict=True) if x == network}
            same = np.array([(k, n) in mine for k, n in zip(distinct.k, distinct.n, strict=True)])
            others = fit(fitted[gpu], distinct.only(~same), options.steps // 3)
            left = measured.only(measured.network == network)
            print(said(f"  without {network}: on it", left, others), flush=True)
            kept.append(figures(gpu, network, left, others))
    for gpu in options.gpus:
        card = load_card(gpu)
        assert isinstance(card, DigitalCard)
        sheet = Products.of(card, "fp16")
        for sister in options.gpus:
            if sister != gpu:
                lent = with_constants(sheet, constants(fitted[sister]))
                lent = replace(lent, product_bandwidth=card.memory_efficiency.si)
                print(said(f"{gpu}: constants of {sister}", records[gpu], lent))
                kept.append(figures(gpu, f"its own rows; constants of {sister}", records[gpu], lent))
    write(options.out, kept)
    for gpu, products in fitted.items():
        print(f"\n{gpu}")
        for name in FITTED:
            print(f"  {name} = {getattr(products, name):.4g}")


if __name__ == "__main__":
    main()
