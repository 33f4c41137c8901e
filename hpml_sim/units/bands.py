"""`Band`: a figure with its low and high bound, and the arithmetic that keeps them."""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass

from hpml_sim.errors import HpmlError, check_real, shown


@dataclass(frozen=True)
class Band:
    """A non-negative figure known only within bounds, `low <= nominal <= high`, in SI units.

    Sums and products combine bounds as if the errors were fully correlated (low with low, high with high), the
    cautious choice for figures that come from the same card.

    Attributes:
        low: lower bound, at least 0.
        nominal: best guess.
        high: upper bound; infinite where nothing bounds it, as in `Band(0, 1, 2).inverse()`.

    Raises:
        HpmlError: a bound that is no number, or bounds out of order; arithmetic with what is no band or number.

    Example:
        >>> import hpml_sim as hs
        >>> hs.Band(1.0, 2.0, 4.0) + hs.Band.within(10.0, 0.5)
        Band(6, 12, 19)
        >>> hs.Band(1.0, 2.0, 4.0).inverse()
        Band(0.25, 0.5, 1)
    """

    low: float
    nominal: float
    high: float

    def __post_init__(self) -> None:
        if not all(map(_is_number, (self.low, self.nominal, self.high))):
            raise HpmlError(
                f"Band({shown(self.low)}, {shown(self.nominal)}, {shown(self.high)}): bounds must be numbers, "
                "0 <= low <= nominal <= high"
            )
        if not 0 <= self.low <= self.nominal <= self.high:  # NaN as well
            raise HpmlError(
                f"band ({self.low!r}, {self.nominal!r}, {self.high!r}) must satisfy 0 <= low <= nominal <= high"
            )

    @classmethod
    def exact(cls, value: float) -> Band:
        """A figure without uncertainty (a count, or a definition).

        Args:
            value: at least 0.
        """
        return cls(value, value, value)

    @classmethod
    def within(cls, value: float, fraction: float) -> Band:
        """A value plus or minus a share of it.

        Args:
            value: at least 0.
            fraction: the share, 0 to 1.
        """
        return cls(value * (1 - fraction), value, value * (1 + fraction))

    @classmethod
    def factor(cls, value: float, factor: float) -> Band:
        """A value divided and multiplied by a factor.

        Args:
            value: at least 0.
            factor: at least 1.
        """
        return cls(value / factor, value, value * factor)

    def __repr__(self) -> str:
        return f"Band({self.low:.3g}, {self.nominal:.3g}, {self.high:.3g})"

    def __add__(self, other: Band) -> Band:
        if not isinstance(other, Band):
            raise HpmlError(f"{self} + {shown(other)}: must be a band; of an exact number, hs.Band.exact(number)")
        return Band(self.low + other.low, self.nominal + other.nominal, self.high + other.high)

    def __mul__(self, other: Band | float) -> Band:
        if isinstance(other, Band):
            return Band(self.low * other.low, self.nominal * other.nominal, self.high * other.high)
        check_real("Band * factor: factor", other, low=0)
        return Band(self.low * other, self.nominal * other, self.high * other)

    __rmul__ = __mul__

    def __truediv__(self, other: float) -> Band:
        check_real("Band / divisor: divisor", other, above=0, hint="to divide by a band, multiply by its .inverse()")
        return Band(self.low / other, self.nominal / other, self.high / other)

    def __lt__(self, other: object) -> bool:
        raise HpmlError(f"{self} and {shown(other)}: bands have no order; compare .nominal, or .high with .low")

    __le__ = __gt__ = __ge__ = __lt__

    def inverse(self) -> Band:
        """1 / self, with the bounds swapped; an infinite bound becomes 0 and the other way round."""
        inv = [math.inf if v == 0 else 1 / v for v in (self.high, self.nominal, self.low)]
        return Band(*inv)

    def maximum(self, other: Band) -> Band:
        """The larger of two, bound by bound.

        Args:
            other: the other band.
        """
        return Band(max(self.low, other.low), max(self.nominal, other.nominal), max(self.high, other.high))


def _is_number(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


ZERO = Band(0.0, 0.0, 0.0)
_FAR = 1e3
"""A lower bound of 0 is taken this factor below the nominal value."""


def product(*factors: Band) -> Band:
    """The product of figures that have nothing to do with each other: a power and a time, an energy and an overhead.

    Bounds are the 5th and 95th percentile, so that those of a product of lognormals lie at exp(sqrt(sum of squares)) of
    the logarithms, not at the product of the bounds, which would be a case of one in hundreds or thousands.

    Args:
        factors: of the product.

    Example:
        >>> product(Band.factor(2.0, 3.0), Band.factor(5.0, 3.0))
        Band(2.11, 10, 47.3)
    """
    nominal = math.prod(f.nominal for f in factors)
    if nominal == 0:
        return Band(0.0, 0.0, math.prod(f.high for f in factors))
    up = math.sqrt(sum(math.log(f.high / f.nominal) ** 2 for f in factors))
    down = math.sqrt(sum(math.log(f.nominal / f.low if f.low > 0 else _FAR) ** 2 for f in factors))
    return Band(nominal * math.exp(-down), nominal, nominal * math.exp(up))
