"""How sure an order of two machines is: their figures as distributions, shared components varying together.

A band's low and high are the 5th and 95th percentile of a lognormal distribution around its nominal value, with a width
of its own on either side; or, where a card says so (`bounds = "limits"`), limits between which any value is as likely.
The figures of one card vary together; so does each component, wherever it stands. A converter of power takes a share of
what it delivers: where that varies, so does what the converter takes.
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

from hpml_sim.cards import list_components, load_component
from hpml_sim.cost.system.duty import CONVERTERS, WAITING
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
_COMPONENT = "component "
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
class _Stage:
    """Parts of a figure, and the converter that all parts up to here draw their power through.

    Attributes:
        parts: what varies together -> its share of the figure.
        converter: the component that takes a share; "" where there is none.
        lost: what it takes, over what it delivers.
    """

    parts: dict[str, Band]
    converter: str = ""
    lost: Band = ZERO

    @property
    def keys(self) -> set[str]:
        return {*self.parts, self.converter} - {""}


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
    if _band(a, figure).nominal > _band(b, figure).nominal:
        a, b = b, a
    low, high = (_band(machine, figure).nominal for machine in (a, b))
    stages_a, stages_b = _stages(a, figure), _stages(b, figure)
    keys = sorted({key for stage in (*stages_a, *stages_b) for key in stage.keys})
    flat = _flat(a, b, keys)
    distance = np.log(_drawn(stages_b, flat)) - np.log(_drawn(stages_a, flat))
    return Order(
        a.card,
        b.card,
        high / low if low else math.inf,
        float(np.mean(distance > 0) + np.mean(distance == 0) / 2),
        _decides(stages_a, stages_b, keys, float(distance.var()), flat),
    )


def _flat(a: Estimate, b: Estimate, keys: Sequence[str]) -> frozenset[str]:
    """Those of the parts whose bounds are limits, between which any value is as likely as another."""
    cards = {_card_key(e) for e in (a, b) if e.bounds == "limits"}
    known = set(list_components())
    names = {key: key.removeprefix(_COMPONENT) for key in keys if key.startswith(_COMPONENT)}
    return frozenset(
        key
        for key in keys
        if key in cards or (names.get(key) in known and load_component(names[key]).bounds == "limits")
    )


def _card_key(estimate: Estimate) -> str:
    return f"the figures of card {estimate.card}"


def _decides(
    a: Sequence[_Stage], b: Sequence[_Stage], keys: Sequence[str], variance: float, flat: frozenset[str]
) -> str:
    """The part that narrows ln(E_b / E_a) most once it is known."""
    left = {key: float((np.log(_drawn(b, flat, key)) - np.log(_drawn(a, flat, key))).var()) for key in keys}
    return min(left, key=lambda key: (left[key], key)) if variance > 0 else ""


def _band(estimate: Estimate, figure: Figure) -> Band:
    if figure not in _COLUMNS:
        raise HpmlError(f"figure={figure!r}: must be one of {', '.join(_COLUMNS)}")
    band = getattr(estimate, _COLUMNS[figure])
    if band is None:
        raise HpmlError(f"{estimate.card} has no {figure}: its card says nothing of it")
    return band


def _stages(estimate: Estimate, figure: Figure) -> list[_Stage]:
    """What varies together, cut where a converter takes its share of all that stands before it."""
    own = _card_key(estimate)
    if figure != "energy":
        return [_Stage({own: _band(estimate, figure)})]
    found: list[_Stage] = []
    parts: dict[str, Band] = {}
    before = ZERO
    for term in estimate.terms:
        waits = term.component == WAITING
        key = f"{_COMPONENT}{term.origin}" if term.origin else f"idle power of {estimate.card}" if waits else own
        if term.origin and term.component in CONVERTERS and before.nominal > 0:
            found.append(_Stage(parts, key, _share(term.energy_j, before)))
            parts = {}
        else:
            parts[key] = parts.get(key, ZERO) + term.energy_j
        before = before + term.energy_j
    return [*found, _Stage(parts)]


def _share(taken: Band, delivered: Band) -> Band:
    """The share that was multiplied with what is delivered, bound by bound."""
    nominal = taken.nominal / delivered.nominal
    low = taken.low / delivered.low if delivered.low > 0 else nominal
    high = taken.high / delivered.high if math.isfinite(delivered.high) else nominal
    return Band(min(low, nominal), nominal, max(high, nominal))


def _drawn(stages: Sequence[_Stage], flat: frozenset[str] = frozenset(), known: str | None = None) -> np.ndarray:
    """The sum of the parts in each case; a `known` one has its nominal value in all."""

    def cases(key: str, band: Band) -> np.ndarray | float:
        return band.nominal if key == known else _values(key, band, flat=key in flat)

    total = np.zeros(DRAWS)
    for stage in stages:
        for key in sorted(stage.parts):
            total += cases(key, stage.parts[key])
        if stage.converter:
            total *= 1 + cases(stage.converter, stage.lost)
    return np.maximum(total, np.finfo(float).tiny)


def _values(key: str, band: Band, *, flat: bool = False) -> np.ndarray:
    """Cases of one part: the median is the nominal value; 5 % lie beyond each bound, or none where they are limits."""
    if band.nominal == 0:
        return np.zeros(DRAWS)
    down = math.log(min(band.nominal / band.low, _LARGEST)) if band.low > 0 else math.log(_LARGEST)
    up = math.log(min(band.high / band.nominal, _LARGEST))
    z = _uniform(key) if flat else _normal(key) / _SPREAD
    return band.nominal * np.exp(np.where(z < 0, z * down, z * up))


@lru_cache(maxsize=64)
def _uniform(key: str) -> np.ndarray:
    """From -1 to 1, each value as often as another, in the order of the same part's normal deviates."""
    places = np.empty(DRAWS)
    places[np.argsort(_normal(key), kind="stable")] = np.arange(DRAWS)
    found = (2 * places + 1) / DRAWS - 1
    found.flags.writeable = False
    return found


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
