"""What training goes through, epoch by epoch: samples in batches, shared out among processes, on the device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.data import IterableDataset

from hpml_sim.conversion.inputs import check_finite, in_type_of_weights
from hpml_sim.data.batches import (
    Batch,
    Samples,
    batches_in,
    check_labels,
    first,
    has_items,
    in_order,
    items,
    resident_tensors,
)
from hpml_sim.errors import HpmlError
from hpml_sim.training.distillation import DistillationLoss
from hpml_sim.training.distributed import ProcessGroup


@dataclass(frozen=True)
class Shard:
    """This process' part of a batch, on the model's device.

    Attributes:
        x: inputs, (samples of this part, ...).
        y: labels, (samples of this part,), whole numbers >= 0.
        weight: of the part's mean loss in the batch's.
        samples: in the whole batch, those of all processes.
        max_label: the largest label of the part, or of the whole data set where that is known.
        teacher_log_probs: the teacher's log-probabilities for `x`, (samples of this part, classes); None without one.
    """

    x: Tensor
    y: Tensor
    weight: float
    samples: int
    max_label: int
    teacher_log_probs: Tensor | None


class BatchLoader:
    """The training samples, batch by batch; its length is the number of batches in an epoch.

    Tensors in memory lie on the device, with what a teacher makes of them. Of all other samples a batch is there at a
    time.

    Args:
        samples: of the training.
        batch_size: samples a step, >= 1; None takes 64, or leaves batches as they come.
        device: where the model is.
        group: the processes that share out each batch.
        objective: the loss, which asks its teacher.
        model: what is trained; inputs come in the type of its weights.

    Attributes:
        batch_size: of samples that do not come in batches.

    Raises:
        HpmlError: a batch size for samples that come in batches, such samples on several processes, or no samples.
    """

    def __init__(
        self,
        samples: Samples,
        batch_size: int | None,
        device: torch.device,
        group: ProcessGroup,
        objective: DistillationLoss,
        model: nn.Module,
    ):
        self._model = model
        self._samples, self._device, self._group, self._objective = samples, device, group, objective
        self._whole = self._teacher_log_probs = None
        self._count: int | None = None
        self._max_label = 0
        self.batch_size = batch_size or 64
        self._batches = batches_in(samples, self.batch_size)
        if self._batches == 0:
            raise HpmlError("fit: the training set is empty")
        if (whole := resident_tensors(samples)) is not None:
            check_finite("fit", whole[0])
            labels = check_labels("fit", whole[1], len(whole[0]))
            self._whole = in_type_of_weights(model, whole[0].to(device)), labels.to(device)
            self._teacher_log_probs = objective.teacher_log_probs(self._whole[0])
            self._max_label = int(labels.max())
        if has_items(samples):
            self._count = len(samples)  # type: ignore[arg-type]
        elif batch_size is not None and not isinstance(samples, IterableDataset):
            raise HpmlError(
                f"fit: batch_size={batch_size!r}, but a {type(samples).__name__} makes its own batches; leave it out"
            )
        elif group.size > 1:
            raise HpmlError(
                f"fit: on {group.size} processes a {type(samples).__name__} cannot be shared out, each would train on "
                "other batches; give a dataset of items with a length (of a DataLoader its .dataset)"
            )

    def __len__(self) -> int:
        return self._batches

    def first(self, at_most: int) -> Batch:
        """The first samples, `at_most` so many, on the device."""
        if self._whole is not None:
            return self._whole[0][:at_most], self._whole[1][:at_most]
        x, y = first(self._samples, at_most)
        check_finite("fit", x)
        return in_type_of_weights(self._model, x.to(self._device)), y.to(self._device)

    def epoch(self, order: torch.Generator | None) -> Iterator[Shard]:
        """All samples once, in an `order` drawn from this generator, or from torch's own."""
        if self._count is None:
            seed = int(torch.randint(2**62, (), generator=order))
            seen = 0
            for x, y in in_order(self._samples, self.batch_size, seed=seed):
                yield self._on_device(x, y, 1.0, len(y), range(seen, seen + len(y)))
                seen += len(y)
            return
        for chosen in torch.randperm(self._count, generator=order).split(self.batch_size):
            mine, weight = self._group.shard(chosen)
            if self._whole is None:
                yield self._on_device(*items(self._samples, mine.tolist()), weight, len(chosen), mine.tolist())
                continue
            mine = mine.to(self._device)
            log_probs = None if self._teacher_log_probs is None else self._teacher_log_probs[mine]
            yield Shard(self._whole[0][mine], self._whole[1][mine], weight, len(chosen), self._max_label, log_probs)

    def _on_device(self, x: Tensor, y: Tensor, weight: float, samples: int, numbers: Sequence[int]) -> Shard:
        check_finite("fit", x, numbers=numbers)
        x = in_type_of_weights(self._model, x.to(self._device))
        return Shard(x, y.to(self._device), weight, samples, int(y.max()), self._objective.teacher_log_probs(x))
