"""A target from a card's name, and what of a target holds its weights."""

import pytest

from hpml_sim.errors import CardError, HpmlError, UnknownNameError
from hpml_sim.targets import Analog, Digital, InMemory, Spiking, analog_part, as_target, in_memory


@pytest.mark.parametrize(
    ("card", "kind"), [("cpu", Digital), ("h200", Digital), ("pcm-hermes", Analog), ("loihi", Spiking)]
)
def test_a_cards_name_picks_the_class(card, kind):
    assert as_target(card) == kind(card)


def test_a_target_stays_what_it_is():
    target = InMemory("pcm", device="ecram")
    assert as_target(target) is target


def test_a_misspelt_card_is_guessed():
    with pytest.raises(UnknownNameError, match="Did you mean 'pcm-hermes'"):
        as_target("pcm-hermse")


def test_a_card_file_that_is_not_there(tmp_path):
    with pytest.raises(CardError, match="does not exist"):
        as_target(tmp_path / "mine.toml")


@pytest.mark.parametrize("given", [3, None, ["cpu"], {"card": "cpu"}])
def test_neither_a_target_nor_a_card(given):
    with pytest.raises(HpmlError, match=r"give a card's name, such as 'pcm-hermes', or a target") as caught:
        as_target(given)
    assert "\n" not in str(caught.value)


def test_a_class_is_not_a_target():
    with pytest.raises(HpmlError, match="Analog is a class"):
        as_target(Analog)


def test_what_holds_the_weights():
    synapses = InMemory("pcm", device="ecram")
    assert analog_part(Digital("cpu")) is None
    assert analog_part(Spiking("loihi")) is None
    assert analog_part(Spiking("loihi", synapses=synapses)) is synapses
    assert analog_part(Analog("pcm")) == Analog("pcm")
    assert [in_memory(t) for t in (Digital(), Analog(), synapses, Spiking(synapses=synapses))] == [
        False,
        False,
        True,
        True,
    ]
