"""NeuroBench's Mackey-Glass forecast end to end: sMAPE of an LSTM, of a ReLU network and of spiking ones, with joules.

    python benchmarks/mackey_glass.py [--repetitions 10] [--out benchmarks/results/mackey_glass.json]

The series with tau = 17, 10 Lyapunov times (750 points) to train and the next 10 for the test; repetition i leaves out
the first i x 37.5 points, as NeuroBench's 30 do. From the first value of the test on a network is given its own answers
instead of the series, and the sMAPE is that of all 750 of them: 200 mean(|y - f| / (|y| + |f|)) %. NeuroBench reports
13.37 for its LSTM and 14.79 for an echo-state network (J. Yik et al., Nature Communications 16:1545, 2025).

All networks take the last 16 values and give the change from the last one to the next. As in NeuroBench, the LSTM sees
them as one vector and starts each forecast anew. The spiking network is the ReLU one, calibrated for 32 steps and
trained on; it is also run in the integers of Loihi 2, and the ReLU network on chips of `pcm-hermes`.

NeuroBench counts operations; what a forecast takes in joules is estimated for one at a time and the whole system, from
the cards. Every repetition is written down when it is done; a second call goes on with what is missing.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import hpml_sim as hs
from hpml_sim.measurement.machine import machine, versions

OUT = Path(__file__).parent / "results" / "mackey_glass.json"
WINDOW, STEPS, ASKED = 16, 32, 13.4
MEAN, SPREAD = 0.93, 0.25
"""About those of the series."""
SPIKING = hs.Spiking("loihi-2", neuron=hs.spiking.Leaky(beta=1.0), steps=STEPS, encoder="direct", readout="membrane")


class Lstm(nn.Module):
    """An LSTM that sees a window as one vector."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.fc = nn.LSTM(WINDOW, 50, batch_first=True), nn.Linear(50, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.lstm(x[:, None])[0][:, 0])


class Change(nn.Module):
    """The next value of (batch, window, 1): the last one and a change, which a network of scaled values gives."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        values = x.flatten(1)
        return values[:, -1:] + SPREAD * self.inner((values - MEAN) / SPREAD)


def made(kind: str) -> Change:
    torch.manual_seed(0)
    layers = (nn.Linear(WINDOW, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
    return Change(Lstm() if kind == "LSTM" else nn.Sequential(*layers))


def series(repetition: int) -> hs.Data:
    data = hs.load_data("mackey-glass", offset=37.5 * repetition, window=WINDOW)
    whole: Any = data.train  # without the windows that NeuroBench fills up with zeros
    train = TensorDataset(*(tensor[WINDOW:] for tensor in whole.tensors))
    return hs.Data("mackey-glass", train, data.test, data.input_shape, None, task="regression")


@torch.no_grad()
def smape(model: Any, data: hs.Data) -> float:
    """Of the whole test, each window but the first made of the network's own answers."""
    test: Any = data.test
    inputs, labels = test.tensors
    window, total = inputs[:1], 0.0
    for label in labels[:, 0]:
        forecast = model(window).reshape(1, 1, 1)
        total += float((forecast - label).abs() / (forecast.abs() + label.abs()))
        window = torch.cat([window[:, 1:], forecast], 1)
    return 200 * total / len(labels)


def repetition(number: int) -> tuple[dict[str, float], dict[str, nn.Module]]:
    """The sMAPE of each network on one part of the series, and the networks."""
    data = series(number)
    networks: dict[str, nn.Module] = {}
    for kind in ("LSTM", "ReLU"):
        networks[kind] = made(kind)
        hs.fit(networks[kind], data, epochs=200, batch_size=50, lr=1e-2, show_progress=False)
    train: Any = data.train
    spiking = hs.spiking.calibrated(networks["ReLU"], train.tensors[0], SPIKING)
    networks["spiking, calibrated"] = spiking
    networks["spiking, trained on"] = trained = hs.spiking.calibrated(networks["ReLU"], train.tensors[0], SPIKING)
    hs.fit(trained, data, epochs=40, batch_size=50, lr=1e-3, show_progress=False)
    networks["spiking, trained on, in integers"] = hs.spiking.fixed_point(trained)
    found = {name: smape(network.eval(), data) for name, network in networks.items()}
    analog = hs.convert(networks["ReLU"], hs.Analog("pcm-hermes"))
    hs.calibrate(analog, data)
    chips = hs.program(analog, chips=1, seed=number).at("1 day")
    found["ReLU, pcm-hermes after a day"] = smape(chips, data)
    return found, networks


def energies(networks: dict[str, nn.Module]) -> list[dict[str, Any]]:
    """Of one forecast, the whole system: low, nominal and high."""
    test: Any = series(0).test
    rows = []
    for name, machines in (
        ("LSTM", ("cpu", "h200", "jetson-orin")),
        ("ReLU", ("cpu", "h200", "jetson-orin", "pcm-hermes")),
        ("spiking, trained on", ("loihi-2", "loihi", "cpu")),
    ):
        for card in machines:
            model = networks[name]
            counted = hs.workload(model, data=test.tensors[0][:100])
            cost = hs.estimate(counted, card, scope="system")
            energy = cost.energy_j
            rows.append({"network": name, "card": card, "energy_j": [energy.low, energy.nominal, energy.high]})
    return rows


def show(kept: dict[str, Any]) -> None:
    rows = list(kept["smape"].values())
    for name in rows[0]:
        values = [row[name] for row in rows]
        spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
        asked = f"; {ASKED} asked" if name == "LSTM" else ""
        print(f"sMAPE of {name:<34} {statistics.mean(values):5.1f}{spread} % of {len(values)} repetitions{asked}")
    for row in kept.get("energies", ()):
        low, nominal, high = row["energy_j"]
        print(f"{row['network']:<22} {row['card']:<12} {nominal:.3g} J a forecast ({low:.2g} to {high:.2g})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    kept: dict[str, Any] = json.loads(given.out.read_text()) if given.out.exists() else {"smape": {}}
    for number in range(given.repetitions):
        if str(number) in kept["smape"] and (number or "energies" in kept):
            continue
        kept["smape"][str(number)], networks = repetition(number)
        print(number, {name: round(value, 1) for name, value in kept["smape"][str(number)].items()}, flush=True)
        if number == 0:
            kept["energies"] = energies(networks)
        kept |= {"machine": machine(), "versions": versions()}
        given.out.write_text(json.dumps(kept, indent=1) + "\n")
    show(kept)


if __name__ == "__main__":
    main()
