"""The card that a target names: it must exist, and be of the target's kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field
from pydantic_core import PydanticCustomError

from hpml_sim.cards import BaseCard, load_card
from hpml_sim.errors import HpmlError, shown

CardName = Annotated[str, Field(description="the name of a card, or the path of a TOML file")]
"""Name of a card (`hs.list_cards()`), or the path of a TOML file."""
_Card = TypeVar("_Card", bound=BaseCard)


def card_named(name: str | Path, kind: type[_Card]) -> _Card:
    """The card, which must be of a kind.

    Args:
        name: name of a card, or the path of a TOML file.
        kind: class of the cards that are allowed.

    Raises:
        UnknownNameError: no card has this name.
        CardError: the card's file is not there, or breaks a rule.
        HpmlError: a card of another kind.
    """
    try:
        card = load_card(name)
    except OSError as error:  # a name that no file can have
        raise HpmlError(
            f"card={shown(str(name))}: {error.strerror}; give a card's name or the path of a TOML file"
        ) from None
    if not isinstance(card, kind):
        wanted = kind.model_fields["kind"].annotation.__args__[0]  # type: ignore[union-attr]
        raise HpmlError(
            f"card={shown(str(name))}: is of kind {card.kind!r}; take a {wanted} card (`hpml-sim cards` lists them)"
        )
    return card


def card_of_kind(kind: type[BaseCard]) -> Callable[[Any], Any]:
    """A validator of a target's `card`: a name or path as text, of a card of this kind.

    Args:
        kind: class of the cards that are allowed.
    """

    def check(name: Any) -> Any:
        if not isinstance(name, (str, Path)):
            raise PydanticCustomError("not_a_card", "must be the name of a card")
        card_named(name, kind)
        return str(name)

    return check
