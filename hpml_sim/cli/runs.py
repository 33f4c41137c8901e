"""The verbs that compute: `compare`, `sweep`, `search`, `run`, and `init`, which writes the file that `run` takes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from hpml_sim.cli.arguments import (
    ExecutionArguments,
    ExperimentArguments,
    Flag,
    Json,
    SearchArguments,
    SweepArguments,
    as_arguments,
    in_options,
    option,
)
from hpml_sim.cli.output import columns, print_lines, say, show
from hpml_sim.errors import HpmlError
from hpml_sim.errors.files import write_file
from hpml_sim.experiments.config import ExecutionConfig, ExperimentConfig, RunConfig, SearchConfig, SweepConfig
from hpml_sim.experiments.config_files import read_config, template
from hpml_sim.experiments.experiment import Experiment
from hpml_sim.targets.checking import checked

if TYPE_CHECKING:
    from rich.table import Table

    from hpml_sim.experiments.search_result import SearchResult

Flat = tyro.conf.OmitArgPrefixes
"""Settings whose fields are options without a prefix."""


def compare(
    experiment: Flat[ExperimentArguments],
    execution: Flat[ExecutionArguments],
    dry_run: Flag = False,
    json_output: Json = False,
) -> int:
    """Run one network on several machines: accuracy, energy, latency, throughput, area.

    Args:
        experiment: which network on which machines.
        execution: where the rows go.
        dry_run: say what would run, and for how long, and stop.
        json_output: print the rows as JSON Lines instead of the table.
    """
    return _execute({"compare": experiment, "run": execution}, dry_run=dry_run, as_json=json_output)


def sweep(
    experiment: Flat[ExperimentArguments],
    sweep: Flat[SweepArguments],
    execution: Flat[ExecutionArguments],
    dry_run: Flag = False,
    json_output: Json = False,
) -> int:
    """Run one network on machines whose options take many values, in parallel.

    Args:
        experiment: which network on which machines.
        sweep: which options to vary.
        execution: where the rows go.
        dry_run: say what would run, and for how long, and stop.
        json_output: print the rows as JSON Lines instead of the table.
    """
    tables = {"compare": experiment, "sweep": sweep, "run": execution}
    return _execute(tables, dry_run=dry_run, as_json=json_output)


def search(
    experiment: Flat[ExperimentArguments],
    search: Flat[SearchArguments],
    execution: Flat[ExecutionArguments],
    dry_run: Flag = False,
    json_output: Json = False,
) -> int:
    """Search the options of one machine, and of the network, for the best trade-offs.

    Args:
        experiment: which network on which machine.
        search: which options to search.
        execution: where the rows go.
        dry_run: say what would run, and for how long, and stop.
        json_output: print the trials as JSON Lines instead of the table.
    """
    tables = {"compare": experiment, "search": search, "run": execution}
    return _execute(tables, dry_run=dry_run, as_json=json_output)


def run_verb(arguments: list[str]) -> Callable[..., int]:
    """The verb `run`: its options have the values of the file among the arguments as their defaults.

    Args:
        arguments: what stands behind `run` on the command line.
    """
    file = next((a for a in arguments if not a.startswith("-")), None)
    help_only = {"-h", "--help"} & set(arguments)
    held = read_config(file) if file is not None and not help_only else RunConfig()
    of_compare, of_run = as_arguments(ExperimentArguments, held.compare), as_arguments(ExecutionArguments, held.run)
    of_sweep, of_search = as_arguments(SweepArguments, held.sweep), as_arguments(SearchArguments, held.search)

    def run(
        file: tyro.conf.Positional[Annotated[Path, option("FILE")]],
        experiment: Flat[ExperimentArguments] = of_compare,
        sweep: Annotated[SweepArguments | None, Flat, tyro.conf.AvoidSubcommands] = of_sweep,
        search: Annotated[SearchArguments | None, Flat, tyro.conf.AvoidSubcommands] = of_search,
        execution: Flat[ExecutionArguments] = of_run,
        dry_run: Flag = False,
        json_output: Json = False,
    ) -> int:
        """Carry out the run that a TOML file describes; options override the file.

        Args:
            file: the TOML file (`hpml-sim init` writes one; every run leaves a run.toml in its folder). Code that it
                names (file.py:callable) is run, with all that you may do.
            experiment: which network on which machines.
            sweep: which options to vary, where the file has [sweep].
            search: which options to search, where the file has [search].
            execution: where the rows go.
            dry_run: say what would run, and for how long, and stop.
            json_output: print rows or trials as JSON Lines instead of the table.
        """
        tables = {"compare": experiment, "sweep": sweep, "search": search, "run": execution}
        return _execute(tables, dry_run=dry_run, as_json=json_output)

    return run


def init(
    file: tyro.conf.Positional[Annotated[Path, option("FILE")]] = Path("run.toml"),
    force: Flag = False,
    json_output: Json = False,
) -> int:
    """Write a TOML file with every setting, what it means and its default, for `hpml-sim run`.

    Args:
        file: where to.
        force: replace a file that is there.
        json_output: print the path as JSON.
    """
    if file.exists() and not force:
        raise HpmlError(f"{file} exists; choose another name, or add --force to replace it")
    if not file.parent.is_dir():
        raise HpmlError(f"{file}: there is no folder {file.parent}; make it first: mkdir -p {file.parent}")
    write_file(file, template(str(file)))
    if json_output:
        print(json.dumps({"file": str(file)}))
    else:
        say(f"{file} written; look through it, then: hpml-sim run {file}")
    return 0


def _execute(tables: Mapping[str, Any], *, dry_run: bool, as_json: bool) -> int:
    """Check the settings, and run them, or say what would run.

    Args:
        tables: of a `RunConfig` by name, unchecked; None where there is none.
        dry_run: whether to say what would run, and stop.
        as_json: whether a program reads what is printed.
    """
    with in_options():
        return _carried_out(tables, dry_run=dry_run, as_json=as_json)


def _carried_out(tables: Mapping[str, Any], *, dry_run: bool, as_json: bool) -> int:
    from rich.text import Text

    from hpml_sim.experiments.search_result import SearchResult
    from hpml_sim.report.ranking_words import answer
    from hpml_sim.report.summary import summarize
    from hpml_sim.report.table import comparison_table

    kinds = {"compare": ExperimentConfig, "sweep": SweepConfig, "search": SearchConfig, "run": ExecutionConfig}
    config = RunConfig(**{name: checked(kinds[name], given) for name, given in tables.items() if given is not None})
    experiment = Experiment(config)
    if dry_run:
        said = experiment.preview()
        if as_json:
            print(json.dumps(said.to_dict(), indent=2))
        else:
            show(said.text())
        return 0
    result = experiment.run()
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
    if (out := config.run.out) is not None:
        written = [out / name for name in ("results.jsonl", "table.csv", "front.csv", "report.html")]
        say(f"Rows, table and report: {', '.join(str(path) for path in written if path.exists())}")
    ends = not isinstance(result, SearchResult) and not as_json and config.sweep is None and bool(result.rows)
    if ends and (said := answer(summarize(result.rows), width=columns())):  # type: ignore[union-attr]
        show(Text(said))
    return 0


def _front_table(found: SearchResult) -> Table:
    """The configuration as given, and those that no other beats."""
    import pandas as pd
    from rich.table import Table

    table = Table(title=f"{len(found.trials) - 1} trials; the configuration as given, and those that no other beats")
    columns = [name for name in found.trials.columns if name != "on_front"]
    units = found.trials.attrs["units"]
    for name in columns:
        table.add_column(f"{name}, {units[name]}" if name in units else name, justify="right")
    front = found.front.query("trial >= 0")
    for line in [*found.trials.to_dict("records")[:1], *front.to_dict("records")]:
        texts = {name: "" if pd.isna(v) else f"{v:.4g}" if isinstance(v, float) else str(v) for name, v in line.items()}
        table.add_row(*("as given" if name == "trial" and line[name] < 0 else texts[name] for name in columns))
    return table
