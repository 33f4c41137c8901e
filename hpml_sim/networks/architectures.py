"""Known networks by name, built without weights on `torch.device("meta")`: for counting, never for running.

module, example = shape("llama-3-70b", phase="decode", context=8192)
workload(module, data=example)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from hpml_sim.errors import HpmlError, UnknownNameError, check_whole
from hpml_sim.networks.convolutional import keyword_net, resnet, vgg8
from hpml_sim.networks.known_images import IMAGE_NETWORKS
from hpml_sim.networks.transformer_blocks import Bert, Decoder, VisionTransformer

Phase = Literal["prefill", "decode"]


class Architecture(NamedTuple):
    """A network without weights and one sample to count it with.

    Attributes:
        module: the network, on the meta device, in evaluation mode.
        example: arguments of one call, batch 1, on the meta device.
    """

    module: nn.Module
    example: tuple[Tensor, ...]


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
    """

    build: Callable[..., nn.Module]
    source: str
    image: tuple[int, ...] = ()
    sequence: int = 0
    longest: int = 0
    sized: bool = False
    decodes: bool = False
    dtype: torch.dtype = field(default=torch.float32)


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
        name: one of `ARCHITECTURES`.
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
    if name not in ARCHITECTURES:
        raise UnknownNameError("network", name, ARCHITECTURES)
    if phase not in ("prefill", "decode"):
        raise UnknownNameError("phase", phase, ("prefill", "decode"))
    known = ARCHITECTURES[name]
    decode = phase == "decode"
    if decode and not known.decodes:
        raise HpmlError(f"{name}: phase='decode' needs a network that generates text: {', '.join(generating())}")
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
_LLAMA = partial(Decoder, vocabulary=128256, llama=True, bias=False, packed=False, rotary=True, kv_heads=8)
_LLAMA_SOURCE = (
    "A. Grattafiori et al., 'The Llama 3 herd of models', arXiv:2407.21783 (2024), Table 3; vocabulary of the released "
    "weights (128,256), context of Llama 3.1"
)

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
    "bert-base": Known(
        partial(Bert, vocabulary=30522, positions=512, width=768, depth=12, heads=12, hidden=3072),
        "J. Devlin et al., 'BERT', NAACL 2019, section 3; bert-base-uncased",
        sequence=128,
        longest=512,
    ),
    "gpt2": Known(
        partial(
            Decoder,
            vocabulary=50257,
            width=768,
            depth=12,
            heads=12,
            hidden=3072,
            learned_positions=1024,
            tied=True,
        ),
        "A. Radford et al., 'Language models are unsupervised multitask learners', OpenAI 2019, Table 2 (smallest)",
        sequence=512,
        longest=1024,
        decodes=True,
    ),
    "llama-3-8b": Known(
        partial(_LLAMA, width=4096, depth=32, heads=32, hidden=14336),
        _LLAMA_SOURCE,
        sequence=2048,
        longest=131072,
        decodes=True,
        dtype=torch.bfloat16,
    ),
    "llama-3-70b": Known(
        partial(_LLAMA, width=8192, depth=80, heads=64, hidden=28672),
        _LLAMA_SOURCE,
        sequence=2048,
        longest=131072,
        decodes=True,
        dtype=torch.bfloat16,
    ),
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


def generating() -> list[str]:
    """Names of the networks that generate token by token."""
    return [name for name, known in ARCHITECTURES.items() if known.decodes]
