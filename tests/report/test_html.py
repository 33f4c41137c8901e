"""The report as text: complete, self-contained, escaped."""

import base64
import gzip
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from markupsafe import escape

from hpml_sim.errors import HpmlError
from hpml_sim.report.html import MAX_BYTES, render_report, write_report
from hpml_sim.report.sections import limits
from hpml_sim.report.summary import summarize
from hpml_sim.results import line_of
from hpml_sim.units.formatting import DASH
from tests.report.example_rows import TARGETS, example_rows

SEEDS = (0, 1, 2, 3, 4)


class Page(HTMLParser):
    """Tags with their attributes, ids, and a check that what opens also closes."""

    void = frozenset({"meta", "link", "input", "br", "path", "circle", "use", "rect"})

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.void:
            assert self.open.pop() == tag


@pytest.fixture(scope="module")
def text() -> str:
    return render_report(example_rows(), run={"epochs": 20, "on": ["cpu", "h200"]})


def test_one_small_file_that_loads_nothing(text: str) -> None:
    page = Page(text)
    assert page.open == []
    for tag, attributes in page.tags:
        assert "src" not in attributes, tag
        address = attributes.get("href", "")
        if address.startswith("http"):
            assert tag == "a", "addresses stand in plain links only"
        else:
            assert address == "" or address.startswith(("#", "data:")), address
    assert not re.search(r"@import|@font-face|url\((?!#)|fetch\(|XMLHttpRequest|import\(", text)


def test_ids_are_unique_and_every_reference_has_its_target(text: str) -> None:
    page = Page(text)
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    for _, attributes in page.tags:
        if attributes.get("href", "").startswith("#"):
            assert attributes["href"][1:] in ids
    assert set(re.findall(r"url\(#([^)]+)\)", text)) <= set(ids)


def test_same_rows_same_page(text: str) -> None:
    assert render_report(example_rows(), run={"epochs": 20, "on": ["cpu", "h200"]}) == text


def test_holds_every_section(text: str) -> None:
    for heading in (
        "Summary",
        "Results",
        "Accuracy over time",
        "Energy against accuracy",
        "Where the energy goes",
        "Roofline",
        "How the figures were obtained",
        "Conversion of each layer",
        "Limits of this comparison",
        "Scopes and bounds",
        "Sources of the numbers",
        "How it was run",
    ):
        assert f">{heading}</h2>" in text
    for name in TARGETS:
        assert name in text
    assert "not extrapolated to 1 year" in text
    assert "programming the weights, and recalibration against drift" in text
    assert "no RAPL counter is readable" in text
    assert "3f9c0a7be12d" in text
    assert "torch 2.13.0" in text
    assert "<dt>epochs</dt><dd>20</dd>" in text


def test_every_estimated_energy_cites_its_source(text: str) -> None:
    assert 'id="source-8"' in text
    assert '<a href="https://doi.org/10.1038/s41928-023-01010-1" rel="noreferrer">' in text
    assert '<a href="https://arxiv.org/abs/1812.01739" rel="noreferrer">' in text
    energies = re.findall(r'data-head="energy" data-sort="[^"]+">(.*?)</td>', text)
    assert len(energies) == 7
    assert all('href="#source-' in cell for cell in energies)


def test_figures_beside_the_total_are_named_and_set_against_it(text: str) -> None:
    rows = re.findall(
        r"<tr><th scope=\"row\">loihi</th><td class=\"words\">(events alone.*?|calibrating.*?)</td>(.*?)</tr>", text
    )
    assert [words for words, _ in rows] == [
        "events alone, without static power",
        "calibrating against drift, on average",
    ]
    total = 9.8e-6 + 8.1e-6 + 9.7e-7 + 1.6e-7 + 1.7e-7 + 1.3e-8 + 4.4e-9
    assert re.findall(r">([^<]+)</td>", rows[0][1]) == ["1.32 µJ", f"0.880{DASH}1.98", f"{100 * 1.32e-6 / total:.1f} %"]
    assert re.findall(r">([^<]+)</td>", rows[1][1]) == ["2.00 mW", f"1.00{DASH}4.00", "—"]


def test_every_layer_stands_in_the_roofline_table(text: str) -> None:
    table = text[text.index("Operations, traffic and rate of each layer") :].partition("</table>")[0]
    assert table.count("<tr>") == 1 + 12
    assert "<td>act ReLU</td>" in table
    assert re.search(r"fc1 Linear</td><td class=\"number\">16.4 kop</td><td class=\"number\">33.5 kB</td>", table)


