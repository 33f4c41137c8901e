"""How weights that are no ordinary parameters are trained: the one seam between `fit` and the hardware that it trains.

Gradient descent on parameters needs none of this (`training/gradients.py`). Devices that are trained in place take
pulses in place of an optimizer's steps, keep their state outside the state dict, and count what was written to them:
`analog/pulsed/training.py` registers a session that does so, and `fit` never asks which hardware it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from hpml_sim.units.bands import Band

Optimizer = str | Callable[..., torch.optim.Optimizer]
"""A class of `torch.optim` by name ("adamw", "SGD"), or a function (parameters, lr=) -> optimizer, such as a class."""


class Writes(Protocol):
    """What a training wrote to devices that hold weights; its text is one sentence for people."""

    @property
    def pulses(self) -> Mapping[str, tuple[float, ...]]:
        """Layer -> pulses in each epoch."""
        ...

    @property
    def total(self) -> float:
        """Pulses of all layers and epochs."""
        ...

    @property
    def energy_j(self) -> Band | None:
        """Energy of all of them, joules; None where the card does not know it."""
        ...


class TrainingSession(Protocol):
    """One training of one model, from the choice of the optimizer to what was written."""

    def learning_rate(self, lr: float | None) -> float:
        """The first learning rate.

        Args:
            lr: what the caller gave; None takes the usual one for these weights.

        Raises:
            HpmlError: no finite number > 0.
        """
        ...

    def optimizer(self, given: Optimizer | None, lr: float, *, processes: int = 1) -> torch.optim.Optimizer:
        """The optimizer, over all parameters.

        Args:
            given: what the caller gave; None takes the usual one for these weights.
            lr: first learning rate, > 0.
            processes: how many train the network together.

        Raises:
            HpmlError: this optimizer, or so many processes, cannot train these weights.
        """
        ...

    def state(self) -> dict[str, Any]:
        """What `restore` needs; it shares its tensors with the model, so copy it to keep it."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Give the model a state that it had before.

        Args:
            state: a copy of what `state` gave.
        """
        ...

    def begin(self, before: Callable[[int], tuple[float, float | None]] | None) -> None:
        """Called once before the first epoch, with all random numbers seeded.

        Args:
            before: gives, for the first samples, at most as many as asked for, the loss of the model as it is and the
                loss of the best guess without looking at the input, None where that is not known. None with a teacher:
                its loss has another level.
        """
        ...

    def end_epoch(self, epoch: int, epochs: int, loss: float, lr: float) -> None:
        """Called after each epoch.

        Args:
            epoch: counts from 0.
            epochs: of the whole training.
            loss: mean of this epoch.
            lr: first learning rate of the training.
        """
        ...

    def writes(self) -> Writes | None:
        """What was written to devices; None where weights are ordinary parameters."""
        ...


Finder = Callable[[nn.Module], TrainingSession | None]
_FINDERS: list[Finder] = []


def register_training_session(find: Finder) -> Finder:
    """Let `fit` ask a function whether a model's weights need a session of their own.

    Args:
        find: model -> session, or None where it has none of these weights.
    """
    _FINDERS.append(find)
    return find


def training_session(model: nn.Module) -> TrainingSession | None:
    """The session of a model whose weights are no ordinary parameters; None of all others.

    Args:
        model: the model to train.
    """
    return next((session for find in _FINDERS if (session := find(model)) is not None), None)


@dataclass(frozen=True)
class FewSamples:
    """A few samples of a training, on which it is looked at before it begins.

    Attributes:
        call: runs a network on them.
        large: whether the network is so large that a call takes as long as a step of its training.
        worse: (outputs, other outputs, share) -> what of the task's score the other outputs cost, in words, where it is
            more than that share of the score; None where it is not.
    """

    call: Callable[[nn.Module], Any]
    large: bool
    worse: Callable[[Any, Any, float], str | None]


BeforeTraining = Callable[[nn.Module, FewSamples], None]
_BEFORE: list[BeforeTraining] = []


def register_before_training(look: BeforeTraining) -> BeforeTraining:
    """Let `fit` run a function once before training.

    Args:
        look: is given the model, which it must not change, and a few samples.
    """
    _BEFORE.append(look)
    return look


def before_training(model: nn.Module, samples: FewSamples) -> None:
    """What the hardware makes of the model, and could not do with it after its training, is said before it.

    Args:
        model: the model that will be trained.
        samples: on which it is looked at.
    """
    for look in _BEFORE:
        look(model, samples)


AfterTraining = Callable[[nn.Module, Callable[[], Any]], None]
"""(model, call): what is done once after training; the call runs the model on one of the last batches."""
_AFTER: list[AfterTraining] = []


def register_after_training(settle: AfterTraining) -> AfterTraining:
    """Let `fit` run a function once after training.

    Args:
        settle: is given the model, and a call that runs it on one of the last batches.
    """
    _AFTER.append(settle)
    return settle


def after_training(model: nn.Module, call: Callable[[], Any]) -> None:
    """What the hardware does once after training, such as choosing the ranges of its converters.

    Args:
        model: the model that was trained.
        call: runs it on one of the last batches.
    """
    for settle in _AFTER:
        settle(model, call)
