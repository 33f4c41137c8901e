"""Image networks of the literature, to be built without weights: ResNet-D, ResNeXt, VGG, MobileNetV2, ConvNeXt."""

from __future__ import annotations

from torch import Tensor, nn

from hpml_sim.networks.convolutional import Residual


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each position of (batch, channels, height, width).

    Args:
        width: channels.
    """

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, height, width)."""
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _conv_norm(ins: int, outs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(ins, outs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(outs)]


def residual_network(
    depths: tuple[int, ...],
    *,
    bottleneck: bool,
    deep: bool = False,
    groups: int = 1,
    group_width: int = 64,
    classes: int = 1000,
) -> nn.Sequential:
    """ResNet and its relatives ResNet-D, ResNeXt and Wide ResNet.

    Args:
        depths: blocks of each of the four stages.
        bottleneck: blocks of three convolutions in place of two.
        deep: ResNet-D: three 3 x 3 convolutions at the start, and shortcuts that average before they are convolved.
        groups: of the 3 x 3 convolutions of bottlenecks.
        group_width: channels of such a group in the first stage.
        classes: outputs.

    Source: K. He et al., CVPR 2016, Table 1; ResNet-D: T. He et al., "Bag of tricks for image classification with
    convolutional neural networks", CVPR 2019, Figure 2; ResNeXt: S. Xie et al., CVPR 2017, Table 1; Wide ResNet:
    S. Zagoruyko, N. Komodakis, BMVC 2016.
    """
    if deep:
        layers = [*_conv_norm(3, 32, 3, 2), nn.ReLU(), *_conv_norm(32, 32, 3), nn.ReLU(), *_conv_norm(32, 64, 3)]
    else:
        layers = _conv_norm(3, 64, 7, 2)
    layers += [nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    ins, expansion = 64, 4 if bottleneck else 1
    for stage, depth in enumerate(depths):
        outs = 64 * 2**stage * expansion
        width = groups * group_width * 2**stage
        for k in range(depth):
            stride = 2 if stage and not k else 1
            if bottleneck:
                body = [*_conv_norm(ins, width, 1), nn.ReLU(), *_conv_norm(width, width, 3, stride, groups), nn.ReLU()]
                body += _conv_norm(width, outs, 1)
            else:
                body = [*_conv_norm(ins, width, 3, stride), nn.ReLU(), *_conv_norm(width, outs, 3)]
            around: list[nn.Module] = []
            if stride > 1 or ins != outs:
                averaged = deep and stride > 1
                around = [nn.AvgPool2d(2, 2)] if averaged else []
                around += _conv_norm(ins, outs, 1, 1 if averaged else stride)
            layers.append(Residual(nn.Sequential(*body), nn.Sequential(*around) if around else nn.Identity()))
            ins = outs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(ins, classes))


def vgg(convolutions: tuple[int, ...], *, norms: bool = False, classes: int = 1000) -> nn.Sequential:
    """VGG: 3 x 3 convolutions in five stages of 64 to 512 channels, and three linear layers.

    Args:
        convolutions: of each stage.
        norms: a batch norm after each convolution.
        classes: outputs.

    Source: K. Simonyan, A. Zisserman, ICLR 2015, Table 1.
    """
    layers: list[nn.Module] = []
    ins = 3
    for width, count in zip((64, 128, 256, 512, 512), convolutions, strict=True):
        for _ in range(count):
            layers.append(nn.Conv2d(ins, width, 3, padding=1))
            layers += [nn.BatchNorm2d(width), nn.ReLU()] if norms else [nn.ReLU()]
            ins = width
        layers.append(nn.MaxPool2d(2))
    head = [nn.Linear(512 * 49, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, classes)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(7), nn.Flatten(), *head)


class Inverted(nn.Module):
    """MobileNetV2's block: widen by a 1 x 1 convolution, filter each channel, narrow again.

    Args:
        ins: input channels.
        outs: output channels.
        stride: of the filter; with 1 and equal channels the input is added.
        widening: channels in between, over `ins`.
    """

    def __init__(self, ins: int, outs: int, stride: int, widening: int):
        super().__init__()
        width = ins * widening
        layers = [] if widening == 1 else [*_conv_norm(ins, width, 1), nn.ReLU6()]
        layers += [*_conv_norm(width, width, 3, stride, width), nn.ReLU6(), *_conv_norm(width, outs, 1)]
        self.body, self.adds = nn.Sequential(*layers), stride == 1 and ins == outs

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, height, width)."""
        return x + self.body(x) if self.adds else self.body(x)


def mobilenet_v2(width: float = 1.0, *, classes: int = 1000) -> nn.Sequential:
    """MobileNetV2.

    Args:
        width: multiplier of all channels.
        classes: outputs.

    Source: M. Sandler et al., CVPR 2018, Table 2; channels are rounded to multiples of 8, as in its authors' code.
    """

    def channels(count: int) -> int:
        rounded = max(8, int(count * width + 4) // 8 * 8)
        return rounded + 8 if rounded < 0.9 * count * width else rounded

    ins = channels(32)
    layers = [*_conv_norm(3, ins, 3, 2), nn.ReLU6()]
    stages = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for widening, outs, depth, stride in stages:
        for k in range(depth):
            layers.append(Inverted(ins, channels(outs), 1 if k else stride, widening))
            ins = channels(outs)
    last = max(1280, channels(1280))
    layers += [*_conv_norm(ins, last, 1), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(last, classes)]
    return nn.Sequential(*layers)


class ConvNextBlock(nn.Module):
    """A 7 x 7 filter of each channel, a norm, two linear layers over the channels, a scale, and a residual sum.

    Args:
        width: channels.
    """

    def __init__(self, width: int):
        super().__init__()
        self.filter = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.layers = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.scale = nn.Parameter(self.norm.weight.new_ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, height, width)."""
        y = self.layers(self.norm(self.filter(x).permute(0, 2, 3, 1))) * self.scale
        return x + y.permute(0, 3, 1, 2)


def convnext(depths: tuple[int, ...], widths: tuple[int, ...], *, classes: int = 1000) -> nn.Sequential:
    """ConvNeXt.

    Args:
        depths: blocks of each of the four stages.
        widths: channels of each.
        classes: outputs.

    Source: Z. Liu et al., "A ConvNet for the 2020s", CVPR 2022, section 3 and Figure 4.
    """
    layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 4, 4), ChannelNorm(widths[0])]
    for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
        if stage:
            before = widths[stage - 1]
            layers += [ChannelNorm(before), nn.Conv2d(before, width, 2, 2)]
        layers += [ConvNextBlock(width) for _ in range(depth)]
    norm = nn.LayerNorm(widths[-1], eps=1e-6)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), norm, nn.Linear(widths[-1], classes))
