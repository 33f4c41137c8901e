"""Which card stands for a machine that a file of records names."""

from __future__ import annotations

import re
from functools import cache

from hpml_sim.cards import DigitalCard, list_cards, load_card

_MORE = {"cpu-i9_10940x": "i9-10940x", "cpu-i7_12700h": "i7-12700h", "pro6000maxq": "rtx-pro-6000-max-q"}


@cache
def machine(name: str) -> DigitalCard | None:
    """The shipped card of a machine, by its name in a file of records; None where there is none.

    "rtx4090", "4090", "a100_dgx", "H100" and "cpu-i9_10940x" are understood.

    Args:
        name: as the file has it.
    """
    plain = _plain(_MORE.get(name, name))
    cards = {_plain(card): card for card in list_cards()}
    for tried in (plain, f"rtx{plain}", _plain(re.split(r"[_ ]", name)[0])):
        if tried in cards:
            card = load_card(cards[tried])
            if isinstance(card, DigitalCard):
                return card
    return None


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower().removeprefix("cpu-"))
