"""Which surroundings a machine has at system scope: a small host, a desktop, or its share of a server."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from hpml_sim.cards import CrossbarCard, DigitalCard
from hpml_sim.units.bands import Band

if TYPE_CHECKING:
    from hpml_sim.cards import Card, Host

SMALL = 32
"""Chips that still hang on a small host; more of them are boards in a server."""
CHIPS_A_BOARD = 32
"""Chips on one board with a memory of its own: an assumption."""
BOARDS_A_SHARE = 8
"""Boards of chips that feed each other, for which a server's share of one accelerator is charged: an assumption."""
SERVER_W, DESKTOP_W = 250.0, 60.0
"""From this board limit on, a GPU or CPU without a word on its card stands in a server, or in a desktop."""


def host_of(card: Card, chips: float) -> Host:
    """What surrounds a machine.

    Args:
        card: of the machine; what it says itself decides.
        chips: that are powered.
    """
    if card.host is not None:
        return card.host
    if isinstance(card, DigitalCard):
        limit = card.power_max.si
        return "server" if limit >= SERVER_W else "desktop" if limit >= DESKTOP_W else "edge"
    return "edge" if chips <= SMALL else "server"


def server_part(card: Card, chips: float) -> float:
    """How far the surroundings are those of a server, from 0 (a small host) to 1.

    A small host does not turn into a server with the 33rd chip: from 32 chips on, what surrounds them goes over from
    one to the other in proportion to the chips, until they take a whole share of a server.

    Args:
        card: of the machine; where it says its host itself, that is all of it.
        chips: that are powered.
    """
    if card.host is not None or isinstance(card, DigitalCard):
        return float(host_of(card, chips) == "server")
    return min(1.0, max(0.0, (chips - SMALL) / (CHIPS_A_BOARD * BOARDS_A_SHARE)))


ON_CHIP = ("sram-cache", "gain-cell")
"""Memories on the chip, whose idle power is of a megabyte that they hold."""


def outer_memory(card: Card, chips: float) -> str:
    """The component that holds weights of layers on no tile: HBM once the surroundings are all a server's.

    This is the one step that is left between a small host and a server: a memory is of one kind or of another.

    Args:
        card: of the machine.
        chips: that are powered.
    """
    return "hbm" if server_part(card, chips) == 1 else "lpddr"


def cache_memory(card: Card, chips: float) -> str:
    """The component that holds keys and values: what the card names, or the memory beside the chips.

    Args:
        card: of the machine.
        chips: that are powered.
    """
    chosen = card.cache if isinstance(card, CrossbarCard) else None
    return chosen or outer_memory(card, chips)


def units_of(memory: str, chips: float, kept_bytes: float) -> float:
    """How many times a memory's idle power flows: once for each board, or for each megabyte on the chip.

    Args:
        memory: the component.
        chips: that are powered.
        kept_bytes: keys and values.
    """
    return kept_bytes / 1e6 if memory in ON_CHIP else float(boards(chips))


def boards(chips: float) -> int:
    """Boards that some chips lie on.

    Args:
        chips: that are powered.
    """
    return max(1, math.ceil(chips / CHIPS_A_BOARD))


def shares(chips: float) -> Band:
    """Shares of a server (an eighth of a node each) that chips beyond the first board take: one for eight boards.

    From one for all of them, or the part of one that they take, to one for each board.

    Args:
        chips: that are powered.
    """
    more = max(0.0, chips - SMALL) / CHIPS_A_BOARD
    nominal = more / BOARDS_A_SHARE
    return Band(min(1.0, nominal), nominal, more)
