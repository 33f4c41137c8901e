"""What an object shows of itself: a short table for terminals, and one in HTML for notebooks."""

from __future__ import annotations

import html
import re
import textwrap
from collections.abc import Iterable, Sequence

WIDTH = 80
"""Characters of a terminal that nobody widened."""
_SHORTEST = 6
"""Characters that a text column keeps however many columns there are."""
_FIGURE = re.compile(r"[-+]?[\d.,]+( ?\S{1,6})?( \([^)]*\))?")


def text_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    title: str = "",
    note: str = "",
    width: int = WIDTH,
    wrap: bool = False,
) -> str:
    """A table of plain text that shows every column within `width` characters.

    The first column is text. Columns of numbers stand at the right and are never cut; where the table is too wide, its
    widest columns of text give way.

    Args:
        columns: headings; an empty sequence leaves the line of headings out.
        rows: cells, as many in each row as there are columns: text, numbers, or None for an empty cell.
        title: a line above the table.
        note: a line below the table, or several.
        width: characters in a line.
        wrap: whether long text goes on in the next line; False cuts it and ends it with an ellipsis.

    Example:
        >>> print(text_table(["layer", "tiles"], [["0", 6], ["2", 1]]))
        layer  tiles
        0          6
        2          1
    """
    cells = [[_plain(cell) for cell in row] for row in rows]
    lines = [list(columns), *cells] if columns else cells
    count = max((len(line) for line in lines), default=0)
    of_column = [[line[k] for line in lines if k < len(line)] for k in range(count)]
    body = [[line[k] for line in cells if k < len(line)] for k in range(count)]
    # the first column names the row: layers are called "0", "1", ... and are no figures
    right = [k > 0 and any(texts) and all(_FIGURE.fullmatch(t) for t in texts if t) for k, texts in enumerate(body)]
    wide = _widths([max(map(len, texts), default=0) for texts in of_column], right, width)
    printed = [printable for line in lines for printable in _lines(line, wide, right, wrap)]
    around = [[_cut(line, width) for line in text.splitlines()] for text in (title, note)]
    return "\n".join([*around[0], *printed, *around[1]])


def html_table(
    title: str,
    rows: Iterable[Sequence[object]],
    *,
    columns: Sequence[str] = (),
    note: str = "",
) -> str:
    """The same table for a notebook, as HTML without colors of its own, so that it suits light and dark pages.

    Every text is escaped: what a file, a model or a user calls itself is never taken for markup.

    Args:
        title: what stands in bold above the table.
        rows: text, numbers, or None for an empty cell. Without `columns`, the first cell of each row is its heading.
        columns: headings.
        note: what stands below the table.

    Example:
        >>> "&lt;b&gt;" in html_table("card", [["name", "<b>"]])
        True
    """
    cells = [[_plain(cell) for cell in row] for row in rows]
    head = "".join(f'<th style="text-align:left">{html.escape(name)}</th>' for name in columns)
    body = "".join(
        "<tr>" + "".join(_html_cell(cell, heading=not columns and k == 0) for k, cell in enumerate(row)) + "</tr>"
        for row in cells
    )
    return (
        f"<div><strong>{html.escape(title)}</strong>"
        f"<table>{f'<thead><tr>{head}</tr></thead>' if head else ''}<tbody>{body}</tbody></table>"
        f"{f'<small>{html.escape(note)}</small>' if note else ''}</div>"
    )


def plain_lines(title: str, rows: Iterable[tuple[str, object]], *, width: int = WIDTH) -> str:
    """A heading and, below it, a line for each name and value: what an object's `__repr__` gives.

    Args:
        title: first line.
        rows: names and values; a value that is empty is left out.
        width: characters in a line; a longer value is cut and ends with an ellipsis.

    Example:
        >>> print(plain_lines("Card pcm-hermes", [("scope", "chip"), ("note", "")]))
        Card pcm-hermes
          scope  chip
    """
    shown = [(name, text) for name, text in ((name, _plain(value)) for name, value in rows) if text]
    longest = max((len(name) for name, _ in shown), default=0)
    return "\n".join([_cut(title, width), *(_cut(f"  {name:<{longest}}  {text}", width) for name, text in shown)])


def _plain(cell: object) -> str:
    """A cell as text on one line."""
    if cell is None:
        return ""
    if isinstance(cell, bool) or not isinstance(cell, (int, float)):
        return " ".join(str(cell).split())
    return f"{cell:,}" if isinstance(cell, int) else f"{cell:.4g}"


def _html_cell(text: str, *, heading: bool) -> str:
    if heading:
        return f'<th style="text-align:left">{html.escape(text)}</th>'
    align = "right" if _FIGURE.fullmatch(text) else "left"
    return f'<td style="text-align:{align}">{html.escape(text)}</td>'


def _widths(natural: list[int], right: list[bool], width: int) -> list[int]:
    """Characters of each column, so that all of them and two spaces between them fit, where that can be."""
    wide = list(natural)
    room = width - 2 * (len(wide) - 1)
    while sum(wide) > room:
        text = [k for k, n in enumerate(wide) if not right[k] and n > _SHORTEST]
        if not text:
            break
        wide[max(text, key=lambda k: wide[k])] -= 1
    return wide


def _lines(line: list[str], wide: list[int], right: list[bool], wrap: bool) -> list[str]:
    """The lines that one row takes."""
    parts = [
        (textwrap.wrap(text, wide[k], break_on_hyphens=False) or [""]) if wrap else [_cut(text, wide[k])]
        for k, text in enumerate(line)
    ]
    return [
        "  ".join(
            (part[n] if n < len(part) else "").rjust(wide[k])
            if right[k]
            else (part[n] if n < len(part) else "").ljust(wide[k])
            for k, part in enumerate(parts)
        ).rstrip()
        for n in range(max(map(len, parts), default=0))
    ]


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(width - 1, 0)] + "…"
