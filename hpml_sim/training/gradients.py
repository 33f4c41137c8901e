"""Training of ordinary parameters by gradient descent, with any of torch's optimizers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from hpml_sim.conversion.training_sessions import Optimizer
from hpml_sim.errors import HpmlError, UnknownNameError, check_real, shown

_LEARNING_RATE = 2e-3
"""Adam's first learning rate where none is given."""


class GradientSession:
    """One training of a model whose weights are parameters; a `TrainingSession`.

    Args:
        model: the model to train.
    """

    def __init__(self, model: nn.Module):
        self._model = model

    def learning_rate(self, lr: float | None) -> float:
        """The learning rate that was given; for `lr` None, 2e-3."""
        return _LEARNING_RATE if lr is None else check_real("fit: lr", lr, above=0, hint="try 2e-3")

    def optimizer(self, given: Optimizer | None, lr: float, *, processes: int = 1) -> torch.optim.Optimizer:
        """The optimizer, over all parameters that are trained.

        Args:
            given: a name or class of `torch.optim`, or a function (parameters, lr=) -> optimizer; None takes Adam.
            lr: first learning rate, > 0.
            processes: how many train the network together; any number can.

        Raises:
            UnknownNameError: `torch.optim` has no optimizer of this name.
            HpmlError: it cannot be made for this model, or is no optimizer.
        """
        given = "Adam" if given is None else given
        if isinstance(given, str):
            kinds = _kinds()
            make = {name.lower(): kind for name, kind in kinds.items()}.get(given.lower())
            if make is None:
                raise UnknownNameError("optimizer", given, kinds)
        else:
            make = given
        rule = (
            "must be a name or class of torch.optim, or a function (parameters, lr=) -> torch.optim.Optimizer, such as "
            "'adamw'"
        )
        if not callable(make):
            raise HpmlError(f"fit: optimizer={shown(given)}: {rule}")
        try:
            made = make([p for p in self._model.parameters() if p.requires_grad], lr=lr)
        except (TypeError, ValueError) as error:
            raise HpmlError(f"fit: optimizer={given!r} cannot be made for this model: {error}") from error
        if not isinstance(made, torch.optim.Optimizer):
            raise HpmlError(f"fit: optimizer={given!r} gave {type(made).__name__}; it {rule}")
        return made

    def state(self) -> dict[str, Any]:
        """The model's state dict."""
        return self._model.state_dict()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Load a `state` of before."""
        self._model.load_state_dict(state)

    def begin(self, before: Callable[[int], tuple[float, float | None]] | None) -> None:
        """Nothing: `before` is for devices that are watched."""

    def end_epoch(self, epoch: int, epochs: int, loss: float, lr: float) -> None:
        """Nothing: `epoch`, `epochs`, `loss` and `lr` are for devices that are watched."""

    def writes(self) -> None:
        """None: nothing is written to devices."""
        return None


def _kinds() -> dict[str, Callable[..., torch.optim.Optimizer]]:
    """torch's optimizers by name."""
    return {
        name: kind
        for name, kind in vars(torch.optim).items()
        if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer) and kind is not torch.optim.Optimizer
    }
