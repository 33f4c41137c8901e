"""Transposed convolutions on crossbars: every input position is one vector, and the tiles give all that it spreads.

The matrix has a row an input channel and a column for each output channel and place of the kernel. What the columns
give is added up in digital where the spread of neighboring positions overlaps.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from hpml_sim.analog.channel_scales import OnCrossbar, add_channel_scale
from hpml_sim.analog.crossbar import Crossbar
from hpml_sim.analog.layers import as_analog, check_input, torch_arguments
from hpml_sim.analog.low_rank_adapter import with_adapter
from hpml_sim.errors import HpmlError
from hpml_sim.targets import Analog

_CONV_ARGUMENTS = (  # torch's order, which is not that of its other convolutions
    "in_channels",
    "out_channels",
    "kernel_size",
    "stride",
    "padding",
    "output_padding",
    "groups",
    "bias",
    "dilation",
    "padding_mode",
)

_SETTINGS = (
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


class _AnalogConvTranspose(OnCrossbar, nn.modules.conv._ConvTransposeNd):
    """What the three transposed convolutions share; each keeps the class and the arguments of its digital one."""

    crossbar: Crossbar

    def _add_crossbar(self, target: Analog) -> None:
        weight = self.weight  # (in_channels, out_channels / groups, *kernel)
        self.crossbar = Crossbar(
            self.in_channels // self.groups,
            weight[0].numel(),
            self.groups,
            target,
            device=weight.device,
            dtype=weight.dtype,
        )
        add_channel_scale(self.crossbar, self.in_channels)

    @classmethod
    def from_digital(cls, layer: Any, target: Analog) -> Any:
        """The same layer on crossbars. It holds the same parameters, so weights that were tied stay tied.

        Args:
            layer: the digital layer.
            target: the configuration.
        """
        new = cls.__new__(cls)
        nn.Module.__init__(new)
        new.__dict__.update({name: getattr(layer, name) for name in _SETTINGS})
        new.weight, new.bias = layer.weight, layer.bias
        new._add_crossbar(target)
        return new.train(layer.training)

    def plain_matrix(self) -> Tensor:
        """The layer's own weights, (groups * out_channels / groups * kernel, in_channels / groups)."""
        return self.weight.flatten(1).unflatten(0, (self.groups, -1)).transpose(1, 2).flatten(0, 1)

    def from_plain_matrix(self, matrix: Tensor) -> Tensor:
        """A matrix as the layer's weight has it; the other way of `plain_matrix`.

        Args:
            matrix: shape (groups * out_channels / groups * kernel, in_channels / groups).
        """
        return matrix.unflatten(0, (self.groups, -1)).transpose(1, 2).reshape(self.weight.shape)

    def forward(self, input: Tensor, output_size: Any = None) -> Tensor:  # noqa: A002 - the name in torch
        """The transposed convolution and the bias.

        Args:
            input: shape (batch, in_channels, *sizes); without the batch only where no chips are programmed.
            output_size: sizes of the output, where the stride leaves them open; None: those of `output_padding`.

        Returns:
            shape (batch, out_channels, *sizes).

        Raises:
            HpmlError: an input of another shape, or an output size that the stride does not allow.
        """
        n = len(self.kernel_size)
        if input.dim() == n + 1 and self.crossbar.programmed is None:
            return self.forward(input.unsqueeze(0), output_size).squeeze(0)
        if input.dim() != n + 2:
            raise HpmlError(
                f"analog transposed convolution: input must be (batch, channels, {n} sizes), got {tuple(input.shape)}"
            )
        check_input(self.crossbar, input, self.in_channels, 1, self.weight)
        extra = self._extra(input, output_size)
        batch, places = len(input), input.shape[2:]
        x = self.by_channel(input, 1).reshape(batch, self.groups, self.in_channels // self.groups, -1)
        y = self.crossbar(x.permute(1, 0, 3, 2).flatten(1, 2), self.multiplied_matrix(), places=x.shape[-1])
        # (groups, batch * places, out / groups * kernel) -> (batch, out * kernel, *places)
        y = y.unflatten(1, (batch, -1)).permute(1, 0, 3, 2).reshape(batch, -1, *places)
        y = self._spread(y, extra)
        y = y if self.bias is None else y + self.bias.view(-1, *[1] * n)
        return with_adapter(self, y, input, output_size)

    def _extra(self, x: Tensor, output_size: Any) -> tuple[int, ...]:
        """The output padding of this call."""
        if output_size is None:
            return tuple(self.output_padding)
        n = len(self.kernel_size)
        try:
            extra = self._output_padding(
                x,
                list(output_size),
                list(self.stride),
                [int(p) for p in self.padding],
                list(self.kernel_size),
                n,
                list(self.dilation),
            )
        except (ValueError, TypeError) as error:
            raise HpmlError(f"analog transposed convolution: output_size={output_size!r}: {error}") from None
        return tuple(extra)

    def _spread(self, values: Tensor, extra: tuple[int, ...]) -> Tensor:
        """Add up what every place of the kernel gives, where it lands.

        Args:
            values: shape (batch, out_channels * kernel, *places).
            extra: output padding.
        """
        kernel, places = tuple(self.kernel_size), values.shape[2:]
        geometry = list(zip(kernel, self.stride, self.dilation, map(int, self.padding), extra, places, strict=True))
        whole = [(n - 1) * s + d * (k - 1) + 1 + e for k, s, d, _, e, n in geometry]
        values = values.unflatten(1, (self.out_channels, *kernel))
        y = values.new_zeros(len(values), self.out_channels, *whole)
        for place in _places(kernel):
            target = [
                slice(d * tap, d * tap + (n - 1) * s + 1, s)
                for tap, (_, s, d, _, _, n) in zip(place, geometry, strict=True)
            ]
            y[(slice(None), slice(None), *target)] += values[(slice(None), slice(None), *place)]
        cut = [slice(p, size - p) for size, (_, _, _, p, _, _) in zip(whole, geometry, strict=True)]
        return y[(slice(None), slice(None), *cut)]


def _places(kernel: tuple[int, ...]) -> list[tuple[int, ...]]:
    """All places of a kernel."""
    places: list[tuple[int, ...]] = [()]
    for size in kernel:
        places = [(*place, tap) for place in places for tap in range(size)]
    return places


class AnalogConvTranspose1d(_AnalogConvTranspose, nn.ConvTranspose1d):
    """`nn.ConvTranspose1d` on crossbar tiles: (batch, in_channels, length) -> (batch, out_channels, length).

    Args:
        args: of `nn.ConvTranspose1d`: in_channels, out_channels, kernel_size, and so on. The bias is added in digital.
        card: a crossbar card's name or path, or an `hs.Analog(...)` configuration.
        kwargs: of `nn.ConvTranspose1d`.

    Raises:
        UnknownNameError: no card has this name.
        CardError: a broken card.
        HpmlError: a card or a target of another kind.

    Example:
        >>> import torch, hpml_sim as hs
        >>> layer = hs.nn.AnalogConvTranspose1d(8, 2, 4, stride=2, card="pcm-hermes")
        >>> layer(torch.rand(4, 8, 5)).shape
        torch.Size([4, 2, 12])
    """

    def __init__(self, *args: Any, card: str | Analog = "pcm-hermes", **kwargs: Any):
        with torch_arguments(self, _CONV_ARGUMENTS, args, kwargs):
            nn.ConvTranspose1d.__init__(self, *args, **kwargs)
        self._add_crossbar(as_analog(card))


class AnalogConvTranspose2d(_AnalogConvTranspose, nn.ConvTranspose2d):
    """`nn.ConvTranspose2d` on crossbar tiles: (batch, in_channels, height, width) -> (batch, out_channels, ...).

    Args:
        args: of `nn.ConvTranspose2d`: in_channels, out_channels, kernel_size, and so on. The bias is added in digital.
        card: a crossbar card's name or path, or an `hs.Analog(...)` configuration.
        kwargs: of `nn.ConvTranspose2d`.

    Raises:
        UnknownNameError: no card has this name.
        CardError: a broken card.
        HpmlError: a card or a target of another kind.

    Example:
        >>> import torch, hpml_sim as hs
        >>> layer = hs.nn.AnalogConvTranspose2d(8, 3, 2, stride=2, card="pcm-hermes")
        >>> layer(torch.rand(4, 8, 7, 7)).shape
        torch.Size([4, 3, 14, 14])
    """

    def __init__(self, *args: Any, card: str | Analog = "pcm-hermes", **kwargs: Any):
        with torch_arguments(self, _CONV_ARGUMENTS, args, kwargs):
            nn.ConvTranspose2d.__init__(self, *args, **kwargs)
        self._add_crossbar(as_analog(card))


class AnalogConvTranspose3d(_AnalogConvTranspose, nn.ConvTranspose3d):
    """`nn.ConvTranspose3d` on crossbar tiles: (batch, in_channels, *sizes) -> (batch, out_channels, *sizes).

    Args:
        args: of `nn.ConvTranspose3d`: in_channels, out_channels, kernel_size, and so on. The bias is added in digital.
        card: a crossbar card's name or path, or an `hs.Analog(...)` configuration.
        kwargs: of `nn.ConvTranspose3d`.

    Raises:
        UnknownNameError: no card has this name.
        CardError: a broken card.
        HpmlError: a card or a target of another kind.

    Example:
        >>> import torch, hpml_sim as hs
        >>> layer = hs.nn.AnalogConvTranspose3d(4, 1, 2, stride=2, card="pcm-hermes")
        >>> layer(torch.rand(2, 4, 3, 3, 3)).shape
        torch.Size([2, 1, 6, 6, 6])
    """

    def __init__(self, *args: Any, card: str | Analog = "pcm-hermes", **kwargs: Any):
        with torch_arguments(self, _CONV_ARGUMENTS, args, kwargs):
            nn.ConvTranspose3d.__init__(self, *args, **kwargs)
        self._add_crossbar(as_analog(card))
