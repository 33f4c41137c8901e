"""Networks by name: published sizes, MACs by hand, and what they cost to count."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from hpml_sim.counting import workload
from hpml_sim.errors import HpmlError, UnknownNameError
from hpml_sim.networks.architectures import ARCHITECTURES, shape

PARAMETERS = {
    "resnet18": 11_689_512,
    "resnet50": 25_557_032,
    "vit-b16": 86_567_656,
    "bert-base": 109_482_240,
    "gpt2": 124_439_808,
    "llama-3-8b": 8_030_261_248,
    "llama-3-70b": 70_553_706_496,
    "vgg8-cifar10": 12_973_440,
    "kws-390-256-256-29": 173_341,
}
"""Of the released weights (torchvision's and Hugging Face's model cards); of VGG-8 and the keyword net by hand."""
MACS = {"resnet18": 1_814_073_344, "resnet50": 4_089_184_256, "kws-390-256-256-29": 172_800}
"""torchvision's model cards say 1.81 and 4.09 GFLOPS (its FLOP is a MAC); the paper of the keyword net says 172,800."""


@pytest.mark.parametrize("name", PARAMETERS)  # sizes of other language models: language/test_shape.py
def test_parameters_equal_the_published_ones(name: str) -> None:
    module, example = shape(name)
    counts = workload(module, data=example)
    assert sum(p.numel() for p in module.parameters()) == PARAMETERS[name]
    assert counts.total("weight_count") == counts.extra["parameters"] == PARAMETERS[name]
    assert counts.not_counted == ()
    assert counts.samples == 0
    assert all(p.is_meta for p in module.parameters())
    assert ARCHITECTURES[name].source


@pytest.mark.parametrize("name", MACS)
def test_macs_equal_the_published_ones(name: str) -> None:
    module, example = shape(name)
    assert workload(module, data=example).total("macs") == MACS[name]


def test_transformers_by_hand() -> None:
    """A block: 4 + 8 width^2 a token, and 2 x tokens^2 x width for attention."""
    width, depth, tokens = 768, 12, 197
    patches = 196 * 3 * 16 * 16 * width
    module, example = shape("vit-b16")
    blocks = depth * (tokens * 12 * width**2 + 2 * tokens**2 * width)
    assert workload(module, data=example).total("macs") == patches + blocks + width * 1000

    tokens = 384
    module, example = shape("bert-base", sequence=tokens)
    blocks = depth * (tokens * 12 * width**2 + 2 * tokens**2 * width)
    assert workload(module, data=example).total("macs") == blocks + width**2


@pytest.mark.parametrize("context", [0, 1000, 8000])
def test_llama_decode_by_hand(context: int) -> None:
    """One token: every weight of the blocks and the head once; attention to the cache and to itself."""
    width, depth, kv, hidden, vocabulary = 4096, 32, 1024, 14336, 128256
    module, example = shape("llama-3-8b", phase="decode", context=context)
    counts = workload(module, data=example)
    weights = depth * (2 * width**2 + 2 * width * kv + 3 * width * hidden) + width * vocabulary
    attention = depth * 2 * (context + 1) * width
    assert counts.total("macs") == weights + attention
    assert counts.extra["kv_cache_elements"] == depth * 2 * (context + 1) * kv
    assert counts.extra["kv_cache_bytes"] == 2 * counts.extra["kv_cache_elements"]  # bfloat16
    read = sum(layer.input_elements for layer in counts.layers if layer.op == "attention")
    assert read == depth * (width + 2 * (context + 1) * kv)  # queries, and each key and value once for its four heads
    assert example[0].shape == (1, 1)


def test_prefill_fills_the_cache_and_gives_one_token() -> None:
    module, (tokens,) = shape("gpt2", sequence=100)
    counts = workload(module, data=(tokens,))
    assert counts.extra["kv_cache_elements"] == 12 * 2 * 100 * 768
    assert counts.output_elements == 50257
    head = counts.layers[-1]
    assert (head.name, head.vectors, head.weight_count) == ("head", 1, 0)  # tied to the embedding


def test_prefill_is_quadratic_in_tokens_and_decode_linear_in_context() -> None:
    def macs(**settings: object) -> float:
        module, example = shape("gpt2", **settings)
        return workload(module, data=example).total("macs")

    one, two, three = (macs(sequence=n) for n in (100, 200, 300))
    assert three - 2 * two + one == 12 * 2 * 2 * 100 * 100 * 768
    one, two, three = (macs(phase="decode", context=n) for n in (100, 200, 300))
    assert three - two == two - one == 12 * 2 * 100 * 768


def test_a_pass_of_a_real_copy_gives_what_the_meta_one_gives() -> None:
    """The small ones, with real weights and data: shapes alone and a real pass agree."""
    for name in ("kws-390-256-256-29", "vgg8-cifar10", "resnet18"):
        module, example = shape(name)
        expected = workload(module, data=example)
        real = module.to_empty(device="cpu")
        for p in (*real.parameters(), *real.buffers()):
            torch.nn.init.constant_(p, 0)
        counts = workload(real, data=torch.rand(2, *example[0].shape[1:]))
        for field in ("macs", "dense_sops", "input_elements", "output_elements", "weight_count", "calls"):
            assert counts.total(field) == expected.total(field)


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_llama_70b_in_seconds_and_little_memory(phase: str) -> None:
    code = f"""
import json, resource, sys, time
from pathlib import Path
import torch
start = time.process_time()  # other processes do not count
from hpml_sim.counting import workload
from hpml_sim.networks.architectures import shape
module, example = shape("llama-3-70b", phase={phase!r})
counts = workload(module, data=example)
status = Path("/proc/self/status")  # on Linux ru_maxrss begins with the peak of the process that started this one
if status.exists():
    peak = next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) * 1024
else:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([time.process_time() - start, peak, counts.total("weight_count")]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, peak_bytes, weights = json.loads(done.stdout)
    assert weights == PARAMETERS["llama-3-70b"]
    assert peak_bytes < 2e9
    assert seconds < 10


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("resnet5", {}, "unknown network 'resnet5'. Did you mean 'resnet50'"),
        ("gpt2", {"phase": "decoding"}, "unknown phase 'decoding'. Did you mean 'decode'"),
        ("bert-base", {"phase": "decode"}, "generates text, such as gpt2 or llama-3-8b"),
        ("resnet50", {"sequence": 5}, "takes no sequence of tokens"),
        ("resnet50", {"context": 5}, "context=5 is for phase='decode'"),
        ("gpt2", {"phase": "decode", "sequence": 5}, "give context="),
        ("gpt2", {"sequence": 0}, "sequence=0: must be a whole number >= 1"),
        ("gpt2", {"phase": "decode", "context": -1}, "context=-1: must be a whole number >= 0"),
        ("gpt2", {"sequence": "512"}, "sequence='512': must be a whole number >= 1"),
        ("gpt2", {"sequence": True}, "sequence=True: must be a whole number >= 1"),
        ("gpt2", {"sequence": 1025}, "1025 tokens; it was made for at most 1024"),
        ("gpt2", {"phase": "decode", "context": 1024}, "1025 tokens"),
    ],
)
def test_bad_input(name: str, settings: dict[str, object], message: str) -> None:
    with pytest.raises(HpmlError, match=message) as caught:
        shape(name, **settings)
    if message.startswith("unknown"):
        assert isinstance(caught.value, UnknownNameError)
