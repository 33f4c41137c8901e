"""Convolutions on crossbars: every place of the kernel is one input vector, and the tiles multiply them all."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from hpml_sim.analog.channel_scales import OnCrossbar, add_channel_scale
from hpml_sim.analog.crossbar import Crossbar
from hpml_sim.analog.crossbar_convolution import convolve, takes_whole_images
from hpml_sim.analog.layers import as_analog, check_input, torch_arguments
from hpml_sim.analog.low_rank_adapter import with_adapter
from hpml_sim.analog.row_tiles import Geometry
from hpml_sim.analog.weight_limits import forget_limit_of_loaded
from hpml_sim.errors import HpmlError
from hpml_sim.targets import Analog

_MAX_VALUES = 1 << 22
"""Values of input vectors that one piece of an evaluation may hold: 16 MiB in float32, which caches like."""
_MAX_VALUES_GPU = 1 << 28
"""The same on a GPU, which likes large products: 1 GiB."""
_CONV_ARGUMENTS = (
    "in_channels",
    "out_channels",
    "kernel_size",
    "stride",
    "padding",
    "dilation",
    "groups",
    "bias",
    "padding_mode",
)
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


class _AnalogConv(OnCrossbar, nn.modules.conv._ConvNd):
    """What the three convolutions share; each keeps the class and the arguments of its digital one."""

    crossbar: Crossbar

    def _add_crossbar(self, target: Analog) -> None:
        rows = self.weight[0].numel()
        self.crossbar = Crossbar(
            rows,
            self.out_channels // self.groups,
            self.groups,
            target,
            device=self.weight.device,
            dtype=self.weight.dtype,
        )
        add_channel_scale(self.crossbar, self.in_channels)
        self.register_load_state_dict_pre_hook(forget_limit_of_loaded)

    @classmethod
    def from_digital(cls, layer: Any, target: Analog) -> Any:
        """The same layer on crossbars. It holds the same parameters, so weights that were tied stay tied.

        Args:
            layer: the digital layer.
            target: the configuration.
        """
        new = cls.__new__(cls)
        nn.Module.__init__(new)
        new.__dict__.update({name: getattr(layer, name) for name in _CONV_SETTINGS})
        new.weight, new.bias = layer.weight, layer.bias
        new._add_crossbar(target)
        return new.train(layer.training)

    def plain_matrix(self) -> Tensor:
        """The layer's own weights, (out_channels, in_channels / groups * kernel)."""
        return self.weight.flatten(1)

    def from_plain_matrix(self, matrix: Tensor) -> Tensor:
        """A matrix as the layer's weight has it; the other way of `plain_matrix`.

        Args:
            matrix: shape (out_channels, in_channels / groups * kernel).
        """
        return matrix.reshape(self.weight.shape)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name in torch
        """The convolution and the bias.

        Args:
            input: shape (batch, in_channels, *sizes), or without the batch.

        Returns:
            shape (batch, out_channels, *sizes).

        Raises:
            HpmlError: an input of another shape, or one smaller than the kernel.
        """
        n = len(self.kernel_size)
        if input.dim() == n + 1:
            return self.forward(input.unsqueeze(0)).squeeze(0)
        if input.dim() != n + 2:
            raise HpmlError(f"analog convolution: input must be (batch, channels, {n} sizes), got {tuple(input.shape)}")
        check_input(self.crossbar, input, self.in_channels, 1, self.weight)
        y = self._convolved(self.by_channel(input, 1))
        return with_adapter(self, y, input)

    def _convolved(self, input: Tensor) -> Tensor:  # noqa: A002 - as in forward
        """The convolution and the bias on crossbars. input: (batch, in_channels, *sizes)."""
        n = len(self.kernel_size)
        mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
        padding = self._reversed_padding_repeated_twice
        if takes_whole_images(self.crossbar) and not input.is_meta:
            sides = tuple(padding[::-2])
            inside = mode == "constant" and sides == tuple(padding[-2::-2])  # else the library does not pad so
            x = input if inside or not any(padding) else nn.functional.pad(input, padding, mode=mode)
            sizes: Any = (self.kernel_size, self.stride, sides if inside else (0,) * n, self.dilation)
            kernel, stride, padded, dilation = map(tuple, sizes)
            geometry = Geometry(kernel, stride, padded, dilation, self.groups)
            _check_places(x, geometry.places(x.shape[2:]), _reach(geometry.kernel, geometry.dilation))
            return convolve(self.crossbar, x, self.multiplied_matrix(), self.bias, geometry)
        x = nn.functional.pad(input, padding, mode=mode) if any(padding) else input
        parts = x.chunk(pieces) if (pieces := self._pieces(x)) > 1 else (x,)
        ys, done = [], 0
        for part in parts:
            ys.append(self._products(part, done, len(x)))
            done += len(part)
        y = torch.cat(ys) if len(ys) > 1 else ys[0]
        return y if self.bias is None else y + self.bias.view(-1, *[1] * n)

    def _pieces(self, x: Tensor) -> int:
        """In how many pieces of the batch to go, so that the input vectors, each value many times, fit the memory."""
        if self.training or self.crossbar.calibrating is not None or torch.is_grad_enabled() or x.is_meta:
            return 1
        vectors = _product(_places(x, self.kernel_size, self.stride, self.dilation))
        values = self.crossbar.n_chips * len(x) * vectors * (self.in_channels * _product(self.kernel_size))
        max_values = _MAX_VALUES if x.device.type == "cpu" else _MAX_VALUES_GPU
        return max(1, min(len(x), math.ceil(values / max_values)))

    def _products(self, x: Tensor, done: int, images: int) -> Tensor:
        """The convolution of padded inputs, without bias. done: inputs of earlier pieces; images: of all pieces."""
        patches, sizes = _patches(x, self.kernel_size, self.stride, self.dilation)  # (batch, channels * kernel, places)
        batch, groups, places = len(x), self.groups, _product(sizes)
        # all sizes in numbers: torch cannot infer one of a batch without samples
        patches = patches.reshape(batch, groups, patches.shape[1] // groups, places)
        vectors = patches.permute(1, 0, 3, 2).flatten(1, 2)
        # (groups, batch * places, out / groups)
        y = self.crossbar(vectors, self.multiplied_matrix(), places=places, piece=(done * places, images * places))
        return y.unflatten(1, (batch, places)).permute(1, 0, 3, 2).reshape(batch, self.out_channels, *sizes)


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
    # torch unfolds two dimensions only: three are unfolded one by one, as views, and copied once at the end
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
    _check_places(x, sizes, reach)
    return sizes


def _check_places(x: Tensor, sizes: tuple[int, ...], reach: list[int]) -> None:
    if min(sizes) < 1:
        raise HpmlError(f"analog convolution: input of sizes {tuple(x.shape[2:])} is smaller than the kernel {reach}")


def _product(sizes: tuple[int, ...]) -> int:
    return int(torch.Size(sizes).numel())


class AnalogConv1d(_AnalogConv, nn.Conv1d):
    """`nn.Conv1d` on crossbar tiles: (batch, in_channels, length) -> (batch, out_channels, length).

    Args:
        args: of `nn.Conv1d`: in_channels, out_channels, kernel_size, and so on. The bias is added in digital.
        card: a crossbar card's name or path, or an `hs.Analog(...)` configuration.
        kwargs: of `nn.Conv1d`.

    Raises:
        UnknownNameError: no card has this name.
        CardError: a broken card.
        HpmlError: a card or a target of another kind.

    Example:
        >>> import torch, hpml_sim as hs
        >>> layer = hs.nn.AnalogConv1d(2, 8, 3, card="pcm-hermes")
        >>> layer(torch.rand(4, 2, 16)).shape
        torch.Size([4, 8, 14])
    """

    def __init__(self, *args: Any, card: str | Analog = "pcm-hermes", **kwargs: Any):
        with torch_arguments(self, _CONV_ARGUMENTS, args, kwargs):
            nn.Conv1d.__init__(self, *args, **kwargs)
        self._add_crossbar(as_analog(card))


class AnalogConv2d(_AnalogConv, nn.Conv2d):
    """`nn.Conv2d` on crossbar tiles: (batch, in_channels, height, width) -> (batch, out_channels, height, width).

    Args:
        args: of `nn.Conv2d`: in_channels, out_channels, kernel_size, and so on. The bias is added in digital.
        card: a crossbar card's name or path, or an `hs.Analog(...)` configuration.
        kwargs: of `nn.Conv2d`.

    Raises:
        UnknownNameError: no card has this name.
        CardError: a broken card.
        HpmlError: a card or a target of another kind.

    Example:
        >>> import torch, hpml_sim as hs
        >>> layer = hs.nn.AnalogConv2d(3, 8, 3, padding=1, card="pcm-hermes")
        >>> layer(torch.rand(4, 3, 16, 16)).shape
        torch.Size([4, 8, 16, 16])
    """

    def __init__(self, *args: Any, card: str | Analog = "pcm-hermes", **kwargs: Any):
        with torch_arguments(self, _CONV_ARGUMENTS, args, kwargs):
            nn.Conv2d.__init__(self, *args, **kwargs)
        self._add_crossbar(as_analog(card))


class AnalogConv3d(_AnalogConv, nn.Conv3d):
    """`nn.Conv3d` on crossbar tiles: (batch, in_channels, *sizes) -> (batch, out_channels, *sizes), three sizes.

    Args:
        args: of `nn.Conv3d`: in_channels, out_channels, kernel_size, and so on. The bias is added in digital.
        card: a crossbar card's name or path, or an `hs.Analog(...)` configuration.
        kwargs: of `nn.Conv3d`.

    Raises:
        UnknownNameError: no card has this name.
        CardError: a broken card.
        HpmlError: a card or a target of another kind.

    Example:
        >>> import torch, hpml_sim as hs
        >>> layer = hs.nn.AnalogConv3d(1, 4, 2, card="pcm-hermes")
        >>> layer(torch.rand(2, 1, 4, 4, 4)).shape
        torch.Size([2, 4, 3, 3, 3])
    """

    def __init__(self, *args: Any, card: str | Analog = "pcm-hermes", **kwargs: Any):
        with torch_arguments(self, _CONV_ARGUMENTS, args, kwargs):
            nn.Conv3d.__init__(self, *args, **kwargs)
        self._add_crossbar(as_analog(card))
