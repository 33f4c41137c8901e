"""Speech by the synthesizer espeak-ng, of a package of the Python index: voices of one's own, the same bytes each time.

Its library is run in a process of its own (`espeak_process.py` says why); nothing is installed.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpml_sim.data import espeak_process
from hpml_sim.errors import HpmlError
from hpml_sim.networks.packages import Package, files_of

_LIBRARIES: Mapping[tuple[str, str], tuple[str, str]] = {
    ("Linux", "x86_64"): (
        "espeakng_loader/libespeak-ng.so.1.52.0",
        "b15ce0803b26254e8a0d088c6b9281a2637b2b02613147cc320cfdefaf2c3ccf",
    ),
    ("Darwin", "arm64"): (
        "espeakng_loader/libespeak-ng.1.52.0.dylib",
        "bb635eee1ee9c456f4a5cf06fb6cb352ecdd4d61e1951743b423ef22bb57f470",
    ),
}
_DATA = "espeakng_loader/espeak-ng-data"
_LIBRARY = _LIBRARIES.get((platform.system(), platform.machine()), _LIBRARIES["Linux", "x86_64"])
PACKAGE = Package(
    "espeakng-loader",
    "0.2.4",
    {
        _LIBRARY[0]: _LIBRARY[1],
        f"{_DATA}/en_dict": "1053f74a34af38abb6fbd64b7838dacbc655a687c48ce1bb663d364a127b05de",
        f"{_DATA}/phontab": "1b40690667e1e9aa1ba5e5234773c799e7e72ea751426e5150423d53c3f24fa2",
        f"{_DATA}/phonindex": "384e5fa6f714ba5356c58008249b78699c31c1ad044b243068d263fb806b7d73",
        f"{_DATA}/phondata": "a0b643b155cb6b12628d9e7865b57d9fca0d35844614f2594a5e009c80c80bb4",
        f"{_DATA}/intonations": "031a105bf6bb2ebcd73a2c579ccfb42469b27266db0078af65ae298fd3588b21",
        f"{_DATA}/lang/gmw/en-US": "41534c2a22df5dd4f1052ff9e1a33a3ea7bff5a26b5c02bdad5ba8ddb7524704",
        f"{_DATA}/lang/gmw/en": "4605d5330801de3641c6e366d15f129ea1f5ffbce8722642aba01ace07ab9c83",
        f"{_DATA}/lang/gmw/en-GB-scotland": "1ce4282c1f4385dbaf0035e799b2ab1ee9e9a3ab4829100594a3047727b52353",
        f"{_DATA}/lang/gmw/en-GB-x-rp": "d0625af7f58561b1b8cf96fd7f93eee6553bcb3eadb9020ae0757bf96e5115e5",
    },
    size_mb=10.1,
)
"""espeak-ng 1.52.0, GPL-3.0-or-later."""
RATE_HZ = espeak_process.RATE_HZ
ACCENTS = ("en-us", "en", "en-gb-scotland", "en-gb-x-rp")
"""espeak-ng's names: American, British, Scottish, and received pronunciation."""


@dataclass(frozen=True)
class Voice:
    """A voice, by what espeak-ng makes it of.

    Attributes:
        accent: one of `ACCENTS`.
        pitch_hz: lowest and highest pitch of a sentence, hertz.
        formants_percent: frequencies of the vocal tract's first four resonances, percent of those of espeak-ng's own
            voice, a man's.
        speed: words a minute, 80 to 450.
    """

    accent: str
    pitch_hz: tuple[int, int]
    formants_percent: tuple[int, int, int, int]
    speed: int

    def definition(self, name: str) -> str:
        """Of this voice, for espeak-ng's folder of voices."""
        formants = "".join(f"formant {k} {percent}\n" for k, percent in enumerate(self.formants_percent, 1))
        return f"language variant\nname {name}\npitch {self.pitch_hz[0]} {self.pitch_hz[1]}\n{formants}"


def synthesize(voices: Sequence[Voice], words: Sequence[str], *, what: str, get: str) -> list[list[np.ndarray]]:
    """Every word in every voice.

    Args:
        voices: who speaks.
        words: English ones.
        what: stands before a message, such as "data 'spoken-digits'".
        get: the command that fetches the package, for a message.

    Returns:
        By voice and word, samples at 22,050 Hz, (samples,) int16.

    Raises:
        HpmlError: the package is not here, or is not made for this machine.
    """
    files = files_of(PACKAGE, what=what, get=get)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "espeak-ng-data"
        for name, path in files.items():
            if name.startswith(_DATA):
                target = Path(folder) / name.removeprefix("espeakng_loader/")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(path.resolve())
        variants = data / "voices" / "!v"
        variants.mkdir(parents=True)
        for number, voice in enumerate(voices):
            (variants / f"v{number}").write_text(voice.definition(f"v{number}"), encoding="ascii")
        named = [(f"{voice.accent}+v{number}", voice.speed) for number, voice in enumerate(voices)]
        library = files[_LIBRARY[0]].resolve()
        given = {"library": str(library), "data": str(data), "voices": named, "words": list(words)}
        done = subprocess.run(
            [sys.executable, "-I", espeak_process.__file__],
            input=json.dumps(given).encode(),
            capture_output=True,
            check=False,
        )
    sounds = _split(done.stdout) if done.returncode == 0 else []
    if len(sounds) != len(voices) * len(words):
        said = done.stderr.decode(errors="replace").strip().splitlines() or [f"status {done.returncode}"]
        raise HpmlError(
            f"{what}: espeak-ng of {PACKAGE.requirement} does not run on {platform.system()} {platform.machine()} "
            f"({said[-1][:160]}); it is known to on Linux x86_64"
        )
    return [sounds[k : k + len(words)] for k in range(0, len(sounds), len(words))]


def _split(heard: bytes) -> list[np.ndarray]:
    sounds, at = [], 0
    while at < len(heard):
        count = int.from_bytes(heard[at : at + 4], "little")
        sounds.append(np.frombuffer(heard, "<i2", count, at + 4))
        at += 4 + 2 * count
    return sounds
