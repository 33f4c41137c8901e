"""Small networks of other families: residual and depthwise convolutions, a transformer, recurrent networks.

The last two read a sequence: of vectors (steps, features), of the rows of an image, or of token ids (tokens,). Of
token ids they predict the next one; of all others the class.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hpml_sim.errors import HpmlError, check_whole, shown
from hpml_sim.networks.convolutional import Residual
from hpml_sim.networks.pretrained.sentence_encoder import EncoderBlock

_HEADS = 4


def resnet(input_shape: Sequence[int], classes: int, *, width: int = 16) -> nn.Sequential:
    """Residual network of three stages of one block each: (batch, *input_shape) -> (batch, classes).

    Args:
        input_shape: (channels, height, width).
        classes: number of outputs, >= 1.
        width: channels of the first stage, >= 1; the second and third have twice and four times as many.

    Raises:
        HpmlError: a shape that is none of an image, or a number that is no whole number >= 1.

    Example:
        >>> import hpml_sim as hs, torch
        >>> hs.models.resnet((3, 32, 32), 10, width=4)(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 10])

    Source: K. He et al., "Deep residual learning for image recognition", CVPR 2016, section 4.2.
    """
    (channels, _, _), classes, width = _image("resnet", input_shape, classes, width)
    layers: list[nn.Module] = [*_conv(channels, width, 3), nn.ReLU()]
    ins = width
    for stage in range(3):
        outs, stride = width * 2**stage, 1 + (stage > 0)
        body = nn.Sequential(*_conv(ins, outs, 3, stride=stride), nn.ReLU(), *_conv(outs, outs, 3))
        shortcut = nn.Identity() if stage == 0 else nn.Sequential(*_conv(ins, outs, 1, stride=stride))
        layers.append(Residual(body, shortcut))
        ins = outs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(ins, classes))


def depthwise(input_shape: Sequence[int], classes: int, *, width: int = 16) -> nn.Sequential:
    """Depthwise separable convolutions, three of them: (batch, *input_shape) -> (batch, classes).

    Args:
        input_shape: (channels, height, width).
        classes: number of outputs, >= 1.
        width: channels of the first convolution, >= 1; each later one has twice as many.

    Raises:
        HpmlError: a shape that is none of an image, or a number that is no whole number >= 1.

    Example:
        >>> import hpml_sim as hs, torch
        >>> hs.models.depthwise((1, 28, 28), 10, width=4)(torch.rand(2, 1, 28, 28)).shape
        torch.Size([2, 10])

    Source: A. Howard et al., "MobileNets", arXiv:1704.04861 (2017), section 3.1.
    """
    (channels, _, _), classes, width = _image("depthwise", input_shape, classes, width)
    layers: list[nn.Module] = [*_conv(channels, width, 3), nn.ReLU()]
    ins = width
    for stage in range(3):
        layers += [*_conv(ins, ins, 3, stride=1 + (stage > 0), groups=ins), nn.ReLU()]
        layers += [*_conv(ins, 2 * ins, 1), nn.ReLU()]
        ins *= 2
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(ins, classes))


def _conv(ins: int, outs: int, kernel: int, *, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(ins, outs, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(outs)]


def _image(name: str, given: Sequence[int], classes: int, width: int) -> tuple[tuple[int, ...], int, int]:
    """The arguments of a network of images, checked."""
    sizes = _sizes(name, given)
    if len(sizes) != 3:
        raise HpmlError(f"{name}: input_shape={sizes}: must be (channels, height, width), such as (1, 28, 28)")
    return sizes, check_whole(f"{name}: classes", classes, low=1), check_whole("width", width, low=1)


def _sizes(name: str, given: object) -> tuple[int, ...]:
    if not isinstance(given, Sequence) or isinstance(given, (str, bytes)) or not given:
        raise HpmlError(f"{name}: input_shape={shown(given)}: must be the shape of one sample, such as (1, 28, 28)")
    return tuple(check_whole(f"{name}: input_shape", size, low=1) for size in given)


class Steps(nn.Module):
    """A sample as a sequence of vectors: (batch, steps, width).

    Args:
        input_shape: (tokens,) of token ids, (steps, features), or (channels, height, width), whose rows are the steps.
        ids: how many token ids there are.
        width: of the vectors.
    """

    def __init__(self, input_shape: tuple[int, ...], ids: int, width: int):
        super().__init__()
        self.tokens = len(input_shape) == 1
        self.steps = input_shape[-2:][0]
        features = math.prod(input_shape) // self.steps
        self.embedding = nn.Embedding(ids, width) if self.tokens else nn.Linear(features, width)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, *input_shape) -> (batch, steps, width).

        Args:
            x: token ids, int64, or numbers.
        """
        if not self.tokens:
            x = x.movedim(-2, 1).flatten(2)  # rows first; of each row all channels
        return self.embedding(x)


