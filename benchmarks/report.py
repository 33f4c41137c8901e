"""How long `report.html` of 5 targets x 5 seeds x 4 times takes to write and to open in Chromium, and what it weighs.

    python benchmarks/report.py [--opens 15] [--chromium PATH]

The rows are those of a real comparison on digits (with little training: the accuracies do not matter here). Each open
is in a fresh browser context; times are those of the page's `load` event and of its first contentful paint, from the
start of the navigation. The exit status is 1 if anything is fetched, the page weighs a megabyte or more, or the
median of `load` is a second or more.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

import hpml_sim as hs
from hpml_sim.report.html import write_report

TARGETS = ["cpu", "h200", "pcm-hermes", "reram-neurram", "loihi"]
TIMES = ["1 s", "1 h", "1 day", "1 year"]
MAX_BYTES, MAX_S = 1_000_000, 1.0
PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
LOAD = "performance.getEntriesByType('navigation')[0].loadEventEnd"


def opened(browser: Browser, page_file: Path) -> tuple[float, float, int]:
    """Seconds to `load` and to the first paint, and how many requests went anywhere but to the file itself."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(page_file.as_uri())
    page.wait_for_function(PAINT)
    load, paint = page.evaluate(LOAD), page.evaluate(PAINT)
    context.close()
    return load / 1e3, paint / 1e3, sum(not url.startswith(("data:", page_file.as_uri())) for url in requests)


def said(what: str, values: Sequence[float]) -> None:
    print(f"{what}: {statistics.median(values):.3g} s ({min(values):.3g}..{max(values):.3g}, {len(values)} times)")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--opens", type=int, default=15)
    parser.add_argument("--chromium", default=shutil.which("chromium") or shutil.which("google-chrome"))
    arguments = parser.parse_args()
    network = hs.models.mlp(64, 128, 10)
    result = hs.compare(network, "digits", TARGETS, seeds=5, times=TIMES, epochs=1, finetune_epochs=1)
    combinations = {(row.target, row.seed) for row in result.rows}
    assert len(combinations) == 25, combinations
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        file = Path(folder) / "report.html"
        writing = []
        for _ in range(5):
            start = time.perf_counter()
            write_report(result.rows, file)
            writing.append(time.perf_counter() - start)
        browser = playwright.chromium.launch(executable_path=arguments.chromium, args=["--no-sandbox"])
        opened(browser, file)  # the browser warms up
        loads, paints, fetched = zip(*(opened(browser, file) for _ in range(arguments.opens)), strict=True)
        version = browser.version
        browser.close()
        size = file.stat().st_size
    print(f"{len(result.rows)} rows, {size / 1e3:,.0f} kB, Chromium {version}, {sum(fetched)} requests elsewhere")
    said("written", writing)
    said("load event", loads)
    said("first contentful paint", paints)
    return int(size >= MAX_BYTES or sum(fetched) > 0 or statistics.median(loads) >= MAX_S)


if __name__ == "__main__":
    sys.exit(main())
