"""`Score`: one quality of a network on test data, with its spread."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hpml_sim.errors import HpmlError
from hpml_sim.tasks.intervals import student, wilson
from hpml_sim.units.display import html_table

SHARE = "share"
"""Unit of a figure in [0, 1] that people read in percent."""
RATIO = "ratio"
"""Unit of a figure >= 0 that people read in percent and that may exceed 1, such as an error rate."""
_PERCENT = (SHARE, RATIO)


@dataclass(frozen=True)
class Score:
    """What `evaluate` measured: one value a chip, or a single one for a digital network.

    Attributes:
        metric: name of what was measured; "accuracy" is the share of test samples classified right.
        unit: of every value; "share" is a number in [0, 1] and "ratio" one >= 0, which text and tables show in percent;
            "" has no unit.
        higher_is_better: whether a larger value is the better one.
        values: one a chip, or a single one.
        samples: size of the test set.
        mean: over `values`.
        std: sample standard deviation over `values`; 0 for a single one.
        n: how many values.
        ci95: 95 % interval of the mean: Student's t over chips; for a single value an interval over the test samples,
            Wilson's where each is right or wrong, otherwise the bootstrap's.
        chips: whether the values are of programmed chips. One chip has an interval over the test samples only, which
            does not say how another chip would do.

    Raises:
        HpmlError: a figure that is NaN, infinite, or not what its unit says.

    Example:
        >>> import hpml_sim as hs
        >>> score = hs.Score.of([0.97, 0.95, 0.96], samples=360)
        >>> print(score)
        96.00 ± 1.00 % accuracy (95 % interval 93.52..98.48, 3 chips)
        >>> score.unit, score.higher_is_better
        ('share', True)
    """

    values: tuple[float, ...]
    samples: int
    mean: float
    std: float
    n: int
    ci95: tuple[float, float]
    metric: str = "accuracy"
    unit: str = SHARE
    higher_is_better: bool = True
    chips: bool = False

    def __post_init__(self) -> None:
        figures = (*self.values, self.mean, self.std, *self.ci95)
        if not (self.values and self.n == len(self.values) and all(map(math.isfinite, figures))):
            raise HpmlError(
                f"{self.metric}: values={self.values!r}, n={self.n!r}, mean={self.mean!r}, std={self.std!r}, "
                f"ci95={self.ci95!r} must be finite, with n values; evaluate again"
            )
        if self.unit == SHARE and not all(0 <= figure <= 1 for figure in figures):
            raise HpmlError(f"{self.metric}: {figures!r} must all lie in [0, 1], as shares do")
        if self.unit == RATIO and not all(figure >= 0 for figure in figures):
            raise HpmlError(f"{self.metric}: {figures!r} must all be >= 0, as ratios are")

    @classmethod
    def of(
        cls,
        values: Sequence[float],
        samples: int,
        *,
        metric: str = "accuracy",
        unit: str = SHARE,
        higher_is_better: bool = True,
        bounds: tuple[float, float] | None = None,
        interval: tuple[float, float] | None = None,
        chips: bool | None = None,
    ) -> Score:
        """The score of one network, or of many chips, with its spread.

        Args:
            values: one a chip, or a single one.
            samples: size of the test set, >= 1.
            metric: name of what was measured.
            unit: of every value.
            higher_is_better: whether a larger value is the better one.
            bounds: that no value can leave, nor the interval; None takes those of the unit.
            interval: of a single value, over the samples; None takes Wilson's, which holds for shares of samples that
                are right or wrong.
            chips: whether the values are of programmed chips; None: where there are several.

        Raises:
            HpmlError: no values, one that the unit does not allow, or no interval for a single value that is no share.

        Source: Student's t over chips; E. B. Wilson, JASA 22:209, 1927, for a single share.
        """
        if not values:
            raise HpmlError("Score.of: values=[] must hold at least one value, such as the accuracy of one network")
        n = len(values)
        mean = math.fsum(values) / n
        std = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1)) if n > 1 else 0.0
        if n > 1:
            low, high = student(values)
        elif interval is not None:
            low, high = min(mean, interval[0]), max(mean, interval[1])
        elif unit == SHARE:
            low, high = wilson(mean, samples)
        else:
            raise HpmlError(f"Score.of: a single value of {metric!r} needs interval=, its interval over the samples")
        least, most = bounds or {SHARE: (0.0, 1.0), RATIO: (0.0, math.inf)}.get(unit, (-math.inf, math.inf))
        limits = (max(least, low), min(most, high))
        of_chips = n > 1 if chips is None else chips
        return cls(tuple(values), samples, mean, std, n, limits, metric, unit, higher_is_better, of_chips)

    @property
    def over(self) -> str:
        """What `values`, `std` and `ci95` run over: "chips", or "test samples" for a single value."""
        return "chips" if self.n > 1 else "test samples"

    def better_than(self, other: Score) -> bool:
        """Whether the mean is the better one of two scores of one metric.

        Args:
            other: of the same metric.
        """
        return self.mean > other.mean if self.higher_is_better else self.mean < other.mean

    def short(self) -> str:
        """Metric and mean in a few words, such as "accuracy 96.00 ± 1.00 %"."""
        return f"{self.metric} {self._figure()}"

    def __str__(self) -> str:
        return f"{self._figure()} {self.metric} (95 % interval {self._interval()}, {self._spread_over()})"

    def __repr__(self) -> str:
        return f"<Score {self}>"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        rows = [
            ("mean" + (" ± standard deviation" if self.n > 1 else ""), self._figure()),
            ("95 % interval", self._interval()),
            ("over", f"{self.n} chips" if self.n > 1 else f"{self.samples:,} test samples"),
        ]
        if self.chips and self.n == 1:
            rows.append(("chips", "1: the interval does not say how another chip would do"))
        return html_table(f"Score: {self.metric}", rows)

    def _spread_over(self) -> str:
        if self.n > 1:
            return f"{self.n} chips"
        return f"1 chip: over its {self.samples} samples only" if self.chips else f"{self.samples} samples"

    def _shown(self, value: float) -> str:
        return f"{100 * value:.2f}" if self.unit in _PERCENT else f"{value:.4g}"

    def _figure(self) -> str:
        spread = f" ± {self._shown(self.std)}" if self.n > 1 else ""
        unit = "%" if self.unit in _PERCENT else self.unit
        return f"{self._shown(self.mean)}{spread} {unit}".rstrip()

    def _interval(self) -> str:
        return "..".join(self._shown(bound) for bound in self.ci95)