class Transformer(nn.Module):
    """Blocks of attention and a feed-forward part over the steps of a sample.

    Of token ids each step sees those before it, and gives logits of the next id, (batch, tokens, classes); of all
    others every step sees all, and their mean gives logits (batch, classes).

    Args:
        input_shape: (tokens,) of token ids, (steps, features), or (channels, height, width), whose rows are the steps.
        classes: number of outputs, >= 1; of token ids how many there are.
        width: of a step, a multiple of 4.
        depth: blocks, >= 1.

    Raises:
        HpmlError: a number out of range.

    Source: A. Vaswani et al., "Attention is all you need", arXiv:1706.03762 (2017).
    """

    def __init__(self, input_shape: Sequence[int], classes: int, *, width: int = 64, depth: int = 2):
        super().__init__()
        sizes = _sizes("transformer", input_shape)
        classes = check_whole("transformer: classes", classes, low=1)
        width = check_whole("width", width, low=_HEADS)
        if width % _HEADS:
            raise HpmlError(f"width={width}: must be a multiple of {_HEADS}, the heads of attention")
        self.steps = Steps(sizes, classes, width)
        self.positions = nn.Parameter(0.02 * torch.randn(self.steps.steps, width))
        blocks = (EncoderBlock(width, _HEADS, 4 * width, 1e-5) for _ in range(check_whole("depth", depth, low=1)))
        self.blocks = nn.ModuleList(blocks)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, (batch, tokens, classes) of token ids, (batch, classes) of all others.

        Args:
            x: (batch, *input_shape); of token ids fewer tokens as well.
        """
        found = self.steps(x)
        count = found.shape[1]
        found = found + self.positions[:count]
        causal = torch.ones(1, 1, count, count, dtype=torch.bool, device=x.device).tril() if self.steps.tokens else None
        for block in self.blocks:
            found = block(found, causal)
        return self.head(found if self.steps.tokens else found.mean(1))


class Recurrent(nn.Module):
    """A recurrent layer over the steps of a sample, and a linear one.

    Of token ids each step gives logits of the next id, (batch, tokens, classes); of all others the last step gives
    logits (batch, classes).

    Args:
        kind: "gru" or "lstm".
        input_shape: (tokens,) of token ids, (steps, features), or (channels, height, width), whose rows are the steps.
        classes: number of outputs, >= 1; of token ids how many there are.
        width: of the state, >= 1.

    Raises:
        HpmlError: a number out of range.

    Source: K. Cho et al., arXiv:1406.1078 (2014); S. Hochreiter and J. Schmidhuber, Neural Computation 9:1735 (1997).
    """

    def __init__(self, kind: str, input_shape: Sequence[int], classes: int, *, width: int = 64):
        super().__init__()
        sizes = _sizes(kind, input_shape)
        classes, width = check_whole(f"{kind}: classes", classes, low=1), check_whole("width", width, low=1)
        self.steps = Steps(sizes, classes, width)
        self.layer = (nn.GRU if kind == "gru" else nn.LSTM)(width, width, batch_first=True)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, (batch, tokens, classes) of token ids, (batch, classes) of all others.

        Args:
            x: (batch, *input_shape).
        """
        states = self.layer(self.steps(x))[0]
        return self.head(states if self.steps.tokens else states[:, -1])


def transformer(input_shape: Sequence[int], classes: int, *, width: int = 64) -> Transformer:
    """Two blocks of attention over the steps, rows or token ids of a sample.

    Args:
        input_shape: (tokens,) of token ids, (steps, features), or (channels, height, width), whose rows are the steps.
        classes: number of outputs, >= 1; of token ids how many there are.
        width: of a step, a multiple of 4.

    Raises:
        HpmlError: a number out of range.

    Example:
        >>> import hpml_sim as hs, torch
        >>> hs.models.transformer((1, 8, 8), 10)(torch.rand(2, 1, 8, 8)).shape
        torch.Size([2, 10])
        >>> hs.models.transformer((128,), 256)(torch.randint(256, (2, 128))).shape
        torch.Size([2, 128, 256])
    """
    return Transformer(input_shape, classes, width=width)


def gru(input_shape: Sequence[int], classes: int, *, width: int = 64) -> Recurrent:
    """A GRU over the steps, rows or token ids of a sample.

    Args:
        input_shape: (tokens,) of token ids, (steps, features), or (channels, height, width), whose rows are the steps.
        classes: number of outputs, >= 1; of token ids how many there are.
        width: of the state, >= 1.

    Raises:
        HpmlError: a number out of range.

    Example:
        >>> import hpml_sim as hs, torch
        >>> hs.models.gru((40, 3), 10)(torch.rand(2, 40, 3)).shape
        torch.Size([2, 10])
    """
    return Recurrent("gru", input_shape, classes, width=width)


def lstm(input_shape: Sequence[int], classes: int, *, width: int = 64) -> Recurrent:
    """An LSTM over the steps, rows or token ids of a sample.

    Args:
        input_shape: (tokens,) of token ids, (steps, features), or (channels, height, width), whose rows are the steps.
        classes: number of outputs, >= 1; of token ids how many there are.
        width: of the state, >= 1.

    Raises:
        HpmlError: a number out of range.

    Example:
        >>> import hpml_sim as hs, torch
        >>> hs.models.lstm((40, 3), 10)(torch.rand(2, 40, 3)).shape
        torch.Size([2, 10])
    """
    return Recurrent("lstm", input_shape, classes, width=width)
