"""Texts for language models: windows of token ids, each with the token that follows each of its tokens.

The texts lie beside this file. Test and training text share no eight words in a row.
"""

from __future__ import annotations

import hashlib
from importlib import resources

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from hpml_sim.data.splits import Splits
from hpml_sim.errors import HpmlError, check_whole
from hpml_sim.networks.pretrained.entries import load_tokenizer
from hpml_sim.networks.pretrained.language_model import TextTokenizer

TEXTS = {
    "gpl-3": "3972dc9744f6499f0f9b2dbf76696f2ae7ad8af9b23dde66d6af86c9dfb36986",
    "networkx-docs": "b710f3867920e57776c04f57cc8417696667c4cfb0973ae822497b3a7bc9dba2",
}
"""Text -> SHA-256 of its file."""
TEST, TRAINING = "gpl-3", "networkx-docs"


def read_text(name: str) -> str:
    """One of the texts, checked.

    Args:
        name: one of `TEXTS`.

    Raises:
        HpmlError: the installed file is another one.
    """
    raw = (resources.files("hpml_sim.data") / "texts" / f"{name}.txt").read_bytes()
    if (found := hashlib.sha256(raw).hexdigest()) != TEXTS[name]:
        raise HpmlError(
            f"text {name!r}: the file of this installation was changed (SHA-256 {found[:12]}..., published "
            f"{TEXTS[name][:12]}...); install hpml_sim again"
        )
    return raw.decode("utf-8")


def windows(ids: Tensor, length: int, most: int | None = None) -> TensorDataset:
    """A long text cut into windows, one after the other, without a start token: what is left over is dropped.

    Args:
        ids: token ids, int64 (tokens,).
        length: tokens of a window, >= 1.
        most: how many windows at most, >= 1; None: all.

    Returns:
        Items (input, label), int64 (length,) each: the label of a token is the one that follows it.

    Raises:
        HpmlError: a number out of range, or a text that does not fill one window.
    """
    length = check_whole("windows: length", length, low=1)
    count = (len(ids) - 1) // length
    if most is not None:
        count = min(count, check_whole("windows: most", most, low=1))
    if count < 1:
        raise HpmlError(
            f"windows: {len(ids):,} tokens are fewer than length + 1 = {length + 1:,}; take a smaller length"
        )
    whole = ids[: count * length + 1]
    return TensorDataset(whole[:-1].reshape(count, length), whole[1:].reshape(count, length))


def text(*, tokenizer: TextTokenizer | None = None, length: int = 512, test_windows: int = 4) -> Splits:
    """Prose of NetworkX's documentation for training, the GNU GPL for the test.

    Args:
        tokenizer: of the language model, with `encode(text)`; None takes SmolLM2's.
        length: tokens of a window, >= 1.
        test_windows: how many of the test text's first windows, >= 1.

    Raises:
        HpmlError: SmolLM2's package is not here, or a number out of range.
    """
    chosen = load_tokenizer("smollm2-135m") if tokenizer is None else tokenizer
    train, test = (torch.tensor(list(chosen.encode(read_text(name)))) for name in (TRAINING, TEST))
    size = int(max(train.max(), test.max())) + 1 if tokenizer is not None else chosen.vocabulary  # type: ignore[union-attr]
    splits = windows(train, length), windows(test, length, test_windows)
    return Splits(*splits, (length,), size, "language_model")


def text_bytes(*, length: int = 128, test_windows: int = 64) -> Splits:
    """The same texts byte by byte, for small language models: 256 classes, no tokenizer.

    Args:
        length: bytes of a window, >= 1.
        test_windows: how many of the test text's first windows, >= 1.

    Raises:
        HpmlError: a number out of range.
    """
    train, test = (torch.tensor(list(read_text(name).encode())) for name in (TRAINING, TEST))
    return Splits(windows(train, length), windows(test, length, test_windows), (length,), 256, "language_model")
