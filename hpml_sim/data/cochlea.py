"""Sound as spikes: bands of a cochlea, half-wave rectified, compressed, and given to leaky neurons."""

from __future__ import annotations

import numpy as np

from hpml_sim.errors import HpmlError, check_real, check_whole

_KEPT, _GAIN, _EXPONENT = 0.8, 5.0, 0.5
"""Of the membrane in a step; from compressed sound to current; of the compression, a square root."""
_AT_ONCE = 25
"""Sounds whose bands are in memory together."""


def center_frequencies(channels: int, low_hz: float, high_hz: float) -> np.ndarray:
    """Frequencies at equal distances on the cochlea, (channels,) in Hz, from low to high.

    Source: B. R. Glasberg and B. C. J. Moore, Hearing Research 47:103 (1990): 21.4 log10(1 + 0.00437 f) bandwidths lie
    below f.

    Args:
        channels: how many, >= 2.
        low_hz: the first, > 0.
        high_hz: the last.
    """
    first, last = (21.4 * np.log10(1 + 0.00437 * f) for f in (low_hz, high_hz))
    return (10 ** (np.linspace(first, last, channels) / 21.4) - 1) / 0.00437


def cochlea_spikes(
    sounds: np.ndarray, rate_hz: float, *, channels: int = 40, steps: int = 50, low_hz: float = 100.0
) -> np.ndarray:
    """Spikes of each band at each step: bands of gammatone filters, as they are used for the cochlea.

    Each band is what the amplitude response of a gammatone filter of fourth order leaves of the sound, half-wave
    rectified; the square root of its mean over a step drives a leaky neuron, which fires above 1 and loses 1.

    Source: R. D. Patterson et al., "Complex sounds and auditory images" (1992): the filter; Glasberg and Moore (1990):
    its bandwidth, 24.7 (0.00437 f + 1) Hz. Square root and neuron are ours.

    Args:
        sounds: (sounds, samples), about in [-1, 1].
        rate_hz: samples a second, > 0.
        channels: bands, >= 2, from `low_hz` to 0.45 times the rate.
        steps: time steps, >= 1; what does not fill a step at the end is left out.
        low_hz: of the lowest band, > 0.

    Returns:
        0 or 1, (sounds, steps, channels) float32.

    Raises:
        HpmlError: a value out of range, a sound that is not finite, or fewer samples than steps.

    Example:
        >>> import numpy as np
        >>> from hpml_sim.data.cochlea import center_frequencies, cochlea_spikes
        >>> tone = np.sin(2 * np.pi * 440 * np.arange(8000) / 8000)
        >>> spikes = cochlea_spikes(0.3 * tone[None], 8000)
        >>> loudest = center_frequencies(40, 100, 3600)[spikes[0].sum(0).argmax()]
        >>> bool(350 < loudest < 550)
        True
    """
    sounds = np.asarray(sounds)
    rate = check_real("cochlea_spikes: rate_hz", rate_hz, above=0)
    channels = check_whole("cochlea_spikes: channels", channels, low=2)
    steps = check_whole("cochlea_spikes: steps", steps, low=1)
    low = check_real("cochlea_spikes: low_hz", low_hz, above=0, below=0.45 * rate)
    if sounds.ndim != 2 or sounds.shape[1] < steps:
        raise HpmlError(
            f"cochlea_spikes: sounds of shape {sounds.shape}; expected (sounds, samples) with at least {steps} samples"
        )
    if not np.isfinite(sounds).all():
        raise HpmlError("cochlea_spikes: a sound holds NaN or infinity")
    filters = _responses(sounds.shape[1], rate, center_frequencies(channels, low, 0.45 * rate))
    parts = [_spikes(_drive(sounds[i : i + _AT_ONCE], filters, steps)) for i in range(0, len(sounds), _AT_ONCE)]
    return np.concatenate(parts) if parts else np.zeros((0, steps, channels), np.float32)


def _responses(samples: int, rate: float, centers: np.ndarray) -> np.ndarray:
    """Amplitude of each band at each frequency of the Fourier transform, (bands, frequencies)."""
    frequencies = np.fft.rfftfreq(samples, 1 / rate)
    width = 1.019 * 24.7 * (0.00437 * centers + 1)
    return (1 + ((frequencies - centers[:, None]) / width[:, None]) ** 2) ** -2


def _drive(sounds: np.ndarray, filters: np.ndarray, steps: int) -> np.ndarray:
    """Compressed loudness, (sounds, bands, steps)."""
    samples = sounds.shape[1]
    bands = np.fft.irfft(np.fft.rfft(sounds)[:, None] * filters, samples)
    each = samples // steps
    return np.maximum(bands[..., : each * steps], 0).reshape(*bands.shape[:2], steps, each).mean(-1) ** _EXPONENT


def _spikes(drive: np.ndarray) -> np.ndarray:
    membrane = np.zeros(drive.shape[:2])
    out = np.zeros((drive.shape[0], drive.shape[2], drive.shape[1]), np.float32)
    for step in range(drive.shape[2]):
        membrane = _KEPT * membrane + _GAIN * drive[..., step]
        fired = membrane > 1
        membrane -= fired
        out[:, step] = fired
    return out
