"""What an option of a configuration may be, in words, from the type hints of its class."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from hpml_sim.errors import range_text

_BOUNDS: Mapping[type, str] = {Ge: "low", Le: "high", Gt: "above", Lt: "below"}
_BY_NAME: Mapping[type, str] = {Ge: "ge", Le: "le", Gt: "gt", Lt: "lt"}
_PLAIN: Mapping[Any, str] = {
    bool: "True or False",
    str: "text",
    int: "a whole number",
    float: "a finite number",
    Path: "a path",
    type(None): "None",
}


def in_words(hint: Any) -> str:
    """What a type hint allows, such as "a whole number from 2 to 16 or None".

    Args:
        hint: of a field of a configuration, with what `Annotated` adds to it.
    """
    texts = list(dict.fromkeys(_parts(hint)))
    return " or ".join(texts) if len(texts) <= 2 else f"{', '.join(texts[:-1])}, or {texts[-1]}"


def choices_of(hint: Any) -> list[str]:
    """The names that a type hint lists; none where it lists none.

    Args:
        hint: of a field of a configuration.
    """
    if get_origin(hint) is Literal:
        return [str(value) for value in get_args(hint)]
    inside = get_args(hint)[:1] if get_origin(hint) is Annotated else get_args(hint) if _is_union(hint) else ()
    return [choice for part in inside for choice in choices_of(part)]


def only_choices(hint: Any) -> bool:
    """Whether a type hint allows nothing but names that it lists, and None.

    Args:
        hint: of a field of a configuration.
    """
    parts = get_args(hint) if _is_union(hint) else (hint,)
    return all(part is type(None) or bool(choices_of(part)) for part in parts)


def hint_at(kind: Any, path: Sequence[str]) -> tuple[Any, list[str]]:
    """The type hint that a path leads to, and the names of fields on it.

    Args:
        kind: a configuration class.
        path: where pydantic found a problem: names of fields, numbers of items, and members of unions that it tried.

    Returns:
        The hint with what `Annotated` adds to it, and the names without the members of unions.
    """
    names: list[str] = []
    hint: Any = kind
    for depth, part in enumerate(path):
        if (inner := _inside(hint)) is not None:
            hint = inner
            names.append(part)
            continue
        for owner in _classes_in(hint):
            if depth == 0 and part.isdigit():  # an argument by position
                places = [f.name for f in fields(owner) if f.init and not f.kw_only]
                part = places[int(part)] if int(part) < len(places) else part
            hints = get_type_hints(owner, include_extras=True)
            if part in hints:
                hint = hints[part]
                names.append(part)
                break
    return hint, names


def class_at(kind: Any, path: Sequence[str]) -> Any:
    """The configuration class that a path leads to.

    Args:
        kind: the outermost class.
        path: where pydantic found a problem.

    Returns:
        The outermost class where the field may be of several classes.
    """
    inner = list(_classes_in(hint_at(kind, path)[0]))
    named = [each for each in inner if each.__name__ in path]
    return (named or inner)[0] if len(named or inner) == 1 else kind


def _parts(hint: Any) -> Iterator[str]:
    """Each of the alternatives that a hint allows."""
    if _is_union(hint):
        for part in get_args(hint):
            yield from _parts(part)
        return
    if get_origin(hint) is Annotated:
        inner, *extras = get_args(hint)
        bounds = dict(_bounds(extras))
        described = next((e.description for e in extras if isinstance(e, FieldInfo) and e.description), None)
        if described is not None:
            yield described
        elif inner in (int, float):
            yield range_text(_PLAIN[inner], **bounds)
        else:
            yield from _parts(inner)
        return
    origin = get_origin(hint) or hint
    if choices := choices_of(hint):
        yield f"one of {', '.join(map(repr, choices))}" if len(choices) > 1 else repr(choices[0])
    elif origin in (tuple, list):
        inner = [part for part in get_args(hint) if part is not Ellipsis]
        yield f"a list, each {in_words(inner[0])}" if len(inner) == 1 and inner[0] is not Any else "a list"
    elif isinstance(origin, type) and issubclass(origin, Mapping):
        yield "a table of names and values"
    elif is_dataclass(origin):
        yield f"{origin.__name__}(...)"  # type: ignore[union-attr]
    else:
        yield _PLAIN.get(origin, getattr(origin, "__name__", "something else"))


def _bounds(extras: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    for extra in extras:
        for part in (extra, *(extra.metadata if isinstance(extra, FieldInfo) else ())):
            if (bound := _BOUNDS.get(type(part))) is not None:
                yield bound, getattr(part, _BY_NAME[type(part)])


def _inside(hint: Any) -> Any:
    """The hint of what a table or a list holds; None of anything else."""
    if get_origin(hint) is Annotated:
        return _inside(get_args(hint)[0])
    origin, inner = get_origin(hint), [part for part in get_args(hint) if part is not Ellipsis]
    if isinstance(origin, type) and issubclass(origin, (Mapping, tuple, list)) and inner:
        return inner[-1]
    return None


def _classes_in(hint: Any) -> Iterator[Any]:
    """The configuration classes that a hint names, however deep."""
    if isinstance(hint, type) and is_dataclass(hint):
        yield hint
    for part in get_args(hint)[: 1 if get_origin(hint) is Annotated else None]:
        yield from _classes_in(part)


def _is_union(hint: Any) -> bool:
    return get_origin(hint) in (Union, types.UnionType)
