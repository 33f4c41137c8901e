"""Estimated against measured time and energy of an MLP and a CNN, at batch 1 and at the best batch, on this machine.

    python benchmarks/estimates.py [--device cpu|cuda] [--card NAME] [--out benchmarks/results/NAME.json]
    python benchmarks/estimates.py --against benchmarks/results/h200_estimates.json [--card NAME]

The ceilings of the machine are measured first (copy, product, launches, power) and made a card; the networks are not
looked at for it. Then each network is measured in a process of its own, in windows of at least 2 s where there is a
power meter, and estimated from that card, and from a published one (--card; by itself the h100 or h200 of this GPU).
The second form measures nothing: it holds today's estimates against what was recorded, every batch of it.
A ratio is estimated / measured. Goals by the measured card: within 2 x on a CPU, within 35 % on a GPU, time and energy.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import tempfile
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hpml_sim.cards import Card, load_card
from hpml_sim.conversion import convert
from hpml_sim.cost import estimate
from hpml_sim.counting import workload
from hpml_sim.measurement import Measurement, measure, measure_batches
from hpml_sim.measurement.ceilings import Ceilings, measure_ceilings
from hpml_sim.measurement.ceilings_card import ceilings_card
from hpml_sim.measurement.machine import machine, versions
from hpml_sim.networks.models import cnn, mlp
from hpml_sim.targets import Digital
from hpml_sim.units.bands import Band

GOALS = {"cpu": (0.5, 2.0), "cuda": (0.65, 1.35)}  # lowest and highest ratio
KEPT = 400  # raw samples of a measurement in the file, evenly spaced; how many there were stands beside them


def networks(device: str) -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    if device == "cpu":
        return {
            "mlp 784-256-256-10": (mlp(784, 256, 256, 10), (784,)),
            "cnn 28x28": (cnn((1, 28, 28), 10), (1, 28, 28)),
        }
    return {
        "mlp 784-4096-4096-10": (mlp(784, 4096, 4096, 10), (784,)),
        "cnn 28x28, width 64": (cnn((1, 28, 28), 10, width=64), (1, 28, 28)),
    }


def kept(m: Measurement) -> dict[str, Any]:
    """A measurement for the file, with raw samples, thinned where there are many."""
    record = asdict(m)
    step = -(-len(m.samples_s) // KEPT)
    return {**record, "samples_s": [float(f"{s:.4g}") for s in m.samples_s[::step]], "samples_kept_every": step}


def against(card: Card, counts: Any, m: Measurement) -> dict[str, Any]:
    found = estimate(counts, card, batch=m.batch)
    measured_j, estimated_j = m.energy_j, found.energy_j.nominal
    return {
        "card": card.name,
        "time_s": asdict(found.latency_s),
        "energy_j": asdict(found.energy_j),
        "time_ratio": found.latency_s.nominal / m.latency_s,
        "energy_ratio": None if measured_j is None else estimated_j / measured_j,
        "limits": {layer.layer: layer.limit for layer in found.roof.layers} if found.roof else {},
    }


def published_card(machine_name: str) -> str | None:
    """The card of a GPU by the name it gives itself."""
    return next((name for name in ("h200", "h100", "a100") if name.upper() in machine_name.upper()), None)


def measured_card(ceilings: Ceilings) -> Card:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "here.toml"
        path.write_text(ceilings_card(ceilings, "here"))
        return load_card(path)


def recorded_ceilings(record: dict[str, Any]) -> Ceilings:
    """The ceilings of a results file; fields that came later are empty."""
    bands = ("bandwidth", "convolution", "launch_s", "call_s", "cache_bandwidth")
    given: dict[str, Any] = {field.name: record.get(field.name) for field in fields(Ceilings)}
    given |= {name: Band(**record[name]) for name in bands if record.get(name)}
    given["rates"] = {name: Band(**rate) for name, rate in record["rates"].items()}
    return Ceilings(**given)


def hold_against(path: Path, card: str | None) -> int:
    """Today's estimates over a recorded run. The goal is for the runs in a process of their own, which had the time."""
    record = json.loads(path.read_text())
    ceilings = recorded_ceilings(record["ceilings"])
    cards = [measured_card(ceilings)]
    if published := card or published_card(ceilings.name):
        cards.append(load_card(published))
    lowest, highest = GOALS[ceilings.device]
    met = True
    print(f"estimated / measured, {ceilings.name}, {record['date']}")
    print("| network | batch | process | " + " | ".join(f"{c.name}: time | {c.name}: energy" for c in cards) + " |")
    print("|---" * (3 + 2 * len(cards)) + "|")
    for row in record["rows"]:
        network, shape = networks(ceilings.device)[row["network"]]
        counts = workload(network, input_shape=shape)
        own = "measured" in row
        for m in [row["measured"]] if own else row["batches"]:
            cells = []
            for c in cards:
                found = estimate(counts, c, batch=m["batch"])
                ratios = [found.latency_s.nominal / m["latency_s"]]
                if m["energy_j"] is not None:
                    ratios.append(found.energy_j.nominal / m["energy_j"])
                met &= not own or all(lowest <= ratio <= highest for ratio in ratios)
                cells += [f"{ratio:.2f}" for ratio in ratios] + [""] * (2 - len(ratios))
            print(f"| {row['network']} | {m['batch']} | {'own' if own else 'sweep'} | {' | '.join(cells)} |")
    print(f"goal {lowest} to {highest} in processes of their own: {'met' if met else 'MISSED'}")
    return 0 if met else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--card", help="a published card to hold against as well")
    parser.add_argument("--against", type=Path, help="a results file to hold today's estimates against")
    parser.add_argument("--window", type=float, help="seconds of a window (2 with a power meter, else 0.7)")
    parser.add_argument("--threads", type=int, help="of torch on the CPU")
    parser.add_argument("--out", type=Path, help="write the results here as JSON")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    if given.against:
        return hold_against(given.against, given.card)
    ceilings = measure_ceilings(given.device)
    print(f"{ceilings.name}: copy {ceilings.bandwidth.nominal / 1e9:,.1f} GB/s; ", end="")
    print(", ".join(f"{p} {r.nominal / 1e12:,.3f} TOP/s" for p, r in ceilings.rates.items()), end="; ")
    print(f"launch {1e6 * ceilings.launch_s.nominal:.2f} us, call {1e6 * ceilings.call_s.nominal:.2f} us; ", end="")
    print(f"idle {ceilings.idle_w}, active {ceilings.active_w}, most {ceilings.max_w} W ({ceilings.power_provenance})")
    cards = [measured_card(ceilings)]
    published = given.card or published_card(ceilings.name)
    if published:
        cards.append(load_card(published))

    torch.manual_seed(0)
    rows: list[dict[str, Any]] = []
    ratios: list[float] = []
    for name, (network, shape) in networks(given.device).items():
        counts = workload(network, input_shape=shape)
        model = convert(network, Digital()).to(given.device)
        sample = torch.rand(*shape, device=given.device)
        sweep = measure_batches(model, sample)
        for batch in dict.fromkeys((1, sweep.best.batch)):
            x = torch.rand(batch, *shape, device=given.device)
            m = measure(model, x, min_window_s=given.window, own_process=True)
            held = [against(card, counts, m) for card in cards]
            rows.append({"network": name, "measured": kept(m), "estimated": held})
            joules = "no meter" if m.energy_j is None else f"{m.energy_j * 1e3:.4g} mJ"
            print(f"  {name}, batch {batch}: {1e6 * m.latency_s:,.1f} us ({1e6 * m.latency_p10_s:,.1f}..", end="")
            print(f"{1e6 * m.latency_p90_s:,.1f}), {joules} a sample", flush=True)
            for i, h in enumerate(held):
                energy = "" if h["energy_ratio"] is None else f", energy x {h['energy_ratio']:.2f}"
                print(f"    card {h['card']}: estimated / measured time x {h['time_ratio']:.2f}{energy}")
                if i == 0:
                    ratios += [r for r in (h["time_ratio"], h["energy_ratio"]) if r is not None]
        rows.append({"network": name, "batches": [kept(m) for m in sweep.measurements], "stopped": sweep.stopped})
    lowest, highest = GOALS[given.device]
    met = lowest <= min(ratios) and max(ratios) <= highest
    print(f"measured card: ratios x {min(ratios):.2f} to {max(ratios):.2f}", end="; ")
    print(f"goal {lowest} to {highest}: {'met' if met else 'MISSED'}")
    if given.out:
        record = {
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "machine": machine(),
            "versions": versions(),
            "ceilings": asdict(ceilings),
            "goal": [lowest, highest],
            "ratios_of_the_measured_card": ratios,
            "met": met,
            "rows": rows,
        }
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(record, indent=1) + "\n")
        print(f"written to {given.out}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
