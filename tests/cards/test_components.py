"""Components: every figure has a source, and the scaling between nodes gives what its paper and tables give."""

import math

import pytest

from hpml_sim.cards import list_cards, list_components, load_component, parse_component
from hpml_sim.cost.system.scaling import at_node, law
from hpml_sim.errors import CardError, UnknownNameError

GOOD = """
name = "made-up"
title = "Made up"
summary = "for tests"
version = 1
transfer = { value = 3, unit = "pJ/bit", source = "paper", where = "table 1", status = "measured" }
[sources.paper]
cite = "A paper"
opened = "all of it"
"""


def test_what_the_issue_asks_for_is_there():
    names = set(list_components())
    assert {"logic-45nm", "logic-7nm", "sram-45nm", "sram-7nm", "wire", "chip-link", "lpddr", "hbm", "gddr6"} <= names
    assert {
        "pcie",
        "ethernet",
        "host-server",
        "host-edge",
        "power-supply",
        "facility",
        "leakage",
        "node-scaling",
    } <= names
    assert names.isdisjoint(list_cards())


@pytest.mark.parametrize("name", list_components())
def test_every_figure_names_its_source_and_most_have_bounds(name):
    card = load_component(name)
    figures = list(card.quantities())
    assert figures
    for path, figure in figures:
        assert figure.source in card.sources, path
        assert figure.where or figure.note, path
        assert card.sources[figure.source].opened, path
        assert figure.band().low <= figure.si <= figure.band().high
    assert repr(card).startswith(f"Component {name}:")


def test_a_component_without_a_source_is_refused_in_one_line():
    assert parse_component(GOOD, origin="x.toml").transfer is not None
    with pytest.raises(CardError) as raised:
        parse_component(GOOD.replace('source = "paper", ', ""), origin="x.toml")
    assert str(raised.value) == "x.toml: transfer.source: a figure names its source: a key of [sources]"
    with pytest.raises(CardError, match="unknown source key 'papre'; did you mean 'paper'"):
        parse_component(GOOD.replace('source = "paper"', 'source = "papre"'), origin="x.toml")
    with pytest.raises(CardError, match="not valid TOML"):
        parse_component("name = [", origin="x.toml")
    with pytest.raises(UnknownNameError):
        load_component("sram-6nm")


def test_the_law_is_that_of_its_paper():
    """Stillmaker and Baas: energy a V^2 + b V + c; at 0.9 V, with the coefficients of 45 and 14 nm, by hand."""
    assert law(45) == pytest.approx(1.103 * 0.81 - 0.362 * 0.9 + 0.2767)
    assert law(14) == pytest.approx(0.2363 * 0.81 - 0.09675 * 0.9 + 0.02239)
    assert law(12) == pytest.approx((law(14) + law(10)) / 2)
    assert law(3.5) == pytest.approx(law(7) * math.sqrt(0.5))


def test_between_the_tables_a_figure_lies_between_them_and_the_law_is_in_the_band():
    old, young = load_component("logic-45nm"), load_component("logic-7nm")
    assert at_node(old, young, "operations.mac_fp16", 45).nominal == pytest.approx(1.5e-12)
    assert at_node(old, young, "operations.mac_fp16", 7).nominal == pytest.approx(0.5e-12)
    middle = at_node(old, young, "operations.mac_fp16", math.sqrt(45 * 7))
    assert middle.nominal == pytest.approx(math.sqrt(1.5 * 0.5) * 1e-12)
    for node in (7, 14, 22, 28, 45, 65):
        band = at_node(old, young, "operations.mac_fp16", node)
        assert band.low <= 1.5e-12 * law(node) / law(45) * (1 + 1e-9) or node == 7
        assert band.high >= 2 * band.nominal * (1 - 1e-9)
    finer = [at_node(old, young, "operations.add_int32", n).nominal for n in (5, 7, 10, 16, 28, 45, 90, 130)]
    assert finer == sorted(finer)
