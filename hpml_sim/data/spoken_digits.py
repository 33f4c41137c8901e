"""Spoken digits: many voices by a synthesizer, those of the test not heard in training; and ten human recordings."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from hpml_sim.data.cochlea import cochlea_spikes
from hpml_sim.data.recordings import digit_recordings
from hpml_sim.data.splits import Splits
from hpml_sim.data.synthesis import ACCENTS, Voice, synthesize
from hpml_sim.errors import HpmlError, check_whole

RATE_HZ = 8000
"""Samples a second of every sound here; each lasts one second."""
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TRAINING_VOICES, TEST_VOICES = 120, 60
_SHA256 = "3a1480516eafea066db84fe768a902df595d71bff70a39f50385641bde3328a0"
"""Of what the synthesizer gives: all words of all voices, in their order."""
_SPEAKERS = ((100, 125), (116, 210), (128, 250))
"""Resonances (percent of a man's) and pitch (hertz) of men, women and children: about those of J. Hillenbrand et al.,
'Acoustic characteristics of American English vowels', J. Acoust. Soc. Am. 97:3099 (1995), Table V."""


class Spoken(NamedTuple):
    """Sounds of one second, and which digit is said.

    Attributes:
        sounds: in [-1, 1] and white noise, (samples, 8000) float32.
        labels: digits, (samples,) int64.
    """

    sounds: Tensor
    labels: Tensor


def _voices(count: int, rng: np.random.RandomState) -> list[Voice]:
    """Men, women and children in turn, three of each accent, each with pitch, vocal tract and speed of its own."""
    voices = []
    for number in range(count):
        percent, pitch = _SPEAKERS[number % 3]
        tract = percent * rng.uniform(0.94, 1.06)
        formants = [round(tract * rng.uniform(0.96, 1.04)) for _ in range(4)]
        middle, reach = pitch * rng.uniform(0.8, 1.2), rng.uniform(1.1, 1.4)
        voices.append(
            Voice(
                accent=ACCENTS[number // 3 % 4],
                pitch_hz=(round(middle / reach), round(middle * reach)),
                formants_percent=(formants[0], formants[1], formants[2], formants[3]),
                speed=int(rng.randint(130, 220)),
            )
        )
    return voices


def spoken_by_voices(name: str = "spoken-digits") -> tuple[Spoken, Spoken]:
    """Sounds for training and for the test: 120 voices and 60 others, each of which says the ten digits once.

    A word begins at another moment, is louder or softer, and in white noise, each time.

    Args:
        name: of the data set, for messages.

    Raises:
        HpmlError: the synthesizer is not here, or gives other sounds here.
    """
    rng = np.random.RandomState(0)
    voices = _voices(TRAINING_VOICES + TEST_VOICES, rng)
    said = synthesize(voices, WORDS, what=f"data {name!r}", get=f"hpml-sim data get {name}")
    _check(said, name)
    parts = said[:TRAINING_VOICES], said[TRAINING_VOICES:]
    training, test = (_spoken([[_at_8_khz(word) for word in voice] for voice in part], rng) for part in parts)
    return training, test


def _check(said: Sequence[Sequence[np.ndarray]], name: str) -> None:
    total = hashlib.sha256()
    for voice in said:
        for word in voice:
            total.update(word.tobytes())
    if (found := total.hexdigest()) != _SHA256:
        raise HpmlError(
            f"data {name!r}: the synthesizer gives other sounds on this machine than where the set was made (SHA-256 "
            f"{found[:12]}..., not {_SHA256[:12]}...); it is the same on Linux x86_64"
        )


def _at_8_khz(sound: np.ndarray) -> np.ndarray:
    from scipy.signal import resample_poly

    return resample_poly(sound.astype(np.float64) / 32768, 160, 441)


def _spoken(voices: Sequence[Sequence[np.ndarray]], rng: np.random.RandomState) -> Spoken:
    sounds = np.stack([heard(word, rng) for voice in voices for word in voice])
    labels = np.tile(np.arange(len(WORDS)), len(voices))
    return Spoken(torch.from_numpy(sounds.astype(np.float32)), torch.from_numpy(labels))


def heard(sound: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """A word somewhere in a second of noise, at half to full loudness.

    Args:
        sound: samples at 8 kHz, (samples,); what is longer than a second is cut off.
        rng: draws moment, loudness and noise.
    """
    said = sound[:RATE_HZ]
    whole = rng.uniform(0.005, 0.02) * rng.randn(RATE_HZ)
    begin = rng.randint(0, RATE_HZ - len(said) + 1)
    whole[begin : begin + len(said)] += rng.uniform(0.5, 1.0) * said
    return whole


def spectra(sounds: Tensor) -> Tensor:
    """Logarithms of mean amplitudes, about in [-1, 1], of 32 bands of 125 Hz in 40 steps of 25 ms.

    Args:
        sounds: (batch, 8000).

    Returns:
        (batch, 1, 32, 40).
    """
    bins = torch.stft(sounds, 256, 200, window=torch.hann_window(256), return_complex=True).abs()[:, 1:, :40]
    return ((bins.unflatten(1, (32, 4)).mean(2) + 1e-3).log()[:, None] + 2) / 4


def _splits(training: Spoken, test: Spoken) -> Splits:
    train, others = (TensorDataset(spectra(part.sounds), part.labels) for part in (training, test))
    return Splits(train, others, (1, 32, 40), len(WORDS))


def spoken_digits() -> Splits:
    """Spoken digits zero to nine as spectra (1, 32, 40) -> the digit; the voices of the test are not heard in training.

    Raises:
        HpmlError: the synthesizer is not here, or gives other sounds here.
    """
    return _splits(*spoken_by_voices())


def digit_spikes(*, channels: int = 40, steps: int = 50) -> Splits:
    """The sounds of `spoken_digits` as spikes of a cochlea: 50 steps of 20 ms of 40 bands, (50, 40), -> the digit.

    Of few bands, such as 8, words are told apart by what follows what; of 40 the sum over time nearly does.

    Args:
        channels: bands, >= 2.
        steps: of the second, 1 to 8000.

    Raises:
        HpmlError: a number out of range, or the synthesizer is not here, or gives other sounds here.
    """
    channels = check_whole("spoken-digit-spikes: channels", channels, low=2)
    steps = check_whole("spoken-digit-spikes: steps", steps, low=1, high=RATE_HZ)
    train, test = (
        TensorDataset(
            torch.from_numpy(cochlea_spikes(part.sounds.numpy(), RATE_HZ, channels=channels, steps=steps)), part.labels
        )
        for part in spoken_by_voices("spoken-digit-spikes")
    )
    return Splits(train, test, (steps, channels), len(WORDS))


def human_digits() -> Splits:
    """As `spoken_digits`, with ten recordings of a woman for the test: a demonstration, as ten are too few for a score.

    Raises:
        HpmlError: the synthesizer or the recordings are not here, or give other sounds here.
    """
    name = "spoken-digits-human"
    training, _ = spoken_by_voices(name)
    return _splits(training, _spoken([digit_recordings(name)], np.random.RandomState(1)))
