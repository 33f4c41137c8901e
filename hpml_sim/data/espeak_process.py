"""Words spoken by espeak-ng, in a process of its own: run as a file, it needs nothing but Python.

Standard input: JSON with `library` and `data` (paths), `voices`, a list of [name, words a minute], and `words`.
Standard output: for each voice and each word, the number of samples as 4 bytes, then the samples as 2 bytes each.

Why a process: espeak-ng keeps its phase, its flutter and its random numbers from one word to the next, so a word sounds
as before only where everything before it is the same, from a fresh start on. And by itself it takes its seed from the
clock: its program gives other bytes at each call.
"""

from __future__ import annotations

import ctypes
import json
import sys

RATE_HZ = 22050
_SYNCHRONOUS, _WORDS_A_MINUTE, _UTF8 = 2, 1, 1


def main() -> int:
    """Speak what standard input asks for; 0, or 1 with a line on standard error."""
    asked = json.load(sys.stdin)
    espeak = ctypes.CDLL(asked["library"])
    heard = bytearray()

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
    def listen(samples, count: int, events) -> int:
        if samples and count > 0:
            heard.extend(ctypes.string_at(samples, 2 * count))
        return 0

    if espeak.espeak_Initialize(_SYNCHRONOUS, 0, asked["data"].encode(), 0) != RATE_HZ:
        sys.stderr.write("espeak-ng does not start\n")
        return 1
    espeak.espeak_SetSynthCallback(listen)
    espeak.espeak_ng_SetRandSeed(ctypes.c_long(1))
    for voice, speed in asked["voices"]:
        failed = espeak.espeak_SetVoiceByName(voice.encode()) or espeak.espeak_SetParameter(_WORDS_A_MINUTE, speed, 0)
        for word in asked["words"]:
            heard.clear()
            text = word.encode() + b"\0"
            if failed or espeak.espeak_Synth(text, len(text), 0, 1, 0, _UTF8, None, None) != 0:
                sys.stderr.write(f"espeak-ng does not say {word!r} with voice {voice!r}\n")
                return 1
            sys.stdout.buffer.write((len(heard) // 2).to_bytes(4, "little") + heard)
    return 0


if __name__ == "__main__":
    sys.exit(main())
