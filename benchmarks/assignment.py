"""Which layers go onto crossbars, under a floor of the score after a year: `hs.assign` against plain rules.

    python benchmarks/assignment.py [resnet g2p smollm2] [--work FOLDER] [--json FILE]

- a residual CNN of width 8 on Fashion-MNIST and g2p (letters to phonemes), with cells of one, two or four digits. The
  assignment is chosen on validation samples and chips of one seed, and confirmed on test samples and chips of another.
  Beside it, on the same: all layers on crossbars, and all but the first and the last
- SmolLM2-135M with static ranges: the order in which its layers leave the crossbars, by what their converters lose,
  without an evaluation

Trained networks and finished parts are kept in the folder, so that a stopped run goes on. About 15 minutes of one core.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Subset

import hpml_sim as hs
from hpml_sim.experiments.assigning import converter_sensitivity
from hpml_sim.targets.input_ranges import Percentile

ALLOWED, TIMES = 0.01, ("1 year",)
CHIPS, CONFIRMED, SEED = 2, 6, 1000


@dataclass(frozen=True)
class Case:
    """A network and what is asked of its assignment.

    Attributes:
        build: the digital network, its weights as they were published or drawn.
        train: makes it good for the hardware; the result is kept.
        training: samples for ranges.
        validation: samples that the assignment is chosen on.
        test: samples that it is confirmed on.
        task: of the network.
        candidates: targets that a layer may take; the first one is that of all-analog.
    """

    build: Callable[[], nn.Module]
    train: Callable[[nn.Module], nn.Module]
    training: Any
    validation: Any
    test: Any
    task: str
    candidates: Sequence[hs.Analog]


def trained(name: str, case: Case, work: Path) -> nn.Module:
    """The network with its weights, trained once."""
    network, path = case.build(), work / f"{name}.pt"
    if path.exists():
        network.load_state_dict(torch.load(path, weights_only=True))
        return network.eval()
    network = case.train(network).eval()
    torch.save(network.state_dict(), path)
    return network


def resnet() -> Case:
    """A residual CNN of width 8 on images of clothes, trained in digital."""
    data = hs.load_data("fashion-mnist")
    seen = Subset(data.train, range(10_000))

    def train(network: nn.Module) -> nn.Module:
        hs.fit(network, data=seen, epochs=4, lr=2e-3, seed=0, show_progress=False)
        return network

    return Case(
        build=lambda: hs.models.build("resnet", (1, 28, 28), 10, width=8),
        train=train,
        training=Subset(data.train, range(300)),
        validation=Subset(data.train, range(20_000, 21_000)),
        test=Subset(data.test, range(2_000)),
        task="classification",
        candidates=_cells_of("pcm-design-study"),
    )


def _cells_of(card: str) -> list[hs.Analog]:
    """One cell for a weight, or four that hold its binary digits, which are less noise together."""
    return [hs.Analog(card), hs.Analog(card, levels=2, slices=4)]


def g2p() -> Case:
    """Letters of words to phonemes, as it was published; more cells for a weight are less noise."""
    data = hs.load_data("word-phonemes")
    return Case(
        build=lambda: hs.load_network("g2p"),
        train=lambda network: network,
        training=Subset(data.train, range(300)),
        validation=Subset(data.train, range(50_000, 50_300)),
        test=data.test,
        task="phonemes",
        candidates=_cells_of("pcm-design-study"),
    )


CASES: dict[str, Callable[[], Case]] = {"resnet": resnet, "g2p": g2p}


def confirmed(network: nn.Module, targets: Any, case: Case, digital: float) -> dict[str, Any]:
    """An assignment on test samples and chips that it was not chosen on, and its energy."""
    analog = hs.convert(network, targets)
    inputs = next(iter(torch.utils.data.DataLoader(case.training, batch_size=128)))[0]
    hs.calibrate(analog, inputs)
    chips = hs.program(analog, CONFIRMED, SEED)
    scores = {when: hs.evaluate(chips.at(when), data=case.test, task=case.task) for when in TIMES}
    return {
        "digital_layers": [row.layer for row in analog.layers if row.why == "no target for this layer"],
        "energy_j": hs.estimate(analog, data=inputs, scope="system").energy_j.nominal,
        "lost": {when: (digital - s.mean) * (1 if s.higher_is_better else -1) for when, s in scores.items()},
        "mean": {when: s.mean for when, s in scores.items()},
        "ci95": {when: s.ci95 for when, s in scores.items()},
    }


def chosen(network: nn.Module, case: Case) -> dict[str, Any]:
    """What `hs.assign` finds."""
    start = time.process_time()
    found = hs.assign(
        network, (case.training, case.validation), case.candidates, loses_at_most=ALLOWED, times=TIMES, task=case.task,
        chips=CHIPS,
    )  # fmt: skip
    print(found, flush=True)
    return {
        "targets": {layer: case.candidates.index(target) for layer, target in found.items()},
        "layers": [layer.layer for layer in found.layers],
        "shown": str(found),
        "sensitivity": found.sensitivity,
        "digital_energy_j": found.digital_estimate.energy_j.nominal,
        "processor_s": time.process_time() - start,
        "evaluations": json.loads(str(found.evaluations_table().to_json(orient="records"))),
    }


def assigned(name: str, work: Path) -> dict[str, Any]:
    """All rows of a case; each is kept as soon as it is known."""
    case, path = CASES[name](), work / f"{name}.json"
    network = trained(name, case, work)
    held: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def keep(key: str, make: Callable[[], Any]) -> Any:
        if key not in held:
            held[key] = make()
            path.write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")
        return held[key]

    found = keep("assignment", lambda: chosen(network, case))
    digital = keep("digital", lambda: hs.evaluate(network, data=case.test, task=case.task).mean)
    layers, first = found["layers"], case.candidates[0]
    rows = {
        "all": dict.fromkeys(layers, first),
        "but first and last": dict.fromkeys(layers[1:-1], first),
        "assigned": {layer: case.candidates[k] for layer, k in found["targets"].items()},
    }
    most = 0.0
    for label, targets in rows.items():
        row = keep(label, lambda targets=targets: confirmed(network, targets, case, digital))
        most = most or found["digital_energy_j"] - row["energy_j"]
        saving = (found["digital_energy_j"] - row["energy_j"]) / most
        lost = ", ".join(f"{100 * points:.2f} after {when}" for when, points in row["lost"].items())
        print(
            f"  {label:<20}{1e6 * row['energy_j']:8.1f} uJ, {100 * saving:6.1f} % of the saving, lost {lost}",
            flush=True,
        )
    return held


def smollm2(_work: Path) -> dict[str, Any]:
    """SmolLM2's layers under static ranges, by what their converters lose; the head is the embedding's table."""
    network: Any = hs.load_network("smollm2-135m").eval()
    target = hs.Analog("pcm-hermes", input_range=Percentile())
    found = converter_sensitivity(network, hs.load_data("text", length=256), target, skip="head")
    print(found.head(12).to_string(), flush=True)
    return {"sensitivity": json.loads(str(found.to_json(orient="records")))}


PARTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    **{name: lambda work, name=name: assigned(name, work) for name in CASES},
    "smollm2": smollm2,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--work", type=Path, default=Path("build/assignment"), help="trained networks, finished parts")
    parser.add_argument("--json", type=Path, help="keep the results here; what is there already is kept beside them")
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.work.mkdir(parents=True, exist_ok=True)
    for name in given.parts:
        print(name, flush=True)
        result = PARTS[name](given.work)
        if given.json is not None:
            kept = json.loads(given.json.read_text(encoding="utf-8")) if given.json.exists() else {}
            given.json.write_text(json.dumps({**kept, name: result}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
