"""A language model that is small enough to be trained in a notebook, and has what makes large ones hard to convert."""

from __future__ import annotations

import torch

from hpml_sim.networks.pretrained.language_model import LanguageModel, LlamaSizes


def massive_activation_model(seed: int = 0) -> LanguageModel:
    """A byte-level model of two blocks, untrained, in which one channel of each feed-forward layer is huge at a space.

    Large language models grow such massive activations while they are trained; a small one that is trained for seconds
    grows none, so they are planted.

    Args:
        seed: of the weights.

    Returns:
        A network (batch, up to 128 bytes) -> (batch, bytes, 256), in the layout of Llama.

    Source: M. Sun et al., 'Massive activations in large language models', arXiv:2402.17762 (2024).

    Example:
        >>> import torch
        >>> from hpml_sim import course
        >>> model = course.massive_activation_model()
        >>> model(torch.tensor([list(b"a space")])).shape
        torch.Size([1, 7, 256])
    """
    sizes = LlamaSizes(256, width=64, depth=2, heads=4, kv_heads=2, hidden=128, longest=128, rotary_base=1e4, eps=1e-5)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LanguageModel(sizes)
    with torch.no_grad():
        model.words.weight.mul_(0.1)
        model.words.weight[ord(" "), 0] = 3.0
        weights = dict(model.named_parameters())
        for block in range(sizes.depth):
            for layer in ("gate", "up"):
                weights[f"blocks.{block}.{layer}.weight"][0] = 0.0
                weights[f"blocks.{block}.{layer}.weight"][0, 0] = 10.0
            weights[f"blocks.{block}.down.weight"][:, 0] *= 3e-3  # so that what it adds is of ordinary size
    return model
