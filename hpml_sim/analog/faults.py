"""Stuck devices: faults that hold a device at an end of its range, whatever is programmed, at every time."""

from __future__ import annotations

from hpml_sim.analog.seeds import Purpose, derive
from hpml_sim.kernels.device_noise import Faults
from hpml_sim.targets import Analog


def faults_of(target: Analog, seed: int, layer: int, chip: int) -> Faults:
    """The stuck devices of one layer of one chip.

    Args:
        target: gives the shares.
        seed: of the chips.
        layer: number of the layer.
        chip: number of the chip.
    """
    # the seed has no time in it: the same devices are stuck forever
    return Faults(target.stuck_at_g_min, target.stuck_at_g_max, derive(seed, Purpose.FAULTS, layer=layer, chip=chip))
