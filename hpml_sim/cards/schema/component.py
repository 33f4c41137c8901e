"""What the card of a component holds: a part of which systems are built, whatever machine it surrounds."""

from __future__ import annotations

from pydantic import Field

from hpml_sim.cards.schema.base import SourcedCard
from hpml_sim.cards.schema.curves import Curves
from hpml_sim.units.display import plain_lines
from hpml_sim.units.quantities import ByteRate, Bytes, CardModel, Energy, EnergyPerBit, OpRate, Power, Quantity, Ratio


class Memory(CardModel):
    """A memory on the chip.

    Attributes:
        size: of the memory.
        energy: reading or writing one bit.
    """

    size: Bytes
    energy: EnergyPerBit


class ComponentCard(SourcedCard):
    """A part of a system: digital logic, memory, a link, a host, a converter of power.

    Attributes:
        operations: joules of one operation, by name ("add_int32", "mac_fp16", ...), at `node`.
        memories: memories on the chip by name, at `node`.
        transfer: moving one bit across, or to and from it.
        write: writing one bit, where that is not `transfer`.
        transfer_per_mm: moving one bit over one millimeter.
        rate: bytes a second of one of it.
        op_rate: digital operations a second of one of it.
        power_active: while the machine works.
        power_idle: while the machine waits.
        power_per_mm2: of one square millimeter that is powered and does nothing.
        ratio: power drawn over power delivered, or work with over work without it.
        curves: energy by node.
    """

    operations: dict[str, Energy] = Field(default_factory=dict)
    memories: dict[str, Memory] = Field(default_factory=dict)
    transfer: EnergyPerBit | None = None
    write: EnergyPerBit | None = None
    transfer_per_mm: EnergyPerBit | None = None
    rate: ByteRate | None = None
    op_rate: OpRate | None = None
    power_active: Power | None = None
    power_idle: Power | None = None
    power_per_mm2: Power | None = None
    ratio: Ratio | None = None
    curves: Curves | None = None

    def figure(self, field: str) -> Quantity:
        """A figure that the caller knows the component to have.

        Args:
            field: its name, such as "transfer" or "operations.mac_fp16".

        Raises:
            KeyError: the component has no such figure.
        """
        found = dict(self.quantities()).get(field)
        if found is None:
            raise KeyError(f"component {self.name!r} has no figure {field!r}")
        return found

    def __repr__(self) -> str:
        return plain_lines(
            f"Component {self.name}: {self.title}", [(path, str(figure)) for path, figure in self.quantities()]
        )

    __str__ = __repr__
