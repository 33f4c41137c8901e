"""Made-up cards with round numbers, and workloads built by hand, for oracles that can be worked out on paper."""

from __future__ import annotations

from itertools import pairwise

from hpml_sim.cards import Card, parse_card
from hpml_sim.counting import LayerCount, Workload


def q(value: float, unit: str = "1", status: str = "measured", **more: float) -> str:
    extra = "".join(f", {key} = {number}" for key, number in more.items())
    return f'{{ value = {value}, unit = "{unit}", source = "paper", where = "table 1", status = "{status}"{extra} }}'


def card(kind: str, body: str, *, name: str = "made-up", scope: str = "chip") -> Card:
    head = f"""
name = "{name}"
kind = "{kind}"
title = "Made up"
summary = "for tests"
version = 1
scope = "{scope}"
year = 2020
silicon = true
"""
    return parse_card(f'{head}\n{body}\n[sources.paper]\ncite = "A paper"\nopened = "all of it"\n', origin="test")


def digital(extra: str = "", **changes: str) -> Card:
    fields = {
        "compute_efficiency": q(0.5),
        "memory_bandwidth": q(100, "GB/s"),
        "memory_efficiency": q(1.0),
        "memory": q(1, "GB"),
        "cache": q(1, "B"),
        "power_max": q(110, "W"),
        "power_idle": q(10, "W"),
        "energy_per_byte": q(100, "pJ/B"),
        "launch_time": q(1, "us"),
        "call_time": q(10, "us"),
    } | changes
    lines = "\n".join(f"{key} = {value}" for key, value in fields.items())
    return card("digital", f'device = "cuda"\n{lines}\n{extra}\n[peak]\nfp32 = {q(2, "TFLOP/s")}\n')


NOISE = '[noise]\nmodel = "none"\nsource = "paper"\nwhere = "table 1"\nstatus = "assumption"\nnote = "test"\n'
PRESET = f"""
[preset]
energy_per_mvm = {q(10, "nJ")}
time_per_mvm = {q(100, "ns")}
area_per_tile = {q(0.5, "mm^2")}
"""


def crossbar(
    body: str = PRESET,
    *,
    rows: int = 100,
    cols: int = 100,
    slices: int = 1,
    tiles: int = 8,
    scope: str = "chip",
    node_nm: float | None = None,
) -> Card:
    node = "" if node_nm is None else f"node = {q(node_nm, 'nm')}"
    array = f"""
{node}
[array]
rows = {q(rows)}
cols = {q(cols)}
cells_per_weight = {q(slices)}
tiles_per_chip = {q(tiles)}
[io]
dac_bits = {q(8, "bit")}
adc_bits = {q(8, "bit")}
"""
    return card("crossbar", array + body + NOISE, scope=scope)


def neuromorphic(core: str = "", events: str = "", extra: str = "") -> Card:
    body = f"""
power_static = {q(100, "mW")}
{extra}
[core]
neurons = {q(100)}
cores_per_chip = {q(10)}
{core}
[events]
sop_energy = {q(20, "pJ")}
update_energy = {q(80, "pJ")}
sop_time = {q(4, "ns")}
update_time = {q(10, "ns")}
{events}
"""
    return card("neuromorphic", body)


def linear(name: str, rows: int, cols: int, *, vectors: float = 1, steps: int = 1, **more: float) -> LayerCount:
    return LayerCount(
        name,
        "linear",
        rows=rows,
        cols=cols,
        vectors=vectors * steps,
        macs=rows * cols * vectors * steps,
        weight_count=rows * cols,
        input_elements=rows * vectors * steps,
        output_elements=cols * vectors * steps,
        steps=steps,
        **more,
    )


def neurons(name: str, count: int, *, steps: int, spikes: float) -> LayerCount:
    return LayerCount(name, "neuron", neurons=count, updates=count * steps, spikes=spikes, steps=steps)


def mlp(*sizes: int) -> Workload:
    layers = [linear(f"fc{k}", a, b) for k, (a, b) in enumerate(pairwise(sizes))]
    return Workload(tuple(layers), input_elements=sizes[0], output_elements=sizes[-1])


def snn(*sizes: int, steps: int = 10, rate: float = 0.1) -> Workload:
    layers: list[LayerCount] = []
    for k, (a, b) in enumerate(pairwise(sizes)):
        active = {"binary_input": True, "active_fraction": rate, "sops": rate * a * b * steps}
        layers += [linear(f"fc{k}", a, b, steps=steps, **active)]
        layers += [neurons(f"lif{k}", b, steps=steps, spikes=rate * b * steps)]
    return Workload(tuple(layers), samples=10, kind="spiking", input_elements=sizes[0], output_elements=sizes[-1])
