"""Energy of the best published ADCs as a function of resolution, process node and rate."""

from __future__ import annotations

import math

from hpml_sim.errors import HpmlError
from hpml_sim.units.bands import Band

MIN_BITS, MAX_BITS = 4, 10
"""What the regression was made for."""
SCALED_SAR_J = {4: 0.79e-12, 5: 0.99e-12, 6: 1.20e-12, 7: 1.42e-12, 8: 1.67e-12, 9: 1.97e-12, 10: 2.38e-12}
"""One conversion of ISAAC's converter, scaled to other resolutions (32 nm, 1.2 GS/s).

Source: hwcomponents-library, isaac.py and its table of converters.
"""


def adc_energy_j(bits: float, node_m: float, rate_hz: float) -> float:
    """Joules of one conversion of a good converter: a lower bound for a circuit that was not matched to it.

    With b effective bits, f conversions a second and the node t in nm: SNDR = 20 log10(2) b + 10 log10(1.5) dB,
    FOM_S = min(213.7807 - 2.8719 ln f, 128.307 + 3.2205 ceil(b)) dB, E0 = 1 / (2 x 10^((FOM_S - SNDR) / 10)) joules,
    E = E0 exp(26.0496 + 1.88004 ln t - 2.82913 ln b - 1.47020) picojoules.

    Args:
        bits: effective number of bits, 4 to 10.
        node_m: process node in meters, above 0.
        rate_hz: conversions a second, above 0.

    Returns:
        Joules of one conversion.

    Raises:
        HpmlError: bits outside the range of the regression.

    Source: T. Andrulis et al., "Modeling Analog-Digital-Converter Energy and Area for Compute-In-Memory Accelerator
    Design", arXiv 2404.06553 (2024), as coded in hwcomponents-adc.
    """
    if not MIN_BITS <= bits <= MAX_BITS:
        raise HpmlError(f"bits={bits!r}: the regression holds for {MIN_BITS} to {MAX_BITS} effective bits")
    sndr = 20 * math.log10(2) * bits + 10 * math.log10(1.5)
    fom = min(213.7807 - 2.8719 * math.log(rate_hz), 128.307 + 3.2205 * math.ceil(bits))
    minimum_j = 1 / (2 * 10 ** ((fom - sndr) / 10))
    return minimum_j * math.exp(26.0496 + 1.88004 * math.log(node_m * 1e9) - 2.82913 * math.log(bits) - 1.47020) * 1e-12


def adc_ratio(bits: int, own_bits: int) -> Band:
    """Energy of a conversion to `bits` over one to `own_bits`, in the same technology at a moderate rate.

    Three laws, of which the regression is nominal and all are in the band: the best converters published at each
    resolution (the regression of `adc_energy_j`, whose node and rate then cancel: 2.8 dB a bit, and bits^-2.83); a
    converter that counts, or of a constant figure of merit (2 to the power of the bits); a SAR converter scaled to
    other resolutions (about 18 % a bit).

    Args:
        bits: resolution of the conversion, 4 to 10.
        own_bits: resolution whose energy is known, 4 to 10.

    Raises:
        HpmlError: bits outside that range.

    Source: T. Andrulis et al., arXiv 2404.06553 (2024); R. H. Walden, IEEE J. Selected Areas in Communications 17, 539
    (1999); hwcomponents-library.
    """
    moderate = 1e6
    node_m = 32e-9
    for name, value in (("bits", bits), ("own_bits", own_bits)):
        if value not in SCALED_SAR_J:
            raise HpmlError(f"{name}={value!r}: the laws hold for whole numbers from {MIN_BITS} to {MAX_BITS}")
    regression = adc_energy_j(bits, node_m, moderate) / adc_energy_j(own_bits, node_m, moderate)
    laws = (regression, 2.0 ** (bits - own_bits), SCALED_SAR_J[bits] / SCALED_SAR_J[own_bits])
    return Band(min(laws), regression, max(laws))
