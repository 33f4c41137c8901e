"""A digital low-rank adapter beside a layer on crossbars: y = layer(x) + scale * up(down(x))."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

_SETTINGS = ("stride", "padding", "dilation", "output_padding", "padding_mode", "_reversed_padding_repeated_twice")


class LowRankAdapter(nn.Module):
    """Two thin digital layers, one after the other, whose product is added to that of a crossbar.

    `hs.lora` makes them. Of a convolution `down` has the kernel, of a transposed one `up`; the other one has a kernel
    of 1. Each group of a convolution has a rank of its own.

    Args:
        down: from the inputs of the layer to (groups * rank) values.
        up: from these to the outputs.
        scale: multiplies what is added.

    Attributes:
        down: the first layer.
        up: the second layer.
        scale: multiplies what is added.

    Source: E. J. Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", arXiv:2106.09685, section 4.1; beside
    analog weights: C. Lammie et al., arXiv:2411.17367.
    """

    def __init__(self, down: Any, up: Any, scale: float):
        super().__init__()
        self.down, self.up, self.scale = down, up, scale

    @classmethod
    def beside(cls, layer: Any, rank: int, scale: float, generator: torch.Generator) -> LowRankAdapter:
        """A new adapter, which adds zeros until it is trained.

        Args:
            layer: linear or convolutional, on crossbars.
            rank: of the matrix that is added, of each group, >= 1.
            scale: multiplies what is added.
            generator: draws the first layer's weights.
        """
        convolves = isinstance(layer, nn.modules.conv._ConvNd)
        down: Any
        up: Any
        down, up = _convolutions(layer, rank) if convolves else _linear(layer, rank)
        with torch.no_grad():
            # as torch begins a linear layer; drawn on the CPU, so that a seed gives the same on every device
            bound = 1 / math.sqrt(max(1, down.weight[0].numel()))
            drawn = torch.empty(down.weight.shape).uniform_(-bound, bound, generator=generator)
            down.weight = nn.Parameter(drawn.to(layer.weight.device, layer.weight.dtype))
            up.weight = nn.Parameter(torch.zeros(up.weight.shape, device=layer.weight.device, dtype=layer.weight.dtype))
        return cls(down, up, scale).train(layer.training)

    @property
    def rank(self) -> int:
        """Of the matrix that is added, of each group."""
        own = self.down.out_channels // self.up.groups if hasattr(self.down, "out_channels") else self.down.out_features
        return int(own)

    def matrix(self) -> Tensor:
        """What is added to the layer's weights, as its crossbar takes them: (groups * cols, rows)."""
        groups = getattr(self.up, "groups", 1)
        down = self.down.weight.flatten(1).unflatten(0, (groups, -1))  # (groups, rank, rows)
        if getattr(self.up, "transposed", False):
            up = self.up.weight.flatten(1).unflatten(0, (groups, -1)).mT  # (groups, cols, rank)
        else:
            up = self.up.weight.flatten(1).unflatten(0, (groups, -1))
        return self.scale * (up @ down).flatten(0, 1)

    def called_with(self, settings: dict[str, Any]) -> LowRankAdapter:
        """The same adapter beside a convolution that is called with other settings than its own.

        Args:
            settings: stride, padding and dilation of the call.
        """
        down = copy.copy(self.down)
        down.__dict__.update({name: value for name, value in settings.items() if name in _SETTINGS})
        return type(self)(down, self.up, self.scale)

    def forward(self, x: Tensor, output_size: Any = None) -> Tensor:
        """What is added to the output of the layer.

        Args:
            x: input of the layer.
            output_size: sizes of the output of a transposed convolution, where its stride leaves them open.

        Returns:
            Shaped as the output of the layer.
        """
        y = self.down(x)
        y = self.up(y) if output_size is None else self.up(y, output_size)
        return y if self.scale == 1 else y * self.scale

    def extra_repr(self) -> str:
        """For `print(model)`."""
        return f"rank={self.rank}, scale={self.scale:g}"


def adapter_of(layer: nn.Module) -> LowRankAdapter | None:
    """The adapter beside a layer; None where it has none.

    Args:
        layer: any module. Without one it has no entry for it: a state dict with an adapter must not load into it.
    """
    found: Any = layer._modules.get("adapter")
    return found if isinstance(found, LowRankAdapter) else None


def with_adapter(layer: nn.Module, y: Tensor, *inputs: Any) -> Tensor:
    """The output of a layer with what its adapter adds, if it has one.

    Args:
        layer: linear or convolutional, on crossbars.
        y: its own output.
        inputs: what it was called with.
    """
    adapter = adapter_of(layer)
    return y if adapter is None else y + adapter(*inputs)


def largest_rank(layer: Any) -> int:
    """The largest rank that an adapter of a layer may have: that of a matrix of one group.

    Args:
        layer: linear or convolutional, on crossbars.
    """
    tiling = layer.crossbar.tiling
    return min(tiling.rows, tiling.cols)


def adapter_names(module: nn.Module) -> tuple[str, ...]:
    """Names of the children of a layer of PEFT's that hold its adapters; none of any other module.

    Args:
        module: any module. PEFT is not imported: its layers are known by their class.
    """
    kinds = {kind.__name__ for kind in type(module).__mro__ if kind.__module__.startswith("peft.")}
    return tuple(getattr(module, "adapter_layer_names", ())) if "BaseTunerLayer" in kinds else ()


def _linear(layer: Any, rank: int) -> tuple[nn.Module, nn.Module]:
    return (
        nn.Linear(layer.in_features, rank, bias=False, device="meta"),
        nn.Linear(rank, layer.out_features, bias=False, device="meta"),
    )


def _convolutions(layer: Any, rank: int) -> tuple[Any, Any]:
    n, groups = len(layer.kernel_size), layer.groups
    plain: Any = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[n - 1]
    spread: Any = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[n - 1]
    thin = {"groups": groups, "bias": False, "device": "meta"}
    inner = groups * rank
    settings = {name: getattr(layer, name) for name in ("stride", "padding", "dilation", "padding_mode")}
    if layer.transposed:
        settings["output_padding"] = layer.output_padding
        return (
            plain(layer.in_channels, inner, 1, **thin),
            spread(inner, layer.out_channels, layer.kernel_size, **settings, **thin),
        )
    return (
        plain(layer.in_channels, inner, layer.kernel_size, **settings, **thin),
        plain(inner, layer.out_channels, 1, **thin),
    )
