"""Commands in the environment: output in a log, progress on the screen, failure as one short error."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import shlex
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

from .progress import is_progress_bar, what_happens, worst_lines
from .screen import Screen, short_path

ROOT = Path(__file__).resolve().parent.parent.parent

# Settings of the caller's that would import or install from or to somewhere else.
MISLEADING = ("PYTHONPATH", "PYTHONHOME", "PIP_USER", "PIP_TARGET", "PIP_PREFIX")


class SetupError(Exception):
    """The set-up cannot go on. The message is for the user, and short."""


def version_numbers(version: str) -> tuple[int, ...]:
    """(2, 13) of "2.13.0+cpu"."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


class Environment:
    """A virtual environment that is being set up; it need not exist yet."""

    def __init__(self, folder: Path, screen: Screen):
        """`folder`: where it is or will be. `screen`: shows the step under way."""
        self.folder, self.screen = folder, screen
        self.python = folder / "bin" / "python"
        self.logs = folder / "setup-logs"
        self.constraint = folder / "torch-constraint.txt"
        self.variables = {name: value for name, value in os.environ.items() if name not in MISLEADING}

    def ask(self, source: str) -> str | None:
        """What a piece of Python prints in the environment; None if it fails."""
        done = subprocess.run(
            [str(self.python), "-P", "-c", source],
            cwd=ROOT,
            env=self.variables,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.strip() if done.returncode == 0 else None

    def pip(self, *arguments: str, log: str, variables: dict[str, str] | None = None, quiet: bool = False) -> None:
        """`python -m pip ...` of the environment; see `run`."""
        command = [str(self.python), "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]
        self.run(command, log=log, variables=variables, quiet=quiet)

    def run(
        self, command: list[str], *, log: str, variables: dict[str, str] | None = None, quiet: bool = False
    ) -> None:
        """Run a command with its output in a log and its progress on the screen.

        Args:
            command: program and arguments.
            log: name of the log in `logs`, without its ending.
            variables: the command's environment variables, by default ours.
            quiet: leave the worst lines out of the error.

        Raises:
            SetupError: it failed; the message holds the worst lines and the log's path.
        """
        path = self.log_path(log)
        path.parent.mkdir(parents=True, exist_ok=True)
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=variables or self.variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # so that Ctrl-C reaches compilers through us, all of them
        )
        kept: list[str] = []
        what = ""
        try:
            with path.open("w", encoding="utf-8") as file:
                file.write(f"$ {shlex.join(command)}\n")
                for line in _lines_and_pauses(process):
                    milestone = False
                    if line is not None:
                        what, milestone = what_happens(line, what)
                        if not is_progress_bar(line):
                            file.write(line)
                            kept.append(line)
                    self.screen.update(what, force=milestone)
            status = process.wait()
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            raise
        if status != 0:
            shown = "" if quiet else "".join(f"\n    {line[:300]}" for line in worst_lines("".join(kept)))
            raise SetupError(f"{self.screen.title} failed (status {status}).{shown}\n    whole log: {short_path(path)}")

    def log_path(self, log: str) -> Path:
        """Where the log of this name lies."""
        return self.logs / f"{log}.log"


def _lines_and_pauses(process: subprocess.Popen[str]) -> Iterator[str | None]:
    """Every line of the output, and None for every second without one."""
    lines: queue.Queue[str | None] = queue.Queue()  # None: there are no more

    def pump() -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                lines.put(line)
        lines.put(None)

    threading.Thread(target=pump, daemon=True).start()
    while True:
        try:
            line = lines.get(timeout=1.0)
        except queue.Empty:
            yield None
            continue
        if line is None:
            return
        yield line
