import pytest
import torch
from torch import nn

from hpml_sim.analog import calibrate, program, to_aihwkit
from hpml_sim.convert import convert
from hpml_sim.errors import ConversionError, HpmlError
from hpml_sim.targets import Analog


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.other = nn.Conv2d(4, 5, 2, stride=2)
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.other(self.conv(x).relu()).relu().mean((2, 3)))


def data(n=20):
    return torch.rand(n, 2, 6, 6, generator=torch.Generator().manual_seed(0))


def model(card="pcm", **options):
    torch.manual_seed(0)
    digital = Small().eval()
    converted = convert(digital, Analog(card, **options))
    calibrate(converted, data())
    return digital, converted


def test_the_network_computes_the_same_in_aihwkit(card_file):
    for rows in (256, 7):
        digital, converted = model(card_file(rows=rows, cols=3), dac_bits=10, adc_bits=12, output_noise=0.0)
        genuine = to_aihwkit(converted)
        assert type(genuine.network.head).__module__.startswith("aihwkit.")
        assert type(converted.network.head).__module__.startswith("hpml_sim.")
        with torch.no_grad():
            # the two cut the rows of a tile at other places, so they agree up to a few codes of the ADC
            assert torch.allclose(genuine(data()), converted(data()), atol=0.02)
            assert torch.allclose(genuine(data()), digital(data()), atol=0.05)


def test_both_engines_program_alike():
    found = {}
    for engine in ("fused", "aihwkit"):
        digital, converted = model(engine=engine)
        chips = program(converted, chips=20, seed=0)
        with torch.no_grad():
            clean = digital(data())
        for time in (0, "1 day"):
            y = chips.at(time)(data())
            assert y.shape == (20, 20, 3)
            found[engine, time] = float((y - clean).square().mean().sqrt())
    for time in (0, "1 day"):
        # 20 chips of 12 to 40 devices a column: the standard error of this ratio is about 10 %
        assert 0.6 < found["fused", time] / found["aihwkit", time] < 1.6


def test_chips_of_aihwkit_layers_keep_the_promises_of_ours():
    _, converted = model(engine="aihwkit")
    before = {name: value.clone() for name, value in converted.state_dict().items()}
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    chips = program(converted, chips=2, seed=0)
    late, early = chips.at("1 year")(data()), chips.at("1 h")(data())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(program(converted, chips=2, seed=0).at("1 h")(data()), early)
    assert torch.equal(chips.at("1 h")(data()), early)
    assert torch.equal(chips.at("1 year")(data()), late)
    assert all(torch.equal(converted.state_dict()[name], value) for name, value in before.items())
    with pytest.raises(HpmlError, match="are not saved"):
        chips.save("nowhere.pt")


def test_what_aihwkit_cannot_hold_is_refused():
    with pytest.raises(ConversionError, match="no input range yet"):
        program(convert(nn.Linear(3, 3), Analog("pcm", engine="aihwkit")), chips=1)
    for options in ({"groups": 2}, {"padding": "same"}, {"padding_mode": "circular"}):
        converted = convert(nn.Sequential(nn.Conv2d(2, 2, 3, **options)), Analog("pcm", engine="aihwkit"))
        calibrate(converted, data())
        with pytest.raises(ConversionError, match=r"layer 'network\.0': aihwkit has no convolution"):
            program(converted, chips=1)
    converted = convert(nn.Sequential(nn.Conv1d(2, 2, 3)), Analog("pcm", engine="aihwkit"))
    calibrate(converted, torch.rand(2, 2, 5))
    with pytest.raises(ConversionError, match="torch tiles have no Conv1d"):
        to_aihwkit(converted)
