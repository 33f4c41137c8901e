"""Check the links of the built pages: `python docs/links.py build/docs/html`.

Every link to a page and every anchor must exist, nothing may be loaded from elsewhere, and addresses outside must have
the form of one (they are not opened: a build needs no network). The exit status is 1 if anything is wrong.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

_LOADS = {("script", "src"), ("link", "href"), ("img", "src"), ("iframe", "src"), ("source", "src"), ("object", "data")}


class Page(HTMLParser):
    """The ids of a page, and what it links to or loads: (tag, attribute, address)."""

    def __init__(self, path: Path):
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[tuple[str, str, str]] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the ids and addresses of one tag."""
        for name, value in attrs:
            if value and name == "id":
                self.ids.add(value)
            elif value and name in ("href", "src", "data"):
                self.links.append((tag, name, value))


def wrong(folder: Path) -> Iterator[str]:
    """One sentence for each link that leads nowhere."""
    pages = {path: Page(path) for path in sorted(folder.rglob("*.html"))}
    for path, page in pages.items():
        where = path.relative_to(folder)
        for tag, attribute, address in page.links:
            parts = urlsplit(address)
            if parts.scheme in ("http", "https"):
                if (tag, attribute) in _LOADS:
                    yield f"{where}: loads {address}"
                elif "." not in parts.netloc or " " in address:
                    yield f"{where}: {address} is no address"
            elif parts.scheme in ("mailto", "data"):
                continue
            elif parts.scheme:
                yield f"{where}: {address} has an unknown scheme"
            else:
                target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
                if not target.exists():
                    yield f"{where}: {address} leads to no file"
                elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids:
                    yield f"{where}: {address} leads to no place in its page"


def main(folder: str) -> int:
    """Print what is wrong; 1 if anything is."""
    found = list(dict.fromkeys(wrong(Path(folder).resolve())))
    print("\n".join(found) or f"all links of {folder} lead somewhere")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
