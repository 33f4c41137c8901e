"""Draws docs/roofline_h200.png from the measurements in benchmarks/results: `python docs/roofline.py`."""

from __future__ import annotations

import json
from pathlib import Path

from hpml_sim.cards import CrossbarCard, DigitalCard, NeuromorphicCard, load_card
from hpml_sim.cost.roofline_points import Point, Roof, core_point, roof_of, tile_point
from hpml_sim.report.plots import machine_roofline
from hpml_sim.units.bands import Band

HERE = Path(__file__).parent
RESULTS = HERE.parent / "benchmarks" / "results"
GPU = "NVIDIA H200"

# Operations and bytes of the kernels' docstrings: FLOP a byte of DRAM traffic, counted at the least.
INTENSITY = {
    "total": 1 / 4,
    "product 4096 x 4096, naive": 4096 / 6,
    "product 4096 x 4096, tiled": 4096 / 6,
    "product 4096 x 4096, register-tiled": 4096 / 6,
    "convolution 3 x 3, 64 channels, direct": 112.0,
    "crossbar DAC": 4 / 8,  # product, rounding, two clips
    "crossbar ADC": 8 / 8,  # two products and a sum, rounding, two clips, product, sum
}
LIF_OPERATIONS, LIF_BYTES = 7, 12  # a neuron and step, forward: `hpml_sim/kernels/lif/cuda.py`


def kernels() -> list[Point]:
    """The kernels as they were measured."""
    found = json.loads((RESULTS / "h200_baselines.json").read_text())["kernels"]
    points = []
    for row in found:
        if row["name"] in INTENSITY:
            per_byte = INTENSITY[row["name"]]
            rate = row["flop_per_s"] or row["bytes_per_s"] * per_byte
            points.append(Point(row["name"], "kernel", per_byte, rate, "", GPU))
    neurons = json.loads((RESULTS / "h200_spiking.json").read_text())["shapes"][-1]
    updates = 32 * 64 * 65536 / neurons["forward_s"][0]
    points.append(Point("LIF forward", "kernel", LIF_OPERATIONS / LIF_BYTES, LIF_OPERATIONS * updates, "", GPU))
    return points


def roofs() -> list[Roof]:
    """The ceilings that were measured, and those of the card."""
    ceilings = json.loads((RESULTS / "h200_estimates.json").read_text())["ceilings"]
    bandwidth = Band(**ceilings["bandwidth"])
    measured = [
        Roof(f"{GPU} {name}", Band(**ceilings["rates"][name]), bandwidth, measured=True) for name in ("fp32", "bf16")
    ]
    return [*measured, *(roof_of(card) for card in [load_card("h200")] if isinstance(card, DigitalCard))]


def main() -> None:
    """Write the figure."""
    points = kernels()
    cards = [load_card(name) for name in ("pcm-hermes", "reram-neurram", "isaac", "loihi", "loihi-2", "speck")]
    points += [tile_point(card) for card in cards if isinstance(card, CrossbarCard)]
    cores = [core_point(card) for card in cards if isinstance(card, NeuromorphicCard)]
    points += [core for core in cores if core is not None]
    title = "H200: ceilings and kernels as measured; one crossbar tile and one neuromorphic core each, from cards"
    figure = machine_roofline(roofs(), points, title=title)
    figure.savefig(HERE / "roofline_h200.png", dpi=130, metadata={"Software": None})


if __name__ == "__main__":
    main()
