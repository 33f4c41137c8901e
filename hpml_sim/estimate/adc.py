"""Energy of the best published ADCs as a function of resolution, process node and rate."""

from __future__ import annotations

import math


def adc_energy_j(bits: float, node_m: float, rate_hz: float) -> float:
    """Joules of one conversion of a good converter: a lower bound for a circuit that was not matched to it.

    With b effective bits, f conversions a second and the node t in nm: SNDR = 20 log10(2) b + 10 log10(1.5) dB,
    FOM_S = min(213.7807 - 2.8719 ln f, 128.307 + 3.2205 ceil(b)) dB, E0 = 1 / (2 x 10^((FOM_S - SNDR) / 10)) joules,
    E = E0 exp(26.0496 + 1.88004 ln t - 2.82913 ln b - 1.47020) picojoules.

    Args:
        bits: effective number of bits, 4 to 10.
        node_m: process node in metres.
        rate_hz: conversions a second.

    Raises:
        ValueError: bits outside the range of the regression.

    Source: T. Andrulis et al., "Modeling Analog-Digital-Converter Energy and Area for Compute-In-Memory Accelerator
    Design", 2024, as coded in hwcomponents-adc.
    """
    if not 4 <= bits <= 10:
        raise ValueError(f"bits={bits!r}: the regression holds for 4 to 10 effective bits")
    sndr = 20 * math.log10(2) * bits + 10 * math.log10(1.5)
    fom = min(213.7807 - 2.8719 * math.log(rate_hz), 128.307 + 3.2205 * math.ceil(bits))
    minimum_j = 1 / (2 * 10 ** ((fom - sndr) / 10))
    return minimum_j * math.exp(26.0496 + 1.88004 * math.log(node_m * 1e9) - 2.82913 * math.log(bits) - 1.47020) * 1e-12
