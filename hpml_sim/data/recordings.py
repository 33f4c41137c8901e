"""Recordings of a human voice: the prompts of Debian's asterisk-core-sounds-en-wav, 568 of them, 8 kHz.

The package is unpacked without root: `apt-get download` and `dpkg -x`, into the folder of the data.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
import wave
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import TensorDataset

from hpml_sim.data.image_files import data_folder
from hpml_sim.data.splits import Splits
from hpml_sim.errors import HpmlError

PACKAGE = "asterisk-core-sounds-en-wav"
SIZE_MB = 18.3
_SHA256 = "4ed4f885efd3f63f05f16c2de4ea4c1bc6c0ccd8fd24a60c848e437c557e7c7f"
"""Of the recordings' own SHA-256, in the order of their paths."""
_INSTALLED = Path("/usr/share/asterisk/sounds/en_US_f_Allison")
_RATE_HZ = 8000
_CHUNK = 512
"""Samples at 16 kHz of one decision of a speech detector: 32 ms."""


def find_recordings() -> Path | None:
    """The folder of the recordings: where the data lies, or where the system's package puts it; None without one."""
    return next((place for place in (data_folder() / PACKAGE, _INSTALLED) if (place / "digits").is_dir()), None)


def fetch_recordings() -> Path:
    """Get Debian's package and unpack it into the folder of the data; nothing is installed.

    Raises:
        HpmlError: this is no Debian, the package cannot be had, or it holds other recordings.
    """
    if (place := find_recordings()) is not None:
        return place
    what, target = f"data {PACKAGE!r}", data_folder() / PACKAGE
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        raise HpmlError(
            f"{what}: needs apt-get and dpkg of Debian or Ubuntu; elsewhere unpack the package of this name by hand, "
            f"and put its folder en_US_f_Allison where {target} is expected"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=target.parent) as folder:
        Path(folder).chmod(0o755)  # apt fetches as another user
        _call(["apt-get", "download", PACKAGE], folder, what)
        (package,) = Path(folder).glob("*.deb")
        _call(["dpkg", "-x", str(package), "unpacked"], folder, what)
        found = Path(folder) / "unpacked" / _INSTALLED.relative_to("/")
        _check(found, what)
        found.rename(target)
    return target


def _call(command: list[str], folder: str, what: str) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if line.startswith(("E:", "dpkg"))] or [""]
        raise HpmlError(
            f"{what}: `{' '.join(command[:3])}` failed ({said[-1][:160]}); where the package is unknown, first: "
            "sudo apt-get update"
        )


def _check(folder: Path, what: str) -> None:
    files = sorted(folder.rglob("*.wav"))
    sums = "".join(hashlib.sha256(path.read_bytes()).hexdigest() for path in files)
    if (found := hashlib.sha256(sums.encode()).hexdigest()) != _SHA256:
        raise HpmlError(
            f"{what}: {folder} holds other recordings than those of version 1.6.1 ({len(files)} of 568, SHA-256 "
            f"{found[:12]}...)"
        )


def read_wav(path: Path) -> np.ndarray:
    """A recording of 16 bits and one channel, in [-1, 1], (samples,) float32.

    Args:
        path: of the file.

    Raises:
        HpmlError: it is of another form.
    """
    try:
        with wave.open(str(path)) as file:
            if (file.getnchannels(), file.getsampwidth(), file.getframerate()) != (1, 2, _RATE_HZ):
                raise HpmlError(f"{path}: must be one channel of 16 bits at {_RATE_HZ:,} Hz")
            raw = file.readframes(file.getnframes())
    except (OSError, wave.Error, EOFError) as error:
        raise HpmlError(f"{path}: cannot be read as a recording: {error}") from error
    return np.frombuffer(raw, "<i2").astype(np.float32) / 32768


def _recordings(name: str) -> dict[str, np.ndarray]:
    """Path without its ending -> samples at 8 kHz, for the data set of this name."""
    folder, what = find_recordings(), f"data {name!r}"
    if folder is None:
        raise HpmlError(
            f"{what}: the recordings of Debian's {PACKAGE} ({SIZE_MB} MB) are not here; fetch them with: "
            f"hpml-sim data get {name}"
        )
    _check(folder, what)
    return {str(path.relative_to(folder).with_suffix("")): read_wav(path) for path in sorted(folder.rglob("*.wav"))}


def at_16_khz(sound: np.ndarray) -> np.ndarray:
    """The same sound with twice the samples.

    Args:
        sound: samples at 8 kHz, (samples,).
    """
    from scipy.signal import resample_poly

    return np.asarray(resample_poly(sound, 2, 1), np.float32)


def speech() -> Splits:
    """One second of sound at 16 kHz (16,384 samples) -> whether somebody speaks, for each 32 ms (32 of 0 or 1).

    Speech: the beginning of a prompt, in a faint noise; a chunk counts as speech where it is louder than 1/30 of the
    loudest one. Noise: white noise, hum or silence. One prompt of five is for the test.

    Raises:
        HpmlError: the recordings are not here, or are others.
    """
    rng = np.random.RandomState(0)
    samples = 32 * _CHUNK
    parts: dict[bool, list[tuple[np.ndarray, np.ndarray]]] = {False: [], True: []}
    for number, (name, sound) in enumerate(_recordings("speech").items()):
        if name.startswith("silence") or len(sound) * 2 < samples // 2:
            continue
        clip = np.zeros(samples, np.float32)
        wide = at_16_khz(sound)[:samples]
        clip[: len(wide)] = wide
        loud = np.sqrt((clip.reshape(32, _CHUNK) ** 2).mean(1))
        chosen = parts[number % 5 == 4]
        faint = 1e-3 * rng.randn(samples)
        chosen.append((clip + faint, loud > loud.max() / 30))
        chosen.append((_noise(number % 3, samples, rng), np.zeros(32, bool)))

    def split(found: list[tuple[np.ndarray, np.ndarray]]) -> TensorDataset:
        x, y = (torch.from_numpy(np.stack(column).astype(np.float32)) for column in zip(*found, strict=True))
        return TensorDataset(x, y)

    return Splits(split(parts[False]), split(parts[True]), (samples,), 32, "multi_label")


def _noise(kind: int, samples: int, rng: np.random.RandomState) -> np.ndarray:
    if kind == 0:
        return rng.uniform(0.01, 0.2) * rng.randn(samples)
    hum = np.sin(2 * np.pi * rng.uniform(50, 500) * np.arange(samples) / 16_000)
    return (0.3 * hum if kind == 1 else 0) + 1e-3 * rng.randn(samples)


def digit_recordings(name: str) -> list[np.ndarray]:
    """The digits zero to nine, one recording each, at 8 kHz.

    Args:
        name: of the data set, for messages.

    Raises:
        HpmlError: the recordings are not here, or are others.
    """
    held = _recordings(name)
    return [held[f"digits/{digit}"] for digit in range(10)]
