"""Known networks by name, built without weights on `torch.device("meta")`: for counting, never for running.

module, example = shape("llama-3-70b", phase="decode", context=8192)
workload(module, data=example)

A `config.json` of Hugging Face stands for the network whose sizes it holds: `shape("path/to/config.json")`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from hpml_sim.errors import HpmlError, UnknownNameError, check_whole
from hpml_sim.networks.convolutional import keyword_net, resnet, vgg8
from hpml_sim.networks.known_images import IMAGE_NETWORKS
from hpml_sim.networks.language import LANGUAGE_MODELS, TransformerShape, language_model, read_config
from hpml_sim.networks.language.modules import build
from hpml_sim.networks.transformer_blocks import VisionTransformer

Phase = Literal["prefill", "decode"]


class Architecture(NamedTuple):
    """A network without weights and one sample to count it with.

    Attributes:
        module: the network, on the meta device, in evaluation mode.
        example: arguments of one call, batch 1, on the meta device.
    """

    module: nn.Module
    example: tuple[Tensor, ...]


_DTYPES = {"fp32": torch.float32, "fp16": torch.float16}


@dataclass(frozen=True)
class Known:
    """What a name stands for.

    Attributes:
        build: makes the network; a language model takes the tokens that its cache holds.
        source: where the sizes are published.
        image: shape of one input, for networks without a sequence.
        sequence: tokens of one input where none are given, and tokens in the cache when decoding; 0: no sequence.
        longest: most tokens that the network was made for.
        sized: whether `build` takes the side of the image.
        decodes: whether it generates token by token, with a cache.
        dtype: of weights and activations.
        language: its sizes, of networks that read tokens.
    """

    build: Callable[..., nn.Module]
    source: str
    image: tuple[int, ...] = ()
    sequence: int = 0
    longest: int = 0
    sized: bool = False
    decodes: bool = False
    dtype: torch.dtype = field(default=torch.float32)
    language: TransformerShape | None = None

    @classmethod
    def of(cls, sizes: TransformerShape) -> Known:
        """A network that reads tokens.

        Args:
            sizes: of the network.
        """
        return cls(
            partial(build, sizes),
            sizes.source,
            sequence=sizes.usual_tokens,
            longest=sizes.longest,
            decodes=sizes.decodes,
            dtype=_DTYPES.get(sizes.stored, torch.bfloat16),
            language=sizes,
        )


def find(name: str) -> Known | None:
    """What a name stands for; None if it is not known.

    Args:
        name: as `shape` takes it.

    Raises:
        HpmlError: a `config.json` that holds no transformer that reads tokens.
    """
    if name in ARCHITECTURES:
        return ARCHITECTURES[name]
    if name.endswith(".json") or (Path(name) / "config.json").is_file():
        return Known.of(read_config(name))
    sizes = language_model(name)
    return None if sizes is None else Known.of(sizes)


def shape(
    name: str,
    *,
    sequence: int | None = None,
    phase: Phase = "prefill",
    context: int | None = None,
    image_size: int | None = None,
) -> Architecture:
    """A network by name, and a sample for it.

    Args:
        name: one of `ARCHITECTURES`, a published name of one ("Qwen/Qwen3-8B"), or the path of a `config.json` of
            Hugging Face or of its folder.
        sequence: tokens of the sample (language models, prefill); None takes the usual number.
        phase: "prefill" reads `sequence` tokens at once and gives the logits of the last one; "decode" reads one new
            token against a key-value cache of `context` tokens, and attends to these and to itself.
        context: tokens in the cache (decode); None takes the usual number.
        image_size: side of the image in pixels (image networks); None takes the usual one.

    Raises:
        UnknownNameError: no such network or phase.
        HpmlError: an argument that this network has no use for, or a length that it was not made for.

    Example:
        >>> sum(p.numel() for p in shape("resnet50").module.parameters())
        25557032
    """
    known = find(name)
    if known is None:
        raise UnknownNameError("network", name, ARCHITECTURES)
    if phase not in ("prefill", "decode"):
        raise UnknownNameError("phase", phase, ("prefill", "decode"))
    decode = phase == "decode"
    if decode and not known.decodes:
        raise HpmlError(f"{name}: phase='decode' needs a network that generates text, such as gpt2 or llama-3-8b")
    if sequence is not None and (decode or not known.sequence):
        why = "reads one token at a time (give context=)" if known.decodes else "takes no sequence of tokens"
        raise HpmlError(f"{name}: sequence={sequence!r}: in phase {phase!r} it {why}")
    if context is not None and not decode:
        raise HpmlError(f"{name}: context={context!r} is for phase='decode'; here it is {phase!r}")
    for argument, value, least in (("sequence", sequence, 1), ("context", context, 0)):
        if value is not None:
            check_whole(f"{name}: {argument}", value, low=least)
    if image_size is not None:
        if not known.image or len(known.image) != 3:
            raise HpmlError(f"{name}: image_size={image_size!r}: it takes no images")
        check_whole(f"{name}: image_size", image_size, low=32)
    given = context if decode else sequence
    length = known.sequence if given is None else given
    tokens, cached = (1, length) if decode else (length, 0)
    if known.sequence and tokens + cached > known.longest:
        raise HpmlError(f"{name}: {tokens + cached} tokens; it was made for at most {known.longest}")
    with torch.device("meta"):
        image = known.image if image_size is None else (known.image[0], image_size, image_size)
        takes = [cached] if known.decodes else [image[-1]] if known.sized else []
        module = known.build(*takes)
        if known.sequence:
            example = torch.empty(1, tokens, dtype=torch.long)
        else:
            example = torch.empty(1, *image, dtype=known.dtype)
    return Architecture(module.to(known.dtype).eval().requires_grad_(False), (example,))


_IMAGENET = (3, 224, 224)
ARCHITECTURES: dict[str, Known] = {
    "resnet18": Known(
        partial(resnet, (2, 2, 2, 2), bottleneck=False),
        "K. He et al., 'Deep residual learning for image recognition', CVPR 2016, Table 1; torchvision's resnet18",
        image=_IMAGENET,
    ),
    "resnet50": Known(
        partial(resnet, (3, 4, 6, 3), bottleneck=True),
        "K. He et al., 'Deep residual learning for image recognition', CVPR 2016, Table 1; torchvision's resnet50",
        image=_IMAGENET,
    ),
    "vit-b16": Known(
        partial(VisionTransformer, image=224, patch=16, width=768, depth=12, heads=12, hidden=3072, classes=1000),
        "A. Dosovitskiy et al., 'An image is worth 16x16 words', ICLR 2021, Table 1; torchvision's vit_b_16",
        image=_IMAGENET,
    ),
    **{name: Known.of(sizes) for name, sizes in LANGUAGE_MODELS.items()},
    "vgg8-cifar10": Known(
        vgg8,
        "X. Peng et al., 'DNN+NeuroSim V2.0', IEEE TCAD 40:2306 (2021); DNN_NeuroSim_V1.3, `models/VGG.py`, vgg8",
        image=(3, 32, 32),
    ),
    "kws-390-256-256-29": Known(
        partial(keyword_net, 390, 256, 256, 29),
        "P. Blouw et al., 'Benchmarking keyword spotting efficiency on neuromorphic hardware', arXiv:1812.01739 (2019)",
        image=(390,),
    ),
}
ARCHITECTURES |= {
    name: Known(network.build, network.source, image=(3, network.size, network.size), sized=True)
    for name, network in IMAGE_NETWORKS.items()
    if name not in ARCHITECTURES
}
"""Name -> network. Parameters and MACs are tested against the published figures."""
