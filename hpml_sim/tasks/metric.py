"""`Metric`: what is measured of outputs, and how it adds up over the batches of a data set."""

from __future__ import annotations

import importlib
import math
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hpml_sim.errors import HpmlError, shown
from hpml_sim.tasks.score import RATIO, SHARE

PerSample = Callable[[Tensor, Any], Tensor]
"""(outputs, labels) of a batch -> (batch,), or (batch, parts) to be added up."""


def mean_of(sums: Tensor) -> Tensor:
    """The first sum divided by the second one: a mean where the second one counts.

    Args:
        sums: over samples, (..., 2).
    """
    return sums[..., 0] / sums[..., 1]


@dataclass(frozen=True)
class Metric:
    """What is measured of a network's outputs.

    Attributes:
        name: in tables, such as "accuracy".
        measure: how a batch is measured: a function (outputs, labels) -> (batch,), one figure a sample, whose mean is
            the metric; or -> (batch, parts), which are added up over all samples and go to `of_sums`; or a metric of
            torchmetrics, as an object, its class, or the name of the class, such as "regression.SpearmanCorrCoef",
            which is imported when it is asked for.
        of_sums: the metric from the sums, (..., parts) -> (...). Read where `measure` gives parts.
        unit: "share" for a number in [0, 1] and "ratio" for one >= 0, which people read in percent; otherwise as it is
            written, such as "dB", and "" where there is none.
        higher_is_better: whether a larger value is the better one.
        bounds: that no value can leave; its interval is cut there.
        right_or_wrong: whether each sample is a 1 or a 0, so that Wilson's interval holds; otherwise the samples are
            drawn again (bootstrap).

    Raises:
        HpmlError: a field of another kind.

    Example:
        >>> import torch, hpml_sim as hs
        >>> hs.tasks.Metric("absolute error", lambda y, t: (y - t).abs().mean(1), unit="K", higher_is_better=False)
        <Metric absolute error, K, lower is better>
    """

    name: str
    measure: Any
    of_sums: Callable[[Tensor], Tensor] = mean_of
    unit: str = ""
    higher_is_better: bool = True
    bounds: tuple[float, float] | None = None
    right_or_wrong: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise HpmlError(f"Metric: name={shown(self.name)}: must be text, such as 'accuracy'")
        if not (callable(self.measure) or isinstance(self.measure, str)):
            raise HpmlError(
                f"Metric {self.name!r}: measure={shown(self.measure)}: must be a function (outputs, labels) -> "
                "(batch,) or a metric of torchmetrics"
            )
        if not isinstance(self.unit, str) or not isinstance(self.higher_is_better, bool):
            raise HpmlError(
                f"Metric {self.name!r}: unit={shown(self.unit)} must be text, and "
                f"higher_is_better={shown(self.higher_is_better)} True or False"
            )

    def __repr__(self) -> str:
        unit = f", {self.unit}" if self.unit else ""
        return f"<Metric {self.name}{unit}, {'higher' if self.higher_is_better else 'lower'} is better>"

    @property
    def column(self) -> str:
        """Its name in the columns of a table: lower case, without blanks."""
        return column_of(self.name)

    @property
    def limits(self) -> tuple[float, float]:
        """The bounds of its values: those given, or those of its unit."""
        return self.bounds or {SHARE: (0.0, 1.0), RATIO: (0.0, math.inf)}.get(self.unit, (-math.inf, math.inf))

    @property
    def from_torchmetrics(self) -> bool:
        """Whether torchmetrics measures it."""
        return isinstance(self.measure, str) or _made_by_torchmetrics(self.measure)

    def accumulator(self) -> Any:
        """A metric of torchmetrics of its own, on the CPU, that has seen nothing.

        Raises:
            HpmlError: torchmetrics has none of this name, or it needs arguments or a package that is missing.
        """
        measure = self.measure
        try:
            if isinstance(measure, str):
                module, _, name = measure.rpartition(".")
                measure = getattr(importlib.import_module(".".join(filter(None, ("torchmetrics", module)))), name)
            with warnings.catch_warnings():  # of rank correlations, which have to keep all outputs
                warnings.filterwarnings("ignore", ".* will save all targets", UserWarning)
                made = measure() if isinstance(measure, type) else measure.clone()
        except (ImportError, AttributeError, TypeError, ValueError) as error:
            what = measure if isinstance(measure, str) else getattr(measure, "__name__", type(measure).__name__)
            raise HpmlError(
                f"metric {self.name!r}: torchmetrics' {what} cannot be made ({type(error).__name__}: "
                f"{' '.join(str(error).split())[:200]}); install what it needs, or give an object with its arguments"
            ) from error
        made.reset()
        return made.cpu()

    def sums(self, outputs: Tensor, labels: Any) -> Tensor:
        """What a batch adds to the sums, (batch, parts), in double precision.

        Args:
            outputs: of one network, (batch, ...).
            labels: of the batch.

        Raises:
            HpmlError: `measure` gives something else.
        """
        found = self.measure(outputs, labels)
        if isinstance(found, Tensor) and found.dim() == 1 and len(found) == len(outputs):
            found = torch.stack([found, torch.ones_like(found)], dim=1)
        if not isinstance(found, Tensor) or found.dim() != 2 or len(found) != len(outputs):
            given = f"a tensor {tuple(found.shape)}" if isinstance(found, Tensor) else shown(found)
            raise HpmlError(
                f"metric {self.name!r}: of {len(outputs)} samples its function gave {given}; it must give one figure a "
                "sample, (batch,), or parts to be added up, (batch, parts)"
            )
        return found.double()


def column_of(name: str) -> str:
    """The name of a metric in the columns of a table: lower case, without blanks.

    Args:
        name: of a metric, such as "mean IoU".
    """
    return "_".join(name.lower().replace("-", " ").split())


def as_metrics(given: Any) -> tuple[Metric, ...]:
    """The metrics that somebody gave to a task.

    Args:
        given: a `Metric`, a metric of torchmetrics, or several of them.

    Raises:
        HpmlError: something else, none at all, two of one name, or a metric of torchmetrics that does not say which way
            is better.
    """
    several = given if isinstance(given, Sequence) and not isinstance(given, str) else (given,)
    found = tuple(_as_metric(one) for one in several)
    names = [metric.column for metric in found]
    if not found or len(set(names)) < len(names):
        raise HpmlError(f"metrics={[metric.name for metric in found]}: give at least one, and none twice")
    return found


def _as_metric(given: Any) -> Metric:
    if isinstance(given, Metric):
        return given
    if _made_by_torchmetrics(given):
        kind = given if isinstance(given, type) else type(given)
        better = kind.higher_is_better
        if better is None:
            raise HpmlError(
                f"metrics: torchmetrics' {kind.__name__} does not say which way is better; give "
                f"hs.tasks.Metric({kind.__name__!r}, {kind.__name__}(), higher_is_better=True or False)"
            )
        low = -math.inf if kind.plot_lower_bound is None else float(kind.plot_lower_bound)
        return Metric(kind.__name__, given, higher_is_better=better, bounds=(low, math.inf))
    raise HpmlError(
        f"metrics={shown(given)}: must be hs.tasks.Metric(name, function) or a metric of torchmetrics, or several"
    )


def _made_by_torchmetrics(given: Any) -> bool:
    """Whether something is a metric of torchmetrics, or a class of one; nothing is imported to find out."""
    library = sys.modules.get("torchmetrics")
    if library is None:
        return False
    return isinstance(given, library.Metric) or (isinstance(given, type) and issubclass(given, library.Metric))
