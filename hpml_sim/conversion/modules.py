"""An argument that must be a network, and a network that fails on its input."""

from __future__ import annotations

import inspect
import linecache
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch
from torch import Tensor, nn

from hpml_sim.errors import HpmlError, shown

_TORCH_RAISES = (RuntimeError, TypeError, ValueError, IndexError, KeyError, AttributeError, AssertionError)
"""What torch and layers raise on an input that does not fit; other errors are a user's own, and are passed on."""

_LARGE = 50_000_000
"""Weights above which a batch on a CPU, or a few chips, take minutes."""


def is_large(network: nn.Module) -> bool:
    """Whether a network is tried on single samples where a smaller one gets a batch.

    Args:
        network: any network.
    """
    return sum(parameter.numel() for parameter in network.parameters()) > _LARGE


@contextmanager
def running(where: str, model: nn.Module, inputs: Sequence[Tensor]) -> Iterator[None]:
    """Around a call of a network: what torch raises on an input that does not fit becomes one line.

    Args:
        where: the function that the caller called, which begins the message, such as "fit".
        model: the network.
        inputs: the tensors that it is called with.

    Raises:
        HpmlError: the call fails; the message has shapes, types and the first layer. Errors of ours, and a GPU's memory
            that is full, stay what they are.
    """
    try:
        yield
    except (HpmlError, torch.OutOfMemoryError):
        raise
    except _TORCH_RAISES as error:
        shapes = ", ".join(f"{tuple(x.shape)} ({str(x.dtype).removeprefix('torch.')})" for x in inputs)
        raise HpmlError(
            f"{where}: {type(model).__name__} failed on an input of shape {shapes}: {type(error).__name__}: "
            f"{' '.join(str(error).split())[:300]}; {_advice(error, model, inputs)}"
        ) from error


def _advice(error: BaseException, model: nn.Module, inputs: Sequence[Tensor]) -> str:
    """The next step after an error of torch's."""
    if "more than 1 value per channel" in str(error):
        return (
            "its batch norm takes statistics of the batch, and one sample has none: let no batch hold a single sample "
            "(another batch_size=, also for the samples that are left over), or give the layer running statistics "
            "(track_running_stats=True) for evaluation"
        )
    if "modified by an inplace operation" in str(error):
        return (
            "forward() changes in place what the gradient needs, in any engine: write y = y + 1 in place of y += 1, "
            "and leave out inplace=True"
        )
    return _fitting(model, inputs)


def _fitting(model: nn.Module, inputs: Sequence[Tensor]) -> str:
    """What input the network would take, as far as its first layer with weights tells."""
    for name, layer in model.named_modules():
        own = next(layer.parameters(recurse=False), None)
        if own is None:
            continue
        given = next((x for x in inputs if x.is_floating_point() and own.is_floating_point()), None)
        if given is not None and given.dtype != own.dtype:
            return f"its weights are {own.dtype}: give inputs of this type, such as x.to({own.dtype})"
        called = f"layer {name!r}" if name else "layer"
        return f"give inputs that fit its first {called}, {' '.join(repr(layer).split())[:100]}"
    return "give inputs that it can take"


def place_in_network(error: BaseException, network: nn.Module) -> str:
    """Where in a network an exception was raised: the module, and the line of its code.

    Args:
        error: the exception.
        network: what ran.

    Returns:
        Such as "layers.0 (Experts), line 12 of mine.py: rows = mask.nonzero()"; "the network" where nothing is known.
    """
    return _innermost([(frame, line) for frame, line in traceback.walk_tb(error.__traceback__)], network)


def place_that_runs(network: nn.Module) -> str:
    """Where in a network Python is now: as `place_in_network`.

    Args:
        network: what runs.
    """
    return _innermost(list(traceback.walk_stack(sys._getframe()))[::-1], network)


def _innermost(calls: Sequence[tuple[FrameType, int]], network: nn.Module) -> str:
    """The last of some calls that is a user's code of a module; each a frame and a line, outermost first."""
    names = {id(module): name for name, module in network.named_modules()}
    where = "the network"
    for frame, number in calls:
        names_here = frame.f_code.co_varnames
        module = frame.f_locals.get(names_here[0]) if names_here else None  # "self", by whatever name
        # torch's own modules and ours only pass on what a user's forward() does
        user_code = not frame.f_globals.get("__name__", "").startswith(("torch.", "hpml_sim."))
        if isinstance(module, nn.Module) and user_code:
            kind = type(module).__name__  # a copy of the network may run, whose modules are not known here
            where = f"{names[id(module)] or 'the network'} ({kind})" if id(module) in names else kind
            where += f", line {number} of "
            where += Path(frame.f_code.co_filename).name
            line = linecache.getline(frame.f_code.co_filename, number).strip()
            where += f": {line}" if line else ""
        elif id(module) in names and where == "the network" and names[id(module)]:
            where = f"{names[id(module)]} ({type(module).__name__})"
    return where


def returns_of(network: nn.Module) -> str:
    """Where a network returns what it gives: the lines of its forward(); "" where its code is not known.

    Args:
        network: any network; of a converted one, the network in it is meant.
    """
    inner = network._modules.get("network")
    kind = type(inner if type(network).__module__.startswith("hpml_sim.") and inner is not None else network)
    forward = inspect.unwrap(kind.forward)
    if kind.__module__.startswith(("torch.", "hpml_sim.")):
        return ""
    try:
        lines, start = inspect.getsourcelines(forward)
        file = Path(inspect.getsourcefile(forward) or "").name
    except (OSError, TypeError):
        return ""
    places = [f"line {start + i} of {file}: {line.strip()}" for i, line in enumerate(lines) if _RETURN.match(line)]
    return f"forward() of {kind.__name__}, {'; '.join(places)}" if places else ""


_RETURN = re.compile(r"\s+return\b")


def check_network(argument: str, model: object, *, other: object = None) -> nn.Module:
    """A network that a caller gave.

    Args:
        argument: its name, which begins the message, such as "fit: model".
        model: what was given.
        other: the next argument of the same call: where that is a network, the two were given in the wrong order.

    Raises:
        HpmlError: no `nn.Module`; the message says how to get one from what it is.
    """
    if isinstance(model, nn.Module):
        return model
    advice = "such as hs.models.mlp(64, 128, 10)"
    if isinstance(model, type) and issubclass(model, nn.Module):
        advice = f"this is its class: call it, {model.__name__}(...)"
    elif type(model).__name__ == "Chips":  # its class lies above this file
        advice = "give the chips at a time, chips.at('1 day')"
    elif isinstance(other, nn.Module):
        advice = "are the arguments in the wrong order? The network comes first"
    elif model in ("mlp", "cnn"):  # its list lies above this file
        advice = f"such as hs.models.build({model!r}, input_shape, classes)"
    raise HpmlError(f"{argument}={shown(model)}: must be a network (torch.nn.Module); {advice}")
