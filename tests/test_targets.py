import dataclasses

import pytest
from pydantic import ValidationError

from hpml_sim.errors import CardError, HpmlError, UnknownNameError
from hpml_sim.targets import Analog, Digital, Spiking, as_target


@pytest.mark.parametrize(
    ("card", "kind"), [("cpu", Digital), ("h200", Digital), ("pcm-hermes", Analog), ("loihi", Spiking)]
)
def test_a_cards_name_picks_the_class(card, kind):
    assert as_target(card) == kind(card)


def test_targets_are_frozen_and_refuse_unknown_or_unusable_options():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Analog("pcm-hermes").adc_bits = 4
    with pytest.raises((ValidationError, TypeError), match="adcbits"):
        Analog("pcm-hermes", adcbits=4)
    with pytest.raises(ValidationError, match="adc_bits"):
        Analog("pcm-hermes", adc_bits=1)
    with pytest.raises(ValidationError, match="beta"):
        Spiking("loihi", beta=1.5)
    with pytest.raises(ValidationError, match="steps"):
        Spiking("loihi", steps=0)
    with pytest.raises(ValidationError, match="threshold"):
        Spiking("loihi", threshold=0.0)


def test_a_card_of_another_kind_is_named():
    for target in (Analog("h200"), Spiking("loihi", synapses=Analog("h200"))):
        with pytest.raises(HpmlError, match=r"Analog\(card='h200'\).*'digital'.*crossbar"):
            as_target(target)


def test_a_misspelt_card_is_guessed():
    with pytest.raises(UnknownNameError, match="Did you mean 'pcm-hermes'"):
        as_target("pcm-hermse")


def test_a_card_file_that_is_not_there(tmp_path):
    with pytest.raises(CardError, match="does not exist"):
        as_target(tmp_path / "mine.toml")
