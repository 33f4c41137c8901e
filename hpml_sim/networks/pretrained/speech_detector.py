"""Silero VAD: is somebody speaking? A short-time Fourier transform, four convolutions and a recurrent cell."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hpml_sim.errors import HpmlError

RATE_HZ = 16_000
"""Samples a second that it takes."""
CHUNK = 512
"""Samples that it decides on: 32 ms."""
_EARLIER = 64
"""Samples before a chunk that are read again with it."""
_WINDOW, _STEP, _WIDTH = 256, 128, 128


class SpeechDetector(nn.Module):
    """Sound (batch, samples) at 16 kHz in [-1, 1] -> a logit of speech for each 32 ms, (batch, samples / 512).

    The last chunk is filled up with silence. `torch.sigmoid` makes probabilities of the logits.

    Example:
        >>> import torch
        >>> from hpml_sim.networks.pretrained.speech_detector import SpeechDetector
        >>> SpeechDetector()(torch.zeros(2, 1600)).shape
        torch.Size([2, 4])

    Source: Silero Team, "Silero VAD" (github.com/snakers4/silero-vad), version 6, 16 kHz.
    """

    def __init__(self) -> None:
        super().__init__()
        bins = _WINDOW // 2 + 1
        self.spectrum = nn.Conv1d(1, 2 * bins, _WINDOW, stride=_STEP, bias=False)
        self.conv1 = nn.Conv1d(bins, 128, 3, padding=1)
        self.conv2 = nn.Conv1d(128, 64, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, 3, stride=2, padding=1)
        self.conv4 = nn.Conv1d(64, _WIDTH, 3, padding=1)
        self.memory = nn.LSTMCell(_WIDTH, _WIDTH)
        self.head = nn.Conv1d(_WIDTH, 1, 1)

    def forward(self, sound: Tensor) -> Tensor:
        """A logit of speech for each chunk, (batch, chunks).

        Args:
            sound: (batch, samples), 16 kHz, in [-1, 1].

        Raises:
            HpmlError: of another shape, or empty.
        """
        if sound.dim() != 2 or not sound.shape[1]:
            raise HpmlError(f"SpeechDetector: sound of shape {tuple(sound.shape)}: must be (batch, samples), 16 kHz")
        samples = sound.shape[1]
        chunks = -(-samples // CHUNK)
        padded = F.pad(sound, (_EARLIER, chunks * CHUNK - samples))
        # each chunk with the 64 samples before it; all chunks at once, as they meet only in the memory
        parts = padded.unfold(1, CHUNK + _EARLIER, CHUNK).flatten(0, 1)
        found = self._features(parts).unflatten(0, (len(sound), chunks))
        state = (found.new_zeros(len(sound), _WIDTH), found.new_zeros(len(sound), _WIDTH))
        heard = []
        for chunk in range(chunks):
            state = self.memory(found[:, chunk], state)
            heard.append(state[0])
        return self.head(torch.stack(heard, dim=2).relu()).squeeze(1)

    def _features(self, parts: Tensor) -> Tensor:
        """What the convolutions make of chunks (chunks, 576): (chunks, 128)."""
        real, imaginary = self.spectrum(F.pad(parts[:, None], (0, _EARLIER), mode="reflect")).chunk(2, dim=1)
        x = torch.sqrt(real * real + imaginary * imaginary)
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = layer(x).relu()
        return x.squeeze(2)


_THEIRS = {"stft_conv": "spectrum", "lstm_cell": "memory", "final_conv": "head"}


def silero(files: Mapping[str, Path]) -> SpeechDetector:
    """The network of the package silero-vad.

    Args:
        files: path in the package -> the file of weights (safetensors), checked.
    """
    from safetensors.torch import load_file

    (path,) = files.values()
    with torch.device("meta"):
        model = SpeechDetector()
    weights = {}
    for name, weight in load_file(path).items():
        part, _, kind = name.partition(".")
        weights[f"{_THEIRS.get(part, part)}.{kind}"] = weight
    model.load_state_dict(weights, assign=True)
    return model
