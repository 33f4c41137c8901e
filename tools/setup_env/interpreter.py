"""Step 1: an environment with a Python that fits and a pip that knows dependency groups."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from .environment import Environment, SetupError, version_numbers
from .progress import worst_lines
from .screen import short_path

PYTHON_MIN, PYTHON_MAX = (3, 11), (3, 14)
PIP_MIN = (25, 1)  # the first with --group


def make_venv(environment: Environment) -> None:
    """Make the environment, unless there is one that works.

    Raises:
        SetupError: no Python fits, or the one that does cannot make an environment.
    """
    environment.screen.start("Python")
    version = _python_version(environment) if environment.python.exists() else None
    if version is None or version_numbers(version) < PYTHON_MIN or has_moved(environment.folder):
        python = choose_python(sys.version_info[:2], _pythons(), sys.executable)
        environment.screen.update(f"making {short_path(environment.folder)}")
        made = subprocess.run(
            [python, "-m", "venv", "--clear", str(environment.folder)],
            env=environment.variables,
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode != 0:
            shutil.rmtree(environment.folder, ignore_errors=True)  # a half-made one would be taken for good
            output = made.stdout + made.stderr
            hint = "\n    Debian, Ubuntu: sudo apt-get install python3-venv" if "ensurepip" in output else ""
            why = "\n    ".join(worst_lines(output))
            raise SetupError(f"{python} cannot make an environment.{hint}\n    {why}")
        version = _python_version(environment)
    pip = environment.ask("import pip; print(pip.__version__)")
    if pip is None:  # made by a tool that leaves pip out
        environment.run([str(environment.python), "-m", "ensurepip"], log="1-ensurepip")
    if pip is None or version_numbers(pip) < PIP_MIN:
        environment.pip("install", "--upgrade", f"pip>={'.'.join(map(str, PIP_MIN))}", log="1-pip")
    environment.screen.done(str(version))


def choose_python(running: tuple[int, int], found: dict[tuple[int, int], str], executable: str) -> str:
    """The interpreter to make the environment with: the running one if it fits, else the newest fitting one of `found`.

    Raises:
        SetupError: none fits.
    """
    if PYTHON_MIN <= running <= PYTHON_MAX:
        return executable
    fitting = sorted(version for version in found if PYTHON_MIN <= version <= PYTHON_MAX)
    if fitting:
        return found[fitting[-1]]
    wanted = f"{'.'.join(map(str, PYTHON_MIN))} to {'.'.join(map(str, PYTHON_MAX))}"
    raise SetupError(
        f"hpml_sim needs Python {wanted}; this is {'.'.join(map(str, running))}, and no other was found.\n"
        "Install one (Debian 12: sudo apt-get install python3 python3-venv), or say which: make demo PYTHON=python3.11"
    )


def has_moved(venv: Path) -> bool:
    """Whether the environment was made in another folder: its scripts and our package would point there."""
    try:
        return str(venv) not in (venv / "bin" / "pip").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


def _python_version(environment: Environment) -> str | None:
    return environment.ask("import sys; print(sys.version.split()[0])")


def _pythons() -> dict[tuple[int, int], str]:
    """Interpreters on PATH by version. They are asked: a pyenv shim may name a version that is not installed."""
    found = {}
    for minor in range(PYTHON_MIN[1], PYTHON_MAX[1] + 1):
        path = shutil.which(f"python3.{minor}")
        if path and subprocess.run([path, "-c", ""], capture_output=True, check=False).returncode == 0:
            found[3, minor] = path
    return found
