"""What training goes through, epoch by epoch: samples in batches, shared out among processes, on the device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import IterableDataset

from hpml_sim.conversion.inputs import check_finite, in_type_of_weights
from hpml_sim.conversion.network_call import Inputs, samples_in
from hpml_sim.data.batches import (
    Batch,
    Samples,
    batches_in,
    first,
    has_items,
    in_order,
    items,
    resident_tensors,
)
from hpml_sim.errors import HpmlError
from hpml_sim.training.distillation import DistillationLoss
from hpml_sim.training.distributed import ProcessGroup
from hpml_sim.training.evaluation import on_device


@dataclass(frozen=True)
class Shard:
    """This process' part of a batch, on the model's device.

    Attributes:
        x: inputs, (samples of this part, ...), one or several.
        y: labels, (samples of this part, ...), as the data have them.
        weight: of the part's mean loss in the batch's.
        samples: in the whole batch, those of all processes.
        teacher: the teacher's outputs for `x`, (samples of this part, ...); None without one.
    """

    x: Inputs
    y: Any
    weight: float
    samples: int
    teacher: Tensor | None


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
        self._whole: tuple[Tensor, Tensor] | None = None
        self._teacher: Tensor | None = None
        self._count: int | None = None
        self.batch_size = batch_size or 64
        self._batches = batches_in(samples, self.batch_size)
        if self._batches == 0:
            raise HpmlError("fit: the training set is empty")
        if (whole := resident_tensors(samples)) is not None:
            check_finite("fit", whole[0])
            objective.task.labels("fit", whole[1], len(whole[0]), None)  # before anything is trained
            self._whole = in_type_of_weights(model, whole[0].to(device)), whole[1].to(device)
            self._teacher = objective.all_teacher_outputs(self._whole[0])
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
        return in_type_of_weights(self._model, on_device(x, self._device)), on_device(y, self._device)

    def epoch(self, order: torch.Generator | None) -> Iterator[Shard]:
        """All samples once, in an `order` drawn from this generator, or from torch's own."""
        if self._count is None:
            seed = int(torch.randint(2**62, (), generator=order))
            seen = 0
            for x, y in in_order(self._samples, self.batch_size, seed=seed):
                count = samples_in(x)
                yield self._on_device(x, y, 1.0, count, range(seen, seen + count))
                seen += count
            return
        for chosen in torch.randperm(self._count, generator=order).split(self.batch_size):
            mine, weight = self._group.shard(chosen)
            if self._whole is None:
                yield self._on_device(*items(self._samples, mine.tolist()), weight, len(chosen), mine.tolist())
                continue
            mine = mine.to(self._device)
            x = self._whole[0][mine]
            teacher = self._objective.teacher_outputs(x) if self._teacher is None else self._teacher[mine]
            yield Shard(x, self._whole[1][mine], weight, len(chosen), teacher)

    def _on_device(self, x: Inputs, y: Any, weight: float, samples: int, numbers: Sequence[int]) -> Shard:
        check_finite("fit", x, numbers=numbers)
        x = in_type_of_weights(self._model, on_device(x, self._device))
        return Shard(x, on_device(y, self._device), weight, samples, self._objective.teacher_outputs(x))
