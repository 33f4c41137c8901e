"""Parameters of neurons that callers give, as numbers or tensors: checked, and made tensors."""

from __future__ import annotations

import inspect
import numbers
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from hpml_sim.errors import HpmlError, UnknownNameError, shown

LEAKY_OPTIONS = (
    "reset",
    "surrogate",
    "slope",
    "reset_delay",
    "initial",
    "steps",
    "chips",
    "engine",
    "learn_beta",
    "learn_threshold",
)
"""The options of `LeakyNeurons`, which other neurons pass on to it."""


def as_tensor(argument: str, value: float | Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """A parameter of neurons as a tensor.

    Args:
        argument: its name, which begins the message, such as "LeakyNeurons: beta".
        value: a number, or a tensor of real numbers.
        dtype: of the tensor that is made of a number; None: torch's default.

    Raises:
        HpmlError: neither a number nor a tensor of numbers, or a value that is not finite.
    """
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not number and not (isinstance(value, Tensor) and value.dtype != torch.bool and not value.is_complex()):
        raise HpmlError(f"{argument}={text_of(value)}: must be a number or a tensor of numbers")
    made = value if isinstance(value, Tensor) else torch.as_tensor(value, dtype=dtype or torch.get_default_dtype())
    if not made.is_meta and not bool(torch.isfinite(made).all()):
        raise HpmlError(f"{argument}={text_of(value)}: must be finite")
    return made


def decay_of(who: str, name: str, value: float | Tensor) -> Tensor:
    """A share of a state that is kept in a step, as a tensor.

    Args:
        who: the class whose parameter it is.
        name: of the parameter.
        value: a number or tensor, 0 to 1.

    Raises:
        HpmlError: no number or tensor, or outside [0, 1].
    """
    decay = as_tensor(f"{who}: {name}", value)
    if not bool(((decay >= 0) & (decay <= 1)).all()):
        raise HpmlError(f"{who}: {name}={text_of(value)} must lie in [0, 1]: the share of the state kept in a step")
    return decay


def positive(who: str, name: str, value: float | Tensor, why: str = "", dtype: torch.dtype | None = None) -> Tensor:
    """A parameter above 0, as a tensor.

    Args:
        who: the class whose parameter it is.
        name: of the parameter.
        value: a number or tensor, > 0.
        why: what goes wrong otherwise, at the end of the message.
        dtype: of the tensor that is made of a number; None: torch's default.

    Raises:
        HpmlError: no number or tensor, or not above 0.
    """
    made = as_tensor(f"{who}: {name}", value, dtype)
    if not bool((made > 0).all()):
        raise HpmlError(f"{who}: {name}={text_of(value)} must be > 0{f', {why}' if why else ''}")
    return made


def check_options(kind: type, given: Mapping[str, Any], *, lacks: Iterable[str]) -> None:
    """Refuse options that some neurons do not have.

    Args:
        kind: the class of the neurons.
        given: the options that were given by name, beside the arguments of the class itself.
        lacks: options of `LeakyNeurons` that these neurons do not have.

    Raises:
        HpmlError: an option that they lack.
        UnknownNameError: an option that no neurons have.
    """
    missing = set(lacks)
    own = [name for name, p in inspect.signature(kind).parameters.items() if p.kind is not p.VAR_KEYWORD]
    known = ({*LEAKY_OPTIONS, *own}) - missing
    for name, value in given.items():
        if name in missing:
            raise HpmlError(
                f"{kind.__name__}: {name}={text_of(value)}: these neurons do not have this option; leave it out"
            )
        if name not in known:
            raise UnknownNameError(f"option of {kind.__name__}", name, known)


def text_of(value: object) -> str:
    """A parameter on one line, as it was given; of a tensor its numbers, where they are few.

    Args:
        value: a number, a tensor, or what was given in its place.
    """
    return shown(value.tolist() if isinstance(value, Tensor) and not value.is_meta else value)
