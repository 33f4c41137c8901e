"""Sound as spikes: tones where they belong, loudness, and a filter by hand."""

from __future__ import annotations

import numpy as np
import pytest

from hpml_sim.data.cochlea import center_frequencies, cochlea_spikes
from hpml_sim.errors import HpmlError

RATE = 8000


def tone(frequency: float, amplitude: float = 0.1) -> np.ndarray:
    return amplitude * np.sin(2 * np.pi * frequency * np.arange(RATE) / RATE)


@pytest.mark.parametrize("band", [3, 15, 30, 37])
def test_a_tone_excites_its_own_band_most(band):
    centers = center_frequencies(40, 100, 0.45 * RATE)
    spikes = cochlea_spikes(tone(centers[band])[None], RATE)[0].sum(0)
    assert abs(int(np.flatnonzero(spikes == spikes.max()).mean()) - band) <= 1
    assert spikes[band] > 2 * spikes[(band + 20) % 40]


def test_bands_are_at_equal_distances_of_the_cochlea():
    centers = center_frequencies(40, 100, 3600)
    assert centers[[0, -1]] == pytest.approx([100, 3600])
    width = 24.7 * (0.00437 * (centers[1:] + centers[:-1]) / 2 + 1)
    assert np.diff(centers) / width == pytest.approx(np.full(39, 22.8 / 39), rel=0.01)  # E(3600) - E(100) = 26.2 - 3.4


def test_a_tone_of_its_center_gives_the_spikes_of_the_mean_of_half_a_wave():
    """At its center a band lets everything pass: the drive is sqrt(a / pi), the neuron by hand."""
    frequency, amplitude = 1000.0, 0.02
    centers = center_frequencies(3, 1000.0, 0.45 * RATE)
    spikes = cochlea_spikes(tone(centers[0], amplitude)[None], RATE, channels=3, low_hz=frequency)[0, :, 0]
    half_wave = np.maximum(np.sin(2 * np.pi * np.arange(8) / 8), 0).mean()  # 8 samples a period
    membrane, want = 0.0, []
    for _ in range(50):
        membrane = 0.8 * membrane + 5 * np.sqrt(amplitude * half_wave)
        want.append(float(membrane > 1))
        membrane -= membrane > 1
    assert spikes.tolist() == want


def test_louder_sounds_spike_more_and_silence_does_not():
    spikes = cochlea_spikes(np.stack([tone(500, a) for a in (0.0, 0.01, 0.03, 0.1)]), RATE).sum((1, 2))
    assert spikes[0] == 0
    assert (np.diff(spikes) > 0).all()
    assert cochlea_spikes(np.zeros((0, 100)), RATE).shape == (0, 50, 40)


@pytest.mark.parametrize(
    ("sounds", "options", "message"),
    [
        (np.zeros(100), {}, r"sounds of shape \(100,\)"),
        (np.zeros((1, 20)), {}, "at least 50 samples"),
        (np.full((1, 100), np.nan), {}, "holds NaN or infinity"),
        (np.zeros((1, 100)), {"channels": 1}, "channels=1"),
        (np.zeros((1, 100)), {"low_hz": 5000}, "low_hz=5000"),
    ],
)
def test_bad_input_is_one_line(sounds, options, message):
    with pytest.raises(HpmlError, match=message) as caught:
        cochlea_spikes(sounds, RATE, **options)
    assert "\n" not in str(caught.value)
