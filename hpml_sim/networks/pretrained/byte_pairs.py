"""Text to token ids and back, by a vocabulary of byte pairs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from hpml_sim.errors import HpmlError, needs, shown

if TYPE_CHECKING:
    import tokenizers


class Tokenizer:
    """Text to token ids and back; it holds nothing that changes, and a copy is the same object.

    Args:
        rules: what the package `tokenizers` made.
        ends: token ids that end a text.
        framed: whether each text gets the tokens around it that the rules speak of, such as [CLS] and [SEP].

    Attributes:
        ends: token ids that end a text.
        framed: whether each text gets the tokens around it that the rules speak of.
        vocabulary: how many ids there are.
    """

    def __init__(self, rules: tokenizers.Tokenizer, ends: Sequence[int] = (), *, framed: bool = False):
        self._rules, self.ends, self.framed = rules, tuple(ends), framed
        self.vocabulary: int = rules.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        """Token ids of a text; unless `framed`, none are added at its start or end.

        Args:
            text: any; the names of special tokens in it, such as <|im_end|>, become these tokens.

        Raises:
            HpmlError: no text.
        """
        if not isinstance(text, str):
            raise HpmlError(f"tokenizer.encode: text={shown(text)}: must be text; call it once for each of a list")
        return self._rules.encode(text, add_special_tokens=self.framed).ids

    def decode(self, ids: Iterable[int] | torch.Tensor) -> str:
        """The text of token ids, special tokens by their names.

        Args:
            ids: whole numbers, a list or a tensor (tokens,).

        Raises:
            HpmlError: ids that the vocabulary lacks, or several texts at once.
        """
        numbers = ids.tolist() if isinstance(ids, torch.Tensor) else list(ids)
        for number in numbers if isinstance(numbers, list) else [numbers]:
            if not isinstance(number, int) or not 0 <= number < self.vocabulary:
                raise HpmlError(
                    f"tokenizer.decode: id {shown(number)}: must be a whole number from 0 to {self.vocabulary - 1}; "
                    "of a batch, decode one text at a time"
                )
        return self._rules.decode(numbers, skip_special_tokens=False)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tokenizer:
        return self

    def __repr__(self) -> str:
        return f"<Tokenizer of {self.vocabulary:,} tokens>"


def byte_pairs(tokens: Sequence[str], merges: Sequence[str], special: Sequence[str], ends: Sequence[int]) -> Tokenizer:
    """The tokenizer of a vocabulary of byte pairs in which every digit is a token of its own, as SmolLM2's.

    Args:
        tokens: all of them, in the order of their ids.
        merges: pairs that become one token, "left right", the most frequent first.
        special: those of `tokens` that stand for no text.
        ends: token ids that end a text.

    Raises:
        HpmlError: the package `tokenizers` is missing.
    """
    with needs("a language model's tokenizer", "hpml_sim[networks]"):
        from tokenizers import AddedToken, decoders, models, pre_tokenizers
        from tokenizers import Tokenizer as Rules
    parts = (merge.partition(" ") for merge in merges)
    pairs = [(left, right) for left, _, right in parts]
    rules = Rules(models.BPE({token: number for number, token in enumerate(tokens)}, pairs))
    rules.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    rules.decoder = decoders.ByteLevel()
    rules.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return Tokenizer(rules, ends)


def from_json(text: str, *, framed: bool) -> Tokenizer:
    """The tokenizer that a `tokenizer.json` describes, without its padding and truncation.

    Args:
        text: content of the file.
        framed: whether each text gets the tokens around it that the file speaks of, such as [CLS] and [SEP].

    Raises:
        HpmlError: the package `tokenizers` is missing, or the text describes none.
    """
    with needs("a tokenizer", "hpml_sim[networks]"):
        from tokenizers import Tokenizer as Rules
    described = json.loads(text)
    described["padding"] = described["truncation"] = None
    try:
        return Tokenizer(Rules.from_str(json.dumps(described)), framed=framed)
    except Exception as error:  # `tokenizers` raises Exception itself
        raise HpmlError(f"tokenizer.json describes no tokenizer: {error}") from error
