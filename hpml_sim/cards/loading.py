"""Finding, reading and checking card files, with messages that name the file, the field and what is allowed."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterator
from functools import lru_cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from hpml_sim.cards.schema import ADAPTER, KINDS, Card, ComponentCard
from hpml_sim.errors import CardError, HpmlError, UnknownNameError, shown


def list_cards() -> list[str]:
    """Names of all shipped cards and of the cards in the folder `HPML_SIM_CARDS`, sorted.

    Raises:
        CardError: `HPML_SIM_CARDS` is set and is no folder.

    Example:
        >>> import hpml_sim as hs
        >>> [name for name in hs.list_cards() if name.startswith("loihi")]
        ['loihi', 'loihi-2']
    """
    return sorted(_card_files())


def load_card(name_or_path: str | Path) -> Card:
    """Read and check one card.

    Args:
        name_or_path: the name of a card (`hs.list_cards()`), or the path of a TOML file (anything ending in `.toml`).

    Raises:
        UnknownNameError: no card has this name.
        CardError: the file cannot be read or breaks a rule; the message names the file, the field and what is allowed.
        HpmlError: `name_or_path` is neither text nor a path.

    Example:
        >>> import hpml_sim as hs
        >>> card = hs.load_card("loihi")
        >>> print(card)
        Card loihi: Intel Loihi (band: its designers' figures and a fit on silicon)
          scope    chip, 2018
          cores    128 a chip, 1024 neurons a core
          synapse  23.6 pJ an operation
          neuron   81 pJ an update
          static   104 mW a chip
          figures  24 with sources, 1 weak: `hpml-sim cards show loihi`
        >>> card.events.sop_energy.si
        2.36e-11
    """
    if not isinstance(name_or_path, (str, Path)):
        raise HpmlError(
            f"load_card: name_or_path={shown(name_or_path)}: must be the name of a card, such as 'pcm-hermes', or the "
            "path of a .toml file"
        )
    if str(name_or_path).endswith(".toml"):
        path = Path(name_or_path)
        if not path.is_file():
            raise CardError(f"card file {str(path)!r} does not exist")
        return parse_card(_text(path), origin=str(path))
    name = str(name_or_path)
    if (own := _own_files().get(name)) is not None:
        return _named(parse_card(_text(own), origin=str(own)), name, str(own))
    shipped = _shipped_files()
    if name not in shipped:
        raise UnknownNameError("card", name, _card_files(), hint="`hpml-sim cards` lists all cards.")
    return _load_shipped(name)


@lru_cache(maxsize=256)
def _load_shipped(name: str) -> Card:
    path = _shipped_files()[name]
    return _named(parse_card(_text(path), origin=path.name), name, path.name)


def _named(card: Card, name: str, origin: str) -> Card:
    if card.name != name:
        raise CardError(f"{origin}: name: is {card.name!r}, but the file's name says {name!r}; make them equal")
    return card


def _text(path: Path | Traversable) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CardError(f"{path}: cannot be read as UTF-8 text: {error}") from None


def parse_card(text: str, *, origin: str) -> Card:
    """Check the text of a card.

    Args:
        text: TOML.
        origin: what the messages call it, such as the name of its file.

    Raises:
        CardError: all problems found, one a line, each with the dotted field.
    """
    try:
        raw = tomllib.loads(text)
    except RecursionError:
        raise CardError(f"{origin}: not valid TOML: nested too deeply; a card needs three levels") from None
    except ValueError as error:  # no TOML, or a whole number with thousands of digits
        raise CardError(f"{origin}: not valid TOML: {' '.join(str(error).split())}") from None
    try:
        return ADAPTER.validate_python(raw)
    except ValidationError as error:
        raise CardError("\n".join(_readable(origin, problem) for problem in error.errors())) from None


def list_components() -> list[str]:
    """Names of the parts of which systems are built (`devices/components/`), sorted.

    Example:
        >>> from hpml_sim.cards import list_components
        >>> {"leakage", "pcie", "sram-7nm"} <= set(list_components())
        True
    """
    return sorted(_component_files())


def load_component(name: str) -> ComponentCard:
    """Read and check one component.

    Args:
        name: of the component (`list_components()`).

    Raises:
        UnknownNameError: no component has this name.
        CardError: its file breaks a rule, such as a figure without a source.

    Example:
        >>> from hpml_sim.cards import load_component
        >>> print(load_component("regulator"))
        Component regulator: Voltage regulators
          ratio  1.13
    """
    shipped = _component_files()
    if name not in shipped:
        raise UnknownNameError("component", name, shipped)
    return _load_component(name)


@lru_cache(maxsize=64)
def _load_component(name: str) -> ComponentCard:
    path = _component_files()[name]
    found = parse_component(_text(path), origin=f"components/{path.name}")
    if found.name != name:
        raise CardError(f"components/{path.name}: name: is {found.name!r}; make it {name!r}, as the file is called")
    return found


def parse_component(text: str, *, origin: str) -> ComponentCard:
    """Check the text of a component.

    Args:
        text: TOML.
        origin: what the messages call it.

    Raises:
        CardError: all problems found, one a line, each with the dotted field.
    """
    try:
        raw = tomllib.loads(text)
    except (RecursionError, ValueError) as error:
        raise CardError(f"{origin}: not valid TOML: {' '.join(str(error).split())[:200]}") from None
    try:
        return ComponentCard.model_validate(raw)
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            field = ".".join(str(part) for part in problem["loc"])
            message = problem["msg"].removeprefix("Value error, ")
            if problem["type"] == "missing" and field.endswith("source"):
                message = "a figure names its source: a key of [sources]"
            lines.append(": ".join(part for part in (origin, field, message) if part))
        raise CardError("\n".join(lines)) from None


def _component_files() -> dict[str, Traversable]:
    folder = files("hpml_sim.devices") / "components"
    return {p.name.removesuffix(".toml"): p for p in folder.iterdir() if p.name.endswith(".toml")}


def _readable(origin: str, problem: Any) -> str:
    kinds = list(KINDS)
    if problem["type"] == "union_tag_not_found":
        return f"{origin}: kind: missing; one of {', '.join(kinds)}"
    if problem["type"] == "union_tag_invalid":
        return f"{origin}: kind: must be one of {', '.join(kinds)} (got {shown(problem['ctx']['tag'])})"
    kind, *path = problem["loc"] or ("", "")
    field = ".".join(str(part) for part in path if part != "[key]")
    if problem["type"] == "extra_forbidden":
        allowed = _fields_at(KINDS[kind], path[:-1])
        near = difflib.get_close_matches(str(path[-1]), allowed, n=1)
        guess = f"did you mean {near[0]!r}? " if near else ""
        return f"{origin}: {field}: unknown field; {guess}allowed here: {', '.join(allowed)}"
    message = problem["msg"].removeprefix("Value error, ")
    given = f" (got {shown(problem['input'])})" if isinstance(problem["input"], (str, int, float, bool)) else ""
    return ": ".join(part for part in (origin, field, message + given) if part)


def _fields_at(model: type[BaseModel], path: list[Any]) -> list[str]:
    """Names of the fields of the model that lies at `path` below `model`."""
    for part in path:
        annotation: Any = model.model_fields[part].annotation if part in model.model_fields else model
        model = next(m for m in models_in(annotation))
    return list(model.model_fields)


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models that an annotation names, however deep."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from models_in(argument)


def _card_files() -> dict[str, Any]:
    return _shipped_files() | _own_files()


def _shipped_files() -> dict[str, Traversable]:
    return {p.name.removesuffix(".toml"): p for p in files("hpml_sim.devices").iterdir() if p.name.endswith(".toml")}


def _own_files() -> dict[str, Path]:
    """Cards in the folder `HPML_SIM_CARDS`; one of the same name as a shipped card takes its place."""
    if not (own := os.environ.get("HPML_SIM_CARDS")):
        return {}
    if not Path(own).is_dir():
        raise CardError(f"HPML_SIM_CARDS={own!r} is not a folder; name the folder of your cards, or unset it")
    return {p.stem: p for p in Path(own).glob("*.toml")}
