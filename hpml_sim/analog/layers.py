"""Linear and convolution layers on crossbars: drop-in replacements that hold ordinary trainable weights.

In training they inject weight noise, clip, and run through the converters; in evaluation they run through the
converters without noise. `program` makes chips of them and leaves these weights alone.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from hpml_sim.analog.crossbar import Crossbar, EffectiveWeights
from hpml_sim.conversion.exporting import check_not_exporting
from hpml_sim.errors import HpmlError
from hpml_sim.targets import Analog


def as_analog(card: str | Analog) -> Analog:
    """An analog target from a target, or from a card's name or path."""
    return card if isinstance(card, Analog) else Analog(card)


class AnalogLinear(nn.Linear):
    """`nn.Linear` on crossbar tiles: (batch, ..., in_features) -> (batch, ..., out_features).

    Args:
        in_features, out_features, bias, device, dtype: as of `nn.Linear`. The bias is added in digital.
        card: a crossbar card's name or path, or an `Analog(...)` configuration.

    Attributes:
        batch_dim: where chips and samples lie, 0; `convert` sets 1 in Transformer layers of batch_first=False.

    Raises:
        UnknownNameError, CardError: no such card, or a broken one.

    Example:
        >>> layer = AnalogLinear(784, 256, card="pcm-hermes")
        >>> layer(torch.rand(8, 784)).shape
        torch.Size([8, 256])
    """

    batch_dim: int = 0

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        card: str | Analog = "pcm-hermes",
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__(in_features, out_features, bias, device=device, dtype=dtype)
        self._map(as_analog(card))

    @classmethod
    def from_digital(cls, layer: nn.Linear, target: Analog) -> AnalogLinear:
        """The same layer on crossbars. It holds the same parameters, so weights that were tied stay tied."""
        new = cls.__new__(cls)
        nn.Module.__init__(new)
        new.in_features, new.out_features = layer.in_features, layer.out_features
        new.weight, new.bias = layer.weight, layer.bias
        new._map(target)
        return new.train(layer.training)

    def _map(self, target: Analog) -> None:
        weight = self.weight
        self.crossbar = Crossbar(
            self.in_features, self.out_features, 1, target, device=weight.device, dtype=weight.dtype
        )

    def matrix(self) -> Tensor:
        """The weights as the crossbar takes them, (out_features, in_features)."""
        return self.weight

    def effective_weights(self) -> EffectiveWeights:
        """The devices of one forward pass, for several calls of `multiply`."""
        return self.crossbar.effective_weights(self.matrix())

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - nn.Linear's name
        """(batch, ..., in_features) -> (batch, ..., out_features)."""
        return self.multiply(input, None)

    def multiply(self, input: Tensor, effective_weights: EffectiveWeights | None) -> Tensor:  # noqa: A002 - as in forward
        """The forward pass with devices that are given."""
        if self.batch_dim and input.dim() > 2:
            first = self._batch_first(input.transpose(0, self.batch_dim), effective_weights)
            return first.transpose(0, self.batch_dim)
        return self._batch_first(input, effective_weights)

    def _batch_first(self, input: Tensor, effective_weights: EffectiveWeights | None) -> Tensor:  # noqa: A002 - as in forward
        chips = chips_in(self.crossbar, input, self.in_features, -1)
        y = self.crossbar(input.reshape(chips, 1, -1, self.in_features), self.matrix(), effective_weights)
        y = y.reshape(*input.shape[:-1], self.out_features)
        return y if self.bias is None else y + self.bias


class AnalogConv1D(AnalogLinear):
    """The `Conv1D` of Hugging Face's GPT-2 on crossbar tiles: a linear layer whose weight is (inputs, outputs).

    Made by `convert`; the weight keeps its shape, so that checkpoints fit.
    """

    nf: int

    @classmethod
    def from_digital(cls, layer: Any, target: Analog) -> AnalogConv1D:
        """The same layer on crossbars. It holds the same parameters, so weights that were tied stay tied."""
        new = cls.__new__(cls)
        nn.Module.__init__(new)
        new.weight, new.bias = layer.weight, layer._parameters.get("bias")
        new.in_features, new.out_features = layer.weight.shape
        new.nf = new.out_features
        new._map(target)
        return new.train(layer.training)

    def matrix(self) -> Tensor:
        """The weights as the crossbar takes them, (out_features, in_features)."""
        return self.weight.T


