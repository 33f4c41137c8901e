from __future__ import annotations

import pytest
import torch

from hpml_sim.counting import workload
from hpml_sim.errors import HpmlError
from hpml_sim.networks.architectures import ARCHITECTURES, shape
from hpml_sim.networks.known_images import IMAGE_NETWORKS

MILLIONS = {
    "resnet34": 21.80,
    "resnet101": 44.55,
    "resnet152": 60.19,
    "resnet18d": 11.71,
    "resnet50d": 25.58,
    "resnext50_32x4d": 25.03,
    "resnext101_32x8d": 88.79,
    "wide_resnet50_2": 68.88,
    "vgg11": 132.86,
    "vgg16": 138.36,
    "vgg19_bn": 143.68,
    "mobilenetv2_050": 1.97,
    "mobilenetv2_100": 3.50,
    "mobilenetv2_140": 6.11,
    "convnext_tiny": 28.59,
    "convnext_base": 88.59,
    "vit_tiny_patch16_224": 5.72,
    "vit_small_patch16_224": 22.05,
    "vit_base_patch16_224": 86.57,
    "vit_base_patch32_224": 88.22,
    "vit_large_patch16_224": 304.33,
    "deit_small_patch16_224": 22.05,
}
"""Millions of parameters in timm's table of ImageNet results (results-imagenet.csv)."""
GIGA_MACS = {("mobilenetv2_100", 224): 0.31, ("resnet18d", 224): 2.06, ("convnext_tiny", 288): 7.39}
"""timm's table of benchmarks; it counts additions of norms and biases as well, up to 3 % more."""


@pytest.mark.parametrize("name", MILLIONS)
def test_parameters_are_those_of_the_released_weights(name: str) -> None:
    with torch.device("meta"):
        network = IMAGE_NETWORKS[name].build(IMAGE_NETWORKS[name].size)
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(MILLIONS[name], abs=0.006)


@pytest.mark.parametrize(("name", "size"), GIGA_MACS)
def test_macs_are_near_the_published_ones(name: str, size: int) -> None:
    network, example = shape(name, image_size=size)
    counts = workload(network, data=example)
    assert counts.not_counted == ()
    assert counts.total("macs") / 1e9 == pytest.approx(GIGA_MACS[name, size], rel=0.04)


def test_image_sizes_are_for_image_networks() -> None:
    assert shape("vgg16", image_size=288).example[0].shape == (1, 3, 288, 288)
    assert all(name in ARCHITECTURES for name in IMAGE_NETWORKS)
    with pytest.raises(HpmlError, match="gpt2: image_size=224: it takes no images"):
        shape("gpt2", image_size=224)
    with pytest.raises(HpmlError, match=r"resnet50: image_size=8: must be a whole number >= 32"):
        shape("resnet50", image_size=8)
