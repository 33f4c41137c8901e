"""Which cells survive analog hardware: the findings of AnalogNAS-Bench on small networks, and a surrogate.

    python benchmarks/architectures.py --out build/architectures.jsonl [--cells 60]

Cells of NAS-Bench-201's space (`hs.models.cells`), drawn at random with widths of 2 to 8 in two stages, are trained on
the 8 x 8 digits, and each gets: its digital score; its scores in 4 bits and in ternary numbers, to the nearest and
without training; scores of 25 chips of `pcm-hermes` after one second and after one year; energy at system scope; and
two cheap measurements: what its converters lose on one batch, and its score on two other chips after one year.

Printed are, over all cells, Spearman's correlations for three questions (does robustness to few bits tell robustness to
chips? do width and branches help? do skips help against drift?), and those of a gradient-boosting surrogate with the
25-chip score after a year, on cells that it was not fitted on (five folds, ten draws of them), beside one that
knows the digital score and the size alone. At last, the cells beside a default cell whose width alone varies, at equal
energy.

Each cell is kept in the file as soon as it is known; a stopped run goes on. About 3 s of one core a cell.

Source: AnalogNAS-Bench, arXiv:2506.18495 (2025).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.model_selection import KFold, cross_val_predict

import hpml_sim as hs
from hpml_sim.networks.cells import OPERATIONS, reaches_output

CARD, CHIPS, EPOCHS = "pcm-hermes", 25, 6
WIDTHS = range(2, 9)
ARCHITECTURE = ("width", "skips", "conv1x1", "conv3x3", "pools", "branches", "skip_through", "log_macs", "log_weights")
CHEAP = ("digital", "four_bits", "converter_db", "two_chips")


def drawn(number: int) -> dict[str, Any]:
    """The architecture of a number; below 0 the default cell, whose width alone is varied."""
    if number < 0:
        edges = ("conv3x3", "skip", "conv3x3", "skip", "none", "skip")
        return {f"edge_{k}": edge for k, edge in enumerate(edges, 1)} | {"width": 1 - number}
    random = np.random.default_rng([7, number])
    while True:
        edges = [str(edge) for edge in random.choice(OPERATIONS, 6)]
        if reaches_output(edges) and any(edge.startswith("conv") for edge in edges):
            break
    return {f"edge_{k}": edge for k, edge in enumerate(edges, 1)} | {"width": int(random.integers(2, 9))}


def features(options: Mapping[str, Any], network: torch.nn.Module) -> dict[str, float]:
    """What a surrogate may know of an architecture before anything is trained."""
    edges = [options[f"edge_{k}"] for k in range(1, 7)]
    counts = hs.workload(network, input_shape=(1, 8, 8))
    through = [(3,), (1, 5), (0, 4), (0, 2, 5)]  # the ways through a cell, as numbers of edges
    open_ways = [way for way in through if all(edges[k] != "none" for k in way)]
    return {
        "width": float(options["width"]),
        "skips": float(edges.count("skip")),
        "conv1x1": float(edges.count("conv1x1")),
        "conv3x3": float(edges.count("conv3x3")),
        "pools": float(edges.count("pool3x3")),
        "branches": float(len(open_ways)),
        "skip_through": float(any(all(edges[k] == "skip" for k in way) for way in open_ways)),
        "log_macs": float(np.log(counts.total("macs"))),
        "log_weights": float(np.log(counts.total("weight_count"))),
    }


def measured(number: int) -> dict[str, Any]:
    """All figures of one cell."""
    options, data = drawn(number), hs.load_data("digits")
    network = hs.models.build("cells", (1, 8, 8), 10, seed=abs(number), stages=2, **options)
    hs.fit(network, data=data, epochs=EPOCHS, lr=1e-2, seed=abs(number), show_progress=False)
    network.eval()
    analog = hs.convert(network, CARD)
    x = torch.stack([data.train[i][0] for i in range(128)])
    hs.calibrate(analog, x)
    chips, two = hs.program(analog, CHIPS, seed=0), hs.program(analog, 2, seed=1)
    decibels = [layer.converter_db for layer in analog.layers_now() if layer.converter_db is not None]
    return {
        "number": number,
        **options,
        **features(options, network),
        "digital": hs.evaluate(network, data).mean,
        "four_bits": hs.evaluate(hs.quantize(network, "int4"), data).mean,
        "ternary": hs.evaluate(hs.quantize(network, "ternary"), data).mean,
        "converter_db": min(decibels),
        "two_chips": hs.evaluate(two.at("1 year"), data).mean,
        "second": hs.evaluate(chips.at("1 s"), data).mean,
        "year": hs.evaluate(chips.at("1 year"), data).mean,
        "energy_j": hs.estimate(analog, data=x[:16], scope="system").energy_j.nominal,
    }


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's: the correlation of the ranks."""
    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])


