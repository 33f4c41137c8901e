"""The TOML file of a run: read, written, and written with comments for `hpml-sim init`."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from hpml_sim.errors import HpmlError
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
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise HpmlError(f"{path}: cannot be read ({error}); `hpml-sim init {path}` writes one") from None
    except tomllib.TOMLDecodeError as error:
        raise HpmlError(f"{path}: not valid TOML: {error}") from None
    return checked(RunConfig, raw, where=str(path))


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
    """One section: each setting below its meaning; those in `shown` are active."""
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
        lines.append(text if field.name in shown else f"# {text}")
    yield "\n".join(lines) + "\n"
