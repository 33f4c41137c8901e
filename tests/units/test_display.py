from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpml_sim.units.display import html_table, plain_lines, text_table

cells = st.one_of(st.text(max_size=120), st.integers(-(10**9), 10**9), st.floats(allow_nan=False), st.none())


@given(st.lists(st.tuples(st.text(max_size=120), cells, cells), max_size=6), st.booleans())
def test_a_table_of_text_fits_the_width_and_has_all_columns(rows, wrap):
    shown = text_table(["layer", "tiles", "why"], rows, wrap=wrap, title="a title", note="a note")
    lines = shown.splitlines()
    assert lines[0] == "a title"
    assert lines[-1] == "a note"
    assert max(map(len, lines)) <= 80
    assert [word[:4] for word in lines[1].split()] == ["laye", "tile", "why"]


def test_long_text_is_wrapped_or_cut_and_numbers_never():
    rows = [["encoder", 123456789, "word " * 30]]
    cut = text_table(["layer", "tiles", "why"], rows)
    wrapped = text_table(["layer", "tiles", "why"], rows, wrap=True)
    assert "123,456,789" in cut
    assert cut.endswith("…")
    assert len(cut.splitlines()) == 2
    assert wrapped.count("word") == 30


def test_columns_of_numbers_stand_at_the_right_but_names_of_layers_at_the_left():
    shown = text_table(["layer", "tiles"], [["0", 6], ["10", 1234]])
    assert shown.splitlines() == ["layer  tiles", "0          6", "10     1,234"]


class _Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.text, self.open = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.open.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.mark.parametrize("columns", [(), ("<script>a</script>", "b")])
def test_html_is_escaped_well_formed_and_without_colors(columns):
    page = html_table("<b>title</b>", [["<img src=x>", 3], ['"&', None]], columns=columns, note="<i>note</i>")
    parsed = _Tags()
    parsed.feed(page)
    assert not parsed.open
    assert not {"b", "img", "i", "script"} & set(parsed.tags)
    assert {"<b>title</b>", "<img src=x>", '"&', "<i>note</i>", *columns[:1]} <= set(parsed.text)
    assert all("color" not in value and "background" not in value for _, value in parsed.attributes)


def test_lines_of_a_repr_leave_out_what_is_empty_and_cut_what_is_long():
    shown = plain_lines("Card x", [("scope", "chip"), ("note", ""), ("sources", "long " * 40)])
    assert shown.splitlines()[:2] == ["Card x", "  scope    chip"]
    assert "note" not in shown
    assert max(map(len, shown.splitlines())) == 80


def test_a_row_without_text_keeps_its_line():
    assert text_table(["", "a"], [["", None], ["", 1]], title="t").split("\n") == ["t", "  a", "", "  1"]
