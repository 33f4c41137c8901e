"""Step 4: aihwkit with compiled tiles that work beside this torch, by the shortest way; without them if it must be."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from .environment import ROOT, Environment, SetupError, version_numbers
from .screen import short_path
from .tile_build import BUILD_LOG, build_wheel, compiler_advice, missing_for_build


def install_aihwkit(environment: Environment, torch: str, *, rebuild: bool) -> dict[str, str]:
    """What is there, a wheel built here earlier, the newest ready-made one, or a build from source: the first to work.

    Args:
        environment: where to.
        torch: the version of torch that is installed.
        rebuild: build from source even if there are tiles that work.

    Returns:
        What the stamp keeps: "tiles", "ok" or why there are none; and a "note" for the user in that case.

    Raises:
        SetupError: not even its noise models could be installed.
    """
    environment.screen.start("aihwkit")
    cache = _cache_of(environment, torch)
    if not rebuild:
        if tiles_work(environment):
            return _with_tiles(environment, "was there")
        for wheel in sorted(cache.glob("aihwkit-*.whl"), reverse=True):
            environment.screen.update("trying the wheel built here earlier")
            if _install_wheel(environment, str(wheel)):
                return _with_tiles(environment, "from a wheel built here earlier")
            wheel.unlink(missing_ok=True)
        environment.screen.update("trying the newest ready-made wheel")
        if _install_wheel(environment, "aihwkit"):
            return _with_tiles(environment, "ready-made wheel")
    if missing := missing_for_build(environment):
        return _without_tiles(environment, "no compiler", f"needs {compiler_advice(missing)}")
    try:
        _build(environment, cache)
    except SetupError as error:
        environment.screen.note(str(error))
        log = short_path(environment.log_path(BUILD_LOG))
        return _without_tiles(environment, "build failed", f"failed, see {log}")
    return _with_tiles(environment, "built from source")


def wheel_cache(variables: dict[str, str], home: Path, python_tag: str, torch: str, machine: str) -> Path:
    """Where wheels built here are kept: a compiled tile fits one Python, one torch and one kind of machine only."""
    base = variables.get("XDG_CACHE_HOME", "")
    cache = Path(base) if base.startswith("/") else home / ".cache"
    return cache / "hpml_sim" / "wheels" / f"{python_tag}-torch{torch}-{machine}"


def tiles_work(environment: Environment) -> bool:
    """The probe, in a process of its own and with the environment's Python."""
    probe = subprocess.run(
        [str(environment.python), "-P", "hpml_sim/analog/aihwkit_import.py"],
        cwd=ROOT,
        env=environment.variables,
        capture_output=True,
        check=False,
    )
    return probe.returncode == 0


def _cache_of(environment: Environment, torch: str) -> Path:
    python = version_numbers(environment.ask("import sys; print(sys.version.split()[0])") or "")
    machine = f"{platform.system()}_{platform.machine()}".lower()
    return wheel_cache(environment.variables, Path.home(), f"cp{''.join(map(str, python))}", torch, machine)


def _install_wheel(environment: Environment, what: str) -> bool:
    """Install a wheel (a path, or a name: then the newest), and whether its compiled tiles work."""
    # --no-deps: its list asks for torchvision, which nothing here needs and which would pull another torch
    arguments = ["install", "--no-deps", "--force-reinstall", "--only-binary", ":all:", what]
    try:
        environment.pip(*arguments, log="4-aihwkit-wheel", quiet=True)
    except SetupError:
        return False
    return tiles_work(environment)


def _build(environment: Environment, cache: Path) -> None:
    """Build from source, install, probe, keep the wheel."""
    with tempfile.TemporaryDirectory(prefix="hpml_sim-aihwkit-") as folder:
        wheel = build_wheel(environment, Path(folder))
        if not _install_wheel(environment, str(wheel)):
            raise SetupError("aihwkit was built, but its compiled tiles do not work")
        # only now: what is in the cache has worked. Renamed into place, as two clones may do this at once
        with contextlib.suppress(OSError):
            cache.mkdir(parents=True, exist_ok=True)
            partial = cache / f".{os.getpid()}-{wheel.name}"
            shutil.copyfile(wheel, partial)
            partial.replace(cache / wheel.name)


def _with_tiles(environment: Environment, provenance: str) -> dict[str, str]:
    version = environment.ask("import aihwkit; print(aihwkit.__version__)")
    environment.screen.done(f"{version}, compiled tiles work ({provenance})")
    return {"tiles": "ok"}


def _without_tiles(environment: Environment, state: str, why: str) -> dict[str, str]:
    """Go on with what of aihwkit works without compiled code, and say what is missing."""
    noise = "from aihwkit.inference import PCMLikeNoiseModel"
    if environment.ask(noise) is None:
        _install_wheel(environment, "aihwkit")
    if environment.ask(noise) is None:
        raise SetupError(
            f"aihwkit could not be installed: there is no ready-made wheel for this machine, and building it {why}"
        )
    environment.screen.done("noise models only: NO COMPILED TILES")
    return {
        "tiles": state,
        "note": f"aihwkit runs without its compiled tiles (no in-memory training). Building them {why}",
    }
