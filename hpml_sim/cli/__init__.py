"""The command `hpml-sim`. `verbs.py`, `runs.py` and `measured.py` have a function for each verb.

The exit status is explained by `hpml-sim --help`.
"""

from __future__ import annotations

import importlib.metadata
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hpml_sim.cards import list_cards
from hpml_sim.cli.output import say
from hpml_sim.cli.runs import run_verb
from hpml_sim.cli.usage import parsed
from hpml_sim.cli.verbs import VERBS
from hpml_sim.data import list_data
from hpml_sim.errors import HpmlError, UnknownNameError
from hpml_sim.networks.loading import list_networks

DESCRIPTION = """One PyTorch network on every kind of machine: accuracy, energy, latency, throughput.

Every verb takes --log-file FILE; a run with --out also keeps a run.log there. HPML_SIM_QUIET=1 draws no progress bars.
--version says which version this is.

Exit status: 0 done; 1 a check failed (doctor, validate --strict); 2 a mistake in the arguments or files, or a run that
cannot go on (a full disk, dead workers): one line says why; 130 stopped by Ctrl-C, with the finished rows kept:
the same command with --resume computes the rest."""


def main(arguments: list[str] | None = None) -> None:
    """Run `hpml-sim` with these arguments (default: those of the process) and exit."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with _logging(_log_file(arguments)):
            status = _run(arguments)
    except HpmlError as error:
        say(f"hpml-sim: {error}")
        status = 2
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise  # a mistake of ours: show where
        say(f"hpml-sim: out of memory ({str(error)[:150] or 'MemoryError'}); ask for a smaller batch, or fewer chips")
        status = 2
    except BrokenPipeError:  # the reader (head, less) has seen enough
        sys.stdout = None
        status = 0
    except KeyboardInterrupt:
        say("hpml-sim: stopped; finished rows are on the disk, --resume goes on")
        status = 130
    sys.exit(status)


def _out_of_memory(error: MemoryError | RuntimeError) -> bool:
    """Python's, a GPU's (torch.OutOfMemoryError, which is not imported for that), or torch's on a CPU."""
    kind = type(error).__name__
    return kind in ("MemoryError", "OutOfMemoryError", "_ArrayMemoryError") or "can't allocate memory" in str(error)


def _run(arguments: list[str]) -> int:
    if arguments[:1] == ["--version"]:
        print(f"hpml-sim {importlib.metadata.version('hpml_sim')}")
        return 0
    verbs = dict(VERBS)
    two = " ".join(arguments[:2])
    if two in verbs and len(arguments) > 1:  # "cards show" is a verb of two words
        arguments = [two, *arguments[2:]]
    elif (
        arguments[1:]
        and not arguments[1].startswith("-")
        and any(verb.startswith(f"{arguments[0]} ") for verb in verbs)
    ):
        _refuse_name_for_a_verb(*arguments[:2])
        raise UnknownNameError("verb", two, verbs, hint="`hpml-sim --help` explains them.")
    elif arguments and not arguments[0].startswith("-") and arguments[0] not in verbs:
        raise UnknownNameError("verb", arguments[0], verbs, hint="`hpml-sim --help` explains them.")
    if arguments[:1] == ["run"]:
        verbs["run"] = run_verb(arguments[1:])
    return parsed(verbs, arguments or ["--help"], DESCRIPTION)()


def _refuse_name_for_a_verb(verb: str, name: str) -> None:
    """`hpml-sim cards pcm-hermes`: the name is right, and the word between is missing."""
    names, between = {
        "cards": (list_cards, "show"),
        "networks": (list_networks, "get"),
        "data": (list_data, "get"),
    }[verb]
    if name in names():
        raise HpmlError(f"`hpml-sim {verb}` takes no name; did you mean `hpml-sim {verb} {between} {name}`?")


def _log_file(arguments: list[str]) -> Path | None:
    """Take --log-file out of the arguments, wherever it stands."""
    for i, argument in enumerate(arguments):
        flag, equals, value = argument.partition("=")
        if flag in ("--log-file", "--log_file"):
            values = [value] if equals else arguments[i + 1 : i + 2]
            if not values or not values[0]:
                raise HpmlError("--log-file: give the file")
            del arguments[i : i + 1 + (not equals)]
            return Path(values[0])
    return None


@contextmanager
def _logging(file: Path | None) -> Iterator[None]:
    """What the library logs goes to standard error, and to a file with the time of day."""
    handlers: list[logging.Handler] = [logging.StreamHandler()]
    handlers[0].setFormatter(logging.Formatter("%(message)s"))
    if file is not None:
        try:
            handlers.append(logging.FileHandler(file, encoding="utf-8"))
        except OSError as error:
            raise HpmlError(f"--log-file {file}: cannot be written ({error})") from error
        handlers[1].setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    log = logging.getLogger("hpml_sim")
    before = log.level
    for handler in handlers:
        log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        for handler in handlers:
            log.removeHandler(handler)
            handler.close()
        log.setLevel(before)
