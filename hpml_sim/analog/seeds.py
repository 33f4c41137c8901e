"""One seed for everything: each draw gets a seed of its own, derived from what it is for, not from what came before.

So a chip has the same bits whatever else was programmed or run before it, and 25 chips are the first 25 of 100.
"""

from __future__ import annotations

import struct
from enum import IntEnum

import numpy as np

from hpml_sim.errors import check_whole


class Purpose(IntEnum):
    """What a random draw is for. The numbers are part of what makes a saved seed reproducible: never renumber."""

    PROGRAMMING = 0
    READ = 1
    OUTPUT = 2
    BASELINE = 3
    READOUT = 4
    NETWORK = 5
    FAULTS = 6
    DEVICES = 7


def derive(seed: int, purpose: Purpose, *, layer: int = 0, chip: int = 0, time_s: float = 0.0, call: int = 0) -> int:
    """A 63-bit seed, the same on every machine.

    Source: numpy's `SeedSequence`; independent streams by spawn key.

    Args:
        seed: the user's, in [0, 2^63).
        purpose: what the draw is for.
        layer: number of the layer in the network.
        chip: number of the chip.
        time_s: seconds since the end of programming.
        call: how many calls came before.
    """
    # the bits of the float, not a rounding of it: two times that differ at all have different noise
    time_bits = struct.unpack("<Q", struct.pack("<d", time_s))[0]
    words = [w for key in (int(purpose), layer, chip, time_bits, call) for w in (key & 0xFFFFFFFF, key >> 32)]
    state = np.random.SeedSequence(seed, spawn_key=words).generate_state(1, np.uint64)
    return int(state[0]) >> 1


def checked_seed(seed: int) -> int:
    """The seed, if it is an integer in [0, 2^63).

    Args:
        seed: what the user gave.

    Raises:
        HpmlError: it is not.
    """
    return check_whole("seed", seed, low=0, high=2**63 - 1, hint="for example seed=0")
