"""`Score`: one quality of a network on test data, with its spread."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hpml_sim.errors import HpmlError
from hpml_sim.units.display import html_table

SHARE = "share"
"""Unit of a figure in [0, 1] that people read in percent."""


@dataclass(frozen=True)
class Score:
    """What `evaluate` measured: one value a chip, or a single one for a digital network.

    Attributes:
        metric: name of what was measured; "accuracy" is the share of test samples classified right.
        unit: of every value; "share" is a number in [0, 1], which text and tables show in percent.
        higher_is_better: whether a larger value is the better one.
        values: one a chip, or a single one.
        samples: size of the test set.
        mean: over `values`.
        std: sample standard deviation over `values`; 0 for a single one.
        n: how many values.
        ci95: 95 % interval of the mean: Student's t over chips; for one value Wilson's interval over the test samples.

    Raises:
        HpmlError: a figure that is NaN, infinite, or not the share that its unit says.

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

    def __post_init__(self) -> None:
        figures = (*self.values, self.mean, self.std, *self.ci95)
        if not (self.values and self.n == len(self.values) and all(map(math.isfinite, figures))):
            raise HpmlError(
                f"{self.metric}: values={self.values!r}, n={self.n!r}, mean={self.mean!r}, std={self.std!r}, "
                f"ci95={self.ci95!r} must be finite, with n values; evaluate again"
            )
        if self.unit == SHARE and not all(0 <= figure <= 1 for figure in figures):
            raise HpmlError(f"{self.metric}: {figures!r} must all lie in [0, 1], as shares do")

    @classmethod
    def of(cls, values: list[float], samples: int) -> Score:
        """The accuracy of one network, or of many chips, with its spread.

        Args:
            values: share of test samples classified right, one a chip, each in [0, 1].
            samples: size of the test set, >= 1.

        Raises:
            HpmlError: no values, or one outside [0, 1].

        Source: Student's t over chips; E. B. Wilson, JASA 22:209, 1927, for a single value.
        """
        if not values:
            raise HpmlError("Score.of: values=[] must hold at least one value, such as the accuracy of one network")
        n = len(values)
        mean = math.fsum(values) / n
        std = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1)) if n > 1 else 0.0
        if n > 1:
            from scipy.stats import t

            half = float(t.ppf(0.975, n - 1)) * std / math.sqrt(n)
            interval = (max(0.0, mean - half), min(1.0, mean + half))
        else:
            interval = _wilson(mean, samples)
        return cls(tuple(values), samples, mean, std, n, interval)

    @property
    def over(self) -> str:
        """What `values`, `std` and `ci95` run over: "chips", or "test samples" for a single value."""
        return "chips" if self.n > 1 else "test samples"

    def __str__(self) -> str:
        over = f"{self.n} chips" if self.n > 1 else f"{self.samples} samples"
        return f"{self._figure()} {self.metric} (95 % interval {self._interval()}, {over})"

    def __repr__(self) -> str:
        return f"<Score {self}>"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        rows = [
            ("mean" + (" ± standard deviation" if self.n > 1 else ""), self._figure()),
            ("95 % interval", self._interval()),
            ("over", f"{self.n} chips" if self.n > 1 else f"{self.samples:,} test samples"),
        ]
        return html_table(f"Score: {self.metric}", rows)

    def _shown(self, value: float) -> str:
        return f"{100 * value:.2f}" if self.unit == SHARE else f"{value:.4g}"

    def _figure(self) -> str:
        spread = f" ± {self._shown(self.std)}" if self.n > 1 else ""
        unit = "%" if self.unit == SHARE else self.unit
        return f"{self._shown(self.mean)}{spread} {unit}".rstrip()

    def _interval(self) -> str:
        return "..".join(self._shown(bound) for bound in self.ci95)


def _wilson(share: float, n: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """Wilson's score interval of a binomial share (E. B. Wilson, JASA 22:209, 1927)."""
    center = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, min(share, center - half)), min(1.0, max(share, center + half))  # rounding may leave the share out
