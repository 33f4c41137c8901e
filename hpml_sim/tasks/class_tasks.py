"""Tasks whose labels are classes: one a sample, several a sample, or one a pixel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from hpml_sim.conversion.network_call import shapes_of
from hpml_sim.errors import HpmlError
from hpml_sim.tasks.metric import Metric
from hpml_sim.tasks.score import SHARE
from hpml_sim.tasks.task import IGNORED, Task, soft_targets

Outputs = str | int | Callable[[Any], Tensor] | None


def classification(*, metrics: Any = None, outputs: Outputs = None) -> Task:
    """One class a sample: cross-entropy of logits (batch, classes) with labels (batch,), whole numbers from 0.

    Args:
        metrics: what is measured; None takes the accuracy, which `hs.tasks.accuracy()` makes.
        outputs: how the logits are read, see `hs.Task`.

    Example:
        >>> import hpml_sim as hs
        >>> hs.tasks.classification(outputs="logits")
        <Task classification: accuracy, outputs='logits'>
    """
    return Task(
        loss=nn.functional.cross_entropy,
        metrics=accuracy() if metrics is None else metrics,
        outputs=outputs,
        name="classification",
        labels=_class_labels,
        distillation=soft_targets,
        layout="(batch, classes)",
        more_dims=1,
    )


def multi_label(*, metrics: Any = None, outputs: Outputs = None) -> Task:
    """Several labels a sample, each there or not: binary cross-entropy of logits (batch, labels) with zeros and ones.

    Args:
        metrics: what is measured; None takes F1 (the mean over labels; a logit > 0 says yes) and the share of all
            labels that are right.
        outputs: how the logits are read, see `hs.Task`.

    Example:
        >>> import hpml_sim as hs
        >>> hs.tasks.multi_label()
        <Task multi_label: F1, label accuracy>
    """
    own = (
        Metric("F1", _label_counts, _macro_f1, unit=SHARE),
        Metric("label accuracy", lambda y, t: ((y > 0) == (t > 0.5)).double().mean(1), unit=SHARE),
    )
    return Task(
        loss=nn.functional.binary_cross_entropy_with_logits,
        metrics=own if metrics is None else metrics,
        outputs=outputs,
        name="multi_label",
        labels=_yes_or_no,
        distillation=_soft_yes_or_no,
        layout="(batch, labels)",
        more_dims=0,
    )


def segmentation(*, metrics: Any = None, outputs: Outputs = None) -> Task:
    """One class a pixel: cross-entropy of logits (batch, classes, ...) with labels (batch, ...), -100 left out.

    Args:
        metrics: what is measured; None takes the intersection over union, its mean over the classes that are there, and
            the share of the pixels that are right.
        outputs: how the logits are read, see `hs.Task`.

    Example:
        >>> import hpml_sim as hs
        >>> hs.tasks.segmentation()
        <Task segmentation: mean IoU, pixel accuracy>
    """
    own = (
        Metric("mean IoU", class_counts, _mean_iou, unit=SHARE),
        Metric("pixel accuracy", _right_positions, unit=SHARE),
    )
    return Task(
        loss=nn.functional.cross_entropy,
        metrics=own if metrics is None else metrics,
        outputs=outputs,
        name="segmentation",
        labels=_class_maps,
        distillation=soft_targets,
        layout="(batch, classes, ...)",
        more_dims=1,
    )


# ---------------------------------------------------------------------------------------------------------- metrics


def accuracy() -> Metric:
    """The share of samples whose largest logit is that of their class.

    Example:
        >>> import hpml_sim as hs
        >>> hs.tasks.accuracy()
        <Metric accuracy, share, higher is better>
    """
    return Metric("accuracy", _right, unit=SHARE, right_or_wrong=True)


def f1() -> Metric:
    """F1 of each class, 2 tp / (2 tp + fp + fn), its mean over the classes that are there or were said to be.

    Example:
        >>> import hpml_sim as hs
        >>> hs.tasks.classification(metrics=[hs.tasks.accuracy(), hs.tasks.f1()])
        <Task classification: accuracy, F1>
    """
    return Metric("F1", class_counts, _macro_f1, unit=SHARE)


def _right(outputs: Tensor, labels: Tensor) -> Tensor:
    return (outputs.argmax(dim=-1) == labels).double()


def _right_positions(outputs: Tensor, labels: Tensor) -> Tensor:
    meant = labels != IGNORED
    right = (outputs.argmax(dim=1) == labels) & meant
    return torch.stack([right.flatten(1).sum(1), meant.flatten(1).sum(1)], dim=1)


def class_counts(outputs: Tensor, labels: Tensor) -> Tensor:
    """True positives, predictions and labels of each class, (batch, 3 x classes).

    Args:
        outputs: logits, (batch, classes, ...).
        labels: (batch, ...); -100 is left out.
    """
    batch, classes = outputs.shape[:2]
    said, true = outputs.argmax(dim=1).reshape(batch, -1), labels.reshape(batch, -1)
    meant = true != IGNORED

    def counted(values: Tensor, where: Tensor) -> Tensor:
        place = torch.arange(batch, device=values.device)[:, None] * classes + values
        return torch.bincount(place[where], minlength=batch * classes).view(batch, classes)

    return torch.cat([counted(said, meant & (said == true)), counted(said, meant), counted(true, meant)], dim=1)


def _label_counts(outputs: Tensor, labels: Tensor) -> Tensor:
    """The same for labels that are there or not, (batch, 3 x labels)."""
    said, true = outputs > 0, labels > 0.5
    return torch.cat([said & true, said, true], dim=1).double()


def _macro_f1(sums: Tensor) -> Tensor:
    right, said, true = sums.chunk(3, dim=-1)
    return _mean_where_there(2 * right, said + true)


def _mean_iou(sums: Tensor) -> Tensor:
    right, said, true = sums.chunk(3, dim=-1)
    return _mean_where_there(right, said + true - right)


def _mean_where_there(part: Tensor, whole: Tensor) -> Tensor:
    """The mean of part / whole over classes whose whole is not 0; NaN where there are none."""
    there = whole > 0
    share = torch.where(there, part / whole.clamp(min=1), torch.zeros_like(part))
    return share.sum(-1) / there.sum(-1)


# ----------------------------------------------------------------------------------------------------------- labels


def _class_labels(where: str, labels: Any, inputs: int, outputs: Tensor | None) -> Tensor:
    if not isinstance(labels, Tensor) or labels.dim() != 1 or len(labels) != inputs:
        given = tuple(labels.shape) if isinstance(labels, Tensor) else shapes_of(labels)
        raise HpmlError(
            f"{where}: labels of shape {given} for {inputs} inputs: must be one whole number for each input, shape "
            f"(batch,); of one-hot labels take labels.argmax(dim=1); {OTHER_TASKS}"
        )
    if outputs is not None and outputs.dim() != 2:
        raise HpmlError(
            f"{where}: for {inputs} inputs the model gave shape {tuple(outputs.shape)}; expected (batch, classes); "
            f"{OTHER_TASKS}"
        )
    return whole_numbers(where, labels, None if outputs is None else outputs.shape[1])


def _class_maps(where: str, labels: Any, inputs: int, outputs: Tensor | None) -> Tensor:
    if not isinstance(labels, Tensor) or labels.dim() < 2 or len(labels) != inputs:
        raise HpmlError(
            f"{where}: labels {shapes_of(labels)} for {inputs} inputs: segmentation needs a class for each pixel, "
            f"(batch, ...); {OTHER_TASKS}"
        )
    if outputs is not None and (outputs.dim() != labels.dim() + 1 or outputs.shape[2:] != labels.shape[1:]):
        raise HpmlError(
            f"{where}: outputs {tuple(outputs.shape)} do not fit labels {tuple(labels.shape)}: segmentation needs "
            f"(batch, classes, ...) and (batch, ...); {OTHER_TASKS}"
        )
    return whole_numbers(where, labels, None if outputs is None else outputs.shape[1], ignored=True)


def whole_numbers(where: str, labels: Tensor, classes: int | None, *, ignored: bool = False) -> Tensor:
    """Labels that are classes as int64.

    Args:
        where: begins the message.
        labels: of any shape.
        classes: how many outputs there are; None where that is not known yet.
        ignored: whether -100 is allowed: a label that is left out.

    Raises:
        HpmlError: another type, or a label that is no output of the network.
    """
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise HpmlError(
            f"{where}: labels are {labels.dtype}: must be whole numbers from 0; give labels.long() if they are "
            f"classes; {OTHER_TASKS}"
        )
    labels = labels.long()
    meant = labels[labels != IGNORED] if ignored else labels
    if len(meant):
        low, high = (int(bound) for bound in torch.aminmax(meant))
        if low < 0:
            raise HpmlError(f"{where}: label {low}: labels must be whole numbers >= 0; number the classes from 0")
        if classes is not None and high >= classes:
            raise HpmlError(
                f"{where}: label {high}, but the model has {classes} outputs, for labels 0 to {classes - 1}; "
                f"{OTHER_TASKS}"
            )
    return labels


def _yes_or_no(where: str, labels: Any, inputs: int, outputs: Tensor | None) -> Tensor:
    if not isinstance(labels, Tensor) or labels.dim() not in (1, 2) or len(labels) != inputs:
        raise HpmlError(
            f"{where}: labels {shapes_of(labels)} for {inputs} inputs: must be zeros and ones, (batch, labels); "
            f"{OTHER_TASKS}"
        )
    labels = labels.unsqueeze(1) if labels.dim() == 1 else labels
    if outputs is not None and outputs.shape != labels.shape:
        raise HpmlError(
            f"{where}: outputs {tuple(outputs.shape)} and labels {tuple(labels.shape)} must have the same shape, "
            f"(batch, labels); {OTHER_TASKS}"
        )
    found = labels.float()
    if not bool(((found == 0) | (found == 1)).all()):
        raise HpmlError(f"{where}: labels {shapes_of(labels)} hold other values than 0 and 1; {OTHER_TASKS}")
    return found if outputs is None else found.to(outputs.dtype)


def _soft_yes_or_no(outputs: Tensor, teacher: Tensor, temperature: float, _: Any = None) -> Tensor:
    """temperature^2 times the cross-entropy with the teacher's softened answers, less the teacher's own entropy."""
    soft = (teacher / temperature).sigmoid()
    cross = nn.functional.binary_cross_entropy_with_logits(outputs / temperature, soft)
    own = nn.functional.binary_cross_entropy_with_logits(teacher / temperature, soft)
    return temperature**2 * (cross - own)


OTHER_TASKS = "for another task give task=, such as 'regression' (hs.tasks has them)"
"""Next step where labels do not fit."""
