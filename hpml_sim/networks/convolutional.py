"""Convolutional and fully connected networks of the literature, to be built without weights."""

from __future__ import annotations

import itertools

from torch import Tensor, nn


class Residual(nn.Module):
    """ReLU(body(x) + shortcut(x)).

    Args:
        body: the layers that are gone around.
        shortcut: what goes around them, `nn.Identity` where shapes are equal.
    """

    def __init__(self, body: nn.Module, shortcut: nn.Module):
        super().__init__()
        self.body, self.shortcut, self.act = body, shortcut, nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, height, width)."""
        return self.act(self.body(x) + self.shortcut(x))


def _conv_norm(ins: int, outs: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(ins, outs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outs)]


def resnet(depths: tuple[int, ...], *, bottleneck: bool, classes: int = 1000) -> nn.Sequential:
    """ResNet for 224 x 224 images; the bottleneck's stride is in its 3 x 3 convolution (torchvision's, "v1.5").

    Args:
        depths: blocks of each of the four stages.
        bottleneck: blocks of three convolutions in place of two.
        classes: outputs.

    Source: K. He et al., "Deep residual learning for image recognition", CVPR 2016, Table 1.
    """
    layers: list[nn.Module] = [*_conv_norm(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    ins, expansion = 64, 4 if bottleneck else 1
    for stage, depth in enumerate(depths):
        width = 64 * 2**stage
        outs = width * expansion
        for k in range(depth):
            stride = 2 if stage and not k else 1
            if bottleneck:
                body = [*_conv_norm(ins, width, 1), nn.ReLU(), *_conv_norm(width, width, 3, stride), nn.ReLU()]
                body += _conv_norm(width, outs, 1)
            else:
                body = [*_conv_norm(ins, width, 3, stride), nn.ReLU(), *_conv_norm(width, outs, 3)]
            same = stride == 1 and ins == outs
            shortcut = nn.Identity() if same else nn.Sequential(*_conv_norm(ins, outs, 1, stride))
            layers.append(Residual(nn.Sequential(*body), shortcut))
            ins = outs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(ins, classes))


def vgg8() -> nn.Sequential:
    """NeuroSim's VGG-8 for CIFAR-10: six 3 x 3 convolutions and two linear layers, no biases.

    Source: X. Peng et al., "DNN+NeuroSim V2.0", IEEE TCAD 40:2306 (2021).
    """
    layers: list[nn.Module] = []
    ins = 3
    for width in (128, 256, 512):
        for _ in range(2):
            layers += [nn.Conv2d(ins, width, 3, padding=1, bias=False), nn.ReLU()]
            ins = width
        layers.append(nn.MaxPool2d(2))
    layers += [nn.Flatten(), nn.Linear(8192, 1024, bias=False), nn.ReLU(), nn.Linear(1024, 10, bias=False)]
    return nn.Sequential(*layers)


def keyword_net(*sizes: int) -> nn.Sequential:
    """Linear layers with ReLU between.

    Args:
        sizes: of the input, of each hidden layer and of the output.
    """
    layers: list[nn.Module] = []
    for ins, outs in itertools.pairwise(sizes):
        layers += [nn.Linear(ins, outs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
