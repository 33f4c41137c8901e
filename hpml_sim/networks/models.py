"""Small networks by name, for demonstrations and tests. Any `nn.Module` works in their place."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from hpml_sim.errors import HpmlError, UnknownNameError, check_memory, check_whole, shown
from hpml_sim.networks.cells import cells
from hpml_sim.networks.importing import called, check_not_a_file
from hpml_sim.networks.small_networks import depthwise, gru, lstm, resnet, transformer

__all__ = ["BUILT_IN", "build", "cells", "cnn", "depthwise", "gru", "imported", "lstm", "mlp", "resnet", "transformer"]


def mlp(*sizes: int) -> nn.Sequential:
    """Fully connected ReLU network: (batch, ...) is flattened to (batch, sizes[0]) and becomes (batch, sizes[-1]).

    Args:
        sizes: of the input, of each hidden layer and of the output, each >= 1; at least two.

    Raises:
        HpmlError: fewer than two sizes, or a size that is no whole number >= 1.

    Example:
        >>> import hpml_sim as hs, torch
        >>> hs.models.mlp(64, 32, 10)(torch.rand(5, 1, 8, 8)).shape
        torch.Size([5, 10])
        >>> hs.models.mlp(64.0, 10)
        Traceback (most recent call last):
        hpml_sim.errors.HpmlError: mlp: size 1=64.0: must be a whole number >= 1; such as mlp(64, 128, 10)
    """
    if len(sizes) < 2:
        raise HpmlError(f"mlp{sizes}: needs at least an input and an output size, each >= 1; such as mlp(64, 128, 10)")
    sizes = tuple(
        check_whole(f"mlp: size {place}", size, low=1, hint="such as mlp(64, 128, 10)")
        for place, size in enumerate(sizes, 1)
    )
    weights = sum(fan_in * fan_out for fan_in, fan_out in itertools.pairwise(sizes))
    if torch.get_default_device().type != "meta":  # there nothing is allocated
        check_memory(f"mlp{sizes}: {weights:,} weights", 4.0 * weights, "take smaller layers")
    layers: list[nn.Module] = [nn.Flatten()]
    for fan_in, fan_out in itertools.pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def cnn(input_shape: Sequence[int], classes: int, *, width: int = 16) -> nn.Sequential:
    """Two 3x3 convolutions with average pooling and one hidden layer: (batch, *input_shape) -> (batch, classes).

    Args:
        input_shape: (channels, height, width), height and width multiples of 4.
        classes: number of outputs.
        width: channels of the first convolution, >= 1; the second has twice as many.

    Raises:
        HpmlError: a shape that is none, sides that cannot be pooled twice, or a number that is no whole number >= 1.

    Example:
        >>> import hpml_sim as hs, torch
        >>> hs.models.cnn((1, 28, 28), 10, width=4)(torch.rand(5, 1, 28, 28)).shape
        torch.Size([5, 10])
    """
    channels, height, breadth = _image_shape(input_shape)
    classes, width = check_whole("cnn: classes", classes, low=1), check_whole("cnn: width", width, low=1)
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Conv2d(width, 2 * width, 3, padding=1),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(2 * width * (height // 4) * (breadth // 4), 128),
        nn.ReLU(),
        nn.Linear(128, classes),
    )


def _shape(given: object, example: str) -> tuple[int, ...]:
    """The shape of one sample, of whole numbers."""
    if not isinstance(given, Sequence) or isinstance(given, (str, bytes)):
        raise HpmlError(f"input_shape={shown(given)}: must be the shape of one sample, {example}")
    return tuple(check_whole("input_shape", size, low=1) for size in given)


def _image_shape(given: object) -> tuple[int, ...]:
    sizes = _shape(given, "(channels, height, width), such as (1, 28, 28)")
    if len(sizes) != 3:
        raise HpmlError(f"cnn: input_shape={sizes}: must be (channels, height, width), such as (1, 28, 28)")
    if sizes[1] % 4 or sizes[2] % 4:
        raise HpmlError(f"cnn: input_shape={sizes}: height and width must be multiples of 4, such as (1, 28, 28)")
    return sizes


def __dir__() -> list[str]:
    """The public names, and nothing that was imported on the way to them."""
    return sorted([*__all__, *(name for name in globals() if name.startswith("__") and name.endswith("__"))])


BUILT_IN = ("mlp", "cnn", "resnet", "depthwise", "cells", "transformer", "gru", "lstm", "spiking")
"""Names of the built-in networks."""
_WIDTHS = {
    "mlp": 128, "cnn": 16, "resnet": 16, "depthwise": 16, "cells": 16, "transformer": 64, "gru": 64, "lstm": 64,
    "spiking": 128,
}  # fmt: skip
_OTHERS: dict[str, tuple[str, ...]] = {"cells": ("depth", "stages", *(f"edge_{number}" for number in range(1, 7)))}
"""Options beside the width."""
_MAKERS: dict[str, Callable[..., nn.Module]] = {
    "cnn": cnn,
    "resnet": resnet,
    "depthwise": depthwise,
    "cells": cells,
    "transformer": transformer,
    "gru": gru,
    "lstm": lstm,
}


def register_built_in(name: str, make: Callable[..., nn.Module]) -> None:
    """Let `build` make a network whose layers lie above this package.

    Args:
        name: one of `BUILT_IN`.
        make: called with (input_shape, classes, width=).
    """
    _MAKERS[name] = make


def options_of(name: str) -> tuple[str, ...]:
    """The options that `build` takes for a network.

    Args:
        name: one of `BUILT_IN`; any other name has the width alone.

    Example:
        >>> from hpml_sim.networks.models import options_of
        >>> options_of("mlp")
        ('width',)
    """
    return ("width", *_OTHERS.get(name, ()))


def build(name: str, input_shape: Sequence[int], classes: int, *, seed: int = 0, **options: Any) -> nn.Module:
    """A built-in network sized for a data set, with reproducible initial weights.

    Args:
        name: one of `BUILT_IN`.
        input_shape: of one sample.
        classes: number of outputs, >= 1.
        seed: of the first weights, >= 0; the caller's random state is left alone.
        options: `width` (>= 1): hidden neurons of the mlp and of the spiking network (128), channels of the first
            convolution (16), or numbers of a step (64); of "cells" those of `hs.models.cells` as well.

    Raises:
        UnknownNameError: no built-in network has this name, or it has no such option.
        HpmlError: a number out of range.

    Example:
        >>> import hpml_sim as hs
        >>> hs.models.build("mlp", (1, 8, 8), 10, width=32)[1]
        Linear(in_features=64, out_features=32, bias=True)
        >>> hs.models.build("mlp", (1, 8, 8), 10, width=0)
        Traceback (most recent call last):
        hpml_sim.errors.HpmlError: width=0: must be a whole number >= 1
    """
    if isinstance(name, str):
        check_not_a_file("model", name)
    if not isinstance(name, str) or name not in BUILT_IN:
        raise UnknownNameError("model", name, BUILT_IN, hint="Or give package.module:callable or file.py:callable.")
    for option in options:
        if option not in options_of(name):
            raise UnknownNameError(f"option of model {name!r}:", option, options_of(name))
    width = check_whole("width", options.pop("width", _WIDTHS[name]), low=1)
    seed = check_whole("seed", seed, low=0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if name == "mlp":
            return mlp(math.prod(_shape(input_shape, "such as (1, 8, 8)")), width, classes)
        return _MAKERS[name](input_shape, classes, width=width, **options)


def imported(spec: str, *, seed: int = 0, **options: Any) -> nn.Module:
    """The network that "package.module:callable" or "file.py:callable" makes.

    Args:
        spec: "package.module:callable" or "folder/file.py:callable"; it is called with `options` alone.
        seed: of the weights that it draws, >= 0; the caller's random state is left alone.
        options: its arguments.

    Raises:
        HpmlError: the code cannot be imported, the callable fails, or gives no `nn.Module`.

    Example:
        >>> import hpml_sim as hs
        >>> hs.models.imported("torch.nn:Linear", in_features=4, out_features=2)
        Linear(in_features=4, out_features=2, bias=True)
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = called("model", spec, **options)
    if not isinstance(made, nn.Module):
        raise HpmlError(f"model {spec!r} gave a {type(made).__name__}, not an nn.Module")
    return made
