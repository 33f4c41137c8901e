"""Measured ceilings as a device card, so that estimates can be made for the machine at hand and held against it."""

from __future__ import annotations

import datetime
import json
import os
import re

from hpml_sim.cards import DigitalCard, load_card
from hpml_sim.errors import HpmlError
from hpml_sim.measurement.ceilings import Ceilings
from hpml_sim.measurement.machine import versions
from hpml_sim.units.bands import Band


def ceilings_card(ceilings: Ceilings, name: str) -> str:
    """The text of a card of these ceilings, in TOML.

    Where no power meter could be read, power is the share of the card `cpu` that the cores make, marked "scaled" and
    with wide bounds: a card must say something, and the note says what it is worth.

    Args:
        ceilings: what was measured.
        name: of the card: lower case letters, digits, "-" and ".".

    Raises:
        HpmlError: a name that a card cannot have, or a GPU without a power meter.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", name):
        raise HpmlError(f"card name {name!r}: lower case letters, digits, '-' and '.'; for example 'this-machine'")
    today = datetime.date.today()
    software = ", ".join(f"{package} {version}" for package, version in versions().items() if package != "hpml_sim")
    threads = "" if ceilings.cores is None else f", {ceilings.cores} threads"
    head = {
        "name": name,
        "kind": "digital",
        "title": f"{ceilings.name}{threads}, as measured",
        "summary": "ceilings measured by hpml-sim roofline on the machine itself",
        "version": 1,
        "scope": "board" if ceilings.device == "cuda" else "chip",
        "year": today.year,
        "silicon": True,
        "device": ceilings.device,
        "limits": ["Measured once, on one machine, with whatever else ran there.", *_power_limits(ceilings)],
    }
    lines = [f"{key} = {json.dumps(value)}" for key, value in head.items()]
    for precision, rate in ceilings.rates.items():
        lines += _quantity(
            f"peak.{precision}", rate * 1e-9, "GOP/s", "a large square product: fastest tenth, median, fastest"
        )
    lines += _quantity("compute_efficiency", Band(1, 1, 1), "1", "the peaks above are what products reach")
    note = f"a 3 x 3 convolution of {64 if ceilings.device == 'cuda' else 16} channels, over the fp32 product"
    lines += _quantity("convolution_efficiency", ceilings.convolution, "1", note)
    lines += _quantity(
        "memory_bandwidth",
        ceilings.bandwidth * 1e-9,
        "GB/s",
        "a large copy into new memory, bytes read and written: fastest tenth, median, fastest",
    )
    lines += _quantity("memory_efficiency", Band(1, 1, 1), "1", "the bandwidth above is what a copy reaches")
    lines += _quantity("memory", _exactly(ceilings.memory_bytes), "B", "what the system says")
    if ceilings.cache_bytes:
        lines += _quantity("cache", _exactly(ceilings.cache_bytes), "B", "what the system says: last-level cache")
    if ceilings.cache_bandwidth is not None:
        lines += _quantity(
            "cache_bandwidth", ceilings.cache_bandwidth * 1e-9, "GB/s", "a sum over an eighth of the cache"
        )
    lines += _power(ceilings)
    lines += _quantity("launch_time", ceilings.launch_s * 1e6, "us", "one more small layer in an eager chain")
    if ceilings.device == "cuda":
        lines += _quantity("dispatch_time", ceilings.launch_s * 1e6, "us", "the same: the host's time")
    lines += _quantity("call_time", ceilings.call_s * 1e6, "us", "an eager call besides its layers, synchronized")
    lines += [
        "",
        "[sources.here]",
        f"cite = {json.dumps(f'hpml-sim roofline on {ceilings.name}, {today}; {software}')}",
    ]
    lines += ['opened = "Measured here."']
    return "\n".join(lines) + "\n"


def _exactly(value: float) -> Band:
    return Band(value, value, value)


def _quantity(name: str, band: Band, unit: str, note: str, status: str = "measured") -> list[str]:
    low, value, high = (float(f"{x:.4g}") for x in (band.low, band.nominal, band.high))
    lines = ["", f"[{name}]", f"value = {value!r}", f"unit = {json.dumps(unit)}"]
    if low < high:
        lines += [f"low = {low!r}", f"high = {high!r}"]
    return [*lines, 'source = "here"', f'status = "{status}"', f"note = {json.dumps(note)}"]


def _power_limits(ceilings: Ceilings) -> list[str]:
    if ceilings.idle_w is not None:
        return []
    return [f"Power was not measured ({ceilings.power_provenance}); it is scaled."]


def _power(ceilings: Ceilings) -> list[str]:
    told = ceilings.power_provenance
    if ceilings.idle_w is not None and ceilings.active_w is not None and ceilings.max_w is not None:
        most = "the board's limit" if ceilings.device == "cuda" else "a large product on all threads"
        return [
            *_quantity("power_max", _exactly(ceilings.max_w), "W", f"{told}: {most}"),
            *_quantity("power_idle", _exactly(ceilings.idle_w), "W", f"{told}: nothing runs"),
            *_quantity("power_active", _exactly(ceilings.active_w), "W", f"{told}: small operators only"),
            *_quantity(
                "energy_per_byte",
                _exactly((ceilings.byte_j or 0.0) * 1e12),
                "pJ/B",
                f"{told}: copy",
            ),
        ]
    if ceilings.device == "cuda":
        raise HpmlError(
            f"a card of {ceilings.name} needs its power, and no meter could be read: {told}. Take the "
            "card of this GPU (`hpml-sim cards`), or allow NVML"
        )
    card = load_card("cpu")
    assert isinstance(card, DigitalCard)
    cores = min(64, ceilings.cores or os.cpu_count() or 1)
    note = f"no meter here: {cores} of the 64 cores of the card cpu; bounds: half and twice"
    lines = []
    for field, quantity in (("power_max", card.power_max), ("power_idle", card.power_idle)):
        watts = quantity.si * cores / 64
        lines += _quantity(field, Band(watts / 2, watts, 2 * watts), "W", note, "scaled")
    return lines
