"""The TOML file of a run: read, written, and written with comments for `hpml-sim init`."""

from __future__ import annotations

import difflib
import json
import math
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from hpml_sim.errors import HpmlError, shown
from hpml_sim.experiments.config import (
    ExecutionConfig,
    ExperimentConfig,
    RunConfig,
    SearchConfig,
    SweepConfig,
    as_table,
)
from hpml_sim.experiments.target_list import labeled_targets
from hpml_sim.targets.checking import checked


def read_config(path: str | Path) -> RunConfig:
    """Read and check the file of a run.

    Args:
        path: the TOML file.

    Raises:
        HpmlError: it cannot be read, is no TOML, or holds an unknown field or a value out of range; all are named.
    """
    path = Path(path)
    if path.is_dir():
        raise HpmlError(f"{path}: is a folder; give the file of a run, such as {path / 'run.toml'}")
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise HpmlError(f"{path}: cannot be read ({error}); `hpml-sim init {path}` writes one") from None
    except tomllib.TOMLDecodeError as error:
        raise HpmlError(f"{path}: not valid TOML: {error}") from None
    if not raw:
        raise HpmlError(f"{path}: the file is empty; `hpml-sim init` writes one")
    check_tables(raw, where=f"{path}: ")
    return checked(RunConfig, raw, where=str(path))


def check_tables(raw: Any, *, where: str = "") -> None:
    """Refuse settings whose tables are wrong, before their fields are looked at.

    Args:
        raw: what people gave for a `RunConfig`; anything but a mapping is let through.
        where: stands before the message, such as the name of a file.

    Raises:
        HpmlError: no table at all, something else in the place of a table, or an option outside its table.
    """
    if not isinstance(raw, Mapping):
        return
    if not raw:
        raise HpmlError(f"{where}the settings are empty; give a table compare; `hpml-sim init` writes an example")
    kinds = {"compare": ExperimentConfig, "sweep": SweepConfig, "search": SearchConfig, "run": ExecutionConfig}
    options = {table: {f.name for f in fields(kind)} for table, kind in kinds.items()}
    for name in [name for name in raw if name not in kinds]:
        owner = next((table for table, names in options.items() if name in names), None)
        if owner is not None:
            raise HpmlError(f"{where}{name}: unknown table; put it under [{owner}]")
        if difflib.get_close_matches(str(name), list(kinds), n=1, cutoff=0.55):
            return  # `checked` names the table that is meant
        raise HpmlError(f"{where}{shown(name)}: unknown table; known: {', '.join(kinds)}")
    for table, value in raw.items():
        if value is None or isinstance(value, kinds[table]):
            continue
        if not isinstance(value, Mapping):
            raise HpmlError(f"{where}{table}={shown(value)}: must be a table, such as [{table}]")
        lost = [str(n) for n in value if n not in options[table] and n in options["compare"] | options["run"]]
        if lost:
            right = "compare" if lost[0] in options["compare"] else "run"
            raise HpmlError(f"{where}{table}.{lost[0]}: belongs in [{right}], not in [{table}]")


def to_toml(config: RunConfig) -> str:
    """The settings as a file, which `read_config` reads. What is unset, and `resume` and `force`, are left out.

    Args:
        config: checked settings.
    """
    tables = as_table(replace(config, run=replace(config.run, resume=False, force=False)))
    for name in ("resume", "force"):
        del tables["run"][name]
    return "\n".join(line for name, table in tables.items() if table for line in _table(name, table))


def _table(name: str, values: Mapping[str, Any]) -> Iterator[str]:
    yield f"[{name}]"
    inner = {key: value for key, value in values.items() if isinstance(value, dict) and value}
    for key, value in values.items():
        if not isinstance(value, dict):
            yield f"{_key(key)} = {_value(value)}"
    yield ""
    for key, value in inner.items():
        yield from _table(f"{name}.{_key(key)}", value)


def _key(key: str) -> str:
    bare = key.replace("-", "").replace("_", "")
    return key if bare.isascii() and bare.isalnum() else json.dumps(key)


def _value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_value(inner) for inner in value)}]"
    if isinstance(value, float) and not math.isfinite(value):
        return {math.inf: "inf", -math.inf: "-inf"}.get(value, "nan")
    return json.dumps(value)


# --------------------------------------------------------------------------------------------------- with comments

_EXAMPLE = """\
# Machines with options of their own, in place of the list `targets` above:
# [compare.targets]
# cpu = "cpu"
# coarse = { card = "pcm-hermes", adc_bits = 4 }
# hybrid = { card = "loihi", steps = 25, synapses = { card = "pcm-hermes" } }
"""
_HEAD = """\
# hpml-sim run {name}            runs this; flags override it: --chips 5 --out runs/other
# hpml-sim run {name} --dry-run  says what would run, and for how long
# A value that is commented out is the default.
"""


def template(name: str = "run.toml") -> str:
    """A file with comments: every setting, what it means, and its default; it runs a small comparison as it is.

    Args:
        name: of the file, for the comments.
    """
    example = ExperimentConfig(targets=labeled_targets(["cpu", "h200", "pcm-hermes", "reram-neurram", "loihi"]))
    space = {"adc_bits": (4, 6, 8), "model.width": (32, 128)}
    sections = [
        _HEAD.format(name=name),
        *_commented("compare", example, shown={"targets", "model", "data", "seeds", "chips", "times"}),
        _EXAMPLE,
        "# ---- to vary options, take the # from these lines\n",
        *_commented("sweep", SweepConfig(search_space=space), shown=set()),
        "# ---- to search for the best trade-offs instead (not both)\n",
        *_commented("search", SearchConfig(search_space=space), shown=set()),
        *_commented("run", ExecutionConfig(out=Path("runs") / Path(name).stem), shown={"out"}),
    ]
    return "\n".join(sections)


def _commented(name: str, settings: Any, *, shown: set[str]) -> Iterator[str]:
    """One section: each setting below its meaning; those in `shown` that have a value are active."""
    import docstring_parser  # for those who ask for a template

    lines = [f"[{name}]" if shown else f"# [{name}]"]
    meaning = {p.arg_name: p.description or "" for p in docstring_parser.parse(type(settings).__doc__ or "").params}
    values = as_table(settings)
    for field in fields(settings):
        if field.name in ("resume", "force"):
            continue
        value = values.get(field.name)
        lines += [f"# {line}" for line in meaning[field.name].splitlines()]
        if isinstance(value, dict):
            pairs = ", ".join(f"{_key(key)} = {_value(inner)}" for key, inner in value.items())
            text = f"{field.name} = {{ {pairs} }}"
        else:
            text = f"{field.name} = {_value(value) if value is not None else ''}".rstrip()
        lines.append(text if field.name in shown and value is not None else f"# {text}")
    yield "\n".join(lines) + "\n"
