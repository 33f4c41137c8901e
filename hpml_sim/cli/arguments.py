"""Arguments of the verbs: how the help names their values, and the settings of a run as the command line reads them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, Field, field, fields, make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from hpml_sim.errors import HpmlError
from hpml_sim.experiments.config import ExecutionConfig, ExperimentConfig, SearchConfig, SweepConfig
from hpml_sim.experiments.search_space import as_texts
from hpml_sim.targets.checking import Switch


def option(metavar: str, **more: Any) -> Any:
    """How the help shows an option: what its value is called, and its default where it has one.

    Args:
        metavar: such as "NUMBER".
        more: passed on to `tyro.conf.arg`.
    """
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=_default, **more)


def _default(shown: str) -> str:
    return "" if shown in ("", "None", "False") else f"(default: {shown})"


Flag = Annotated[bool, tyro.conf.arg(help_behavior_hint="")]
"""An option without a value."""
Json = Annotated[bool, tyro.conf.arg(name="json", help_behavior_hint="")]
"""The flag --json."""
Cards = Annotated[tuple[str, ...], option("CARD [CARD ...]")]
Model = Annotated[str, option("MODEL")]
OptionalModel = Annotated[str | None, option("MODEL")]
DataName = Annotated[str | None, option("NAME")]
InputShape = Annotated[tuple[int, ...] | None, option("SIZE [SIZE ...]")]
Number = Annotated[int, option("NUMBER")]
OptionalNumber = Annotated[int | None, option("NUMBER")]


# --------------------------------------------------------------------------------- settings of a run as tyro reads them


def _texts(metavar: str, shown: Any) -> PrimitiveConstructorSpec[Any]:
    """Texts that are kept as they are: the class of the settings parses and checks them."""
    return PrimitiveConstructorSpec(
        nargs="*", metavar=metavar, instance_from_str=tuple, is_instance=lambda value: True, str_from_instance=shown
    )


_METAVARS: Mapping[str, str] = {
    "model": "MODEL",
    "data": "NAME",
    "task": "TASK",
    "seeds": "NUMBER [NUMBER ...]",
    "times": "TIME [TIME ...]",
    "skip": "[LAYER ...]",
    "objectives": "OBJECTIVE [OBJECTIVE ...]",
    "out": "FOLDER",
    "dask": "ADDRESS",
    "mlflow": "ADDRESS",
}
"""Field of the settings -> what its value is called; NUMBER where nothing stands here."""


def _for_tyro(name: str, hint: Any) -> Any:
    if name == "targets":
        return Annotated[Any, option("CARD [CARD ...]"), _texts("CARD [CARD ...]", list)]
    if name == "search_space":
        return Annotated[Any, option("OPTION=VALUES [...]"), _texts("OPTION=VALUES [...]", _written)]
    if name == "out":  # as text: pathlib would take an empty one for the current folder
        return Annotated[str | None, option("FOLDER")]
    return Flag if hint in (bool, Switch) else Annotated[hint, option(_METAVARS.get(name, "NUMBER"))]


def _written(search_space: Mapping[str, Any] | Sequence[str]) -> list[str]:
    return as_texts(search_space) if isinstance(search_space, Mapping) else list(search_space)


def _same_default(f: Field[Any]) -> Any:
    return field(default=f.default) if f.default_factory is MISSING else field(default_factory=f.default_factory)


def arguments_of(kind: type[Any]) -> type[Any]:
    """The same settings as a class that tyro makes options of: texts where the settings take targets and values.

    What is made of it is unchecked; `hpml_sim.targets.checking.checked` makes it settings.

    Args:
        kind: one of the classes of `hpml_sim.experiments.config`.
    """
    hints = get_type_hints(kind, include_extras=True)
    made = [(f.name, _for_tyro(f.name, hints[f.name]), _same_default(f)) for f in fields(kind)]
    return make_dataclass(kind.__name__, made, namespace={"__doc__": kind.__doc__}, frozen=True)


if TYPE_CHECKING:
    from hpml_sim.experiments.config import ExecutionConfig as ExecutionArguments
    from hpml_sim.experiments.config import ExperimentConfig as ExperimentArguments
    from hpml_sim.experiments.config import SearchConfig as SearchArguments
    from hpml_sim.experiments.config import SweepConfig as SweepArguments
else:
    ExperimentArguments, ExecutionArguments = arguments_of(ExperimentConfig), arguments_of(ExecutionConfig)
    SweepArguments, SearchArguments = arguments_of(SweepConfig), arguments_of(SearchConfig)


def as_arguments(kind: type[Any], config: Any) -> Any:
    """Settings as an instance of the class for tyro.

    Args:
        kind: such as `ExperimentArguments`.
        config: the settings; None gives None.
    """
    if config is None:
        return None
    values = {f.name: getattr(config, f.name) for f in fields(config)}
    return kind(**{name: str(value) if isinstance(value, Path) else value for name, value in values.items()})


@contextmanager
def in_options(*only: str) -> Iterator[None]:
    """Let an error name the options of the command line where it names arguments of Python.

    Args:
        only: the arguments that are meant; all of a run's settings where none is given.

    Raises:
        HpmlError: the one that the block raised, of the same class.
    """
    try:
        yield
    except HpmlError as error:
        kinds = (ExperimentConfig, SweepConfig, SearchConfig, ExecutionConfig)
        meant = only or {f.name for kind in kinds for f in fields(kind)}
        names = "|".join(sorted(meant, key=len, reverse=True))
        text = re.sub(rf"(?<![\w.-])({names})=(True:|,)?", _as_option, str(error))
        text = re.sub(rf"^({names}): ", _as_option, text)
        error.args = (text, *error.args[1:])
        raise


def _as_option(found: re.Match[str]) -> str:
    name = f"--{found[1].replace('_', '-')}"
    if found[0].endswith(": "):
        return f"{name}: "
    end = found.group(2) if found.re.groups > 1 else None
    return f"{name} " if end is None else f"{name}{':' if end == 'True:' else ','}"
