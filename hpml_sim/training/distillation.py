"""What training makes small: cross-entropy with the labels, and with a teacher's softened outputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hpml_sim.conversion.modes import eval_mode
from hpml_sim.conversion.modules import check_network, running
from hpml_sim.errors import HpmlError, check_real

_TEACHER_BATCH = 500


class DistillationLoss:
    """The loss of a batch: (1 - alpha) CE(labels) + alpha temperature^2 KL(teacher || model).

    Source: G. Hinton, O. Vinyals, J. Dean, arXiv:1503.02531, 2015.

    Args:
        teacher: (batch, ...) -> logits, left as it was found; None: cross-entropy alone.
        temperature: of both distributions of KL, > 0.
        alpha: weight of the teacher, in [0, 1].

    Raises:
        HpmlError: a teacher that is no network, or a number out of range.
    """

    def __init__(self, teacher: nn.Module | None, temperature: float, alpha: float):
        self._teacher = None if teacher is None else check_network("fit: teacher", teacher)
        self._temperature = check_real("fit: temperature", temperature, above=0, hint="try 4")
        self._alpha = check_real("fit: alpha", alpha, low=0, high=1, hint="try 0.5")

    def teacher_log_probs(self, inputs: Tensor) -> Tensor | None:
        """The teacher's log-probabilities at the temperature.

        Args:
            inputs: (samples, ...).

        Returns:
            (samples, classes); None without a teacher.

        Raises:
            HpmlError: its output is no finite logits.
        """
        if self._teacher is None:
            return None
        with eval_mode(self._teacher):
            parts = []
            for x in inputs.split(_TEACHER_BATCH):
                with running("fit: teacher", self._teacher, [x]):
                    parts.append(self._teacher(x))
            logits = torch.cat(parts)
        if logits.dim() != 2 or len(logits) != len(inputs) or not torch.isfinite(logits).all():
            raise HpmlError(
                f"fit: the teacher's output for {len(inputs)} inputs has shape {tuple(logits.shape)}; it must be "
                "finite logits (batch, classes). For programmed chips, take the model that they were programmed from"
            )
        return (logits / self._temperature).log_softmax(-1)

    def __call__(self, logits: Tensor, labels: Tensor, teacher_log_probs: Tensor | None) -> Tensor:
        """The loss of a batch.

        Args:
            logits: the model's, (batch, classes).
            labels: (batch,), whole numbers >= 0.
            teacher_log_probs: what `teacher_log_probs` gave for the same inputs, (batch, classes); None without a
                teacher.

        Raises:
            HpmlError: model and teacher have different numbers of classes.
        """
        loss = nn.functional.cross_entropy(logits, labels)
        if teacher_log_probs is None:
            return loss
        if logits.shape != teacher_log_probs.shape:
            raise HpmlError(
                f"fit: the teacher's output {tuple(teacher_log_probs.shape)} and the model's {tuple(logits.shape)} "
                "must have the same shape"
            )
        soft = nn.functional.kl_div(
            (logits / self._temperature).log_softmax(-1), teacher_log_probs, reduction="batchmean", log_target=True
        )
        return (1 - self._alpha) * loss + self._alpha * self._temperature**2 * soft
