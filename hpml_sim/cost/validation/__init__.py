"""Published machines against our equations: what was reported, what `hpml_sim.cost` gives, and how far apart.

Each point builds the published workload as a workload by hand, runs the same `estimate` that users call on the shipped
card, and compares one figure. Nothing here is fitted: a point outside its tolerance is reported as outside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from hpml_sim.cost.validation.crossbar import (
    converters,
    hermes,
    isaac,
    neurosim,
    neurram,
    neurram_bits,
    pcm_34_tiles,
    puma,
)
from hpml_sim.cost.validation.digital import gpu_power, image_inference, keyword_spotting, measured_here
from hpml_sim.cost.validation.neuromorphic import loihi, odin, truenorth
from hpml_sim.cost.validation.point import Point as Point
from hpml_sim.cost.validation.systems import (
    always_on,
    analog_systems,
    components,
    edge_accelerators,
    northpole,
    simulators,
    spinnaker,
)

MACHINES: dict[str, Callable[[], Iterator[Point]]] = {
    "isaac": isaac,
    "puma": puma,
    "hermes": hermes,
    "pcm-34-tiles": pcm_34_tiles,
    "neurram": neurram,
    "neurram-bits": neurram_bits,
    "neurosim": neurosim,
    "converters": converters,
    "truenorth": truenorth,
    "odin": odin,
    "loihi": loihi,
    "keyword-spotting": keyword_spotting,
    "gpu-power": gpu_power,
    "h200-run": measured_here,
    "image-inference": image_inference,
    "analog-systems": analog_systems,
    "simulators": simulators,
    "components": components,
    "northpole": northpole,
    "edge-accelerators": edge_accelerators,
    "speck": always_on,
    "spinnaker": spinnaker,
}


def validate() -> list[Point]:
    """All points, machine by machine."""
    return [point for machine in MACHINES.values() for point in machine()]
