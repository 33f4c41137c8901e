"""How many constants of each card were fitted to records: counted in the cards' own files, and said in the docs."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hpml_sim.cards import DigitalCard, list_cards, load_card

ROOT = Path(__file__).parents[2]
NAMES = [name for name in list_cards() if isinstance(load_card(name), DigitalCard)]
BOUNDS = ("time_within", "energy_within")
"""Bounds of an estimate: they move no estimate."""


def quantities(table: dict[str, Any], place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    for name, value in table.items():
        if isinstance(value, dict):
            if {"value", "unit"} <= set(value):
                yield (*place, name), value
            elif name != "sources":
                yield from quantities(value, (*place, name))


def fitted(name: str) -> Counter[str]:
    """Fitted quantities by what they are of: "kernels", "serving", or the name of a link."""
    found: Counter[str] = Counter()
    for place, quantity in quantities(tomllib.loads((ROOT / "devices" / f"{name}.toml").read_text())):
        said = f"{quantity.get('where', '')} {quantity.get('note', '')}"
        is_fitted = quantity["status"] == "measured" and re.search(r"\bfit(ted|_\w+\.py)", said)
        if is_fitted and place[-1] not in BOUNDS:
            part = {"serving": "serving", "power": "serving", "links": f"link {place[:2][-1]}"}
            found[part.get(place[0], "kernels") if len(place) > 1 else "kernels"] += 1
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_card_has_at_most_twelve_free_constants_of_a_kind(name: str) -> None:
    counts = fitted(name)
    assert counts["kernels"] <= 12, counts
    assert counts["serving"] <= 12, counts
    for part, count in counts.items():
        if part.startswith("link "):
            assert count <= 6, counts


def test_the_docs_list_what_was_fitted() -> None:
    text = (ROOT / "docs" / "gpu_validation.md").read_text()
    rows = re.findall(r"^\| `([\w.-]+)` \| (\d+) \| (\d+) \| (.*?) \|$", text, re.MULTILINE)
    said = {
        name: Counter({"kernels": int(kernels), "serving": int(serving)})
        + Counter({f"link {link}": int(n) for link, n in re.findall(r"`([\w-]+)` (\d+)", links)})
        for name, kernels, serving, links in rows
    }
    assert said == {name: counts for name in NAMES if (counts := fitted(name))}
