"""Make `.venv` with everything that `make demo` and `make test` need; in a fraction of a second if it is there."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator

from . import stamp
from .aihwkit import install_aihwkit
from .environment import ROOT, Environment, SetupError
from .interpreter import make_venv
from .packages import install_packages
from .real_networks import fetch_networks
from .screen import Screen, short_path, short_time
from .torch import install_torch

if sys.platform != "win32":
    import fcntl


def main(arguments: list[str] | None = None) -> int:
    """0 when `.venv` is ready."""
    parser = argparse.ArgumentParser(prog="setup_env", description=__doc__)
    parser.add_argument("--check", action="store_true", help="look at every part again, even if a set-up was completed")
    parser.add_argument("--tiles", action="store_true", help="build aihwkit from source even if it works")
    parser.add_argument(
        "--torch",
        metavar="REQUIREMENT",
        help="install this torch, e.g. on a login node without a GPU; may hold options of pip, such as --index-url",
    )
    options = parser.parse_args(arguments)
    if sys.platform == "win32":
        print("hpml_sim's set-up runs on Linux and macOS; on Windows use WSL", file=sys.stderr)
        return 1
    venv = ROOT / ".venv"
    asked_to_work = options.check or options.tiles or options.torch
    if not asked_to_work and stamp.is_ready(venv):
        return 0
    screen = Screen(steps=5)
    for number in (signal.SIGTERM, signal.SIGHUP):  # as Ctrl-C: compilers in sessions of their own must end with us
        signal.signal(number, signal.default_int_handler)
    try:
        with _one_at_a_time(screen):
            if asked_to_work or not stamp.is_ready(venv):  # the one we waited for may have done it
                _set_up(Environment(venv, screen), torch=options.torch, rebuild_tiles=options.tiles)
            return 0
    except SetupError as error:
        screen.note(f"\nSet-up stopped: {error}\nRun the same command again to go on from there.")
        return 1
    except KeyboardInterrupt:
        screen.note("\nSet-up interrupted. Run the same command again to go on from there.")
        return 130


def _set_up(environment: Environment, *, torch: str | None, rebuild_tiles: bool) -> None:
    """The five steps, each of which first looks whether it is done already."""
    venv, screen = environment.folder, environment.screen
    first = "" if venv.exists() else " (the first time takes 5 to 10 minutes)"
    screen.note(f"Setting up {short_path(venv)}{first}")
    make_venv(environment)
    stamp.remove(venv)
    version = install_torch(environment, torch)
    install_packages(environment)
    tiles = install_aihwkit(environment, version, rebuild=rebuild_tiles)
    fetch_networks(environment)
    stamp.write(venv, version, tiles)
    if "note" in tiles:
        screen.note(stamp.advice(tiles["note"]))
    screen.note(f"Ready in {short_time(time.monotonic() - screen.began)}.")


@contextlib.contextmanager
def _one_at_a_time(screen: Screen) -> Iterator[None]:
    """`make demo` and `make test` at once must not install into each other. Needs no file: the folder is locked."""
    folder = os.open(ROOT, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            screen.note("another set-up is at work in this folder; waiting for it")
            fcntl.flock(folder, fcntl.LOCK_EX)
        except OSError:
            pass  # some network file systems cannot lock
        yield
    finally:
        os.close(folder)


if __name__ == "__main__":
    sys.exit(main())
