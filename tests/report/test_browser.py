"""The report in a real browser: nothing fetched, nothing clipped, sort, filter, keyboard, print, dark, no script."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hpml_sim.report.html import write_report
from tests.report.example_rows import TARGETS, example_rows, two_metrics_rows

CHROMIUM = next((p for name in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(name))), None)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH (apt-get install chromium)"),
]
ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--headless",
]

# Text that is seen: each text node's rectangles, with what may clip it. Text that its own box scrolls may leave the
# box; text for screen readers is out of sight on purpose.
GEOMETRY = r"""() => {
  const problems = [], boxes = [];
  const wide = document.documentElement.clientWidth;
  const root = document.documentElement;
  if (root.scrollWidth > wide) problems.push(`the page is ${root.scrollWidth} px wide in ${wide}`);
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; (node = walker.nextNode());) {
    const element = node.parentElement, text = node.textContent.trim();
    if (!text || element.closest("script, style, title, .skip, .hidden")) continue;
    if (!element.checkVisibility({ visibilityProperty: true, opacityProperty: true })) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    const scrolls = element.closest(".scroll") !== null;
    for (const r of range.getClientRects()) {
      if (r.width < 1 || r.height < 1) continue;
      const y = r.top + scrollY, place = `"${text.slice(0, 40)}" at ${Math.round(r.left)}, ${Math.round(y)}`;
      if (!scrolls && (r.left < -0.5 || r.right > wide + 0.5)) problems.push(`outside the page: ${place}`);
      const frame = element.closest(".frame, .scroll, .findings");
      if (frame && !scrolls) {
        const f = frame.getBoundingClientRect();
        if (r.left < f.left - 0.5 || r.right > f.right + 0.5 || r.top < f.top - 2 || r.bottom > f.bottom + 2)
          problems.push(`outside its frame: ${place}`);
      }
      // the glyphs fill about the middle 70 % of a line box
      const [top, bottom] = [y + 0.15 * r.height, y + 0.85 * r.height];
      boxes.push({ node, place, left: r.left, right: r.right, top, bottom });
    }
    for (let e = element; e && e !== document.body; e = e.parentElement) {
      const style = getComputedStyle(e);
      if (style.overflowX === "hidden" || style.overflowX === "clip" || style.textOverflow === "ellipsis") {
        if (e.scrollWidth > e.clientWidth + 1) problems.push(`clipped: "${text.slice(0, 40)}"`);
      }
    }
  }
  boxes.sort((a, b) => a.top - b.top);
  for (let i = 0; i < boxes.length; i++) {
    for (let j = i + 1; j < boxes.length && boxes[j].top < boxes[i].bottom; j++) {
      const a = boxes[i], b = boxes[j];
      const x = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const y = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      if (a.node !== b.node && x > 1.5 && y > 1.5) problems.push(`overlap: ${a.place} and ${b.place}`);
    }
  }
  return problems;
}"""

# WCAG 2.2 contrast of each text with the first opaque background behind it.
CONTRAST = r"""() => {
  const parse = (c) => c.match(/[\d.]+/g).map(Number);
  const linear = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => [r, g, b].map((v) => linear(v / 255))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const low = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = Array.from(element.childNodes).some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || element.closest("script, style, title") || !element.checkVisibility()) continue;
    const svg = element.namespaceURI.endsWith("svg");
    const style = getComputedStyle(element);
    const ink = parse(svg ? style.fill : style.color);
    let behind = element, paper;
    do { paper = parse(getComputedStyle(behind).backgroundColor); behind = behind.parentElement; }
    while (behind && paper.length === 4 && paper[3] === 0);
    const [a, b] = [light(ink), light(paper)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) low.push(`${ratio.toFixed(2)}: ${element.tagName} "${element.textContent.trim().slice(0, 30)}"`);
  }
  return low;
}"""


FOCUSED = "document.activeElement.name || document.activeElement.innerText.trim().split('\\n')[0]"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGS)
        yield found
        found.close()


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("report")
    long = {
        "pcm-hermes": "pcm-hermes, ADC 6 bits, tiles of 128 by 128",
        "loihi": "loihi_with_one_very_long_word_as_its_label",
    }
    return {
        "one seed": write_report(example_rows(), folder / "one.html"),
        "five seeds": write_report(example_rows(seeds=(0, 1, 2, 3, 4)), folder / "five.html"),
        "long names": write_report(example_rows(rename=long), folder / "long.html"),
        "twenty targets": write_report(
            [r for k in range(4) for r in example_rows(rename={t: f"{t}, ADC {k + 4} bits" for t in TARGETS})],
            folder / "twenty.html",
        ),
        "two metrics": write_report(two_metrics_rows(), folder / "metrics.html"),
        "one target": write_report(example_rows(targets=("cpu",)), folder / "cpu.html"),
    }


class Opened:
    """A page with what it asked the network for and what it said on the console."""

    def __init__(self, browser: Any, path: Path, width: int, **options: Any):
        self.context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        self.page = self.context.new_page()
        self.requests: list[str] = []
        self.console: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.console.append(message.text))
        self.page.on("pageerror", lambda error: self.console.append(str(error)))
        self.page.goto(path.as_uri())
        self.fetched = [url for url in self.requests if url != path.as_uri() and not url.startswith("data:")]

    def __enter__(self) -> Any:
        return self.page

    def __exit__(self, *_: object) -> None:
        self.context.close()
        assert self.fetched == []
        assert self.console == []


def names(page: Any) -> list[str]:
    return page.locator("#comparison tbody tr:visible th span").all_inner_texts()


def column(page: Any, number: int) -> list[str]:
    cells = page.locator(f"#comparison tbody tr:visible td:nth-child({number})")
    return cells.evaluate_all("cells => cells.map(cell => cell.dataset.sort)")


@pytest.mark.parametrize(
    "which", ["one seed", "five seeds", "long names", "twenty targets", "two metrics", "one target"]
)
@pytest.mark.parametrize("width", [400, 800, 1280, 1920])
def test_nothing_overflows_overlaps_or_is_clipped(
    browser: Any, reports: dict[str, Path], which: str, width: int
) -> None:
    with Opened(browser, reports[which], width) as page:
        page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        assert page.evaluate(GEOMETRY) == []
        # the main table never needs its scroll box: it is small enough, or its lines have become cards
        assert page.evaluate("document.querySelector('#results .scroll').scrollWidth") <= page.evaluate(
            "document.querySelector('#results .scroll').clientWidth"
        )


def test_the_geometric_check_sees_what_it_should(browser: Any, reports: dict[str, Path]) -> None:
    with Opened(browser, reports["one seed"], 1280) as page:
        page.evaluate("document.querySelector('h1').style.cssText = 'width: 3000px; white-space: nowrap'")
        assert any("px wide" in problem for problem in page.evaluate(GEOMETRY))
        page.evaluate("document.querySelector('h1').style.cssText = 'position: relative; top: 50px'")
        assert any("overlap" in problem for problem in page.evaluate(GEOMETRY))
        page.evaluate(
            "document.querySelector('h1').style.cssText = 'width: 90px; overflow: hidden; white-space: nowrap'"
        )
        assert any("clipped" in problem for problem in page.evaluate(GEOMETRY))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280])
def test_contrast_in_both_themes(browser: Any, reports: dict[str, Path], scheme: Any, width: int) -> None:
    with Opened(browser, reports["one seed"], width, color_scheme=scheme) as page:
        assert page.evaluate(CONTRAST) == []
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(int(v) for v in re.findall(r"\d+", paper)[:3]) < 150) == (scheme == "dark")


def test_sort_by_click_ranks_within_a_scope_and_puts_missing_last(browser: Any, reports: dict[str, Path]) -> None:
    with Opened(browser, reports["one seed"], 1280) as page:
        button = page.get_by_role("button", name=re.compile("^Energy"))
        button.click()
        head = page.get_by_role("columnheader", name=re.compile("^Energy"))
        assert head.get_attribute("aria-sort") == "ascending"
        assert names(page) == ["reram-neurram", "pcm-hermes", "loihi", "h200", "h200", "cpu", "cpu", "cpu", "cpu"]
        assert column(page, 9)[-2:] == ["", ""]
        assert "within each scope" in page.get_by_role("status").inner_text()
        button.click()
        assert head.get_attribute("aria-sort") == "descending"
        assert names(page)[:3] == ["loihi", "pcm-hermes", "reram-neurram"]
        page.get_by_role("button", name=re.compile("^1 h")).click()
        assert head.get_attribute("aria-sort") is None
        accuracies = column(page, 6)
        assert accuracies[-1] == "", "no data is neither best nor worst"
        assert accuracies[:-1] == sorted(accuracies[:-1], key=float)


def test_everything_is_within_reach_of_the_keyboard(browser: Any, reports: dict[str, Path]) -> None:
    with Opened(browser, reports["one seed"], 1280) as page:
        reached = []
        for _ in range(60):
            page.keyboard.press("Tab")
            reached.append(page.evaluate(FOCUSED))
            if reached[-1].startswith("Batch"):
                break
        assert reached[0] == "Skip to the results"
        assert {"text", "scope", "provenance", "one", "Reset", "Target", "Scope"} <= set(reached)
        page.keyboard.press("Enter")
        assert column(page, 4) == sorted(column(page, 4), key=float)
        page.keyboard.press("Space")
        assert page.get_by_role("columnheader", name="Batch", exact=True).get_attribute("aria-sort") == "descending"


@pytest.mark.parametrize("width", [400, 1280])
def test_filter_and_reset(browser: Any, reports: dict[str, Path], width: int) -> None:
    with Opened(browser, reports["one seed"], width) as page:
        status = page.get_by_role("status")
        assert status.inner_text() == "9 of 9 lines shown."
        page.get_by_label("Find").fill("LOIHI")
        assert names(page) == ["loihi"]
        assert status.inner_text().startswith("1 of 9")
        page.get_by_label("Find").fill("crossbar")
        assert names(page) == ["pcm-hermes", "reram-neurram"]
        page.get_by_label("Find").fill("")
        form = page.get_by_role("form", name="Filter the table")
        form.get_by_label("Provenance").select_option("measured")
        assert names(page) == ["cpu", "cpu"]
        form.get_by_label("batch 1 only").check()
        assert names(page) == ["cpu"]
        form.get_by_label("Scope").select_option("board")
        assert names(page) == []
        page.get_by_role("button", name="Reset").click()
        page.wait_for_function("document.querySelectorAll('#comparison tbody tr:not([hidden])').length === 9")
        assert list(dict.fromkeys(names(page))) == list(TARGETS)


@pytest.mark.parametrize("width", [400, 1280])
def test_screen_readers_get_names(browser: Any, reports: dict[str, Path], width: int) -> None:
    with Opened(browser, reports["one seed"], width) as page:
        table = page.get_by_role("table", name="Accuracy and cost of each target")
        assert table.get_by_role("row").count() == 10
        assert table.get_by_role("rowheader").count() == 9
        images = page.get_by_role("img")
        assert images.count() == 4
        labels = [images.nth(i).get_attribute("aria-label") for i in range(4)]
        assert "pcm-hermes 96.3 ± 0.3 %" in labels[0]
        assert "lowest first: reram-neurram" in labels[1]
        assert "Largest share" in labels[2]
        assert "cpu at batch 1: launch (100 %)" in labels[3]
        assert page.locator("h1").count() == 1
        assert page.get_by_role("link", name="note 1").count() == 2


def test_hover_says_what_a_mark_stands_for(browser: Any, reports: dict[str, Path]) -> None:
    with Opened(browser, reports["one seed"], 1280) as page:
        tip = page.locator(".tip")
        assert not tip.is_visible()
        for section, count, which, said in (
            ("#energy", 7, "loihi", "loihi, batch 1, estimated: 19.3 µJ (13.5"),
            ("#roofline", 12, "h200, batch 1, layer fc1", "h200, batch 1, layer fc1 Linear: 0.489 op/byte, 3.28 Gop/s"),
            ("#parts", 31, "loihi, x86 host", "loihi, x86 host: 8.12 µJ (7.38"),
        ):
            marks = page.locator(f"{section} .wide [data-tip]")
            assert marks.count() == count
            page.locator(f'{section} .wide [data-tip^="{which}"]').first.hover()
            assert tip.inner_text().startswith(said)
            edges = tip.bounding_box()
            assert edges["x"] >= 0
            assert edges["x"] + edges["width"] <= 1280
            assert edges["y"] >= 0
        page.keyboard.press("Escape")
        assert not tip.is_visible()


def test_a_finger_gets_the_same_words_and_they_stay_on_the_screen(browser: Any, reports: dict[str, Path]) -> None:
    with Opened(browser, reports["one seed"], 400, has_touch=True) as page:
        for mark in page.locator("#time .narrow [data-tip]").all():
            mark.tap()
            edges = page.locator(".tip").bounding_box()
            assert edges["x"] >= 0
            assert edges["x"] + edges["width"] <= 400


def test_opens_at_once(browser: Any, reports: dict[str, Path]) -> None:
    """A loose bound against something quadratic; benchmarks/report.py has the figure."""
    with Opened(browser, reports["five seeds"], 1280) as page:
        timing = "performance.getEntriesByType('navigation')[0].loadEventEnd"
        assert 0 < page.evaluate(timing) < 5000


def test_prints_whole(browser: Any, reports: dict[str, Path], tmp_path: Path) -> None:
    with Opened(browser, reports["one seed"], 1020) as page:  # 269 mm of A4 across, less its margins
        page.emulate_media(media="print")
        assert not page.locator("#controls").is_visible()
        assert not page.locator("nav").is_visible()
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert page.locator("details:not([open])").count() == 0
        assert page.evaluate(GEOMETRY) == []
        assert page.evaluate("document.querySelector('#comparison').getBoundingClientRect().right <= innerWidth")
        page.evaluate("dispatchEvent(new Event('afterprint'))")
        assert page.locator("details:not([open])").count() > 0
        pdf = page.pdf(path=str(tmp_path / "report.pdf"), prefer_css_page_size=True)
        assert pdf.startswith(b"%PDF")


def test_complete_without_its_script(browser: Any, reports: dict[str, Path]) -> None:
    with Opened(browser, reports["one seed"], 1280, java_script_enabled=False) as page:
        assert page.locator("#comparison tbody tr").count() == 9
        assert not page.locator("#controls").is_visible()
        assert page.locator("#comparison thead").inner_text().split()[:3] == ["Target", "Scope", "Provenance"]


def test_downloads_are_files(browser: Any, reports: dict[str, Path]) -> None:
    with Opened(browser, reports["one seed"], 1280) as page, page.expect_download() as waiting:
        page.get_by_role("link", name=re.compile("^table.csv")).click()
    assert waiting.value.suggested_filename == "table.csv"
