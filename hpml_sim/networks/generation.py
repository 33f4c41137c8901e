"""What a network that generates text does when it reads a prompt, and when it makes one token."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from hpml_sim.conversion import Converted
from hpml_sim.counting import LayerCount, Workload, workload
from hpml_sim.errors import HpmlError, check_whole
from hpml_sim.networks.language.config_file import shape_of_config
from hpml_sim.networks.language.shape import TransformerShape
from hpml_sim.networks.pretrained.language_model import KeyValueCache, LanguageModel, LlamaBlock

if TYPE_CHECKING:
    from collections.abc import Sequence

Phase = Literal["prefill", "decode"]
_CACHES = ("cache", "past_key_values")
"""What newer and older versions of `transformers` call the key-value cache."""
_BITS = {"fp32": 32, "fp16": 16, "bf16": 16}


def sizes_of(network: nn.Module) -> TransformerShape | None:
    """The sizes of a network that generates text with a key-value cache; None of all others.

    Args:
        network: `hs.load_network("smollm2-135m")`, a causal language model of `transformers`, or either converted.

    Example:
        >>> import hpml_sim as hs
        >>> sizes_of(hs.models.mlp(4, 2)) is None
        True
    """
    inner = network.network if isinstance(network, Converted) else network
    if isinstance(inner, LanguageModel):
        s = inner.sizes
        # of a pruned one fewer, or smaller
        blocks = [block for block in inner.blocks if isinstance(block, LlamaBlock)]
        hidden = [block.up.out_features if isinstance(block.up, nn.Linear) else s.hidden for block in blocks]
        return TransformerShape(
            "this network", "its own sizes", len(blocks), s.width, blocks[0].heads, blocks[0].kv_heads,
            s.width // s.heads, round(sum(hidden) / len(hidden)), s.vocabulary, s.longest, tied=True,
        )  # fmt: skip
    transformers = sys.modules.get("transformers")
    if transformers is None or not isinstance(inner, transformers.GenerationMixin):
        return None
    try:
        sizes = shape_of_config("this network", inner.config.to_dict())  # type: ignore[union-attr]
    except HpmlError:  # an encoder and decoder in one, or a layout without a shape here
        return None
    return sizes if sizes.decodes else None


def phase_workload(network: nn.Module, phase: Phase, tokens: int) -> Workload:
    """The operation counts of one inference of a network that generates text: a prompt, or one token.

    The network runs once on one sequence: its own products are counted, wherever they are done. The head gives the
    logits of the last token alone. Keys and values are kept, and counted, in the bits that the network is published in.

    Args:
        network: as `sizes_of` takes it, converted or not.
        phase: "prefill" reads a prompt of so many tokens, "decode" one token with so many in the cache.
        tokens: of the prompt, >= 1, or in the cache, >= 0.

    Returns:
        The counts; `extra` has `tokens` (read or made) and, when decoding, `context`.

    Raises:
        HpmlError: a network that does not generate text, or more tokens than it was made for.
    """
    sizes = sizes_of(network)
    if sizes is None:
        raise HpmlError(
            f"workload: {type(network).__name__} makes no text token by token with a cache that is known here; give "
            "one of hs.load_network, or a causal language model of transformers"
        )
    tokens = check_whole("workload: tokens", tokens, low=0 if phase == "decode" else 1)
    whole = tokens + (phase == "decode")
    if whole > sizes.longest:
        raise HpmlError(f"workload: {whole:,} tokens; the network was made for at most {sizes.longest:,}")
    new = 1 if phase == "decode" else tokens
    earlier = tokens if phase == "decode" else 0
    device = next(network.parameters()).device
    ids = torch.zeros(1, new, dtype=torch.long, device=device)
    counts = workload(network, data=ids, forward=_caller(network, sizes, earlier))
    bits = _BITS.get(sizes.stored, 16)
    layers = [replace(y, weight_bits=bits, activation_bits=bits) for y in counts.layers]
    kept = _caches(sizes, earlier, new, bits)
    elements = sum(y.state_elements for y in kept)
    figures = {"kv_cache_elements": elements, "kv_cache_bytes": elements * bits / 8, "tokens": float(new)}
    figures |= {"context": float(earlier)} if phase == "decode" else {}
    return replace(
        counts,
        layers=(*layers, *kept),
        samples=0,  # ids that say nothing: no share of zeros is meant
        extra={**counts.extra, **figures},
    )


def _caller(network: nn.Module, sizes: TransformerShape, earlier: int) -> Callable[..., Any]:
    """What calls the network on new tokens, with so many in its cache."""
    inner = network.network if isinstance(network, Converted) else network
    if isinstance(inner, LanguageModel):
        parameter = next(network.parameters())
        empty = [
            torch.zeros(1, sizes.kv_heads, earlier, sizes.head_width, dtype=parameter.dtype, device=parameter.device)
            for _ in range(2 * sizes.layers if earlier else 0)
        ]
        half = len(empty) // 2

        def run(model: nn.Module, ids: Tensor) -> Any:
            return model(ids, KeyValueCache(empty[:half], empty[half:]), last=1)

        return run
    name = next(name for name in _CACHES if name in inspect.signature(inner.forward).parameters)
    past = None
    if earlier:
        with torch.no_grad():
            prompt = torch.zeros(1, earlier, dtype=torch.long, device=next(network.parameters()).device)
            given = network(prompt, use_cache=True)
            past = given[next(name for name in _CACHES if name in given)]

    def run_hf(model: nn.Module, ids: Tensor) -> Any:
        return model(ids, use_cache=True, logits_to_keep=1, **{name: past}).logits

    return run_hf


def _caches(sizes: TransformerShape, earlier: int, new: int, bits: int) -> Sequence[LayerCount]:
    """The key-value cache of each block: what it holds after the call, and what the call adds."""
    found, number = [], 0
    for kind in sizes.kinds():
        for _ in range(kind.count):
            held = min(earlier + new, kind.window or earlier + new)
            found.append(
                LayerCount(
                    f"cache of block {number}",
                    "kv_cache",
                    state_elements=float(sizes.kv_width * held),
                    output_elements=float(sizes.kv_width * new),
                    activation_bits=bits,
                )
            )
            number += 1
    return found