def test_missing_is_a_dash_with_a_note_never_zero(text: str) -> None:
    cells = re.findall(r'data-head="1 h, %" data-sort="">(.*?)</td>', text)
    assert len(cells) == 1
    assert "—" in cells[0]
    assert "#note-" in cells[0]


@pytest.mark.parametrize("seeds", [(0,), SEEDS])
def test_downloads_hold_all_the_data(seeds: tuple[int, ...]) -> None:
    rows = example_rows(seeds=seeds)
    links = [a for tag, a in Page(render_report(rows)).tags if tag == "a" and "download" in a]
    content = {}
    for link in links:
        raw = base64.b64decode(link["href"].partition(";base64,")[2])
        name = link["download"]
        content[name.removesuffix(".gz")] = (gzip.decompress(raw) if name.endswith(".gz") else raw).decode()
    assert [json.loads(line) for line in content["results.jsonl"].splitlines()] == [
        json.loads(line_of(r)) for r in rows
    ]
    assert content["table.csv"].startswith("target,kind,card,")
    assert len(content["table.csv"].splitlines()) == 1 + sum(len(r.estimates) for r in rows)


def test_five_targets_five_seeds_four_times_stay_under_a_megabyte() -> None:
    assert len(render_report(example_rows(seeds=SEEDS)).encode()) < MAX_BYTES / 2


def test_a_large_sweep_stays_light_and_says_what_it_does_not_draw() -> None:
    rows = [
        row
        for bits in range(40)
        for row in example_rows(targets=("pcm-hermes",), rename={"pcm-hermes": f"pcm-hermes, adc_bits={bits}"})
    ]
    text = render_report(rows)
    assert len(text.encode()) < MAX_BYTES
    assert text.count("16 of 40 targets are drawn") == 2
    assert "<h1>mlp 64-128-10 on digits, 40 configurations of 1 machine compared</h1>" in text
    assert "and and" not in text
    assert text.count('<th scope="row" role="rowheader"') == 40
    for sentence in limits(summarize(rows)[0]):  # what holds for all is said once
        assert text.count(f"<li>{escape(sentence)}</li>") == 1


@pytest.mark.parametrize(
    "evil", ["<script>alert(1)</script>", "\"><img src=x onerror='alert(1)'>", "</style><b>", "a&amp;b"]
)
def test_names_are_escaped_everywhere(evil: str) -> None:
    rows = []
    for row in example_rows(rename={"pcm-hermes": evil, "loihi": "<script>"}):
        estimates = [
            replace(
                e,
                terms=tuple(replace(t, component=evil, layer=evil) for t in e.terms),
                sources={f"{key}{evil}": f"{cite} {evil}" for key, cite in e.sources.items()},
                excluded=(evil,),
                mapping={evil: 1.0},
            )
            for e in row.estimates
        ]
        card = row.card.model_copy(update={"title": evil})
        layers = [{"layer": evil, evil: evil}]
        changes = {"card": card, "estimates": estimates, "layers": layers, "notes": [evil], "model": evil, "data": evil}
        rows.append(row.model_copy(update={**changes, "config": {evil: evil}, "versions": {evil: evil}}))
    text = render_report(rows, run={evil: evil})
    page = Page(text)
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert [tag for tag, _ in page.tags].count("style") == 1
    assert "img" not in [tag for tag, _ in page.tags]
    assert evil not in text
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert page.open == []


def test_title_and_path(tmp_path) -> None:
    path = write_report(example_rows(targets=("cpu",)), tmp_path / "deep" / "report.html", title="Five & one")
    assert "<title>Five &amp; one</title>" in path.read_text(encoding="utf-8")


def test_a_path_that_cannot_be_written(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HpmlError, match="the results themselves are safe"):
        write_report(example_rows(targets=("cpu",)), tmp_path / "file" / "report.html")


def test_no_rows() -> None:
    with pytest.raises(HpmlError, match="no result rows"):
        render_report([])


@pytest.mark.parametrize(
    "rows",
    [
        example_rows(targets=("cpu",)),
        example_rows(targets=("reram-neurram",), times=(3600.0,)),
        [r.model_copy(update={"estimates": [], "measurements": [], "layers": []}) for r in example_rows()],
    ],
)
def test_little_data(rows) -> None:
    assert Page(render_report(rows)).open == []
