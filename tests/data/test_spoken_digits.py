"""Spoken digits: voices of their own in the test, the same bytes each time, and what is said without them."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

import hpml_sim as hs
from hpml_sim.data import espeak_process, spoken_digits, synthesis
from hpml_sim.data.cochlea import cochlea_spikes
from hpml_sim.data.spoken_digits import WORDS
from hpml_sim.errors import HpmlError

VOICES = [
    synthesis.Voice("en-us", (90, 130), (100, 100, 100, 100), 170),
    synthesis.Voice("en-gb-scotland", (200, 300), (116, 118, 115, 117), 190),
]
HERE = {"what": "data 'mine'", "get": "hpml-sim data get spoken-digits"}


def test_no_voice_of_the_test_is_heard_in_training():
    voices = spoken_digits._voices(spoken_digits.TRAINING_VOICES + spoken_digits.TEST_VOICES, np.random.RandomState(0))
    assert len({voice.definition("") for voice in voices}) == len(voices) == 180
    for part in (voices[: spoken_digits.TRAINING_VOICES], voices[spoken_digits.TRAINING_VOICES :]):
        assert {voice.accent for voice in part} == set(synthesis.ACCENTS)
        pitches = [sum(voice.pitch_hz) / 2 for voice in part]
        assert (min(pitches) < 110) & (max(pitches) > 280)


def test_sounds_are_a_second_of_each_digit_in_each_voice():
    training, test = spoken_digits.spoken_by_voices()
    for part, voices in ((training, 120), (test, 60)):
        assert part.sounds.shape == (10 * voices, spoken_digits.RATE_HZ)
        assert part.labels.bincount().tolist() == [voices] * 10
        assert part.sounds.abs().max() < 1.2
        assert (part.sounds.abs().amax(1) > 0.1).all()


def test_spikes_have_the_bands_and_steps_that_are_asked_for(monkeypatch):
    sounds = torch.rand(3, spoken_digits.RATE_HZ, generator=torch.Generator().manual_seed(0)) - 0.5
    part = spoken_digits.Spoken(sounds, torch.tensor([1, 2, 3]))
    monkeypatch.setattr(spoken_digits, "spoken_by_voices", lambda name: (part, part))
    data = hs.load_data("spoken-digit-spikes", channels=8, steps=100)
    spikes = torch.stack([x for x, _ in data.train])
    assert spikes.shape[1:] == data.input_shape == (100, 8)
    want = cochlea_spikes(sounds.numpy(), spoken_digits.RATE_HZ, channels=8, steps=100)
    np.testing.assert_array_equal(spikes, want)
    assert hs.load_data("spoken-digit-spikes").input_shape == (50, 40)
    with pytest.raises(HpmlError, match=r"spoken-digit-spikes: steps=0: must be a whole number from 1 to 8000"):
        hs.load_data("spoken-digit-spikes", steps=0)


def test_each_call_gives_the_same_bytes_and_each_voice_others():
    first, second = (synthesis.synthesize(VOICES, WORDS[:3], **HERE) for _ in range(2))
    said = [word.tobytes() for voice in first for word in voice]
    assert said == [word.tobytes() for voice in second for word in voice]
    assert len(set(said)) == 6
    seconds = [len(word) / synthesis.RATE_HZ for voice in first for word in voice]
    assert (min(seconds) > 0.2) & (max(seconds) < 1)


def test_pitch_and_resonances_are_those_of_the_voice():
    """A child's voice has its energy higher up than a man's, and repeats itself more often."""
    voices = [
        synthesis.Voice("en-us", (95, 105), (100, 100, 100, 100), 130),
        synthesis.Voice("en-us", (285, 315), (130, 130, 130, 130), 130),
    ]
    pitches, middles = [], []
    for (sound,) in synthesis.synthesize(voices, ["four"], **HERE):
        x = sound.astype(np.float64)
        vowel = x[len(x) // 2 - 2048 : len(x) // 2 + 2048] * np.hanning(4096)
        power = np.abs(np.fft.rfft(vowel)) ** 2
        middles.append((power * np.arange(len(power))).sum() / power.sum())
        similar = np.correlate(vowel, vowel, "full")[4095:]
        pitches.append(synthesis.RATE_HZ / (40 + similar[40:400].argmax()))
    assert pitches[0] == pytest.approx(100, rel=0.3)
    assert pitches[1] == pytest.approx(300, rel=0.3)
    assert middles[1] > 1.2 * middles[0]


def test_other_sounds_are_refused(monkeypatch):
    monkeypatch.setattr(spoken_digits, "TRAINING_VOICES", 1)
    monkeypatch.setattr(spoken_digits, "TEST_VOICES", 1)
    with pytest.raises(HpmlError, match=r"data 'spoken-digits': the synthesizer gives other sounds on this machine"):
        hs.load_data("spoken-digits")


def test_a_synthesizer_that_does_not_run_is_one_line(monkeypatch, tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("raise OSError('wrong ELF class')")
    monkeypatch.setattr(espeak_process, "__file__", str(broken))
    with pytest.raises(
        HpmlError, match=r"data 'mine': espeak-ng of espeakng-loader==0\.2\.4 does not run on .*wrong ELF"
    ):
        synthesis.synthesize(VOICES, WORDS, **HERE)
    with pytest.raises(HpmlError) as caught:
        synthesis.synthesize([synthesis.Voice("martian", (90, 130), (100,) * 4, 170)], WORDS, **HERE)
    assert "\n" not in str(caught.value)


def test_what_is_missing_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setenv("HPML_SIM_PACKAGES", str(tmp_path))
    with pytest.raises(HpmlError, match=r"espeakng-loader==0\.2\.4 .* fetch it with: hpml-sim data get spoken-digits$"):
        hs.load_data("spoken-digits")


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="needs a package of Debian's")
def test_ten_human_recordings_are_a_demonstration():
    human = hs.load_data("spoken-digits-human")
    assert human.test[:][1].tolist() == list(range(10))
    assert len(human.train) == 1200
