"""Tasks whose labels are numbers: regression and reconstruction."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from hpml_sim.conversion.network_call import shapes_of
from hpml_sim.errors import HpmlError, check_real
from hpml_sim.tasks.class_tasks import OTHER_TASKS, Outputs
from hpml_sim.tasks.metric import Metric
from hpml_sim.tasks.task import Loss, Task

_MAX_COLUMNS = 64
"""So many outputs are told apart by R2; more are taken as one."""


def regression(
    *, unit: str = "", loss: Loss = nn.functional.mse_loss, metrics: Any = None, outputs: Outputs = None
) -> Task:
    """Numbers: squared error of outputs (batch, ...) with labels of the same shape, or (batch,) for one output.

    Args:
        unit: of the labels, such as "K"; "" where they have none.
        loss: (outputs, labels) -> scalar.
        metrics: what is measured; None takes RMSE and MAE over all outputs, and R2, its mean over the outputs.
        outputs: how the numbers are read, see `hs.Task`.

    Example:
        >>> import hpml_sim as hs
        >>> hs.tasks.regression(unit="K")
        <Task regression: RMSE, MAE, R2>
    """
    own = (
        Metric("RMSE", _squared, _root_mean, unit=unit, higher_is_better=False, bounds=(0.0, math.inf)),
        Metric("MAE", _absolute, unit=unit, higher_is_better=False, bounds=(0.0, math.inf)),
        Metric("R2", _moments, _r2, bounds=(-math.inf, 1.0)),
    )
    return Task(
        loss=loss,
        metrics=own if metrics is None else metrics,
        outputs=outputs,
        name="regression",
        labels=number_labels,
        layout="(batch, ...), as the labels",
    )


def reconstruction(*, peak: float | None = None, metrics: Any = None, outputs: Outputs = None) -> Task:
    """The input again, or a clean one: squared error of outputs with labels of as many numbers a sample.

    Args:
        peak: largest value that a signal can have, > 0: PSNR, 10 log10(peak^2 / MSE), is then measured as well.
        metrics: what is measured; None takes the mean squared error, and PSNR where `peak` is known.
        outputs: how the reconstruction is read, see `hs.Task`.

    Raises:
        HpmlError: a peak that is no number > 0.

    Example:
        >>> import hpml_sim as hs
        >>> hs.tasks.reconstruction(peak=1.0)
        <Task reconstruction: MSE, PSNR>
    """
    own = [Metric("MSE", _squared, higher_is_better=False, bounds=(0.0, math.inf))]
    if peak is not None:
        top = check_real("reconstruction: peak", peak, above=0, hint="1.0 for values in [0, 1]")
        own.append(Metric("PSNR", _squared, _Decibels(top), unit="dB"))
    return Task(
        loss=nn.functional.mse_loss,
        metrics=own if metrics is None else metrics,
        outputs=outputs,
        name="reconstruction",
        labels=number_labels,
        layout="(batch, ...), as the labels",
    )


class _Decibels:
    """PSNR from the sums of squared errors."""

    def __init__(self, peak: float):
        self._peak = peak

    def __call__(self, sums: Tensor) -> Tensor:
        return 10 * torch.log10(self._peak**2 * sums[..., 1] / sums[..., 0])


def _squared(outputs: Tensor, labels: Tensor) -> Tensor:
    error = (outputs.double() - labels.double()).reshape(len(outputs), -1)
    return torch.stack([error.square().sum(1), torch.full_like(error[:, 0], error.shape[1])], dim=1)


def _absolute(outputs: Tensor, labels: Tensor) -> Tensor:
    error = (outputs.double() - labels.double()).reshape(len(outputs), -1)
    return torch.stack([error.abs().sum(1), torch.full_like(error[:, 0], error.shape[1])], dim=1)


def _root_mean(sums: Tensor) -> Tensor:
    return (sums[..., 0] / sums[..., 1]).sqrt()


def _moments(outputs: Tensor, labels: Tensor) -> Tensor:
    """Squared error, label, its square and 1 for each output, (batch, 4 x outputs)."""
    y, t = (value.double().reshape(len(outputs), -1) for value in (outputs, labels))
    found = torch.stack([(y - t).square(), t, t.square(), torch.ones_like(t)], dim=1)
    return (found.sum(2, keepdim=True) if y.shape[1] > _MAX_COLUMNS else found).flatten(1)


def _r2(sums: Tensor) -> Tensor:
    """1 - residual / total sum of squares of each output, their mean."""
    error, total, squares, count = sums.unflatten(-1, (4, -1)).unbind(-2)
    return (1 - error / (squares - total.square() / count)).mean(-1)


def number_labels(where: str, labels: Any, inputs: int, outputs: Tensor | None) -> Tensor:
    """Labels that are numbers, in the shape and type of the outputs.

    Args:
        where: begins the message.
        labels: (batch, ...).
        inputs: samples of the batch.
        outputs: (batch, ...); None where they are not known yet.

    Raises:
        HpmlError: NaN, infinity, another number of labels, or a shape that is not that of the outputs.
    """
    if not isinstance(labels, Tensor) or labels.dim() < 1 or len(labels) != inputs or labels.is_complex():
        raise HpmlError(
            f"{where}: labels {shapes_of(labels)} for {inputs} inputs: must be numbers (batch, ...); {OTHER_TASKS}"
        )
    if labels.is_floating_point() and not bool(torch.isfinite(labels).all()):
        raise HpmlError(f"{where}: labels {shapes_of(labels)} hold NaN or infinity; leave these samples out")
    if outputs is None:
        return labels
    if not outputs.is_floating_point():
        raise HpmlError(f"{where}: the model gave {shapes_of(outputs)}; numbers must be floating-point; {OTHER_TASKS}")
    flat = min(outputs.dim(), labels.dim()) <= 2
    if outputs.numel() != labels.numel() or not (flat or _sizes(outputs) == _sizes(labels)):
        raise HpmlError(
            f"{where}: outputs {tuple(outputs.shape)} and labels {tuple(labels.shape)} must have the same shape; "
            f"{OTHER_TASKS}"
        )
    return labels.reshape(outputs.shape).to(outputs.dtype)


def _sizes(value: Tensor) -> list[int]:
    """Of a sample, without the dimensions of one: labels (batch,) stand for (batch, 1)."""
    return [size for size in value.shape[1:] if size != 1]
