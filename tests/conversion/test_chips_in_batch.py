import pytest
from torch import nn

import hpml_sim as hs
from hpml_sim.conversion.chips_in_batch import ChipsInBatch
from hpml_sim.errors import HpmlError


def test_chips_are_set_in_all_modules_inside():
    outer, inner = ChipsInBatch(), ChipsInBatch()
    outer.layers = nn.Sequential(nn.Linear(2, 2), inner)
    assert (outer.chips, inner.chips) == (1, 1)
    outer.chips = 3
    assert (outer.chips, inner.chips) == (3, 3)
    for chips in (0, -1):
        with pytest.raises(HpmlError, match=f"ChipsInBatch.chips={chips} must be >= 1"):
            outer.chips = chips
    assert (outer.chips, inner.chips) == (3, 3)


def test_programmed_chips_tell_every_neuron_how_many_they_are():
    target = hs.Spiking("loihi", steps=2, synapses=hs.Analog("pcm-hermes"))
    model = hs.convert(hs.models.mlp(8, 6, 3), target)
    inside = [m.chips for m in hs.program(model, chips=4).at(0).network.modules() if isinstance(m, ChipsInBatch)]
    assert len(inside) > 2
    assert set(inside) == {4}
    assert {m.chips for m in model.modules() if isinstance(m, ChipsInBatch)} == {1}
