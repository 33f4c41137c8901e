"""The verbs of `hpml-sim`: one function each; what it shows is made by the package. Returns the exit status."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from hpml_sim.cards import Precision

Json = Annotated[bool, tyro.conf.arg(name="json")]


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
    json_output: Json = False,
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
        _print_lines(row.model_dump(mode="json") for row in result.rows)
    else:
        show(comparison_table(result.rows, width=_columns()))
    if out is not None:
        say(f"Rows, table and report: {out / 'results.jsonl'}, {out / 'table.csv'}, {out / 'report.html'}")
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
    say(str(write_report(rows, out or folder / "report.html", run=run)))
    return 0


def doctor(json_output: Json = False) -> int:
    """Say what works here and what does not, why, and the command that mends it (exit status 1 if something must be).

    Args:
        json_output: print the findings as JSON.
    """
    from hpml_sim.doctor import doctor as examine

    findings = examine()
    if json_output:
        print(json.dumps(findings.to_dict(), indent=2))
    else:
        show(findings.table())
        print("\nTo report a problem, paste this:\n")
        print(findings.text())
    return 0 if findings.ok else 1


def cards(json_output: Json = False) -> int:
    """List all device cards.

    Args:
        json_output: print them as JSON.
    """
    from hpml_sim.cli import cards as view

    if json_output:
        print(json.dumps(view.cards_json(), indent=2))
    else:
        show(view.cards_table())
    return 0


def cards_show(name: tyro.conf.Positional[str], json_output: Json = False) -> int:
    """Every number of one card with its unit, source and status.

    Args:
        name: a card's name, or the path of a TOML file.
        json_output: print it as JSON.
    """
    from hpml_sim.cli import cards as view

    if json_output:
        print(json.dumps(view.card_json(name), indent=2))
    else:
        show(view.card_table(name))
    return 0


def cards_check(file: tyro.conf.Positional[Path]) -> int:
    """Check a card of your own: every problem, with its field and what is allowed.

    Args:
        file: a TOML file.
    """
    from hpml_sim.cli import cards as view

    card = view.check_card(file)
    say(f"{file}: a good {card.kind} card, {sum(1 for _ in card.quantities())} numbers, each with a source")
    return 0


def estimate(
    model: tyro.conf.Positional[str],
    on: Annotated[tuple[str, ...], tyro.conf.arg(metavar="CARD [CARD ...]")],
    data: str | None = None,
    input_shape: tuple[int, ...] | None = None,
    phase: Literal["prefill", "decode"] = "prefill",
    sequence: int | None = None,
    context: int | None = None,
    batch: int | Literal["best"] = 1,
    precision: Precision | None = None,
    json_output: Json = False,
) -> int:
    """What a network would cost on these machines, without running it.

    Args:
        model: resnet50, vit-b16, bert-base, gpt2, llama-3-8b, llama-3-70b, ... (counted without weights), mlp, cnn, or
            package.module:callable.
        on: cards (`hpml-sim cards` lists them; a path of a TOML file works too).
        data: a data set by name: samples of it are run to measure sparsity and, for neuromorphic cards, spikes.
        input_shape: shape of one sample, for a network of your own without data.
        phase: for networks that generate text: prefill reads the prompt, decode makes one token.
        sequence: tokens of the prompt.
        context: tokens in the key-value cache when decoding.
        batch: samples handed over together, or best.
        precision: arithmetic on digital cards.
        json_output: print the estimates as JSON.
    """
    from hpml_sim.cli import estimate as view

    estimates = view.estimates(
        model, on, data=data, input_shape=input_shape, phase=phase, sequence=sequence, context=context,
        batch=batch, precision=precision,
    )  # fmt: skip
    if json_output:
        print(json.dumps([e.to_dict() for e in estimates], indent=2))
    else:
        show(view.estimates_table(model, estimates))
    return 0


def validate(strict: bool = False, json_output: Json = False) -> int:
    """Hold the estimators against published machines.

    Args:
        strict: exit with status 1 if a point is outside its tolerance.
        json_output: print the points as JSON.
    """
    from hpml_sim.cli import validate as view
    from hpml_sim.validate import validate as check

    points = check()
    if json_output:
        print(view.validation_json(points))
    else:
        show(view.validation_table(points))
    return 1 if strict and not all(point.ok for point in points) else 0


def show(renderable: Any) -> None:
    """Print on standard output, at most 120 columns wide where there is no terminal."""
    from rich.console import Console

    Console(width=_columns()).print(renderable)


def _columns() -> int:
    """Columns of the terminal; 120 where there is none (a file, a pipe)."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 120


def say(line: str) -> None:
    """Print on standard error."""
    print(line, file=sys.stderr)


def _print_lines(rows: Iterable[dict[str, Any]]) -> None:
    for row in rows:
        print(json.dumps(row))


VERBS: dict[str, Any] = {
    "compare": compare,
    "report": report,
    "doctor": doctor,
    "cards": cards,
    "cards show": cards_show,
    "cards check": cards_check,
    "estimate": estimate,
    "validate": validate,
}
