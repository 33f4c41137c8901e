"""Known image networks: the names that PyTorch Image Models (timm) has for them, and how each is built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import nn

from hpml_sim.networks.image_networks import convnext, mobilenet_v2, residual_network, vgg
from hpml_sim.networks.transformer_blocks import VisionTransformer


@dataclass(frozen=True)
class ImageNetwork:
    """A network for square images.

    Attributes:
        build: makes it, given the side of the image in pixels.
        source: where its sizes are published.
        size: the usual side of an image.
    """

    build: Callable[[int], nn.Module]
    source: str
    size: int = 224


def _any_size(make: Callable[..., nn.Module], *args: object, **options: object) -> Callable[[int], nn.Module]:
    """A network that is built alike for every size."""

    def build(size: int) -> nn.Module:
        return make(*args, **options)

    return build


def _vit(size: int, *, width: int, depth: int, heads: int, patch: int) -> nn.Module:
    return VisionTransformer(
        image=size, patch=patch, width=width, depth=depth, heads=heads, hidden=4 * width, classes=1000
    )


_RESNET = "K. He et al., 'Deep residual learning for image recognition', CVPR 2016, Table 1"
_RESNET_D = "T. He et al., 'Bag of tricks for image classification', CVPR 2019, Figure 2 (ResNet-D)"
_RESNEXT = "S. Xie et al., 'Aggregated residual transformations', CVPR 2017, Table 1"
_WIDE = "S. Zagoruyko, N. Komodakis, 'Wide residual networks', BMVC 2016; torchvision's wide_resnet"
_VGG = "K. Simonyan, A. Zisserman, 'Very deep convolutional networks', ICLR 2015, Table 1"
_MOBILE = "M. Sandler et al., 'MobileNetV2', CVPR 2018, Table 2"
_CONVNEXT = "Z. Liu et al., 'A ConvNet for the 2020s', CVPR 2022, section 3"
_VIT = "A. Dosovitskiy et al., 'An image is worth 16x16 words', ICLR 2021, Table 1"
_DEIT = "H. Touvron et al., 'Training data-efficient image transformers', ICML 2021, Table 1"

_BASIC = {"18": (2, 2, 2, 2), "34": (3, 4, 6, 3)}
_DEEP = {"26": (2, 2, 2, 2), "50": (3, 4, 6, 3), "101": (3, 4, 23, 3), "152": (3, 8, 36, 3)}
_VGGS = {"11": (1, 1, 2, 2, 2), "13": (2, 2, 2, 2, 2), "16": (2, 2, 3, 3, 3), "19": (2, 2, 4, 4, 4)}
_CONVNEXTS = {
    "atto": ((2, 2, 6, 2), (40, 80, 160, 320)),
    "femto": ((2, 2, 6, 2), (48, 96, 192, 384)),
    "pico": ((2, 2, 6, 2), (64, 128, 256, 512)),
    "nano": ((2, 2, 8, 2), (80, 160, 320, 640)),
    "tiny": ((3, 3, 9, 3), (96, 192, 384, 768)),
    "small": ((3, 3, 27, 3), (96, 192, 384, 768)),
    "base": ((3, 3, 27, 3), (128, 256, 512, 1024)),
    "large": ((3, 3, 27, 3), (192, 384, 768, 1536)),
    "xlarge": ((3, 3, 27, 3), (256, 512, 1024, 2048)),
}
_VITS = {"tiny": (192, 12, 3), "small": (384, 12, 6), "base": (768, 12, 12), "large": (1024, 24, 16)}

IMAGE_NETWORKS: dict[str, ImageNetwork] = {
    **{
        f"resnet{size}{end}": ImageNetwork(
            _any_size(residual_network, depths, bottleneck=wide, deep=bool(end)), _RESNET_D if end else _RESNET
        )
        for table, wide in ((_BASIC, False), (_DEEP, True))
        for size, depths in table.items()
        for end in ("", "d")
    },
    "resnext50_32x4d": ImageNetwork(
        _any_size(residual_network, _DEEP["50"], bottleneck=True, groups=32, group_width=4), _RESNEXT
    ),
    "resnext101_32x8d": ImageNetwork(
        _any_size(residual_network, _DEEP["101"], bottleneck=True, groups=32, group_width=8), _RESNEXT
    ),
    **{
        f"wide_resnet{size}_2": ImageNetwork(
            _any_size(residual_network, _DEEP[size], bottleneck=True, group_width=128), _WIDE
        )
        for size in ("50", "101")
    },
    **{
        f"vgg{size}{end}": ImageNetwork(_any_size(vgg, convolutions, norms=bool(end)), _VGG)
        for size, convolutions in _VGGS.items()
        for end in ("", "_bn")
    },
    **{
        f"mobilenetv2_{round(100 * width):03d}": ImageNetwork(_any_size(mobilenet_v2, width), _MOBILE)
        for width in (0.35, 0.5, 0.75, 1.0, 1.4)
    },
    **{f"convnext_{name}": ImageNetwork(_any_size(convnext, *sizes), _CONVNEXT) for name, sizes in _CONVNEXTS.items()},
    **{
        f"vit_{name}_patch{patch}_{size}": ImageNetwork(
            partial(_vit, width=width, depth=depth, heads=heads, patch=patch), _VIT, size
        )
        for name, (width, depth, heads) in _VITS.items()
        for patch in (16, 32)
        for size in (224, 384)
    },
    **{
        f"deit_{name}_patch16_224": ImageNetwork(partial(_vit, width=width, depth=depth, heads=heads, patch=16), _DEIT)
        for name, (width, depth, heads) in _VITS.items()
        if name != "large"
    },
}
"""Name -> network. Parameters and MACs are tested against the published figures."""
