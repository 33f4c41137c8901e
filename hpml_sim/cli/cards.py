"""What `hpml-sim cards`, `cards show` and `cards check` show; no argument is parsed here and nothing is printed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from hpml_sim.cards import Card, CrossbarCard, DigitalCard, Noise, Quantity, list_cards, load_card
from hpml_sim.errors import CardError

if TYPE_CHECKING:
    from collections.abc import Iterator

_WEAK = {"projection", "scaled", "assumption", "unverified"}
"""Statuses that a reader should not overlook: they are set in yellow."""
_KINDS = ("digital", "crossbar", "neuromorphic")


def cards_json() -> list[dict[str, Any]]:
    """One entry a card, by kind and name: name, kind, scope, year, silicon, title, summary, numbers, weak_numbers.

    `numbers` counts the figures of the card, `weak_numbers` those that are a projection, scaled, an assumption or
    unverified.
    """
    cards = sorted((load_card(name) for name in list_cards()), key=lambda card: (_KINDS.index(card.kind), card.name))
    return [_head(card) for card in cards]


def cards_table() -> Table:
    """All cards, a row each, grouped by kind."""
    table = Table(title="Device cards", caption="A number of a card with its source: hpml-sim cards show NAME")
    table.add_column("card", style="bold", no_wrap=True)
    for heading in ("kind", "scope", "year"):
        table.add_column(heading, no_wrap=True)
    table.add_column("numbers", justify="right")
    table.add_column("weak", justify="right")
    table.add_column("what it is")
    last = ""
    for entry in cards_json():
        if last and entry["kind"] != last:
            table.add_section()
        last = entry["kind"]
        weak = Text(str(entry["weak_numbers"]), style="yellow" if entry["weak_numbers"] else "dim")
        table.add_row(
            entry["name"],
            entry["kind"],
            entry["scope"],
            str(entry["year"]),
            str(entry["numbers"]),
            weak,
            Text(entry["title"]),
        )
    return table


def card_json(name_or_path: str | Path) -> dict[str, Any]:
    """Everything the card holds.

    The head as in `cards_json`, then `limits`; `settings`, what is not a number with a source (the encoder, how inputs
    reach the rows, ...); `quantities`, a dict for each number (path, value, unit, low, high, si, status, source,
    band_source, where, note); `noise` for crossbars; `sources`.

    Raises:
        UnknownNameError: no card has this name.
        CardError: the card is broken.
    """
    card = load_card(name_or_path)
    quantities = [
        {
            "path": path,
            "value": q.value,
            "unit": q.unit,
            "low": q.low,
            "high": q.high,
            "si": q.si,
            "status": q.status,
            "source": q.source,
            "band_source": q.band_source,
            "where": q.where,
            "note": q.note,
        }
        for path, q in card.quantities()
    ]
    noise = {"noise": card.noise.model_dump()} if isinstance(card, CrossbarCard) else {}
    sources = {key: source.model_dump() for key, source in card.sources.items()}
    return {
        **_head(card),
        "version": card.version,
        "limits": card.limits,
        "settings": dict(_settings(card)),
        "quantities": quantities,
        **noise,
        "sources": sources,
    }


def card_table(name_or_path: str | Path) -> Table:
    """Every number of a card with its unit, band, status and source; then its noise model, limits and sources.

    Raises:
        UnknownNameError: no card has this name.
        CardError: the card is broken.
    """
    card = load_card(name_or_path)
    built = "" if card.silicon else ", never built"
    page = Table.grid(padding=(0, 0))
    page.add_column()
    page.add_row(Text(f"{card.name}: {card.title}", style="bold"))
    page.add_row(Text(card.summary))
    page.add_row(Text(f"{card.kind}, scope {card.scope}, {card.year}{built}, version {card.version}", style="dim"))
    for name, value in _settings(card):
        page.add_row(Text(f"{name} = {value}", style="dim"))
    page.add_row("")
    page.add_row(_numbers(card))
    if isinstance(card, CrossbarCard):
        page.add_row(_noise(card.noise))
    if card.limits:
        page.add_row(_list("What the figures leave out", ((" -", sentence) for sentence in card.limits)))
    entries = ((key, _source_text(card, key)) for key in card.sources)
    page.add_row(_list("Sources", entries))
    return page


def check_card(path: str | Path) -> Card:
    """Read the card in a file.

    Raises:
        CardError: every problem found, a line each: the file, the field, and what is allowed.
    """
    if str(path) in list_cards():
        raise CardError(f"card {str(path)!r}: that is a built-in card; `hpml-sim cards show {path}` shows it")
    if not str(path).endswith(".toml"):
        raise CardError(f"card file {str(path)!r}: the name must end in .toml")
    card = load_card(path)
    stem = Path(path).stem
    if card.name != stem:
        raise CardError(f"{path}: name: is {card.name!r}, but the file's name says {stem!r}; make them equal")
    return card


def _head(card: Card) -> dict[str, Any]:
    figures = [quantity for _, quantity in card.quantities()]
    return {
        "name": card.name,
        "kind": card.kind,
        "scope": card.scope,
        "year": card.year,
        "silicon": card.silicon,
        "title": card.title,
        "summary": card.summary,
        "numbers": len(figures),
        "weak_numbers": sum(q.status in _WEAK for q in figures),
    }


def _settings(card: Card) -> Iterator[tuple[str, str]]:
    """What a card says in words: choices without a number."""
    if isinstance(card, DigitalCard):
        yield "device", card.device
    elif isinstance(card, CrossbarCard):
        if card.component is not None:
            part = card.component
            yield "component.encoding", part.encoding
            yield "component.signed_rows", str(part.signed_rows).lower()
            yield "component.pipelined", str(part.pipelined).lower()
    else:
        yield "encoder", card.encoder


def _numbers(card: Card) -> Table:
    table = Table(title="Numbers", title_justify="left", box=SIMPLE_HEAD, show_lines=False, padding=(0, 1))
    table.add_column("field", overflow="fold")
    table.add_column("value\nlow to high", justify="right", no_wrap=True)
    table.add_column("status", no_wrap=True)
    table.add_column("source: where; how", ratio=1)
    for path, q in card.quantities():
        keys = q.source + (f" (bounds {q.band_source})" if q.band_source else "")
        where = Text(keys, style="cyan") + Text(": " + "; ".join(part for part in (q.where, q.note) if part))
        table.add_row(path, f"{q}{_band(q)}", Text(q.status, style="yellow" if q.status in _WEAK else ""), where)
    return table


def _band(q: Quantity) -> str:
    if q.low is None and q.high is None:
        return ""
    low, high = q.value if q.low is None else q.low, q.value if q.high is None else q.high
    return f"\n{low:g} to {high:g}"


def _noise(noise: Noise) -> Table:
    options = ", ".join(f"{name} = {value:g}" for name, value in noise.options.items())
    times = ", ".join(f"{t:g} s" for t in noise.times_s) if noise.times_s else "any"
    rows = [("model", noise.model), ("settings", options or "none"), ("times", times), ("status", noise.status)]
    rows += [("source", noise.source), ("where", noise.where), ("note", noise.note)]
    return _list("Noise and drift", ((name, text) for name, text in rows if text))


def _list(title: str, entries: Iterator[tuple[str, str]]) -> Table:
    table = Table(title=f"\n{title}", title_justify="left", box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="cyan", no_wrap=True)
    table.add_column()
    for name, text in entries:
        table.add_row(name, Text(text))
    return table


def _source_text(card: Card, key: str) -> str:
    source = card.sources[key]
    place = f"https://doi.org/{source.doi}" if source.doi else source.url
    opened = f"Opened: {source.opened}" if source.opened else ""
    return "\n".join(part for part in (source.cite, place, opened) if part)
