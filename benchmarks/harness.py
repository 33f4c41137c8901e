"""What the harness costs beside the work, and what a search finds.

    python benchmarks/harness.py [--data fashion-mnist] [--epochs 2] [--repeats 3] [--search]

Overhead: everything in `hs.compare` that is not training, converting, programming, evaluating, counting, estimating or
measuring: making the plan and its hash, checking the conversions, rows, their flush to the disk, progress, tables; as a
share of the whole. Loading the data and drawing the report, which happen once whatever the run, are printed apart. The
rows are first held against those of the passes called one by one. Fewer epochs make the share larger: the default for
Fashion-MNIST is 5.

--search: 30 trials on digits over steps and width of a spiking network, against the configuration as it is given.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hpml_sim as hs
from hpml_sim.experiments import experiment, pipeline
from hpml_sim.experiments.result import Comparison

WORK = ("fit", "convert", "program", "evaluate", "workload", "estimate", "measure_in_own_process")
ON = ["h200", "pcm-hermes", "loihi"]


def timed(spent: dict[str, float], name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, its seconds added up; `chips.at` runs within `_accuracies` and is timed by wrapping its result."""

    def call(*args: Any, **options: Any) -> Any:
        start = time.perf_counter()
        try:
            found = function(*args, **options)
        finally:
            spent[name] += time.perf_counter() - start
        if name == "program":
            found.at = timed(spent, "at", found.at)
        return found

    return call


def overhead(data: str, epochs: int) -> tuple[float, float, dict[str, float]]:
    """(share of the harness, seconds in all, seconds of each part)."""
    spent: dict[str, float] = defaultdict(float)
    before = {name: getattr(pipeline, name) for name in WORK}
    report, load = Comparison.report, experiment.load_data
    for name, function in before.items():
        setattr(pipeline, name, timed(spent, name, function))
    Comparison.report = timed(spent, "report", report)
    experiment.load_data = timed(spent, "load", load)
    try:
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            hs.compare("mlp", data, ON, epochs=epochs, chips=5, times=["1 s", "1 day"], out=Path(folder) / "run")
            total = time.perf_counter() - start
    finally:
        for name, function in before.items():
            setattr(pipeline, name, function)
        Comparison.report, experiment.load_data = report, load
    total -= spent.pop("report") + spent.pop("load")
    return 1 - sum(spent.values()) / total, total, dict(spent)


def same_rows(data: str) -> None:
    """The rows of a comparison are what the passes give when they are called one by one."""
    row = hs.compare("mlp", data, ["loihi"], epochs=1).rows[0]
    task = hs.load_data(data)
    network = hs.models.build("mlp", task.input_shape, task.classes, seed=0)
    hs.fit(network, task, epochs=1, lr=5e-3, seed=0)
    spiking = hs.convert(network, "loihi")
    hs.fit(spiking, task, epochs=1, lr=5e-3, seed=0)
    assert row.score is not None
    assert row.score.mean == hs.evaluate(spiking, task).mean


def search() -> None:
    found = hs.search(
        "mlp",
        "digits",
        "loihi",
        search_space={"steps": hs.Range(2, 25), "model.width": hs.Range(16, 256, log=True)},
        trials=30,
        epochs=15,
        finetune_epochs=8,
        jobs=1,
    )
    given = found.trials.iloc[0]
    better = found.front[found.front["accuracy_mean"] >= given["accuracy_mean"]]
    print(found.front.to_string())
    print(f"as given: {100 * given['accuracy_mean']:.1f} % at {1e6 * given['energy_j']:.1f} uJ")
    for _, line in better.iterrows():
        ratio = given["energy_j"] / line["energy_j"]
        print(f"{100 * line['accuracy_mean']:.1f} % at {1e6 * line['energy_j']:.1f} uJ: {ratio:.2f} times less energy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--search", action="store_true")
    options = parser.parse_args()
    if options.search:
        return search()
    same_rows("digits")
    found = [overhead(options.data, options.epochs) for _ in range(options.repeats)]
    shares = [100 * share for share, _, _ in found]
    print(f"mlp on {options.data}, {options.epochs} epochs, on {', '.join(ON)}")
    print(f"harness: {statistics.median(shares):.2f} % ({min(shares):.2f}..{max(shares):.2f}) of the compare")
    for share, total, spent in found:
        parts = ", ".join(f"{name} {seconds:.2f}" for name, seconds in spent.items())
        print(f"  {total:.1f} s in all, {share * total:.3f} s of it harness; {parts}")


if __name__ == "__main__":
    main()
