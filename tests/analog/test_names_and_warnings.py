"""Names that are asked for are those of the report; what is said of some chips is said once."""

from __future__ import annotations

import random
import warnings

import pytest
import torch
from torch import nn

import hpml_sim as hs


class Parts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.rnn, self.idle = nn.Linear(8, 6), nn.LSTM(6, 6, batch_first=True), nn.Linear(3, 3)
        self.w = nn.Parameter(torch.randn(6, 4))

    def forward(self, x):
        return self.rnn(self.a(x).unsqueeze(1))[0][:, 0] @ self.w


def test_contents_are_asked_for_by_the_reports_names():
    analog = hs.convert(Parts(), "pcm-hermes")
    chips = hs.program(analog, chips=2, seed=0)
    mapped = analog.report.set_index("layer")
    for name in mapped.index[mapped["tiles"].notna()]:
        if name == "rnn":
            with pytest.raises(hs.HpmlError, match=r"several matrices; .*'rnn.cells.0.input', 'rnn.cells.0.hidden'"):
                chips.conductances(name)
        else:
            shape = {"a": (6, 8), "idle": (3, 3), "w": (4, 6)}[name]
            assert chips.conductances(name).positive_s.shape == (2, 1, *shape)
    assert torch.equal(chips.weights("w", "1 day"), chips.weights("w_on_tiles", "1 day"))
    assert chips.conductances("rnn.cells.0.hidden").positive_s.shape == (2, 1, 24, 6)


def test_warnings_of_chips_are_given_once_and_by_the_reports_names():
    chips = hs.program(hs.convert(Parts(), "pcm-hermes"), chips=2, seed=0)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for time in ("1 h", "1 day", "1 year"):
            chips.at(time)(torch.rand(3, 8))
        chips.at("1 day", only=1)(torch.rand(3, 8))
    assert [str(one.message)[:26] for one in said] == ["programmed chips: 'idle': "]


def test_outputs_that_differ_by_chip_name_a_line_of_forward(monkeypatch):
    class Varies(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(8, 6)

        def forward(self, x):
            h = self.a(x)
            return h[: 1 + sizes.pop()]

    chips = hs.program(hs.convert(Varies(), "pcm-hermes"), chips=3, seed=0)
    monkeypatch.setattr("hpml_sim.analog.chips.TOGETHER_BYTES", 1)  # as large chips do, they run one after another
    sizes = list(range(random.Random(0).randint(3, 5)))
    with pytest.raises(hs.HpmlError, match=r"Seen in forward\(\) of Varies, line \d+ of .*: return h\[: 1"):
        chips.at("1 day")(torch.rand(9, 8))
