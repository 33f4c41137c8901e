"""What training goes through, epoch by epoch: samples in batches, shared out among processes, on the device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from hpml_sim.data.batches import Batch, Samples, batches_in, first, has_items, in_memory, in_order, items
from hpml_sim.errors import HpmlError
from hpml_sim.training.distillation import DistillationLoss
from hpml_sim.training.distributed import ProcessGroup


@dataclass(frozen=True)
class Shard:
    """This process' part of a batch, on the model's device.

    Attributes:
        x, y: inputs and labels. weight: of its mean loss in the batch's. samples: in the whole batch.
        most: the largest label, here or in all samples. taught: what the teacher makes of x, if there is one.
    """

    x: Tensor
    y: Tensor
    weight: float
    samples: int
    most: int
    teacher_log_probs: Tensor | None


class BatchLoader:
    """The training samples, batch by batch. Those in memory lie on the device, with what a teacher makes of them.

    Attributes:
        batch_size: of what does not make its own batches. batches: in an epoch.

    Raises:
        HpmlError: a batch size for samples that come in batches, such samples on several processes, or no samples.
    """

    def __init__(
        self,
        samples: Samples,
        batch_size: int | None,
        device: torch.device,
        team: ProcessGroup,
        objective: DistillationLoss,
    ):
        self._samples, self._device, self._team, self._objective = samples, device, team, objective
        self._whole = self._taught = None
        self._count: int | None = None
        self._most = 0
        self.batch_size = batch_size or 64
        self.batches = batches_in(samples, self.batch_size)
        if self.batches == 0:
            raise HpmlError("fit: the training set is empty")
        if (whole := in_memory(samples)) is not None:
            self._whole = whole[0].to(device), whole[1].to(device)
            self._taught = objective.teacher_log_probs(self._whole[0])
            self._most = int(whole[1].max())
        if has_items(samples):
            self._count = len(samples)  # type: ignore[arg-type]
        elif batch_size is not None and not isinstance(samples, IterableDataset):
            raise HpmlError(
                f"fit: batch_size={batch_size!r}, but a {type(samples).__name__} makes its own batches; leave it out"
            )
        elif team.size > 1:
            raise HpmlError(
                f"fit: on {team.size} processes a {type(samples).__name__} cannot be shared out, each would train on "
                "other batches; give a dataset of items with a length (of a DataLoader its .dataset)"
            )

    def first(self, most: int) -> Batch:
        """The first samples, on the device."""
        if self._whole is not None:
            return self._whole[0][:most], self._whole[1][:most]
        x, y = first(self._samples, most)
        return x.to(self._device), y.to(self._device)

    def epoch(self, order: torch.Generator | None) -> Iterator[Shard]:
        """All samples once, in an order drawn from the generator, or from torch's own."""
        if self._count is None:
            seed = int(torch.randint(2**62, (), generator=order))
            for x, y in in_order(self._samples, self.batch_size, seed=seed):
                yield self._placed(x, y, 1.0, len(y))
            return
        for chosen in torch.randperm(self._count, generator=order).split(self.batch_size):
            mine, weight = self._team.part(chosen)
            if self._whole is None:
                yield self._placed(*items(self._samples, mine.tolist()), weight, len(chosen))
                continue
            mine = mine.to(self._device)
            teacher_log_probs = None if self._taught is None else self._taught[mine]
            yield Shard(self._whole[0][mine], self._whole[1][mine], weight, len(chosen), self._most, teacher_log_probs)

    def _placed(self, x: Tensor, y: Tensor, weight: float, samples: int) -> Shard:
        x = x.to(self._device)
        return Shard(x, y.to(self._device), weight, samples, int(y.max()), self._objective.teacher_log_probs(x))
