"""g2p: letters of an English word to its phonemes, two recurrent networks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hpml_sim.errors import HpmlError, shown

LETTERS = ("<pad>", "<unk>", "</s>", *"abcdefghijklmnopqrstuvwxyz")
"""Letters by id."""
_SOUNDS = (
    "AA0 AA1 AA2 AE0 AE1 AE2 AH0 AH1 AH2 AO0 AO1 AO2 AW0 AW1 AW2 AY0 AY1 AY2 B CH D DH EH0 EH1 EH2 ER0 ER1 ER2 EY0 EY1 "
    "EY2 F G HH IH0 IH1 IH2 IY0 IY1 IY2 JH K L M N NG OW0 OW1 OW2 OY0 OY1 OY2 P R S SH T TH UH0 UH1 UH2 UW UW0 UW1 UW2 "
    "V W Y Z ZH"
)
PHONEMES = ("<pad>", "<unk>", "<s>", "</s>", *_SOUNDS.split())
"""Phonemes of the CMU Pronouncing Dictionary by id; the number of a vowel is its stress."""
PAD, START, END = 0, 2, 3
"""Ids of phonemes: what fills up, begins and ends a word."""
LONGEST = 20
"""Phonemes of a word at most, its end among them."""
_END_OF_LETTERS = 2


class Pronunciation(nn.Module):
    """Letters (batch, letters) of words, each ended by 2 and filled up with 0, -> logits (batch, 20, 74) of phonemes.

    Each phoneme is chosen from the one before it: the most likely one, or the right one where it is given.

    Args:
        width: of letters, phonemes and states.

    Example:
        >>> from hpml_sim.networks.pretrained.pronunciation import Pronunciation
        >>> net = Pronunciation(8)
        >>> net(net.letters(["cat", "mouse"])).shape
        torch.Size([2, 20, 74])

    Source: K. Park and J. Kim, g2p (github.com/Kyubyong/g2p, 2019).
    """

    def __init__(self, width: int = 256):
        super().__init__()
        self.letters_in, self.phonemes_in = nn.Embedding(len(LETTERS), width), nn.Embedding(len(PHONEMES), width)
        self.encoder = nn.GRU(width, width, batch_first=True)
        self.decoder = nn.GRUCell(width, width)
        self.head = nn.Linear(width, len(PHONEMES))

    def forward(self, letters: Tensor, phonemes: Tensor | None = None) -> Tensor:
        """Logits of each phoneme, (batch, 20, 74); without the right ones, those after the end mean nothing.

        Args:
            letters: ids, int64 (batch, letters), each word ended by 2 and filled up with 0.
            phonemes: the right ones, int64 (batch, 20), from which each next one is then predicted (in training).
        """
        states = self.encoder(self.letters_in(letters))[0]
        last = (letters != PAD).sum(1).clamp(min=1) - 1
        state = states.gather(1, last[:, None, None].expand(-1, 1, states.shape[2])).squeeze(1)
        said = torch.full_like(letters[:, 0], START)
        logits = []
        for step in range(LONGEST):
            state = self.decoder(self.phonemes_in(said), state)
            logits.append(self.head(state))
            said = logits[-1].argmax(-1) if phonemes is None else phonemes[:, step]
        return torch.stack(logits, dim=1)

    @staticmethod
    def letters(words: Iterable[str]) -> Tensor:
        """Words as ids of letters, each ended by 2 and filled up with 0: (words, longest word + 1).

        Args:
            words: English words; what is not a letter becomes 1.

        Raises:
            HpmlError: there are none, or one is no text.
        """
        found = [words] if isinstance(words, str) else list(words)
        if not found or not all(isinstance(word, str) for word in found):
            raise HpmlError(f"letters: words={shown(words)}: must be a list of words, at least one")
        numbers = {letter: number for number, letter in enumerate(LETTERS)}
        ids = [torch.tensor([*(numbers.get(c, 1) for c in word.lower()), _END_OF_LETTERS]) for word in found]
        return nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=PAD)

    @staticmethod
    def phonemes(logits: Tensor) -> list[list[str]]:
        """The most likely phonemes of each word, up to its end.

        Args:
            logits: what the network gave, (batch, 20, 74).

        Raises:
            HpmlError: something else, such as ids of letters.
        """
        if not isinstance(logits, Tensor) or logits.dim() != 3 or logits.shape[2] != len(PHONEMES):
            given = f"of shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else f"= {shown(logits)}"
            raise HpmlError(
                f"phonemes: logits {given}: must be what the network gives, (batch, {LONGEST}, {len(PHONEMES)}), "
                "such as net.phonemes(net(net.letters(['hello'])))"
            )
        return [[PHONEMES[n] for n in _to_end(row)] for row in logits.argmax(-1).tolist()]


def _to_end(numbers: list[int]) -> list[int]:
    return numbers[: numbers.index(END)] if END in numbers else numbers


def g2p(files: Mapping[str, Path]) -> Pronunciation:
    """The network of the package g2p-en.

    Args:
        files: path in the package -> the file of weights (npz), checked.
    """
    (path,) = files.values()
    with np.load(path, allow_pickle=False) as held:
        given = {name: torch.from_numpy(held[name]) for name in held.files}
    with torch.device("meta"):
        model = Pronunciation(given["enc_w_hh"].shape[1])
    weights = {"letters_in.weight": given["enc_emb"], "phonemes_in.weight": given["dec_emb"]}
    weights |= {"head.weight": given["fc_w"], "head.bias": given["fc_b"]}
    for theirs, part, layer in (("enc", "encoder", "_l0"), ("dec", "decoder", "")):
        for kind, long in (("w", "weight"), ("b", "bias")):
            for gate in ("ih", "hh"):
                weights[f"{part}.{long}_{gate}{layer}"] = given[f"{theirs}_{kind}_{gate}"]
    model.load_state_dict(weights, assign=True)
    return model
