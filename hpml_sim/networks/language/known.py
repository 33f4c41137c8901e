"""Language models by name: their sizes, as published.

The released `config.json` of each is the source; parameters are tested against the published counts.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from hpml_sim.networks.language.shape import Experts, Latent, TransformerShape

_LLAMA_2 = "H. Touvron et al., 'Llama 2', arXiv:2307.09288 (2023), Table 1; config.json of the released weights"
_LLAMA_3 = (
    "A. Grattafiori et al., 'The Llama 3 herd of models', arXiv:2407.21783 (2024), Table 3; vocabulary of the released "
    "weights (128,256), context of Llama 3.1"
)
_QWEN_3 = "A. Yang et al., 'Qwen3 technical report', arXiv:2505.09388 (2025), Tables 1 and 2; config.json as released"
_GEMMA_3 = "Gemma Team, 'Gemma 3 technical report', arXiv:2503.19786 (2025), section 2; config.json as released"

_llama2 = partial(
    TransformerShape, source=_LLAMA_2, head_width=128, vocabulary=32000, longest=4096, stored="fp16"
)  # fmt: skip
_llama3 = partial(
    TransformerShape, source=_LLAMA_3, head_width=128, kv_heads=8, vocabulary=128256, longest=131072
)  # fmt: skip
_qwen3 = partial(
    TransformerShape, source=_QWEN_3, head_width=128, kv_heads=8, vocabulary=151936, longest=40960, qk_norm=True
)  # fmt: skip
_gemma3 = partial(
    TransformerShape,
    source=_GEMMA_3,
    vocabulary=262208,
    longest=131072,
    tied=True,
    norms=4,
    qk_norm=True,
    window=1024,
    global_every=6,
)

_SHAPES = (
    TransformerShape(
        "bert-base",
        "J. Devlin et al., 'BERT', NAACL 2019, section 3; bert-base-uncased",
        12, 768, 12, 12, 64, 3072, 30522, 512,
        gated=False, bias=True, norm_bias=True, positions=512, segments=2, decodes=False, pooler=True, stored="fp32",
    ),
    TransformerShape(
        "bert-large",
        "J. Devlin et al., 'BERT', NAACL 2019, section 3; bert-large-uncased",
        24, 1024, 16, 16, 64, 4096, 30522, 512,
        gated=False, bias=True, norm_bias=True, positions=512, segments=2, decodes=False, pooler=True, stored="fp32",
    ),
    TransformerShape(
        "gpt2",
        "A. Radford et al., 'Language models are unsupervised multitask learners', OpenAI 2019, Table 2 (smallest)",
        12, 768, 12, 12, 64, 3072, 50257, 1024,
        tied=True, gated=False, bias=True, norm_bias=True, positions=1024, stored="fp32",
    ),
    TransformerShape(
        "phi-2",
        "M. Javaheripi et al., 'Phi-2: the surprising power of small language models', Microsoft 2023; config.json",
        32, 2560, 32, 32, 80, 10240, 51200, 2048,
        gated=False, bias=True, head_bias=True, norms=1, norm_bias=True, stored="fp16",
    ),
    _llama2(name="llama-2-7b", layers=32, width=4096, heads=32, kv_heads=32, hidden=11008),
    _llama2(name="llama-2-13b", layers=40, width=5120, heads=40, kv_heads=40, hidden=13824),
    _llama2(name="llama-2-70b", layers=80, width=8192, heads=64, kv_heads=8, hidden=28672),
    TransformerShape(
        "codellama-34b",
        "B. Roziere et al., 'Code Llama', arXiv:2308.12950 (2023); config.json of CodeLlama-34b-Instruct-hf",
        48, 8192, 64, 8, 128, 22016, 32000, 16384,
    ),
    _llama3(name="llama-3-8b", layers=32, width=4096, heads=32, hidden=14336),
    _llama3(name="llama-3-70b", layers=80, width=8192, heads=64, hidden=28672),
    _llama3(name="llama-3.1-405b", layers=126, width=16384, heads=128, hidden=53248),
    _llama3(name="llama-3.2-1b", layers=16, width=2048, heads=32, head_width=64, hidden=8192, tied=True),
    _llama3(name="llama-3.2-3b", layers=28, width=3072, heads=24, hidden=8192, tied=True),
    TransformerShape(
        "llama-4-scout",
        "Meta, Llama-4-Scout-17B-16E: config.json of the released weights (2025), the text model",
        48, 5120, 40, 8, 128, 16384, 202048, 10485760,
        window=8192, global_every=4, experts=Experts(16, 1, 8192, shared_hidden=8192),
    ),
    TransformerShape(
        "llama-4-maverick",
        "Meta, Llama-4-Maverick-17B-128E: config.json of the released weights (2025), the text model",
        48, 5120, 40, 8, 128, 16384, 202048, 1048576,
        window=8192, global_every=4, experts=Experts(128, 1, 8192, shared_hidden=8192, every=2),
    ),
    TransformerShape(
        "smollm2-135m",
        "L. Ben Allal et al., 'SmolLM2', arXiv:2502.02737 (2025); sizes of the released file",
        30, 576, 9, 3, 64, 1536, 49152, 8192, tied=True,
    ),
    TransformerShape(
        "mistral-7b",
        "A. Q. Jiang et al., 'Mistral 7B', arXiv:2310.06825 (2023), Table 1; v0.1",
        32, 4096, 32, 8, 128, 14336, 32000, 32768, window=4096,
    ),
    TransformerShape(
        "mixtral-8x7b",
        "A. Q. Jiang et al., 'Mixtral of experts', arXiv:2401.04088 (2024), Table 1",
        32, 4096, 32, 8, 128, 14336, 32000, 32768, experts=Experts(8, 2, 14336),
    ),
    TransformerShape(
        "mixtral-8x22b",
        "Mistral AI, Mixtral-8x22B: config.json of the released weights (2024)",
        56, 6144, 48, 8, 128, 16384, 32768, 65536, experts=Experts(8, 2, 16384),
    ),
    TransformerShape(
        "internlm-20b",
        "InternLM Team, InternLM-20B: config.json of the released weights (2023)",
        60, 5120, 40, 40, 128, 13824, 103168, 4096,
    ),
    TransformerShape(
        "qwen-72b",
        "J. Bai et al., 'Qwen technical report', arXiv:2309.16609 (2023); config.json of Qwen-72B",
        80, 8192, 64, 64, 128, 24576, 152064, 32768, qkv_bias=True,
    ),
    TransformerShape(
        "qwen-2.5-7b",
        "A. Yang et al., 'Qwen2.5 technical report', arXiv:2412.15115 (2024), Table 1",
        28, 3584, 28, 4, 128, 18944, 152064, 32768, qkv_bias=True,
    ),
    TransformerShape(
        "qwen-2.5-72b",
        "A. Yang et al., 'Qwen2.5 technical report', arXiv:2412.15115 (2024), Table 1",
        80, 8192, 64, 8, 128, 29568, 152064, 32768, qkv_bias=True,
    ),
    _qwen3(name="qwen3-0.6b", layers=28, width=1024, heads=16, hidden=3072, tied=True),
    _qwen3(name="qwen3-1.7b", layers=28, width=2048, heads=16, hidden=6144, tied=True),
    _qwen3(name="qwen3-4b", layers=36, width=2560, heads=32, hidden=9728, tied=True),
    _qwen3(name="qwen3-8b", layers=36, width=4096, heads=32, hidden=12288),
    _qwen3(name="qwen3-14b", layers=40, width=5120, heads=40, hidden=17408),
    _qwen3(name="qwen3-32b", layers=64, width=5120, heads=64, hidden=25600),
    _qwen3(
        name="qwen3-30b-a3b",
        layers=48, width=2048, heads=32, kv_heads=4, hidden=6144, experts=Experts(128, 8, 768),
    ),
    _qwen3(
        name="qwen3-235b-a22b",
        layers=94, width=4096, heads=64, kv_heads=4, hidden=12288, experts=Experts(128, 8, 1536),
    ),
    TransformerShape(
        "qwen3-coder-480b-a35b",
        "Qwen Team, Qwen3-Coder-480B-A35B: config.json of the released weights (2025)",
        62, 6144, 96, 8, 128, 8192, 151936, 262144, qk_norm=True, experts=Experts(160, 8, 2560),
    ),
    _gemma3(
        name="gemma-3-1b", layers=26, width=1152, heads=4, kv_heads=1, head_width=256, hidden=6912, vocabulary=262144,
        longest=32768, window=512,
    ),
    _gemma3(name="gemma-3-4b", layers=34, width=2560, heads=8, kv_heads=4, head_width=256, hidden=10240),
    _gemma3(name="gemma-3-12b", layers=48, width=3840, heads=16, kv_heads=8, head_width=256, hidden=15360),
    _gemma3(name="gemma-3-27b", layers=62, width=5376, heads=32, kv_heads=16, head_width=128, hidden=21504),
    TransformerShape(
        "gpt-oss-20b",
        "OpenAI, 'gpt-oss-120b and gpt-oss-20b model card', arXiv:2508.10925 (2025), Table 1; config.json",
        24, 2880, 64, 8, 64, 2880, 201088, 131072,
        bias=True, window=128, global_every=2, experts=Experts(32, 4, 2880), stored="fp4",
    ),
    TransformerShape(
        "gpt-oss-120b",
        "OpenAI, 'gpt-oss-120b and gpt-oss-20b model card', arXiv:2508.10925 (2025), Table 1; config.json",
        36, 2880, 64, 8, 64, 2880, 201088, 131072,
        bias=True, window=128, global_every=2, experts=Experts(128, 4, 2880), stored="fp4",
    ),
    TransformerShape(
        "deepseek-v3",
        "DeepSeek-AI, 'DeepSeek-V3 technical report', arXiv:2412.19437 (2024), section 4.2; without the MTP module",
        61, 7168, 128, 128, 128, 18432, 129280, 163840,
        experts=Experts(256, 8, 2048, shared_hidden=2048, first_dense=3),
        latent=Latent(512, 64, 128, 128, query_rank=1536), stored="fp8",
    ),
)  # fmt: skip


def _named() -> dict[str, TransformerShape]:
    known = {shape.name: shape for shape in _SHAPES}
    same = {  # the same sizes under the names of later releases
        "llama-3.1-8b": "llama-3-8b",
        "llama-3.1-70b": "llama-3-70b",
        "llama-3.3-70b": "llama-3-70b",
        "deepseek-r1": "deepseek-v3",
    }
    return known | {name: replace(known[of], name=name) for name, of in same.items()}


LANGUAGE_MODELS: dict[str, TransformerShape] = _named()
"""Name -> sizes."""

_RECORDED = {  # words of published names that say nothing of the sizes
    "instruct", "it", "hf", "chat", "fp8", "bf16", "meta", "google", "llama__llama", "2507", "base", "v0.1", "v0.3",
    "17b", "16e", "128e",
}  # fmt: skip


def language_model(name: str) -> TransformerShape | None:
    """The network that a published name stands for; None if it is not known.

    Args:
        name: as we have it ("qwen3-8b") or as it is published ("Qwen/Qwen3-8B", "meta-llama__Llama-3.1-8B-Instruct").

    Example:
        >>> language_model("meta-llama__Llama-3.1-70B-Instruct").name
        'llama-3.1-70b'
    """
    if name in LANGUAGE_MODELS:
        return LANGUAGE_MODELS[name]
    words = name.replace("__", "/").rpartition("/")[2].lower().replace("_", "-").split("-")
    plain = "-".join(word for word in words if word not in _RECORDED)
    squeezed = {known.replace("-", "").replace(".", ""): known for known in LANGUAGE_MODELS}
    found = squeezed.get(plain.replace("-", "").replace(".", ""))
    return LANGUAGE_MODELS[found] if found else None
