import pytest
from torch import nn

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
