"""Training in memory: every device under every rule, 64-32-10 (tanh) on digits; and the learning rates `fit` takes.

    python benchmarks/in_memory_training.py            # the table, three trainings a pair at the rates of the package
    python benchmarks/in_memory_training.py --find     # look for the rates: smallest training loss over a grid

The table is at batch 10, the rates are found at `fit`'s own batch of 64. `--find` prints what belongs into
`hpml_sim/analog/learning_rates.py`. aihwkit's pulses cannot be seeded, so no two runs print the same; the spread is
over trainings. `--devices` and `--rules` take a part, `--out` writes JSON with versions.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import time
from pathlib import Path
from typing import Any, get_args

import torch
from torch import nn

import hpml_sim as hs
from hpml_sim.analog.learning_rates import learning_rate
from hpml_sim.machine import machine, versions
from hpml_sim.targets import PulsedDevice, TrainingRule

GRID = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
EPOCHS, RUNS = 10, 3


def network() -> nn.Module:
    """New weights, the same in every run."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))


def train(device: PulsedDevice, rule: TrainingRule, lr: float, batch_size: int, data: hs.Data) -> dict[str, float]:
    """One training from new weights: accuracy and last training loss (infinite where it failed)."""
    target = hs.Analog("pcm", engine="aihwkit", device=device, rule=rule)
    model = hs.convert(network(), target)
    began = time.perf_counter()
    try:
        history = hs.fit(model, data, epochs=EPOCHS, lr=lr, batch_size=batch_size, show_progress=False)
    except hs.HpmlError:  # the loss was not finite
        return {"lr": lr, "loss": float("inf"), "accuracy": 0.0, "seconds": time.perf_counter() - began}
    seconds = time.perf_counter() - began
    return {"lr": lr, "loss": history.loss[-1], "accuracy": hs.evaluate(model, data).mean, "seconds": seconds}


def measure(device: PulsedDevice, rule: TrainingRule, data: hs.Data, find: bool) -> dict[str, Any]:
    """Trainings of one pair, at the grid of rates or several times at the package's."""
    rates = GRID if find else [learning_rate(device, rule)] * RUNS
    runs = [train(device, rule, lr, 64 if find else 10, data) for lr in rates]
    best = min(runs, key=lambda run: run["loss"])
    accuracies = [run["accuracy"] for run in runs]
    return {
        "device": device,
        "rule": rule,
        "lr": best["lr"],
        "accuracy_mean": statistics.fmean(accuracies),
        "accuracy_std": statistics.stdev(accuracies),
        "seconds_per_training": statistics.median(run["seconds"] for run in runs),
        "runs": runs,
    }


def shown(row: dict[str, Any], find: bool) -> str:
    head = f"{row['device']:18}{row['rule']:22}lr {row['lr']:<6g}"
    if find:
        return head + "  ".join(
            f"{run['lr']:g}: {run['loss']:.2f} {100 * run['accuracy']:.0f} %" for run in row["runs"]
        )
    spread = f"{100 * row['accuracy_mean']:5.1f} ± {100 * row['accuracy_std']:4.1f} %"
    return f"{head}{spread}   {row['seconds_per_training']:5.1f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--find", action="store_true", help="look for the learning rates")
    parser.add_argument("--devices", nargs="+", default=get_args(PulsedDevice), choices=get_args(PulsedDevice))
    parser.add_argument("--rules", nargs="+", default=get_args(TrainingRule), choices=get_args(TrainingRule))
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args()
    logging.getLogger("hpml_sim").setLevel(logging.ERROR)  # trainings that do not train are part of the table
    data = hs.load_data("digits")
    rows = []
    for device in args.devices:
        for rule in args.rules:
            if device == "pcm" and rule not in ("sgd", "mixed-precision"):
                continue
            rows.append(measure(device, rule, data, args.find))
            print(shown(rows[-1], args.find), flush=True)
    if args.find:
        print("\n_RATES, in the order of the rules:")
        for device in args.devices:
            rates = tuple(row["lr"] for row in rows if row["device"] == device)
            print(f'    "{device}": {rates},')
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "what": "digits, 64-32-10, tanh",
            "batch_size": 64 if args.find else 10,
            "epochs": EPOCHS,
            "versions": versions(),
            "machine": machine(),
            "rows": rows,
        }
        args.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
