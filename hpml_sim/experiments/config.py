"""What a run is asked to do. One set of classes checks a TOML file, builds the command line and is saved with the rows.

    RunFile
      compare: Setup       network, data, machines, repetitions
      sweep: Sweep         options to vary: every combination, or random draws
      search: Search       options to search for the best trade-offs
      run: Running         where the rows go and what computes them

The classes are plain; `checked` is the gate through which they are made from what people wrote.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro
from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from tyro.constructors import PrimitiveConstructorSpec

from hpml_sim.cards import CrossbarCard, DigitalCard, load_card
from hpml_sim.errors import HpmlError
from hpml_sim.targets import Analog, Digital, Spiking, Target

TIMES = ("1 s", "1 h", "1 day", "1 year")
Objective = Literal["accuracy", "energy", "latency"]
_CONFIG = ConfigDict(extra="forbid", revalidate_instances="always")


@dataclass(frozen=True)
class Range:
    """Any value from `low` to `high`; whole numbers if both are.

    Attributes:
        low: smallest value. high: largest, included. log: draw evenly in the logarithm; needs low > 0.
    """

    __pydantic_config__ = _CONFIG

    low: int | float
    high: int | float
    log: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise HpmlError(f"range {self}: low must be below high, both finite")
        if self.log and self.low <= 0:
            raise HpmlError(f"range {self}: log needs low > 0")

    @property
    def whole(self) -> bool:
        """Whether it holds whole numbers only."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def __str__(self) -> str:
        return f"{self.low}..{self.high}" + (":log" if self.log else "")


Choices = tuple[Any, ...] | Range
DEFAULT = "default"
"""In a list of values: leave the option as the target has it."""


def parse_over(given: Any) -> Any:
    """Options to vary, from a mapping, or from texts such as "adc_bits=4,6,8" and "output_noise=0.01..0.1:log".

    Raises:
        HpmlError: a text that is none of these.
    """
    if isinstance(given, Mapping):
        return {str(name): _choices(str(name), values) for name, values in given.items()}
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise HpmlError(f"over={given!r}: give option=values, such as adc_bits=4,6,8 or output_noise=0.01..0.1")
    found: dict[str, Choices] = {}
    for text in given:
        name, equals, values = str(text).partition("=")
        if not (equals and name and values):
            raise HpmlError(f"over: {text!r} must be option=values, such as adc_bits=4,6,8 or output_noise=0.01..0.1")
        if name in found:
            raise HpmlError(f"over: {name} is given twice; list its values together, such as {name}=1,2")
        found[name] = _choices(name, values)
    return found


def _choices(name: str, given: Any) -> Choices:
    if isinstance(given, Range):
        return given
    if isinstance(given, Mapping):
        return checked(Range, given, where=f"over: {name}")
    if isinstance(given, str):
        low, dots, rest = given.partition("..")
        if dots:
            high, _, scale = rest.partition(":")
            if scale not in ("", "log"):
                raise HpmlError(f"over: {name}={given}: after the range only :log may follow, not :{scale}")
            return checked(
                Range, {"low": _value(low), "high": _value(high), "log": scale == "log"}, where=f"over: {name}"
            )
        given = given.split(",")
    values = tuple(_value(value) for value in given) if isinstance(given, Sequence) else (given,)
    if not values or len(set(map(repr, values))) != len(values):
        raise HpmlError(f"over: {name}={list(values)!r} must list at least one value, none twice")
    return values


def _value(text: Any) -> Any:
    """A number or a truth value where the text is one."""
    if not isinstance(text, str):
        return text
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return {"true": True, "false": False}.get(text.lower(), text)


def as_texts(over: Any) -> list[str]:
    """The options as the command line writes them; `parse_over` reads them."""
    return [f"{name}={v if isinstance(v, Range) else ','.join(map(str, v))}" for name, v in over.items()]


def _target(given: Any) -> Any:
    """A target from a table of a TOML file: the kind of its card picks the class."""
    if not isinstance(given, Mapping):
        return given
    card = load_card(str(given.get("card", "")))
    kind = Digital if isinstance(card, DigitalCard) else Analog if isinstance(card, CrossbarCard) else Spiking
    return checked(kind, given, where=f"target on {given['card']}")


Over = Annotated[
    dict[str, Choices],
    BeforeValidator(parse_over),
    PrimitiveConstructorSpec(
        nargs="*",
        metavar="OPTION=VALUES",
        instance_from_str=tuple,
        is_instance=lambda value: True,
        str_from_instance=as_texts,
    ),
]
Targets = Annotated[dict[str, Annotated[Target, BeforeValidator(_target)]], tyro.conf.Suppress]
Count = Annotated[int, Field(ge=1, strict=True)]
NotNegative = Annotated[int, Field(ge=0, strict=True)]


@dataclass(frozen=True)
class ExperimentConfig:
    """Which network on which machines, and how often.

    Attributes:
        on: cards to run it on (`hpml-sim cards` lists them; a path of a TOML file works too).
        model: mlp, cnn, package.module:callable, or file.py:callable.
        data: digits, fashion-mnist, mnist, cifar10, moving-bars, package.module:callable, or file.py:callable.
        targets: machines with options of their own, label = {card = ..., option = value}; they come after `on`.
        seeds: repetitions of the whole run; or which seeds, as a list.
        chips: programmed chips of each analog machine.
        times: times since programming, such as "1 s", "1 h", "1 day", "1 year".
        epochs: passes over the training data before conversion (default: by the size of the data).
        finetune_epochs: passes after conversion (default: as epochs if given and not 0, or by the size of the data).
        lr: first learning rate of both.
    """

    __pydantic_config__ = _CONFIG

    on: Annotated[tuple[str, ...], tyro.conf.arg(metavar="CARD [CARD ...]")] = ()
    model: str = "mlp"
    data: str = "digits"
    targets: Targets = field(default_factory=dict)
    seeds: Count | tuple[NotNegative, ...] = 1
    chips: Count = 25
    times: tuple[str | float, ...] = TIMES
    epochs: NotNegative | None = None
    finetune_epochs: NotNegative | None = None
    lr: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 5e-3


