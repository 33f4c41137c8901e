"""How the report writes the figures of a metric: its name, unit and direction, and the axis of a plot."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hpml_sim.report.summary import AccuracySummary, TargetSummary
from hpml_sim.report.wording import percent
from hpml_sim.tasks.score import RATIO, SHARE
from hpml_sim.units.formatting import digits

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ACCURACY = "accuracy"
_PERPLEXITY = "perplexity"
_MANY_TIMES = 2.0
"""From this ratio on, a change of a figure without bounds is told as a ratio."""


@dataclass(frozen=True)
class MetricWords:
    """Words and numbers of one metric.

    Attributes:
        name: of the metric, such as "perplexity".
        unit: of its figures, as of an `hs.Score`: "share" and "ratio" are written in percent.
        higher_is_better: whether a larger value is the better one.
    """

    name: str = _ACCURACY
    unit: str = SHARE
    higher_is_better: bool = True

    @property
    def is_accuracy(self) -> bool:
        """Whether it is the share of the test samples classified right."""
        return self.name == _ACCURACY and self.in_percent

    @property
    def in_percent(self) -> bool:
        """Whether its figures are written in percent."""
        return self.unit in (SHARE, RATIO)

    @property
    def scale(self) -> float:
        """What a figure is multiplied by before it is drawn."""
        return 100.0 if self.in_percent else 1.0

    @property
    def sign(self) -> str:
        """The unit behind a number: "%", "K", or "" for none."""
        return "%" if self.in_percent else self.unit

    @property
    def title(self) -> str:
        """The name as a heading begins: "Accuracy", "RMSE", "Mean IoU"."""
        return self.name[:1].upper() + self.name[1:]

    @property
    def named(self) -> str:
        """Name and unit: "accuracy, %", "perplexity"."""
        return f"{self.name}, {self.sign}" if self.sign else self.name

    @property
    def direction(self) -> str:
        """Which way is better, in words."""
        return "higher is better" if self.higher_is_better else "lower is better"

    @property
    def hint(self) -> str:
        """As `direction`, but only where a reader would expect the other way; "" otherwise."""
        return "" if self.higher_is_better else self.direction

    @property
    def definition(self) -> str:
        """What the figures of the table are, up to their spread."""
        if self.is_accuracy:
            return "Accuracy: share of the test samples classified correctly, in %"
        return f"{self.title} on the test samples{f', in {self.sign}' if self.sign else ''}, {self.direction}"

    def value(self, figure: float, places: int = 2) -> str:
        """A figure without its unit: "96.41" of a share, "18.73" of a perplexity.

        Args:
            figure: of the metric.
            places: decimals of a percentage; other figures have two significant digits more.
        """
        return percent(figure, places) if self.in_percent else _number(figure, places + 2)

    def spread(self, std: float, places: int = 2) -> str:
        """A standard deviation without its unit; of other figures than percentages two significant digits.

        Args:
            std: of the metric.
            places: decimals of a percentage.
        """
        return percent(std, places) if self.in_percent else _number(std, 2)

    def with_unit(self, number: str) -> str:
        """A written number with its unit behind.

        Args:
            number: from `value` or `spread`.
        """
        return f"{number} {self.sign}".rstrip()

    def rank(self, figure: float) -> float:
        """A key that sorts the best figure first.

        Args:
            figure: of the metric.
        """
        return -figure if self.higher_is_better else figure

    def in_full(self, shown: AccuracySummary) -> str:
        """A figure with its 95 % interval and what that runs over, for a hover text.

        Args:
            shown: of this metric.
        """
        low, high = (self.value(bound) for bound in shown.ci95)
        figure = self.with_unit(self.value(shown.mean))
        text = f"{figure} (95 % interval {low} to {high}, {shown.spread})"
        return text if self.is_accuracy else f"{self.name} {text}"

    def change(self, target: str, first: float, last: float) -> str:
        """What became of a figure: "loses 1.2 points", "the perplexity of ... rises by 1.6" or "... 480 times".

        Args:
            target: whose figure it is.
            first: figure at the first time.
            last: figure at the last one.
        """
        by = last - first
        if not self.in_percent and min(first, last) > 0 and max(first, last) >= _MANY_TIMES * min(first, last):
            times = digits(max(first, last) / min(first, last), 2)
            return f"The {self.name} of {target} {'rises' if by > 0 else 'falls'} {times} times"
        if self.is_accuracy:
            return f"{target} {'loses' if by < 0 else 'gains'} {abs(100 * by):.1f} points"
        amount = f"{abs(100 * by):.1f} points" if self.in_percent else self.with_unit(self.spread(abs(by)))
        return f"The {self.name} of {target} {'falls' if by < 0 else 'rises'} by {amount}"

    def unchanged(self, first: float, last: float) -> bool:
        """Whether two figures are the same for a reader.

        Args:
            first: one figure.
            last: the other one.
        """
        if self.in_percent:
            return abs(100 * (last - first)) < 0.05
        return self.value(first, 1) == self.value(last, 1)

    def axis(self, log: bool) -> str:
        """What the axis of a plot is called.

        Args:
            log: whether it is logarithmic.
        """
        remarks = ", ".join(word for word in ("log axis" if log else "", self.hint) if word)
        return f"test {self.named}{f' ({remarks})' if remarks else ''}"


def words_of(targets: Sequence[TargetSummary]) -> MetricWords:
    """The words of the main metric of a run; those of accuracy where nothing was scored.

    Args:
        targets: of the run: one task, so one main metric.
    """
    for target in targets:
        for _, shown in target.supported:
            return MetricWords(shown.metric, shown.unit, shown.higher_is_better)
    return MetricWords()


def is_logarithmic(words: MetricWords, shown: Iterable[AccuracySummary]) -> bool:
    """Whether the axis of a metric is logarithmic: of a perplexity, and of positive numbers over a decade or more.

    Args:
        words: of the metric.
        shown: every figure that is drawn.
    """
    found = list(shown)
    least = min((min(a.ci95[0], *a.values, a.mean) for a in found), default=0.0)
    most = max((a.mean for a in found), default=0.0)
    if words.in_percent or least <= 0:
        return False
    return words.name == _PERPLEXITY or most >= 10 * min(a.mean for a in found)


def draw_log_axis(axes: Axes) -> None:
    """Make the vertical axis logarithmic, with plain numbers beside it.

    Args:
        axes: whose limits are already those of what is drawn.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    axes.set_yscale("log")
    axes.margins(y=0.08)
    low, high = axes.get_ylim()
    # on less than a decade the round powers of ten would leave an axis without a number
    narrow = high < 10 * low
    locator = MaxNLocator(6) if narrow else LogLocator(subs=(1.0, 2.0, 5.0) if high < 1000 * low else (1.0,))
    axes.yaxis.set_major_locator(locator)
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))


def _number(figure: float, figures: int) -> str:
    """A number with significant digits; in exponent notation where it would not fit a column."""
    if figure != 0 and not 1e-5 <= abs(figure) < 1e7:
        return f"{figure:.{figures - 1}e}"
    return digits(figure, figures)
