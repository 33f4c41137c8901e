"""One seed for everything: each draw gets a seed of its own, derived from what it is for, not from what came before.

So a chip has the same bits whatever else was programmed or asked before it, and 25 chips are the first 25 of 100.
"""

from __future__ import annotations

import struct
from enum import IntEnum

import numpy as np

from hpml_sim.errors import HpmlError


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
    """
    time_bits = struct.unpack("<Q", struct.pack("<d", time_s))[0]
    words = [w for key in (int(purpose), layer, chip, time_bits, call) for w in (key & 0xFFFFFFFF, key >> 32)]
    state = np.random.SeedSequence(seed, spawn_key=words).generate_state(1, np.uint64)
    return int(state[0]) >> 1


def checked_seed(seed: int) -> int:
    """The seed, if it is an integer in [0, 2^63).

    Raises:
        HpmlError: it is not.
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= int(seed) < 2**63:
        raise HpmlError(f"seed={seed!r}: must be an integer in [0, 2^63); for example seed=0")
    return int(seed)
