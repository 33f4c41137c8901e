"""The arithmetic-only figure of the SNN literature: a bound to stand beside a total, never in its place."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hpml_sim.counting import Workload

MAC_J = 4.6e-12
ACCUMULATE_J = 0.9e-12


def arithmetic_only_j(workload: Workload) -> float:
    """Joules of the additions and multiplications alone, in fp32 at 45 nm: 4.6 pJ a MAC, 0.9 pJ an accumulate.

    A layer whose inputs are spikes pays an accumulate for each synaptic operation, any other a MAC for each product.
    Weight fetches, membrane reads and writes, static power and everything else are left out, and they dominate.

    Source: M. Horowitz, "Computing's energy problem", ISSCC 2014 (3.7 pJ multiply + 0.9 pJ add); the convention is the
    SNN literature's.
    """
    spikes = sum(layer.sops for layer in workload.layers if layer.binary_input)
    products = sum(layer.macs for layer in workload.layers if not layer.binary_input)
    return ACCUMULATE_J * spikes + MAC_J * products


def equal_bits(steps: int) -> int:
    """Bits of the integer network that an SNN of `steps` time steps should stand beside: ceil(log2(steps + 1)).

    Source: Yan, Bai, Tang and Wong, arXiv 2409.08290 (v4):
    a spike count over T steps has T + 1 values.
    """
    return math.ceil(math.log2(steps + 1))
