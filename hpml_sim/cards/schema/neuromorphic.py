"""What the card of a spiking machine holds."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hpml_sim.cards.schema.base import BaseCard
from hpml_sim.units.quantities import Area, Bits, Bytes, CardModel, Energy, Period, Power, Share, Time, Whole


class Core(CardModel):
    """Limits of one neuromorphic core, and how many a chip holds."""

    neurons: Whole
    synapse_memory: Bytes | None = None
    synapse_bits: Bits | None = Field(default=None, description="memory that one synapse takes; default 8 bits")
    fan_in: Whole | None = Field(default=None, description="synapses a neuron can have (rows of a core's crossbar)")
    axons: Whole | None = Field(default=None, description="distinct inputs a core can receive")
    cores_per_chip: Whole
    weight_bits: Bits | None = Field(
        default=None, description="width of a weight with its sign, in which a row is scored"
    )
    state_bits: Bits | None = Field(default=None, description="width of a neuron's state with its sign; it saturates")
    decay_bits: Bits | None = Field(default=None, description="fraction bits of a decay; absent: it is not rounded")


class Events(CardModel):
    """Energy and time of each kind of event. Dynamic figures only: a total at one operating point is not an event."""

    sop_energy: Energy
    update_energy: Energy
    idle_update_energy: Energy | None = None
    spike_energy: Energy | None = None
    hop_energy: Energy | None = None
    sop_time: Period | None = None
    update_time: Period | None = None
    spike_time: Period | None = None
    barrier_time: Time | None = Field(default=None, description="end of a time step, one chip")
    barrier_time_chips: Time | None = Field(default=None, description="end of a time step, several chips")
    barrier_chips: Whole | None = Field(
        default=None,
        description="chips that barrier_time_chips holds for; it grows with the side of the mesh, sqrt(chips)",
    )
    reset_energy: Energy | None = Field(default=None, description="clearing the state between inferences, one chip")
    tick_time: Period | None = Field(default=None, description="fixed or minimal duration of one time step")
    zero_weight_cost: Share | None = Field(
        default=None,
        description="what a synapse of weight zero takes of any other's memory, energy and time; default: all of it",
    )


class NeuromorphicCard(BaseCard):
    """A spiking machine: event energies and times, static and host power, capacity."""

    kind: Literal["neuromorphic"]
    core: Core
    events: Events
    power_static: Power = Field(description="one chip")
    power_core: Power | None = Field(default=None, description="a core in use, on top of the chip's static power")
    power_host: Power | None = Field(default=None, description="management processor, for a chip")
    area: Area | None = Field(default=None, description="whole chip")
    encoder: Literal["rate", "direct"] = Field("rate", description="how real-valued input reaches the chip by default")

    def _highlights(self) -> list[tuple[str, str]]:
        core, events = self.core, self.events
        return [
            ("cores", f"{core.cores_per_chip} a chip, {core.neurons} neurons a core"),
            ("synapse", f"{events.sop_energy} an operation"),
            ("neuron", f"{events.update_energy} an update"),
            ("static", f"{self.power_static} a chip"),
        ]
