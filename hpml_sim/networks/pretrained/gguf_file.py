"""What a GGUF file holds: its values by name, and its weights, dequantized.

The package `gguf` dequantizes. Its own reader makes an array of each of the 98,000 words of a tokenizer, which takes
seconds; this one reads the same layout at once.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hpml_sim.errors import HpmlError, needs

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""GGUF's number of a type -> the letter that `struct` takes."""
_TEXT, _ARRAY = 8, 9
_ALIGNMENT = 32
"""Bytes; of files that name none."""


class GgufFile(NamedTuple):
    """Content of a GGUF file.

    Attributes:
        values: what is said of the network and of its tokenizer.
        weights: name -> float32 array, made when it is called.
    """

    values: dict[str, Any]
    weights: dict[str, Callable[[], np.ndarray]]


def read_gguf(path: Path) -> GgufFile:
    """Read a GGUF file of version 2 or 3, little endian.

    Args:
        path: of the file.

    Raises:
        HpmlError: it is no such file, or the package `gguf` is missing.

    Source: the GGUF specification (ggml/docs/gguf.md).
    """
    with needs("reading GGUF weights", "hpml_sim[networks]"):
        import gguf
    raw = np.memmap(path, np.uint8, mode="r")
    reader = _Reader(raw.data)
    try:
        if bytes(raw[:4]) != b"GGUF" or reader.scalar("I", at=4) not in (2, 3):
            raise HpmlError(f"{path}: no GGUF file of version 2 or 3")
        tensors, pairs = reader.scalar("Q"), reader.scalar("Q")
        values = {reader.text(): reader.value(reader.scalar("I")) for _ in range(pairs)}
        described = [reader.tensor() for _ in range(tensors)]
    except (struct.error, KeyError, UnicodeDecodeError) as error:
        raise HpmlError(f"{path}: damaged GGUF file: {error}") from error
    alignment = values.get("general.alignment", _ALIGNMENT)
    begin = -(-reader.place // alignment) * alignment

    def weight(shape: tuple[int, ...], kind: int, offset: int) -> Callable[[], np.ndarray]:
        how = gguf.GGMLQuantizationType(kind)
        block, size = gguf.GGML_QUANT_SIZES[how]
        row = shape[-1] // block * size
        rows = raw[begin + offset : begin + offset + row * int(np.prod(shape[:-1]))].reshape(*shape[:-1], row)
        # what is float32 already is a view of the file, which cannot be written: it is copied
        return lambda: np.require(gguf.dequantize(rows, how), np.float32, requirements="W")

    return GgufFile(values, {name: weight(shape, kind, offset) for name, shape, kind, offset in described})


class _Reader:
    """Goes through the head of the file."""

    def __init__(self, raw: memoryview):
        self.raw, self.place = raw, 0

    def scalar(self, letter: str, *, at: int | None = None) -> Any:
        place = self.place if at is None else at
        (value,) = struct.unpack_from(f"<{letter}", self.raw, place)
        self.place = place + struct.calcsize(f"<{letter}")
        return value

    def text(self) -> str:
        length = self.scalar("Q")
        self.place += length
        return bytes(self.raw[self.place - length : self.place]).decode("utf-8")

    def value(self, kind: int) -> Any:
        if kind == _TEXT:
            return self.text()
        if kind != _ARRAY:
            return self.scalar(_SCALARS[kind])
        inner, count = self.scalar("I"), self.scalar("Q")
        if inner in (_TEXT, _ARRAY):
            return [self.value(inner) for _ in range(count)]
        found = struct.unpack_from(f"<{count}{_SCALARS[inner]}", self.raw, self.place)
        self.place += struct.calcsize(f"<{count}{_SCALARS[inner]}")
        return list(found)

    def tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        """Name, shape as torch has it, type, offset."""
        name = self.text()
        sizes = [self.scalar("Q") for _ in range(self.scalar("I"))]
        return name, tuple(reversed(sizes)), self.scalar("I"), self.scalar("Q")