def surrogate_scores(rows: list[dict[str, Any]], names: tuple[str, ...]) -> list[float]:
    """Spearman's correlation with the 25-chip score after a year on cells not fitted on, by draw of folds."""
    x = np.array([[row[name] for name in names] for row in rows])
    y = np.array([row["year"] for row in rows])
    found = []
    for seed in range(10):
        model = GradientBoostingRegressor(
            n_estimators=150, max_depth=3, learning_rate=0.05, subsample=0.7, random_state=seed
        )
        folds = KFold(5, shuffle=True, random_state=seed)
        found.append(correlation(np.asarray(cross_val_predict(model, x, y, cv=folds)), y))
    return found


def report(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The findings, printed and as figures."""
    of = {name: np.array([row[name] for row in rows], float) for name in rows[0] if not name.startswith("edge_")}
    lost, drift = of["digital"] - of["year"], of["second"] - of["year"]
    kept_bits = of["four_bits"] - of["digital"]
    found: dict[str, Any] = {
        "cells": len(rows),
        "robust to four bits, robust to chips": correlation(kept_bits, -lost),
        "width, kept on chips": correlation(of["width"], -lost),
        "branches, kept on chips": correlation(of["branches"], -lost),
        "skip through the cell: points lost to drift with, without": [
            100 * float(drift[of["skip_through"] == k].mean()) for k in (1, 0)
        ],
        "digital score, 25 chips": correlation(of["digital"], of["year"]),
        "weights, 25 chips": correlation(of["log_weights"], of["year"]),
    }
    sets = {
        "digital score and size": ("digital", "log_macs", "log_weights"),
        "architecture": ARCHITECTURE,
        "architecture, digital score, bits and converters": (*ARCHITECTURE, "digital", "four_bits", "converter_db"),
        "all, with two chips": (*ARCHITECTURE, *CHEAP),
    }
    for label, names in sets.items():
        scores = surrogate_scores(rows, names)
        found[f"surrogate of {label}"] = [float(np.mean(scores)), float(min(scores)), float(max(scores))]
    for name, value in found.items():
        print(f"  {name:<66}{value}")
    return found


def against_width(rows: list[dict[str, Any]], widths: list[dict[str, Any]]) -> list[tuple[int, float, float, float]]:
    """(width of the default cell, its energy, its score after a year, the best score of cells that take no more)."""
    found = []
    for own in sorted(widths, key=lambda row: row["width"]):
        best = max((row["year"] for row in rows if row["energy_j"] <= own["energy_j"]), default=float("nan"))
        found.append((own["width"], own["energy_j"], own["year"], best))
        print(f"  default cell of width {own['width']}: {1e6 * own['energy_j']:.2f} uJ, {100 * own['year']:.1f} %; "
              f"best cell that takes no more {100 * best:.1f} %")  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=60)
    parser.add_argument("--out", type=Path, default=Path("build/architectures.jsonl"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    lines = given.out.read_text(encoding="utf-8").splitlines() if given.out.exists() else []
    rows = [json.loads(line) for line in lines]
    known = {row["number"] for row in rows}
    for number in (*range(given.cells), *range(-len(WIDTHS), 0)):
        if number in known:
            continue
        start = time.process_time()
        rows.append(measured(number))
        with given.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(rows[-1]) + "\n")
        row = rows[-1]
        print(f"{number}: digital {row['digital']:.3f}, 1 s {row['second']:.3f}, 1 year {row['year']:.3f}, "
              f"{time.process_time() - start:.1f} s", flush=True)  # fmt: skip
    report([row for row in rows if row["number"] >= 0])
    against_width([row for row in rows if row["number"] >= 0], [row for row in rows if row["number"] < 0])


if __name__ == "__main__":
    main()