def chips_in(crossbar: Crossbar, x: Tensor, channels: int, dim: int) -> int:
    """How many chips the batch holds.

    Raises:
        HpmlError: `x` has another number of channels, or a batch that is not a multiple of the chips; or an exporter is
            recording.
    """
    check_not_exporting("a layer on crossbars", "Export the digital network that it was made from")
    if x.shape[dim] != channels:
        raise HpmlError(f"analog layer: input of shape {tuple(x.shape)} must have {channels} values in dimension {dim}")
    if crossbar.programmed is not None and x.shape[0] % (crossbar.chips * crossbar.programmed.batch):
        raise HpmlError(
            f"analog layer: the first dimension of {tuple(x.shape)} must hold {crossbar.chips} chips x "
            f"{crossbar.programmed.batch} samples; keep the batch first in every layer of the network"
        )
    return crossbar.chips


class _AnalogConv(nn.modules.conv._ConvNd):
    """What the three convolutions share; each keeps the class and the arguments of its digital one."""

    crossbar: Crossbar

    def _map(self, target: Analog) -> None:
        rows = self.weight[0].numel()
        self.crossbar = Crossbar(
            rows,
            self.out_channels // self.groups,
            self.groups,
            target,
            device=self.weight.device,
            dtype=self.weight.dtype,
        )

    @classmethod
    def from_digital(cls, layer: Any, target: Analog) -> Any:
        """The same layer on crossbars. It holds the same parameters, so weights that were tied stay tied."""
        new = cls.__new__(cls)
        nn.Module.__init__(new)
        new.__dict__.update({name: getattr(layer, name) for name in _CONV_SETTINGS})
        new.weight, new.bias = layer.weight, layer.bias
        new._map(target)
        return new.train(layer.training)

    def matrix(self) -> Tensor:
        """The weights as the crossbar takes them, (out_channels, in_channels / groups * kernel)."""
        return self.weight.flatten(1)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name in torch
        """(batch, in_channels, *sizes) -> (batch, out_channels, *sizes)."""
        n = len(self.kernel_size)
        if input.dim() == n + 1 and self.crossbar.programmed is None:
            return self.forward(input.unsqueeze(0)).squeeze(0)
        if input.dim() != n + 2:
            raise HpmlError(f"analog convolution: input must be (batch, channels, {n} sizes), got {tuple(input.shape)}")
        chips = chips_in(self.crossbar, input, self.in_channels, 1)
        mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
        padding = self._reversed_padding_repeated_twice
        x = nn.functional.pad(input, padding, mode=mode) if any(padding) else input
        pieces = self._pieces(x, chips)
        if pieces > 1:
            parts = x.unflatten(0, (chips, -1)).chunk(pieces, 1)
            y = torch.cat([self._products(part.flatten(0, 1), chips).unflatten(0, (chips, -1)) for part in parts], 1)
            y = y.flatten(0, 1)
        else:
            y = self._products(x, chips)
        return y if self.bias is None else y + self.bias.view(-1, *[1] * n)

    def _pieces(self, x: Tensor, chips: int) -> int:
        """In how many pieces of the batch to go, so that the input vectors, each value many times, fit the memory."""
        if self.training or self.crossbar.observing or torch.is_grad_enabled() or x.is_meta:
            return 1
        vectors = _product(_places(x, self.kernel_size, self.stride, self.dilation))
        values = len(x) * vectors * (self.in_channels * _product(self.kernel_size))
        most = _MAX_VALUES if x.device.type == "cpu" else _MAX_ELSEWHERE
        return max(1, min(len(x) // chips, math.ceil(values / most)))

    def _products(self, x: Tensor, chips: int) -> Tensor:
        """The convolution of padded inputs, without bias."""
        patches, sizes = _patches(x, self.kernel_size, self.stride, self.dilation)  # (batch, channels * kernel, places)
        batch, groups = len(x) // chips, self.groups
        patches = patches.reshape(chips, batch, groups, -1, patches.shape[-1])
        vectors = patches.permute(0, 2, 1, 4, 3).flatten(2, 3)
        y = self.crossbar(vectors, self.matrix())  # (chips, groups, batch * places, out / groups)
        return y.unflatten(2, (batch, -1)).permute(0, 2, 1, 4, 3).reshape(len(x), self.out_channels, *sizes)


_MAX_VALUES = 1 << 22
"""Values of input vectors that one piece of an evaluation may hold: 16 MiB in float32, which caches like."""
_MAX_ELSEWHERE = 1 << 28
"""The same on a GPU, which likes large products: 1 GiB."""
_CONV_SETTINGS = (
    "in_channels",
    "out_channels",
    "kernel_size",
    "stride",
    "padding",
    "dilation",
    "transposed",
    "output_padding",
    "groups",
    "padding_mode",
    "_reversed_padding_repeated_twice",
)


def _patches(
    x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[Tensor, tuple[int, ...]]:
    """The input vectors of a convolution, (batch, channels * kernel, places), and the sizes of the places."""
    sizes = _places(x, kernel, stride, dilation)
    if len(kernel) == 2:
        return nn.functional.unfold(x, kernel, dilation, 0, stride), sizes
    if len(kernel) == 1:
        patches = nn.functional.unfold(x.unsqueeze(2), (1, *kernel), (1, *dilation), 0, (1, *stride))
        return patches, sizes
    for axis, (r, s) in enumerate(zip(_reach(kernel, dilation), stride, strict=True)):
        x = x.unfold(2 + axis, r, s)[..., :: dilation[axis]]
    batch, channels = x.shape[:2]
    order = (0, 1, *range(2 + len(kernel), 2 + 2 * len(kernel)), *range(2, 2 + len(kernel)))
    return x.permute(order).reshape(batch, channels * _product(kernel), _product(sizes)), sizes


def _reach(kernel: tuple[int, ...], dilation: tuple[int, ...]) -> list[int]:
    return [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]


def _places(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]) -> tuple[int, ...]:
    """How many places a kernel has on a padded input, by dimension."""
    reach = _reach(kernel, dilation)
    sizes = tuple((n - r) // s + 1 for n, r, s in zip(x.shape[2:], reach, stride, strict=True))
    if min(sizes) < 1:
        raise HpmlError(f"analog convolution: input of sizes {tuple(x.shape[2:])} is smaller than the kernel {reach}")
    return sizes


def _product(sizes: tuple[int, ...]) -> int:
    return int(torch.Size(sizes).numel())


class AnalogConv1d(_AnalogConv, nn.Conv1d):
    """`nn.Conv1d` on crossbar tiles; all its arguments, and `card` (a card's name or path, or `Analog(...)`)."""

    def __init__(self, *args: Any, card: str | Analog = "pcm-hermes", **kwargs: Any):
        nn.Conv1d.__init__(self, *args, **kwargs)
        self._map(as_analog(card))


class AnalogConv2d(_AnalogConv, nn.Conv2d):
    """`nn.Conv2d` on crossbar tiles; all its arguments, and `card` (a card's name or path, or `Analog(...)`)."""

    def __init__(self, *args: Any, card: str | Analog = "pcm-hermes", **kwargs: Any):
        nn.Conv2d.__init__(self, *args, **kwargs)
        self._map(as_analog(card))


class AnalogConv3d(_AnalogConv, nn.Conv3d):
    """`nn.Conv3d` on crossbar tiles; all its arguments, and `card` (a card's name or path, or `Analog(...)`)."""

    def __init__(self, *args: Any, card: str | Analog = "pcm-hermes", **kwargs: Any):
        nn.Conv3d.__init__(self, *args, **kwargs)
        self._map(as_analog(card))


def crossbars(model: nn.Module) -> dict[str, Crossbar]:
    """All crossbars of a model by the dotted name of their layer, in the order of the model."""
    return {name.rpartition(".")[0]: module for name, module in model.named_modules() if isinstance(module, Crossbar)}


def has_analog_layers(model: nn.Module) -> bool:
    """Whether any layer of the model lies on crossbars."""
    return bool(crossbars(model))
