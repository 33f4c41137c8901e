"""Small networks by name, for demonstrations and tests. Any `nn.Module` works in their place."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from hpml_sim.errors import HpmlError, UnknownNameError
from hpml_sim.networks.importing import called


def mlp(*sizes: int) -> nn.Sequential:
    """Fully connected ReLU network: (batch, ...) is flattened to (batch, sizes[0]) and becomes (batch, sizes[-1]).

    Raises:
        HpmlError: fewer than two sizes, or a size < 1.
    """
    if len(sizes) < 2 or min(sizes) < 1:
        raise HpmlError(
            f"mlp{sizes}: needs at least an input and an output size, each >= 1; for example mlp(64, 128, 10)"
        )
    layers: list[nn.Module] = [nn.Flatten()]
    for fan_in, fan_out in itertools.pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def cnn(input_shape: Sequence[int], classes: int, *, width: int = 16) -> nn.Sequential:
    """Two 3x3 convolutions with average pooling and one hidden layer: (batch, *input_shape) -> (batch, classes).

    Args:
        input_shape: (channels, height, width), height and width multiples of 4.
        classes: number of outputs.
        width: channels of the first convolution; the second has twice as many.
    """
    if len(input_shape) != 3 or input_shape[1] % 4 or input_shape[2] % 4:
        raise HpmlError(f"cnn(input_shape={tuple(input_shape)}): needs (channels, height, width), sides multiples of 4")
    channels, height, breadth = input_shape
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


BUILT_IN = ("mlp", "cnn")


def build(name: str, input_shape: Sequence[int], classes: int, *, seed: int = 0, **options: Any) -> nn.Module:
    """A built-in network sized for a data set, with reproducible initial weights.

    Args:
        name: "mlp" or "cnn". input_shape: of one sample. classes: number of outputs. seed: of the first weights.
        options: `width` (>= 1): hidden neurons of the mlp (128), or channels of the cnn's first convolution (16).

    Raises:
        UnknownNameError: no built-in network has this name, or it has no such option. HpmlError: a width < 1.
    """
    if name not in BUILT_IN:
        raise UnknownNameError("model", name, BUILT_IN, hint="Or give package.module:callable or file.py:callable.")
    for option in options:
        if option != "width":
            raise UnknownNameError(f"option of model {name!r}:", option, ["width"])
    width = options.get("width", {"mlp": 128, "cnn": 16}[name])
    if isinstance(width, bool) or not isinstance(width, int) or width < 1:
        raise HpmlError(f"width={width!r}: must be a whole number >= 1")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if name == "mlp":
            return mlp(int(torch.Size(input_shape).numel()), width, classes)
        return cnn(input_shape, classes, width=width)


def imported(spec: str, *, seed: int = 0, **options: Any) -> nn.Module:
    """The network that "package.module:callable" or "file.py:callable" makes.

    Args:
        spec: the callable is called with `options` alone. seed: of the weights that it draws. options: its arguments.

    Raises:
        HpmlError: the code cannot be imported, the callable fails, or gives no `nn.Module`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = called("model", spec, **options)
    if not isinstance(made, nn.Module):
        raise HpmlError(f"model {spec!r} gave a {type(made).__name__}, not an nn.Module")
    return made
