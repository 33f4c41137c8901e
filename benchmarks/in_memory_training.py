"""Training in memory: every device under every rule, 64-32-10 (tanh) on digits, from new weights; and learning rates.

    python benchmarks/in_memory_training.py            # three trainings a pair at the rates that `fit` takes
    python benchmarks/in_memory_training.py --find     # first look for the rate: smallest training loss over a grid

`--find` prints what belongs into `hpml_sim/analog/pulsed/learning_rates.py`. aihwkit's pulses cannot be seeded, so
no two runs print the same; the spread is over trainings. `--devices` and `--rules` take a part, `--out` writes JSON
with versions.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
from pathlib import Path
from typing import Any, get_args

import torch
from torch import nn

import hpml_sim as hs
from hpml_sim.analog.pulsed.learning_rates import learning_rate
from hpml_sim.measurement.machine import machine, versions
from hpml_sim.targets import PulsedDevice, TrainingRule

GRID = (0.03, 0.1, 0.3, 1.0, 3.0)
EPOCHS, BATCH, RUNS = 10, 64, 3


def network() -> nn.Module:
    """New weights, the same in every training."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))


def train(device: PulsedDevice, rule: TrainingRule, lr: float, data: hs.Data) -> dict[str, float]:
    """One training: accuracy, last training loss (infinite where it failed), and pulses a weight."""
    model = hs.convert(network(), hs.InMemory("pcm", device=device, rule=rule))
    try:
        history = hs.fit(model, data, epochs=EPOCHS, batch_size=BATCH, lr=lr, show_progress=False)
    except hs.HpmlError:  # the loss was not finite
        return {"lr": lr, "loss": float("inf"), "accuracy": 0.0, "pulses_per_weight": float("nan")}
    assert history.writes is not None
    pulses = history.writes.total / (64 * 32 + 32 * 10)
    accuracy = hs.evaluate(model, data).mean
    return {"lr": lr, "loss": history.loss[-1], "accuracy": accuracy, "pulses_per_weight": pulses}


def measure(device: PulsedDevice, rule: TrainingRule, data: hs.Data, find: bool) -> dict[str, Any]:
    """The rate of one pair, and trainings at it."""
    tried = [train(device, rule, lr, data) for lr in GRID] if find else []
    lr = min(tried, key=lambda run: run["loss"])["lr"] if find else learning_rate(device, rule)
    runs = [train(device, rule, lr, data) for _ in range(RUNS)]
    accuracies = [run["accuracy"] for run in runs]
    return {
        "device": device,
        "rule": rule,
        "lr": lr,
        "accuracy_mean": statistics.fmean(accuracies),
        "accuracy_std": statistics.stdev(accuracies),
        "pulses_per_weight": statistics.median(run["pulses_per_weight"] for run in runs),
        "runs": runs,
        "tried": tried,
    }


def shown(row: dict[str, Any]) -> str:
    tried = "  ".join(f"{run['lr']:g}: {run['loss']:.2f}" for run in row["tried"])
    spread = f"{100 * row['accuracy_mean']:5.1f} ± {100 * row['accuracy_std']:4.1f} %"
    pulses = f"{row['pulses_per_weight']:6.0f} pulses a weight"
    return f"{row['device']:18}{row['rule']:22}lr {row['lr']:<6g}{spread}{pulses}   {tried}".rstrip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--find", action="store_true", help="look for the learning rates first")
    parser.add_argument("--devices", nargs="+", default=get_args(PulsedDevice), choices=get_args(PulsedDevice))
    parser.add_argument("--rules", nargs="+", default=get_args(TrainingRule), choices=get_args(TrainingRule))
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args()
    logging.getLogger("hpml_sim").setLevel(logging.ERROR)  # trainings that do not train are part of the table
    data = hs.load_data("digits")
    about = {"what": "digits, 64-32-10, tanh, card pcm", "epochs": EPOCHS, "batch_size": BATCH}
    rows: list[dict[str, Any]] = []
    for device in args.devices:
        for rule in args.rules:
            if device == "pcm" and rule not in ("sgd", "mixed-precision"):
                continue
            rows.append(measure(device, rule, data, args.find))
            print(shown(rows[-1]), flush=True)
            if args.out is not None:
                args.out.parent.mkdir(parents=True, exist_ok=True)
                content = {**about, "versions": versions(), "machine": machine(), "rows": rows}
                args.out.write_text(json.dumps(content, indent=1) + "\n")
    if args.find:
        print("\n_RATES, in the order of the rules:")
        for device in args.devices:
            print(f'    "{device}": {tuple(row["lr"] for row in rows if row["device"] == device)},')


if __name__ == "__main__":
    main()
