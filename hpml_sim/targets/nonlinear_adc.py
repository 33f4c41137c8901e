"""Which ADCs that are not linear can be built."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from hpml_sim.errors import HpmlError


def check_adc(
    bits: int | Literal["ideal"],
    engine: str,
    *,
    polynomial: Sequence[float] | None,
    thresholds: Sequence[float] | None,
) -> None:
    """Refuse an ADC that cannot be.

    Args:
        bits: of the ADC.
        engine: what runs programmed chips.
        polynomial: in front of it, from the first power on; None: none.
        thresholds: between its codes; None: equally spaced.

    Raises:
        HpmlError: both are given, an ideal ADC, aihwkit as the engine, or numbers that are none of an ADC.
    """
    if polynomial is None and thresholds is None:
        return
    name = "adc_thresholds" if polynomial is None else "adc_polynomial"
    if polynomial is not None and thresholds is not None:
        raise HpmlError("adc_polynomial= and adc_thresholds=: an ADC has one of the two; give one")
    if bits == "ideal":
        raise HpmlError(f"{name}=: an ideal ADC has no range and no codes; give adc_bits= a number")
    if engine == "aihwkit":
        raise HpmlError(f"{name}=: the ADCs of engine='aihwkit' are linear; take engine='fused'")
    given = polynomial if polynomial is not None else thresholds or ()
    if not all(map(math.isfinite, given)):
        raise HpmlError(f"{name}={tuple(given)[:4]}...: must be finite numbers")
    if polynomial is not None and not any(polynomial):
        raise HpmlError(
            f"adc_polynomial={tuple(polynomial)}: must have a coefficient that is not 0, such as (1.0, 0.0, -0.1)"
        )
    if thresholds is not None:
        wanted = 2 * (2 ** (bits - 1) - 1)
        if len(thresholds) != wanted:
            raise HpmlError(
                f"adc_thresholds=: an ADC of {bits} bits has {wanted} thresholds; {len(thresholds)} are given"
            )
        if any(one >= other for one, other in pairwise(thresholds)):
            raise HpmlError("adc_thresholds=: must increase from each to the next")
