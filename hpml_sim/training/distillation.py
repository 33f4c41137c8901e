"""What training makes small: the task's loss with the labels, and the distance from a teacher's outputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hpml_sim.conversion.modes import eval_mode
from hpml_sim.conversion.modules import check_network, running
from hpml_sim.conversion.network_call import Inputs, call_network, samples_in, tensors_in
from hpml_sim.errors import HpmlError, check_real
from hpml_sim.tasks.task import Task

_TEACHER_BATCH = 500
_TEACHER_BYTES = 2**28
"""Outputs of a teacher that are kept for all epochs; larger ones are computed batch by batch."""


def check_teacher(teacher: object, temperature: object, alpha: object) -> tuple[float, float]:
    """Temperature and weight of a teacher, checked.

    Args:
        teacher: must be a network, or None.
        temperature: must be a number > 0.
        alpha: must be a number in [0, 1].

    Raises:
        HpmlError: one of them is not.
    """
    if teacher is not None:
        check_network("fit: teacher", teacher)
    return (
        check_real("fit: temperature", temperature, above=0, hint="try 4"),
        check_real("fit: alpha", alpha, low=0, high=1, hint="try 0.5"),
    )


class DistillationLoss:
    """The loss of a batch: (1 - alpha) loss(labels) + alpha distance(teacher, model), both of the task.

    For classes the distance is temperature^2 KL(teacher || model) of the softened outputs, for numbers the mean squared
    distance.

    Source: G. Hinton, O. Vinyals, J. Dean, arXiv:1503.02531, 2015.

    Args:
        task: its loss, its distillation, and how outputs and labels are read.
        teacher: takes what the model takes, left as it was found; None: the loss with the labels alone.
        temperature: of both outputs, > 0.
        alpha: weight of the teacher, in [0, 1].

    Attributes:
        task: the task.

    Raises:
        HpmlError: a teacher that is no network, or a number out of range.
    """

    def __init__(self, task: Task, teacher: nn.Module | None, temperature: float, alpha: float):
        self.task = task
        self._teacher = teacher
        self._temperature, self._alpha = check_teacher(teacher, temperature, alpha)

    def all_teacher_outputs(self, inputs: Tensor) -> Tensor | None:
        """The teacher's outputs for all inputs at once, to be kept for all epochs.

        Args:
            inputs: (samples, ...).

        Returns:
            (samples, ...); None without a teacher, or where they would take more than 256 MB.

        Raises:
            HpmlError: see `teacher_outputs`.
        """
        if self._teacher is None or len(inputs) == 0:
            return None
        parts, size = [], min(_TEACHER_BATCH, 8 if self.task.name != "classification" else _TEACHER_BATCH)
        for x in inputs.split(size):
            found = self.teacher_outputs(x)
            assert found is not None
            if found.nbytes / len(x) * len(inputs) > _TEACHER_BYTES:
                return None
            parts.append(found)
        return torch.cat(parts)

    def teacher_outputs(self, inputs: Inputs) -> Tensor | None:
        """The teacher's outputs for a batch.

        Args:
            inputs: (batch, ...), one or several.

        Returns:
            (batch, ...); None without a teacher.

        Raises:
            HpmlError: it fails on the inputs, or its outputs are not finite.
        """
        if self._teacher is None:
            return None
        with eval_mode(self._teacher), running("fit: teacher", self._teacher, list(tensors_in(inputs))):
            given = call_network(self._teacher, inputs)
        found = self.task.read("fit: teacher", given, type(self._teacher).__name__)
        count = samples_in(inputs)
        if found.dim() == 0 or len(found) != count or not torch.isfinite(found).all():
            raise HpmlError(
                f"fit: the teacher's output for {count} inputs has shape {tuple(found.shape)}; it must be finite "
                f"{self.task.layout}. For programmed chips, take the model that they were programmed from"
            )
        return found

    def __call__(self, outputs: Tensor, labels: Any, teacher: Tensor | None) -> Tensor:
        """The loss of a batch.

        Args:
            outputs: the model's, (batch, ...).
            labels: as the task's check gave them.
            teacher: what `teacher_outputs` gave for the same inputs; None without a teacher.

        Raises:
            HpmlError: outputs of model and teacher have different shapes.
        """
        if teacher is None:
            return self.task.loss(outputs, labels)
        if outputs.shape != teacher.shape:
            raise HpmlError(
                f"fit: the teacher's output {tuple(teacher.shape)} and the model's {tuple(outputs.shape)} "
                "must have the same shape"
            )
        soft = self.task.distillation(outputs, teacher, self._temperature, labels)
        if self._alpha == 1:  # labels count for nothing: a language model's logits need not be read again
            return soft
        return (1 - self._alpha) * self.task.loss(outputs, labels) + self._alpha * soft
