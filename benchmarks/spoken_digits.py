"""Spoken digits with delays that are learned and without, at equal parameters, and what the network costs on machines.

    python benchmarks/spoken_digits.py [--parts seeds plain machines] [--out results/NAME.json]

One second of speech as spikes of eight bands of a cochlea in 100 steps of 10 ms; the test has voices that are not heard
in training. With so few bands, as low-power audio chips and cochlear implants have them, words differ by what follows
what. Two layers of leaky neurons and a leaky readout: 8-33-33-10 without delays, 8-32-32-10 with axonal delays in front
of each layer, 1,759 and 1,746 parameters, and otherwise the same.

First, always, a search: eight settings of each kind, seed 0: learning rate and decay, and without delays more decays
where the other kind has longest delays; the best by 24 voices that are held out of the training. Then

seeds     five seeds of each kind's best setting, trained on all voices: the difference, with its 95 % interval
plain     the same two on 40 bands in 50 steps, where the spectrum alone tells the words apart
machines  the first of these networks with delays on several machines, by `compare`

Every training is written down as soon as it is done; a second call goes on with what is missing. Each takes about 10 s
of a core.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from scipy.stats import t as student
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

import hpml_sim as hs
from hpml_sim.measurement.machine import machine, versions

OUT = Path(__file__).parent / "results" / "spoken_digits.json"
PARTS = ("seeds", "plain", "machines")
KINDS = ("without", "with")
EPOCHS, SEEDS, BATCH, SHIFT = 30, 5, 60, 0.1
MACHINES: tuple[Any, ...] = (
    "loihi-2",
    hs.Spiking("loihi-2", synapses=hs.Analog("pcm-hermes", compensation="global")),
    "h200",
    "cpu",
)
SETTINGS: dict[str, list[dict[str, float]]] = {
    "without": [{"beta": beta, "lr": lr} for beta in (0.7, 0.8, 0.9, 0.95) for lr in (1e-2, 2e-2)],
    "with": [
        {"beta": beta, "lr": lr, "max_delay": delay} for beta in (0.8, 0.9) for lr in (1e-2, 2e-2) for delay in (10, 20)
    ],
}
DELAY_RATE = 30
"""Learning rate of delays, in steps, beside that of weights."""


class Speech(nn.Module):
    """Two layers of leaky neurons and a leaky readout over (batch, steps, bands); logits are mean potentials.

    Args:
        bands: of the input.
        width: neurons of a layer.
        beta: decay of their membranes in a step.
        max_delay: of the axonal delays in front of each layer, in steps; 0: none.
        seed: of weights and delays.
    """

    def __init__(self, bands: int, width: int, beta: float, max_delay: int, seed: int):
        super().__init__()
        layers: list[nn.Module] = []
        for number, (before, after) in enumerate([(bands, width), (width, width), (width, 10)]):
            if max_delay:
                layers.append(hs.spiking.AxonalDelays(before, max_delay=max_delay, seed=seed + 100 * number))
            linear = nn.Linear(before, after)
            with torch.no_grad():
                linear.weight *= 2  # spikes are few: torch's own start leaves most neurons silent
            last = number == 2
            layers += [linear, hs.spiking.LeakyIntegrators(0.95) if last else hs.spiking.LeakyNeurons(beta)]
        self.network = hs.spiking.FusedNetwork(nn.Sequential(*layers))

    def forward(self, x: Tensor) -> Tensor:
        return 2 * self.network(x.transpose(0, 1)).mean(0)


class Shifted(Dataset[tuple[Tensor, Tensor]]):
    """The samples, each begun up to a tenth of a second earlier or later, at random."""

    def __init__(self, x: Tensor, y: Tensor):
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        reach = int(SHIFT * self.x.shape[1] / 2)
        return self.x[index].roll(int(torch.randint(-reach, reach + 1, ())), 0), self.y[index]


def tensors(samples: Any) -> tuple[Tensor, Tensor]:
    return samples.tensors[0], samples.tensors[1]


def made(kind: str, setting: dict[str, float], bands: int, seed: int) -> Speech:
    torch.manual_seed(seed)
    width = 32 if kind == "with" else 33
    return Speech(bands, width, setting["beta"], int(setting.get("max_delay", 0)), seed)


def trained(kind: str, setting: dict[str, float], seed: int, train: tuple[Tensor, Tensor]) -> Speech:
    net = made(kind, setting, train[0].shape[2], seed)
    delays = {id(weight) for name, weight in net.named_parameters() if name.endswith("delay")}

    def adam(parameters: Iterable[nn.Parameter], lr: float) -> torch.optim.Optimizer:
        parts: list[list[nn.Parameter]] = [[], []]
        for weight in parameters:
            parts[id(weight) in delays].append(weight)
        groups = [{"params": parts[0], "lr": lr}, {"params": parts[1], "lr": DELAY_RATE * lr}]
        return torch.optim.Adam([group for group in groups if group["params"]])

    hs.fit(
        net,
        Shifted(*train),
        task="classification",
        epochs=EPOCHS,
        batch_size=BATCH,
        lr=setting["lr"],
        optimizer=adam,
        warmup=0.2,
        seed=seed,
        show_progress=False,
    )
    return net


class Kept:
    """The results on disk, one entry a training."""

    def __init__(self, path: Path):
        self.path = path
        found = json.loads(path.read_text()) if path.exists() else {}
        self.trainings: dict[str, dict[str, Any]] = found.get("trainings", {})
        self.rest: dict[str, Any] = {key: value for key, value in found.items() if key != "trainings"}

    def write(self) -> None:
        record = {"machine": machine(), "versions": versions(), **self.rest, "trainings": self.trainings}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(record, indent=1) + "\n")

    def accuracy(
        self, kind: str, setting: dict[str, float], seed: int, what: str, train: tuple[Tensor, Tensor], test: Any
    ) -> float:
        key = f"{what}, {kind}, {', '.join(f'{name} {value:g}' for name, value in setting.items())}, seed {seed}"
        if key not in self.trainings:
            start = time.process_time()
            net = trained(kind, setting, seed, train)
            seconds = time.process_time() - start
            score = hs.evaluate(net, TensorDataset(*test))
            parameters = sum(weight.numel() for weight in net.parameters())
            self.trainings[key] = {"accuracy": score.mean, "parameters": parameters, "cpu_s": round(seconds, 1)}
            self.write()
            print(f"{key}: {100 * score.mean:.1f} %, {seconds:.0f} s", flush=True)
        return self.trainings[key]["accuracy"]


def search(kept: Kept, data: hs.Data) -> dict[str, dict[str, float]]:
    """The setting of each kind that is best for voices held out of the training."""
    x, y = tensors(data.train)
    held = (torch.arange(len(x)) // 10) % 5 == 4  # ten words of a voice lie together
    best = {}
    for kind in KINDS:
        scores = [
            kept.accuracy(kind, setting, 0, "search", (x[~held], y[~held]), (x[held], y[held]))
            for setting in SETTINGS[kind]
        ]
        best[kind] = SETTINGS[kind][scores.index(max(scores))]
    return best


def seeds(kept: Kept, data: hs.Data, best: dict[str, dict[str, float]], what: str) -> None:
    """Five seeds of each kind: means, and the difference with its interval (Student's, of paired seeds)."""
    train, test = tensors(data.train), tensors(data.test)
    scores: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for seed in range(SEEDS):
        for kind in KINDS:
            scores[kind].append(kept.accuracy(kind, best[kind], seed, what, train, test))
    differences = [100 * (a - b) for a, b in zip(scores["with"], scores["without"], strict=True)]
    mean = statistics.mean(differences)
    half = float(student.ppf(0.975, SEEDS - 1)) * statistics.stdev(differences) / math.sqrt(SEEDS)
    found: dict[str, Any] = {
        kind: {
            "setting": best[kind],
            "percent": 100 * statistics.mean(scores[kind]),
            "sd": 100 * statistics.stdev(scores[kind]),
        }
        for kind in KINDS
    }
    kept.rest[what] = {**found, "difference_points": mean, "ci95": [mean - half, mean + half]}
    kept.write()
    for kind in KINDS:
        print(f"{what}: {kind} delays {found[kind]['percent']:.2f} ± {found[kind]['sd']:.2f} %, {best[kind]}")
    print(f"{what}: difference {mean:.2f} points ({mean - half:.2f}..{mean + half:.2f}); 3 are asked of eight bands")


def machines(kept: Kept, data: hs.Data, setting: dict[str, float]) -> None:
    """The network with delays of seed 0 on several machines."""
    net = trained("with", setting, 0, tensors(data.train))
    result = hs.compare(net, data, list(MACHINES), epochs=0, finetune_epochs=0, chips=10, times=["1 day"])
    print(result)
    print(result.rank("energy"))
    columns = ["target", "accuracy_mean", "floating_point_accuracy_mean", "scope", "batch"]
    columns += [
        f"{figure}_{part}"
        for figure in ("energy_j", "latency_s", "rate_hz", "area_mm2")
        for part in ("low", "nominal", "high")
    ]
    table = result.table()
    kept.rest["machines"] = json.loads(table[[c for c in columns if c in table]].to_json(orient="records") or "[]")
    kept.write()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    kept = Kept(given.out)
    data = hs.load_data("spoken-digit-spikes", channels=8, steps=100)
    best = search(kept, data)
    if "seeds" in given.parts:
        seeds(kept, data, best, "8 bands")
    if "plain" in given.parts:
        seeds(kept, hs.load_data("spoken-digit-spikes"), best, "40 bands")
    if "machines" in given.parts:
        machines(kept, data, best["with"])


if __name__ == "__main__":
    main()
