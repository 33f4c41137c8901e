"""The TOML file of a run: read, written, and written with comments for `hpml-sim init`."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import docstring_parser

from hpml_sim.errors import HpmlError
from hpml_sim.experiments.config import (
    ExecutionConfig,
    ExperimentConfig,
    RunConfig,
    SearchConfig,
    SweepConfig,
    as_table,
    checked,
)


def read_runfile(path: str | Path) -> RunConfig:
    """Read and check the file of a run.

    Raises:
        HpmlError: it cannot be read, is no TOML, or holds an unknown field or a value out of range; all are named.
    """
    path = Path(path)
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise HpmlError(f"{path}: cannot be read ({error}); `hpml-sim init {path}` writes one") from None
    except tomllib.TOMLDecodeError as error:
        raise HpmlError(f"{path}: not valid TOML: {error}") from None
    return checked(RunConfig, raw, where=str(path))


def to_toml(asked: RunConfig) -> str:
    """The same as a file; `read_runfile` gives it back. What is unset, and `resume` and `force`, are left out."""
    tables = as_table(replace(asked, run=replace(asked.run, resume=False, force=False)))
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
# [compare.targets]                     # machines with options of their own, after those of `on`
# coarse = { card = "pcm-hermes", adc_bits = 4 }
# hybrid = { card = "loihi", steps = 25, synapses = { card = "pcm-hermes" } }
"""
_HEAD = """\
# hpml-sim run {name}            runs this; flags override it: --chips 5 --out runs/other
# hpml-sim run {name} --dry-run  says what would run, and for how long
# A value that is commented out is the default.
"""


def template(name: str = "run.toml") -> str:
    """A commented file: every setting, what it means, and its default; it runs a small comparison as it is."""
    example = ExperimentConfig(on=("cpu", "h200", "pcm-hermes", "reram-neurram", "loihi"))
    sections = [
        _HEAD.format(name=name),
        *_commented("compare", example, shown={"on", "model", "data", "seeds", "chips", "times"}),
        _EXAMPLE,
        "# ---- to vary options, take the # from these lines\n",
        *_commented("sweep", SweepConfig(over={"adc_bits": (4, 6, 8), "model.width": (32, 128)}), shown=set()),
        "# ---- to search for the best trade-offs instead (not both)\n",
        *_commented("search", SearchConfig(over={"adc_bits": (4, 6, 8), "model.width": (32, 128)}), shown=set()),
        *_commented("run", ExecutionConfig(out=Path("runs") / Path(name).stem), shown={"out"}),
    ]
    return "\n".join(sections)


def _commented(name: str, settings: Any, *, shown: set[str]) -> Iterator[str]:
    """One section: each setting below its meaning; those in `shown` are active."""
    lines = [f"[{name}]" if shown else f"# [{name}]"]
    meaning = {p.arg_name: p.description or "" for p in docstring_parser.parse(type(settings).__doc__ or "").params}
    values = as_table(settings)
    for field in fields(settings):
        if field.name == "targets" or field.name in ("resume", "force"):
            continue
        value = values.get(field.name)
        lines += [f"# {line}" for line in meaning[field.name].splitlines()]
        if isinstance(value, dict):
            pairs = ", ".join(f"{_key(key)} = {_value(inner)}" for key, inner in value.items())
            text = f"{field.name} = {{ {pairs} }}"
        else:
            text = f"{field.name} = {_value(value) if value is not None else ''}".rstrip()
        lines.append(text if field.name in shown else f"# {text}")
    yield "\n".join(lines) + "\n"