@dataclass(frozen=True)
class SweepConfig:
    """Which options to vary.

    Attributes:
        over: options of the machines and their values: adc_bits=4,6,8 for every combination; output_noise=0.01..0.1 or
            lr=0.001..0.1:log for random draws; synapses.adc_bits for spikes on crossbars; model.width for an argument
            of the network. "default" leaves an option as it is.
        draws: this many random draws in place of every combination.
        draw_seed: of the draws.
    """

    __pydantic_config__ = _CONFIG

    over: Over = field(default_factory=dict)
    draws: Count | None = None
    draw_seed: NotNegative = 0


@dataclass(frozen=True)
class SearchConfig:
    """Which options to search, for what.

    Attributes:
        over: options and their values, written as for a sweep.
        trials: how many configurations to try, all told; a resumed search goes on to this number.
        objectives: what to weigh: accuracy (at the last of the times), energy and latency (estimated, batch 1).
        search_seed: of the sampler.
    """

    __pydantic_config__ = _CONFIG

    over: Over = field(default_factory=dict)
    trials: Count = 30
    objectives: tuple[Objective, ...] = ("accuracy", "energy")
    search_seed: NotNegative = 0


@dataclass(frozen=True)
class ExecutionConfig:
    """Where the rows go, and what computes them.

    Attributes:
        out: folder for results.jsonl, table.csv, report.html and run.log.
        resume: go on with the run that the folder holds.
        force: replace the run that the folder holds.
        jobs: processes on this machine (default: 1 to compare, which leaves the clock undisturbed; otherwise one a
            core).
        dask: address of a Dask scheduler, such as tcp://host:8786, whose workers compute in place of this machine.
        mlflow: tracking server, or folder, that the finished run is logged to.
    """

    __pydantic_config__ = _CONFIG

    out: Path | None = None
    resume: bool = False
    force: bool = False
    jobs: Count | None = None
    dask: str | None = None
    mlflow: str | None = None


@dataclass(frozen=True)
class RunConfig:
    """A whole run: `compare` alone, or with `sweep` or `search`."""

    __pydantic_config__ = _CONFIG

    compare: ExperimentConfig = field(default_factory=ExperimentConfig)
    sweep: SweepConfig | None = None
    search: SearchConfig | None = None
    run: ExecutionConfig = field(default_factory=ExecutionConfig)

    def __post_init__(self) -> None:
        if self.sweep is not None and self.search is not None:
            raise HpmlError("[sweep] and [search] exclude each other: leave one out")


_Class = TypeVar("_Class")


def checked(kind: type[_Class], values: Mapping[str, Any] | Any, *, where: str = "") -> _Class:
    """An instance of a settings class, from its fields by name.

    Args:
        kind: one of the classes above, or a target. values: a mapping, or an unchecked instance.
        where: stands before the message.

    Raises:
        HpmlError: an unknown field, with the nearest one; a value out of range or of the wrong type, with its name.
    """
    if is_dataclass(values) and not isinstance(values, type):
        values = {f.name: getattr(values, f.name) for f in fields(values)}
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        problems = list(dict.fromkeys(_readable(kind, problem) for problem in error.errors()))
        raise HpmlError(f"{where}: {'; '.join(problems)}" if where else "; ".join(problems)) from None


def _readable(kind: Any, problem: Any) -> str:
    path = [str(part) for part in problem["loc"]]
    if problem["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        allowed = [f.name for f in fields(kind)] if len(path) == 1 else _fields_below(kind, path[:-1])
        near = difflib.get_close_matches(path[-1], allowed, n=1, cutoff=0.5)
        guess = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(allowed)}"
        return f"{'.'.join(path)}: unknown option; {guess}"
    names = [part for part in path if part.isidentifier() and part not in _BRANCHES]
    message = "must be a list" if problem["type"] == "tuple_type" else problem["msg"].removeprefix("Value error, ")
    given = problem["input"]
    shown = f"={given!r}" if isinstance(given, (str, int, float, bool, tuple, list)) else ""
    return f"{'.'.join(names)}{shown}: {message[:1].lower()}{message[1:]}" if names else message


_BRANCHES = frozenset({"int", "float", "str", "tuple", "Range"})
"""What pydantic adds to the path of a field for the member of a union that it tried."""


def _fields_below(kind: Any, path: list[str]) -> list[str]:
    hints = {"compare": ExperimentConfig, "sweep": SweepConfig, "search": SearchConfig, "run": ExecutionConfig}
    return [f.name for f in fields(hints.get(path[0], kind))]


def as_table(settings: Any) -> dict[str, Any]:
    """The settings as plain values of tables, lists, texts and numbers; what is unset is left out."""
    return _plain(asdict(settings))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items() if inner is not None}
    if isinstance(value, (tuple, list)):
        return [_plain(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value
