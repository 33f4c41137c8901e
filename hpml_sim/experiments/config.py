"""What a run is asked to do. One set of classes checks a TOML file, builds the command line and is saved with the rows.

    RunConfig
      compare: ExperimentConfig   network, data, machines, repetitions
      sweep: SweepConfig          options to vary: every combination, or random draws
      search: SearchConfig        options to search for the best trade-offs
      run: ExecutionConfig        where the rows go and what computes them

The classes are plain; `hpml_sim.targets.checking.checked` is the gate through which they are made of what people wrote.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from hpml_sim.errors import HpmlError
from hpml_sim.experiments.search_space import SearchSpace
from hpml_sim.experiments.target_list import Targets, as_tables
from hpml_sim.targets.checking import Real, Switch, Whole

TIMES = ("1 s", "1 h", "1 day", "1 year")
"""Times since programming at which analog machines are evaluated, unless told otherwise."""
Objective = Literal["score", "energy", "latency"]
"""What a search weighs."""
_CONFIG = ConfigDict(extra="forbid", revalidate_instances="always")


_Count = Annotated[Whole, Field(ge=1)]
_NotNegative = Annotated[Whole, Field(ge=0)]


def _folder(given: Any) -> Any:
    if isinstance(given, str) and not given.strip():  # pathlib takes it for the current folder
        raise HpmlError(f"out={given!r}: give a folder, or None to keep the rows in memory")
    return given


def _names(given: Any) -> Any:
    return (given,) if isinstance(given, str) else given


_Folder = Annotated[Path | None, BeforeValidator(_folder)]


@dataclass(frozen=True)
class ExperimentConfig:
    """Which network on which machines, and how often.

    Attributes:
        targets: machines to run it on: cards by name (`hpml-sim cards` lists them) or by the path of a TOML file.
        model: mlp, cnn (`hpml-sim networks` lists them), package.module:callable, or file.py:callable. Code that is
            named so, here and below, is run.
        data: digits, moving-bars, another name that `hpml-sim data` lists, package.module:callable, or
            file.py:callable.
        task: what is learned and measured: classification, regression, language_model and the like, or file.py:callable
            that gives an hs.Task; unset, that of the data, or the only one that labels and outputs allow.
        seeds: repetitions of the whole run, or which seeds, as a list.
        chips: programmed chips of each analog machine; unset, 25, or 3 of a network of more than 50 million weights.
        times: times since programming, such as "1 s", "1 h", "1 day", "1 year".
        epochs: passes over the training data before conversion; unset, by the size of the data, or 0 for a network that
            has learned the task already.
        finetune_epochs: passes over the training data after conversion; unset, the same number as epochs; if epochs is
            unset or 0, a number chosen by the size of the data, or 0 for a network that has learned the task already.
        lr: first learning rate of both.
        prune: what goes of the trained network before it is made ready for the machines: unstructured, 2:4, channels,
            heads, blocks, rows or columns, with a share where it is not a half, such as channels=0.3. Training after
            conversion keeps the zeros.
        quantize: what the trained network is quantized to: int8, int8-weights, int4, fp8, fp4 or ternary. Training
            after conversion keeps the numbers.
        skip: layers that stay digital on crossbars, by name, such as head (a name covers what lies below it); unset,
            the head of a language model that is taken as it comes; given without a name, none.
        scope: what energy and time in table and plots include: unset, each card's own scope; system adds what that
            leaves out. The ranking is at system scope either way.
    """

    __pydantic_config__ = _CONFIG

    targets: Targets = field(default_factory=dict)
    model: str = "mlp"
    data: str = "digits"
    task: str | None = None
    seeds: _Count | tuple[_NotNegative, ...] = 1
    chips: _Count | None = None
    times: tuple[str | Real, ...] = TIMES
    epochs: _NotNegative | None = None
    finetune_epochs: _NotNegative | None = None
    lr: Annotated[Real, Field(gt=0)] = 5e-3
    prune: str | None = None
    quantize: str | None = None
    skip: Annotated[tuple[str, ...] | None, BeforeValidator(_names)] = None
    scope: Literal["system"] | None = None


@dataclass(frozen=True)
class SweepConfig:
    """Which options to vary.

    Attributes:
        search_space: options of the machines and their values: adc_bits=4,6,8 for every combination;
            output_noise=0.01..0.1 or output_noise=0.001..0.1:log for random trials; synapses.adc_bits for spikes on
            crossbars; model.width for an argument of the network. "default" leaves an option as it is.
        trials: this many random combinations for each machine; unset, every combination.
        trial_seed: seed of the random combinations.
    """

    __pydantic_config__ = _CONFIG

    search_space: SearchSpace = field(default_factory=dict)
    trials: _Count | None = None
    trial_seed: _NotNegative = 0


@dataclass(frozen=True)
class SearchConfig:
    """Which options to search, for what.

    Attributes:
        search_space: options of the machine and their values: adc_bits=4,6,8 or a range such as output_noise=0.01..0.1
            or output_noise=0.001..0.1:log; synapses.adc_bits for spikes on crossbars; model.width for an argument of
            the network. "default" leaves an option as it is.
        trials: how many configurations to try in all; a resumed search goes on to this number.
        objectives: what to weigh: score (the task's first metric, such as the accuracy, at the last of the times),
            energy and latency (estimated, batch 1).
        trial_seed: seed of the sampler that picks the configurations.
    """

    __pydantic_config__ = _CONFIG

    search_space: SearchSpace = field(default_factory=dict)
    trials: _Count = 30
    objectives: tuple[Objective, ...] = ("score", "energy")
    trial_seed: _NotNegative = 0


@dataclass(frozen=True)
class ExecutionConfig:
    """Where the rows go, and what computes them.

    Attributes:
        out: folder for results.jsonl, table.csv, report.html and run.log; unset, nothing is written.
        resume: go on with the run that the folder holds.
        force: replace the run that the folder holds.
        jobs: processes on this machine; unset, 1 to compare, otherwise one a core. With more than one, nothing is
            timed, because processes that run together slow each other down.
        dask: address of a Dask scheduler, such as tcp://host:8786, whose workers compute in place of this machine.
        mlflow: tracking server, or folder, that the finished run is logged to.
    """

    __pydantic_config__ = _CONFIG

    out: _Folder = None
    resume: Switch = False
    force: Switch = False
    jobs: _Count | None = None
    dask: str | None = None
    mlflow: str | None = None


@dataclass(frozen=True)
class RunConfig:
    """A whole run: a comparison, or a sweep or a search of its machines.

    Attributes:
        compare: network, data, machines and repetitions.
        sweep: which options to vary; None where nothing is varied.
        search: which options to search; None where nothing is searched. Sweep and search exclude each other.
        run: where the rows go and what computes them.

    Raises:
        HpmlError: both `sweep` and `search` are given.
    """

    __pydantic_config__ = _CONFIG

    compare: ExperimentConfig = field(default_factory=ExperimentConfig)
    sweep: SweepConfig | None = None
    search: SearchConfig | None = None
    run: ExecutionConfig = field(default_factory=ExecutionConfig)

    def __post_init__(self) -> None:
        if self.sweep is not None and self.search is not None:
            raise HpmlError("[sweep] and [search] exclude each other: leave one out")


def as_table(config: Any) -> dict[str, Any]:
    """The settings as plain values: tables, lists, texts and numbers; what is unset is left out.

    Args:
        config: an instance of one of the classes above.
    """
    return {f.name: _plain(value) for f in fields(config) if (value := _value_of(config, f.name)) is not None}


def _value_of(config: Any, name: str) -> Any:
    value = getattr(config, name)
    if name == "targets":
        return as_tables(value)
    inner = (ExperimentConfig, SweepConfig, SearchConfig, ExecutionConfig)
    return as_table(value) if isinstance(value, inner) else value


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items() if inner is not None}
    if isinstance(value, (tuple, list)):
        return [_plain(inner) for inner in value]
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    return str(value) if isinstance(value, Path) else value
