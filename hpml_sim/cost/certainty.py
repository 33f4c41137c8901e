"""How sure an order of two machines is: their figures as distributions, shared components varying together.

A band's low and high are the 5th and 95th percentile of a lognormal distribution around its nominal value, with a width
of its own on either side. The figures of one card vary together; so does each component, wherever it stands.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import TYPE_CHECKING, Literal

import numpy as np

from hpml_sim.cost.system.duty import WAITING
from hpml_sim.errors import HpmlError, ScopeError
from hpml_sim.units.bands import ZERO, Band

if TYPE_CHECKING:
    from hpml_sim.cost.result import Estimate

Figure = Literal["energy", "latency", "throughput", "area"]
PERCENTILE = 0.95
"""Share of cases below the high bound, and above the low one."""
CERTAIN = 0.9
"""An order that is less probable than this is called open, and the component that decides is named."""
DRAWS = 20_000
"""Cases of a simulation. The probability of an order is off by 0.35 % at most (one standard deviation)."""
_SPREAD = NormalDist().inv_cdf(PERCENTILE)
_LARGEST = 1e3
"""A bound that is 0 or infinite is taken this factor away from the nominal value."""
_COLUMNS: dict[Figure, str] = {
    "energy": "energy_j",
    "latency": "latency_s",
    "throughput": "throughput_hz",
    "area": "area_mm2",
}


@dataclass(frozen=True)
class Order:
    """Two machines by one figure.

    Attributes:
        first: card of the one with the smaller nominal figure.
        second: card of the other.
        ratio: nominal figure of the second over that of the first.
        probability: that the first has the smaller figure.
        decides: what leaves the order open most: "component host-edge" or "the figures of card loihi".
    """

    first: str
    second: str
    ratio: float
    probability: float
    decides: str

    @property
    def certain(self) -> bool:
        """Whether the order holds in nine of ten cases."""
        return self.probability >= CERTAIN


def order(a: Estimate, b: Estimate, figure: Figure = "energy") -> Order:
    """Which of two machines has the smaller figure, how many times, and how sure that is.

    Args:
        a: an estimate.
        b: another one, of the same scope.
        figure: "energy", "latency", "throughput" or "area".

    Raises:
        ScopeError: they have different scopes.
        HpmlError: one of them has no such figure.

    Example:
        >>> import hpml_sim as hs
        >>> counts = hs.workload(hs.models.mlp(784, 128, 10), input_shape=(1, 28, 28))
        >>> chip, board = (hs.estimate(counts, card, scope="system") for card in ("pcm-hermes", "h200"))
        >>> found = order(chip, board)
        >>> found.first, found.ratio > 1e4, found.probability > 0.99
        ('pcm-hermes', True, True)
    """
    if a.scope != b.scope:
        raise ScopeError(
            f"{a.card} is of scope {a.scope}, {b.card} of {b.scope}: figures of different scope are not ranked; "
            "estimate both with scope='system'"
        )
    parts_a, parts_b = _parts(a, figure), _parts(b, figure)
    if sum(parts_a.values(), ZERO).nominal > sum(parts_b.values(), ZERO).nominal:
        a, b, parts_a, parts_b = b, a, parts_b, parts_a
    low, high = (sum(parts.values(), ZERO).nominal for parts in (parts_a, parts_b))
    keys = sorted({*parts_a, *parts_b})
    distance = np.log(_drawn(parts_b)) - np.log(_drawn(parts_a))
    return Order(
        a.card,
        b.card,
        high / low if low else math.inf,
        float(np.mean(distance > 0) + np.mean(distance == 0) / 2),
        _decides(parts_a, parts_b, keys, float(distance.var())),
    )


def _decides(a: dict[str, Band], b: dict[str, Band], keys: Sequence[str], variance: float) -> str:
    """The part that narrows ln(E_b / E_a) most once it is known."""
    left = {key: float((np.log(_drawn(b, key)) - np.log(_drawn(a, key))).var()) for key in keys}
    return min(left, key=lambda key: (left[key], key)) if variance > 0 else ""


def _parts(estimate: Estimate, figure: Figure) -> dict[str, Band]:
    """What varies together -> its share of the figure."""
    if figure not in _COLUMNS:
        raise HpmlError(f"figure={figure!r}: must be one of {', '.join(_COLUMNS)}")
    own = f"the figures of card {estimate.card}"
    if figure != "energy":
        band = getattr(estimate, _COLUMNS[figure])
        if band is None:
            raise HpmlError(f"{estimate.card} has no {figure}: its card says nothing of it")
        return {own: band}
    parts: dict[str, Band] = {}
    for term in estimate.terms:
        waits = term.component == WAITING
        key = f"component {term.origin}" if term.origin else f"idle power of {estimate.card}" if waits else own
        parts[key] = parts.get(key, ZERO) + term.energy_j
    return parts


def _drawn(parts: dict[str, Band], known: str | None = None) -> np.ndarray:
    """The sum of the parts in each case; a `known` one has its nominal value in all."""
    total = np.zeros(DRAWS)
    for key in sorted(parts):
        band = parts[key]
        total += band.nominal if key == known else _values(key, band)
    return np.maximum(total, np.finfo(float).tiny)


def _values(key: str, band: Band) -> np.ndarray:
    """Cases of one part: the median is the nominal value, 5 % lie below the low bound and 5 % above the high one."""
    if band.nominal == 0:
        return np.zeros(DRAWS)
    down = math.log(min(band.nominal / band.low, _LARGEST)) if band.low > 0 else math.log(_LARGEST)
    up = math.log(min(band.high / band.nominal, _LARGEST))
    z = _normal(key) / _SPREAD
    return band.nominal * np.exp(np.where(z < 0, z * down, z * up))


@lru_cache(maxsize=256)
def _normal(key: str) -> np.ndarray:
    """Normal deviates of a part, the same wherever it stands: an even ladder of quantiles, shuffled by its name."""
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8])
    found = _ladder()[np.random.default_rng(seed).permutation(DRAWS)]
    found.flags.writeable = False
    return found


@lru_cache(maxsize=1)
def _ladder() -> np.ndarray:
    inverse = NormalDist().inv_cdf
    return np.array([inverse((k + 0.5) / DRAWS) for k in range(DRAWS)])
