"""May the last set-up be trusted? It leaves a stamp in the environment; `make` asks here before every target."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path

from .environment import ROOT


def stamped_files() -> list[Path]:
    """What a set-up depends on: a change in any of them makes the stamp of an earlier one worthless."""
    ours = sorted((ROOT / "tools" / "setup_env").glob("*.py"))
    return [ROOT / "pyproject.toml", ROOT / "hpml_sim" / "analog" / "aihwkit_import.py", *ours]


def stamp_key(files: dict[str, bytes], python_version: str, root: str) -> str:
    """Changes whenever an earlier set-up cannot be trusted: other requirements, other Python, a moved folder."""
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name}:{len(files[name])}:".encode())
        digest.update(files[name])
    digest.update(f"python {python_version} root {root}".encode())
    return digest.hexdigest()


def current_key(venv: Path) -> str | None:
    """The key that a stamp must have to be trusted now; None if there is no environment."""
    try:
        configuration = (venv / "pyvenv.cfg").read_text(encoding="utf-8")
    except OSError:
        return None
    if not (venv / "bin" / "python").exists():  # False too for a link to a Python that is gone
        return None
    match = re.search(r"^version(?:_info)?\s*=\s*(\S+)", configuration, re.MULTILINE)
    files = {str(path.relative_to(ROOT)): path.read_bytes() for path in stamped_files()}
    return stamp_key(files, match[1] if match else "", str(ROOT))


def is_ready(venv: Path) -> bool:
    """Whether the last set-up is complete and still fits; says so once more if it had to go without compiled tiles."""
    stamp = _read(venv)
    if not stamp or stamp.get("key") != current_key(venv):
        return False
    if stamp.get("tiles") == "no compiler" and (shutil.which("c++") or shutil.which("g++")):
        return False  # there is one now
    if "note" in stamp:
        print(advice(stamp["note"]), flush=True)
    return True


def advice(note: str) -> str:
    """What goes without compiled tiles, and the command that builds them."""
    return f"note: {note}\n      then: make tiles"


def remove(venv: Path) -> None:
    """From here on nothing is complete until all of it is."""
    _path(venv).unlink(missing_ok=True)


def write(venv: Path, torch: str, tiles: dict[str, str]) -> None:
    """The set-up is complete. `tiles`: what `install_aihwkit` said."""
    record = {"key": current_key(venv) or "", "root": str(ROOT), "torch": torch, **tiles}
    partial = _path(venv).with_suffix(".partial")
    partial.write_text(json.dumps(record, indent=1), encoding="utf-8")
    partial.replace(_path(venv))


def _path(venv: Path) -> Path:
    return venv / "hpml_sim-setup.json"


def _read(venv: Path) -> dict[str, str]:
    """The record of the last complete set-up; empty if there is none."""
    try:
        record = json.loads(_path(venv).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}
