"""The command `hpml-sim`. Each verb is a function here; what it shows is made by the package.

Exit status: 0 done; 1 the check that was asked for failed (`doctor`, `validate`); 2 a mistake in what was asked, said
in one line; 130 stopped by Ctrl-C, with the finished rows on the disk.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Annotated, Any

import tyro

from hpml_sim.errors import HpmlError


def compare(
    on: Annotated[tuple[str, ...], tyro.conf.arg(metavar="CARD [CARD ...]")],
    model: str = "mlp",
    data: str = "digits",
    seeds: int = 1,
    chips: int = 25,
    times: tuple[str, ...] = ("1 s", "1 h", "1 day", "1 year"),
    epochs: int | None = None,
    out: Path | None = None,
    resume: bool = False,
    force: bool = False,
    json_output: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> int:
    """Run one network on several machines: accuracy, energy, latency, throughput, area.

    Args:
        on: cards to run it on (`hpml-sim cards` lists them; a path of a TOML file works too).
        model: mlp, cnn, or package.module:callable.
        data: digits or fashion-mnist.
        seeds: repetitions of the whole comparison.
        chips: programmed chips of each analog machine.
        times: times since programming.
        epochs: passes over the training data, before and after conversion (default: by the size of the data).
        out: folder for results.jsonl, table.csv and report.html.
        resume: go on with the run that the folder holds.
        force: replace the run that the folder holds.
        json_output: print the rows as JSON Lines instead of the table.
    """
    from hpml_sim.compare import compare as run
    from hpml_sim.report.table import comparison_table

    result = run(
        model, data, on, seeds=seeds, chips=chips, times=times, epochs=epochs, tune_epochs=epochs,
        out=out, resume=resume, force=force,
    )  # fmt: skip
    if json_output:
        _lines(row.model_dump(mode="json") for row in result.rows)
    else:
        _show(comparison_table(result.rows))
    if out is not None:
        _say(f"Rows, table and report: {out / 'results.jsonl'}, {out / 'table.csv'}, {out / 'report.html'}")
    return 0


def report(folder: tyro.conf.Positional[Path], out: Path | None = None) -> int:
    """Write the HTML report of a finished or unfinished run again.

    Args:
        folder: the folder of the run.
        out: the file to write (default: report.html in the folder).
    """
    from hpml_sim.report.html import write_report
    from hpml_sim.results import load_results

    rows = load_results(folder).attrs["rows"]
    asked = folder / "run.json"
    run = json.loads(asked.read_text()) if asked.exists() else None
    _say(str(write_report(rows, out or folder / "report.html", run=run)))
    return 0


def doctor(json_output: Annotated[bool, tyro.conf.arg(name="json")] = False) -> int:
    """Say what works here and what does not, why, and the command that mends it (exit status 1 if something must be).

    Args:
        json_output: print the findings as JSON.
    """
    from hpml_sim.doctor import doctor as examine

    findings = examine()
    if json_output:
        print(json.dumps(findings.to_dict(), indent=2))
    else:
        _show(findings.table())
        print(findings.text())
    return 0 if findings.ok else 1


def cards(json_output: Annotated[bool, tyro.conf.arg(name="json")] = False) -> int:
    """List all device cards.

    Args:
        json_output: print them as JSON.
    """
    from hpml_sim.cli import cards as view

    if json_output:
        print(json.dumps(view.cards_json(), indent=2))
    else:
        _show(view.cards_table())
    return 0


def cards_show(
    name: tyro.conf.Positional[str], json_output: Annotated[bool, tyro.conf.arg(name="json")] = False
) -> int:
    """Every number of one card with its unit, source and status.

    Args:
        name: a card's name, or the path of a TOML file.
        json_output: print it as JSON.
    """
    from hpml_sim.cli import cards as view

    if json_output:
        print(json.dumps(view.card_json(name), indent=2))
    else:
        _show(view.card_table(name))
    return 0


def cards_check(file: tyro.conf.Positional[Path]) -> int:
    """Check a card of your own: every problem, with its field and what is allowed.

    Args:
        file: a TOML file.
    """
    from hpml_sim.cli import cards as view

    card = view.check_card(file)
    _say(f"{file}: a good {card.kind} card, {sum(1 for _ in card.quantities())} numbers, each with a source")
    return 0


def validate(json_output: Annotated[bool, tyro.conf.arg(name="json")] = False) -> int:
    """Hold the estimators against published machines (exit status 1 if a point is outside its tolerance).

    Args:
        json_output: print the points as JSON.
    """
    from hpml_sim.cli import validate as view
    from hpml_sim.validate import validate as check

    points = check()
    if json_output:
        print(json.dumps(view.validation_json(points), indent=2))
    else:
        _show(view.validation_table(points))
    return 0 if all(point.ok for point in points) else 1


_VERBS: dict[str, Any] = {
    "compare": compare,
    "report": report,
    "doctor": doctor,
    "cards": cards,
    "cards show": cards_show,
    "cards check": cards_check,
    "validate": validate,
}


def main(arguments: list[str] | None = None) -> None:
    """Run `hpml-sim` with these arguments (default: those of the process) and exit."""
    arguments = sys.argv[1:] if arguments is None else arguments
    two = " ".join(arguments[:2])
    if two in _VERBS and len(arguments) > 1:  # "cards show" is a verb of two words
        arguments = [two, *arguments[2:]]
    _log_to_terminal()
    try:
        status = tyro.extras.subcommand_cli_from_dict(
            _VERBS,
            prog="hpml-sim",
            description="One PyTorch network on every kind of machine: accuracy, energy, latency, throughput.",
            args=arguments,
        )
    except HpmlError as error:
        _say(f"hpml-sim: {error}")
        status = 2
    except KeyboardInterrupt:
        _say("hpml-sim: stopped; finished rows are on the disk, --resume goes on")
        status = 130
    sys.exit(status)


def _show(renderable: Any) -> None:
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 120).print(renderable)


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def _lines(rows: Any) -> None:
    for row in rows:
        print(json.dumps(row))


def _log_to_terminal() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    log = logging.getLogger("hpml_sim")
    log.handlers[:] = [handler]
    log.setLevel(logging.INFO)
