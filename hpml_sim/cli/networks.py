"""Networks by name, for the verbs that take one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import nn

from hpml_sim.data import load_data
from hpml_sim.errors import HpmlError, UnknownNameError
from hpml_sim.experiments.plan import given_network
from hpml_sim.networks import models
from hpml_sim.networks.importing import check_not_a_file
from hpml_sim.networks.loading import load_network
from hpml_sim.networks.pretrained.entries import PRETRAINED


def named_network(
    model: str, data: str | None, input_shape: Sequence[int] | None, *, others: Iterable[str] = (), hint: str
) -> tuple[nn.Module, Sequence[int] | None]:
    """A network, and the shape of one of its samples; None where only `data` tells it.

    Args:
        model: a built-in or pretrained name, "package.module:callable" or "file.py:callable".
        data: a data set by name, which gives built-in networks their sizes; None takes digits.
        input_shape: of one sample, without the batch, where it was given.
        others: names that the verb knows besides, for the message.
        hint: what else may be given, for the message.

    Raises:
        UnknownNameError: no such network.
        HpmlError: no input shape is known, or a Python file without the name of a callable in it.
    """
    if ":" in model:
        network = models.imported(model)
        if data is None and input_shape is None:
            raise HpmlError(f"{model}: give --input-shape (one sample, without the batch) or --data")
        return network, input_shape
    check_not_a_file("model", model)
    if model in PRETRAINED:
        name = data or next(iter(PRETRAINED[model].data), None)
        if name is None and input_shape is None:
            raise HpmlError(f"{model}: give --input-shape (one sample, without the batch) or --data")
        network = load_network(model)
        return network, input_shape or (None if name is None else load_data(name).input_shape)
    if model not in models.BUILT_IN:
        raise UnknownNameError("model", model, [*others, *models.BUILT_IN, *PRETRAINED], hint=hint)
    task = load_data(data or "digits")
    return given_network(model, task, {}), input_shape or task.input_shape
