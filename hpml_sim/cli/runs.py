"""The verbs that compute: `compare`, `sweep`, `search`, `run`, and `init`, which writes the file that `run` takes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from hpml_sim.cli.output import Json, columns, print_lines, say, show
from hpml_sim.errors import HpmlError
from hpml_sim.experiments.config import ExecutionConfig, ExperimentConfig, RunConfig, SearchConfig, SweepConfig, checked
from hpml_sim.experiments.config_files import read_runfile, template

if TYPE_CHECKING:
    from rich.table import Table

    from hpml_sim.experiments.searching import SearchResult

Flat = tyro.conf.OmitArgPrefixes


def compare(
    setup: Flat[ExperimentConfig], running: Flat[ExecutionConfig], dry_run: bool = False, json_output: Json = False
) -> int:
    """Run one network on several machines: accuracy, energy, latency, throughput, area.

    Args:
        dry_run: say what would run, and for how long, and stop.
        json_output: print the rows as JSON Lines instead of the table.
    """
    return _carry_out(RunConfig(compare=setup, run=running), dry_run=dry_run, as_json=json_output)


def sweep(
    setup: Flat[ExperimentConfig],
    vary: Flat[SweepConfig],
    running: Flat[ExecutionConfig],
    dry_run: bool = False,
    json_output: Json = False,
) -> int:
    """Run one network on machines whose options take many values, in parallel.

    Args:
        dry_run: say what would run, and for how long, and stop.
        json_output: print the rows as JSON Lines instead of the table.
    """
    return _carry_out(RunConfig(compare=setup, sweep=vary, run=running), dry_run=dry_run, as_json=json_output)


def search(
    setup: Flat[ExperimentConfig],
    wanted: Flat[SearchConfig],
    running: Flat[ExecutionConfig],
    dry_run: bool = False,
    json_output: Json = False,
) -> int:
    """Search the options of one machine, and of the network, for the best trade-offs.

    Args:
        dry_run: say what would run, and for how long, and stop.
        json_output: print the trials as JSON Lines instead of the table.
    """
    return _carry_out(RunConfig(compare=setup, search=wanted, run=running), dry_run=dry_run, as_json=json_output)


def run_verb(arguments: list[str]) -> Callable[..., int]:
    """The verb `run`: its flags have the values of the file among the arguments as their defaults."""
    file = next((a for a in arguments if not a.startswith("-")), None)
    defaults = read_runfile(file) if file is not None and "-h" not in arguments else RunConfig()

    def run(
        file: tyro.conf.Positional[Path],
        asked: Annotated[RunConfig, tyro.conf.OmitArgPrefixes, tyro.conf.AvoidSubcommands] = defaults,
        dry_run: bool = False,
        json_output: Json = False,
    ) -> int:
        """Carry out the run that a TOML file describes; flags override the file.

        Args:
            file: the file (`hpml-sim init` writes one; every run leaves a run.toml in its folder).
            dry_run: say what would run, and for how long, and stop.
            json_output: print rows or trials as JSON Lines instead of the table.
        """
        return _carry_out(asked, dry_run=dry_run, as_json=json_output)

    return run


def init(file: tyro.conf.Positional[Path] = Path("run.toml"), force: bool = False, json_output: Json = False) -> int:
    """Write a TOML file with every setting, what it means and its default, for `hpml-sim run`.

    Args:
        file: where to.
        force: replace a file that is there.
        json_output: print the path as JSON.
    """
    if file.exists() and not force:
        raise HpmlError(f"{file} exists; choose another name, or add --force to replace it")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(template(str(file)), encoding="utf-8")
    except OSError as error:
        raise HpmlError(f"{file} cannot be written: {error}") from error
    if json_output:
        print(json.dumps({"file": str(file)}))
    else:
        say(f"{file} written; look through it, then: hpml-sim run {file}")
    return 0


def _carry_out(asked: RunConfig, *, dry_run: bool, as_json: bool) -> int:
    from hpml_sim.experiments.preview import dry_run as ask
    from hpml_sim.experiments.running import run
    from hpml_sim.experiments.searching import SearchResult
    from hpml_sim.report.table import comparison_table

    asked = checked(RunConfig, asked)
    if dry_run:
        said = ask(asked)
        if as_json:
            print(json.dumps(said.to_dict(), indent=2))
        else:
            show(said.text())
        return 0
    result = run(asked)
    if isinstance(result, SearchResult):
        records = json.loads(result.trials.to_json(orient="records") or "[]")
        if as_json:
            print_lines(records)
        else:
            show(_front_table(result))
    elif as_json:
        print_lines(row.model_dump(mode="json") for row in result.rows)
    else:
        show(comparison_table(result.rows, width=columns()))
    if (out := asked.run.out) is not None:
        written = [out / name for name in ("results.jsonl", "table.csv", "front.csv", "report.html")]
        say(f"Rows, table and report: {', '.join(str(path) for path in written if path.exists())}")
    return 0


def _front_table(found: SearchResult) -> Table:
    """The configuration as given, and those that no other beats."""
    import pandas as pd
    from rich.table import Table

    table = Table(title=f"{len(found.trials) - 1} trials; the configuration as given, and those that no other beats")
    columns = [name for name in found.trials.columns if name != "on_front"]
    units = found.trials.attrs["units"]
    for name in columns:
        table.add_column(f"{name}, {units[name]}" if units.get(name, "1") != "1" else name, justify="right")
    front = found.front.query("trial >= 0")
    for line in [*found.trials.to_dict("records")[:1], *front.to_dict("records")]:
        texts = {name: "" if pd.isna(v) else f"{v:.4g}" if isinstance(v, float) else str(v) for name, v in line.items()}
        table.add_row(*("as given" if name == "trial" and line[name] < 0 else texts[name] for name in columns))
    return table
