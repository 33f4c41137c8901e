"""95 % intervals of a metric: over chips, over samples by a formula, or over samples by the bootstrap."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

RESAMPLES = 1000
"""Data sets that the bootstrap draws."""
_SEED = 20_121_105
"""Of the bootstrap: the same figures give the same interval."""


def student(values: Sequence[float]) -> tuple[float, float]:
    """Interval of the mean of several values.

    Source: Student's t with n - 1 degrees of freedom.

    Args:
        values: at least two.
    """
    from scipy.stats import t

    n = len(values)
    mean = math.fsum(values) / n
    std = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1))
    half = float(t.ppf(0.975, n - 1)) * std / math.sqrt(n)
    return mean - half, mean + half


def wilson(share: float, n: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """Interval of a share of independent samples that are right or wrong.

    Source: E. B. Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 22:209, 1927.

    Args:
        share: of the samples, in [0, 1].
        n: samples, >= 1.
        z: quantile of the normal distribution.
    """
    center = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, min(share, center - half)), min(1.0, max(share, center + half))  # rounding may leave the share out


def bootstrap(
    groups: int, value: Callable[[np.ndarray], np.ndarray], *, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """Percentile interval of a figure of some groups of samples, drawn again with replacement.

    Source: B. Efron, R. J. Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.

    Args:
        groups: how many groups of samples there are, >= 1.
        value: how often each group was drawn, (resamples, groups) -> the figure of each, (resamples,); NaN where a
            draw has none.
        resamples: how many data sets are drawn.
    """
    random = np.random.default_rng(_SEED)
    counts = random.multinomial(groups, np.full(groups, 1 / groups), size=resamples)
    found = np.asarray(value(counts), dtype=float)
    found = found[np.isfinite(found)]
    if not len(found):
        return math.nan, math.nan
    low, high = np.percentile(found, (2.5, 97.5))
    return float(low), float(high)
