"""How fast training goes: the way of the learning rate, and how large a step's gradient may be."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import nn

from hpml_sim.errors import HpmlError, UnknownNameError, check_real, shown

Schedule = Literal["cosine", "linear", "constant"]
"""How the learning rate falls."""


@dataclass(frozen=True)
class Pace:
    """The way of the learning rate, and the largest norm of a gradient.

    Attributes:
        schedule: how the learning rate falls.
        warmup: share of all steps in which it first rises, 0 to below 1.
        max_grad_norm: largest norm of all gradients together; None: any.
    """

    schedule: Schedule = "cosine"
    warmup: float = 0.0
    max_grad_norm: float | None = None

    @classmethod
    def checked(cls, schedule: object, warmup: object, max_grad_norm: object) -> Pace:
        """What a caller of `fit` gave.

        Args:
            schedule: must be one of the names.
            warmup: must be a number from 0 to below 1.
            max_grad_norm: must be a number > 0, or None.

        Raises:
            UnknownNameError: no schedule has this name.
            HpmlError: a number out of range.
        """
        if not isinstance(schedule, str) or schedule not in get_args(Schedule):
            raise UnknownNameError("schedule", str(schedule), get_args(Schedule))
        share = check_real("fit: warmup", warmup, low=0, hint="a share of all steps, such as 0.02")
        if share >= 1:
            raise HpmlError(f"fit: warmup={shown(warmup)}: must be below 1: a share of all steps, such as 0.02")
        norm = None if max_grad_norm is None else check_real("fit: max_grad_norm", max_grad_norm, above=0, hint="try 1")
        return cls(schedule, share, norm)  # type: ignore[arg-type]

    def refuse_on_devices(self) -> None:
        """Say that devices which are trained in place have their own.

        Raises:
            HpmlError: anything but the defaults.
        """
        if self != Pace():
            raise HpmlError(
                "fit: schedule=, warmup= and max_grad_norm= are for parameters, and pulsed devices have rules of their "
                "own; leave them out"
            )

    def scheduler(self, optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
        """What moves the learning rate, called after each step.

        Args:
            optimizer: whose learning rate it is.
            steps: of the whole training, >= 1.
        """
        if self.schedule == "cosine" and self.warmup == 0:
            return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self.factor(step, steps))

    def factor(self, step: int, steps: int) -> float:
        """The learning rate of a step, in units of the first one.

        Args:
            step: counts from 0.
            steps: of the whole training.
        """
        rising = math.ceil(self.warmup * steps)
        if step < rising:
            return (step + 1) / (rising + 1)
        done = (step - rising) / max(1, steps - rising)
        if self.schedule == "constant":
            return 1.0
        return max(0.0, 1 - done) if self.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))

    def limit_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Scale the gradients of a step down to the largest norm.

        Args:
            parameters: all that are trained.
        """
        if self.max_grad_norm is not None:
            nn.utils.clip_grad_norm_(parameters, self.max_grad_norm)
