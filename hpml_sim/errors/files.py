"""How the library writes files and reads them back: whole or not at all, and with a checksum.

A new file is written beside the old one, brought to the disk, and then takes its name: whatever stops the writer, one
of the two is there whole. Files of tensors are safetensors files that name their kind and format; a checksum over
tensors and values finds every change. Nothing that is read is executed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpml_sim.errors import HpmlError, shown

CHECKSUM_DIGITS = 16
"""Hexadecimal digits of SHA-256 that are kept: a change goes unnoticed once in 2^64 times."""


@dataclass(frozen=True)
class Kind:
    """What a file of tensors holds.

    Attributes:
        name: written into the file, such as "hpml_sim.Chips".
        format: version of the content, written into the file; files of another one are refused.
        what: as messages say it, such as "chips".
        again: the next step where a file cannot be used, such as "program the chips again".
    """

    name: str
    format: int
    what: str
    again: str


def check_path(argument: str, path: object, example: str) -> Path:
    """The path of a file, or an error.

    Args:
        argument: call and name of the argument, such as "save_chips: path".
        path: must be a string or a path, and not empty.
        example: a name that would do.

    Raises:
        HpmlError: it is neither.
    """
    if not isinstance(path, (str, Path)) or not str(path) or "\0" in str(path):
        raise HpmlError(f"{argument}={shown(path)}: must be the path of a file, such as {example!r}")
    return Path(path)


def checksum(content: bytes) -> str:
    """The first digits of the SHA-256 of bytes.

    Args:
        content: any.

    Example:
        >>> checksum(b"")
        'e3b0c44298fc1c14'
    """
    return hashlib.sha256(content).hexdigest()[:CHECKSUM_DIGITS]


def write_file(path: Path, content: bytes | str, *, safe: str = "") -> None:
    """Write a file: all of it, or nothing, and then the old one is still there.

    Args:
        path: the file, which is replaced; its folder must exist.
        content: what it holds; text is written as UTF-8.
        safe: what a reader of the error should know is not lost.

    Raises:
        HpmlError: the path is a folder, its folder does not exist, or the disk is full or cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_file(Path(folder) / "note.txt", "whole")
        ...     (Path(folder) / "note.txt").read_text()
        'whole'
    """
    if path.is_dir():
        raise HpmlError(f"{str(path)!r} is a folder; name a file in it")
    if not path.absolute().parent.is_dir():
        raise HpmlError(f"{str(path)!r}: its folder does not exist; make it first{_beside(safe)}")
    raw = content.encode() if isinstance(content, str) else content
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with draft.open("wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise HpmlError(f"{str(path)!r} cannot be written ({error.strerror or error}){_beside(safe)}") from error


def write_tensors(path: Path, kind: Kind, tensors: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Write tensors and plain values to a file that `read_tensors` reads.

    Args:
        path: the file, which is replaced; its folder must exist.
        kind: what it holds.
        tensors: dense tensors by name, on any device.
        values: what JSON can say, by name.

    Raises:
        HpmlError: something that a file cannot hold, or a file that cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save

    try:
        plain = _apart(tensors)
        text = json.dumps(values, sort_keys=True, allow_nan=False)
        raw = save(plain, {"kind": kind.name, "format": str(kind.format), "values": text, "sha256": _sum(plain, text)})
    except (SafetensorError, TypeError, ValueError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise HpmlError(
            f"{kind.what}: {str(path)!r} holds dense tensors and what JSON can say only ({reason})"
        ) from error
    write_file(path, raw)


def read_tensors(path: Path, kind: Kind) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tensors and values of a file, exactly as they were written.

    Args:
        path: a file of `write_tensors`.
        kind: what it must hold.

    Returns:
        The tensors, on the CPU, and the values, each by name.

    Raises:
        HpmlError: the file is missing, of another kind or format, or damaged.
    """
    from safetensors import SafetensorError, safe_open

    name = repr(str(path))
    if not path.is_file():
        raise HpmlError(f"{name} {'is a folder' if path.is_dir() else 'does not exist'}; {kind.again}")
    try:
        with safe_open(path, framework="pt") as file:
            held = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - it is no mapping
    except (SafetensorError, OSError, ValueError, RuntimeError, OverflowError) as error:
        raise HpmlError(
            f"{name} cannot be read as {kind.what}: it is damaged or of another program; {kind.again}"
        ) from error
    if held.get("kind") != kind.name:
        raise HpmlError(f"{name} is no file of {kind.what}; {kind.again}")
    if held.get("format") != str(kind.format):
        raise HpmlError(f"{name} has format {held.get('format')}, this version reads {kind.format}; {kind.again}")
    if held.get("sha256") != _sum(tensors, held.get("values", "")):
        raise HpmlError(f"{name} is damaged: its checksum does not fit; {kind.again}")
    return tensors, json.loads(held["values"])


def _beside(safe: str) -> str:
    return f"; {safe}" if safe else ""


def _apart(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors on the CPU, each in memory of its own, as a file holds them."""
    import torch

    found: dict[str, Any] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(f"{name} is {shown(tensor)}")
        own = tensor.detach().cpu().contiguous()
        memory = own.untyped_storage().data_ptr()
        found[name] = own.clone() if memory in seen or own.untyped_storage().nbytes() != own.nbytes else own
        seen.add(memory)
    return found


def _sum(tensors: Mapping[str, Any], values: str) -> str:
    """SHA-256 of everything that a file holds."""
    import torch

    found = hashlib.sha256(values.encode())
    for name in sorted(tensors):
        own = tensors[name]
        found.update(f"\n{name} {own.dtype} {tuple(own.shape)}\n".encode())
        found.update(own.reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()
