"""The command `hpml-sim`. `verbs.py` has a function for each verb.

Exit status: 0 done; 1 the check that was asked for failed (`doctor`, `validate --strict`); 2 a mistake in what was
asked, said in one line; 130 stopped by Ctrl-C, with the finished rows on the disk.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import tyro

from hpml_sim.cli.verbs import VERBS, say
from hpml_sim.errors import HpmlError


def main(arguments: list[str] | None = None) -> None:
    """Run `hpml-sim` with these arguments (default: those of the process) and exit."""
    arguments = sys.argv[1:] if arguments is None else arguments
    two = " ".join(arguments[:2])
    if two in VERBS and len(arguments) > 1:  # "cards show" is a verb of two words
        arguments = [two, *arguments[2:]]
    try:
        with _log_to_terminal():
            status = tyro.extras.subcommand_cli_from_dict(
                VERBS,
                prog="hpml-sim",
                description="One PyTorch network on every kind of machine: accuracy, energy, latency, throughput.",
                args=arguments,
            )
    except HpmlError as error:
        say(f"hpml-sim: {error}")
        status = 2
    except BrokenPipeError:  # the reader (head, less) has seen enough
        sys.stdout = None
        status = 0
    except KeyboardInterrupt:
        say("hpml-sim: stopped; finished rows are on the disk, --resume goes on")
        status = 130
    sys.exit(status)


@contextmanager
def _log_to_terminal() -> Iterator[None]:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    log = logging.getLogger("hpml_sim")
    before = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before)
