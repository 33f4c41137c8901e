import pytest
import torch
from torch import nn

from hpml_sim.analog import calibrate, program, save_chips, to_aihwkit
from hpml_sim.analog.interop.aihwkit import aihwkit_layers
from hpml_sim.conversion import convert
from hpml_sim.errors import ConversionError, HpmlError
from hpml_sim.targets import Analog, InMemory


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


@pytest.mark.parametrize("input_range", ["percentile", None])
def test_on_one_tile_they_agree_to_rounding(input_range):
    _, converted = model(output_noise=0.0, input_range=input_range)
    genuine = to_aihwkit(converted)
    for mine, theirs, x in (
        (converted.network.conv, genuine.network.conv, data()),
        (converted.network.head, genuine.network.head, torch.rand(50, 5, generator=torch.Generator().manual_seed(2))),
    ):
        with torch.no_grad():
            difference = (mine(x) - theirs(x)).abs() / mine(x).abs().max()
        # where ranges are dynamic, aihwkit scales each patch of a convolution, and we each feature map
        if input_range is not None or x.dim() == 2:
            # float32 rounds some values on the edge between two codes the other way: those differ by a code, 1 / 127
            assert (difference < 1e-5).double().mean() > 0.99
        assert difference.max() < 0.05


def test_settings_and_state_are_carried_over_layer_by_layer():
    from aihwkit.inference import GlobalDriftCompensation, PCMLikeNoiseModel
    from aihwkit.inference.compensation.drift import PerColumnDriftCompensation
    from aihwkit.inference.noise.hermes import HermesNoiseModel

    torch.manual_seed(0)
    targets = {
        "conv": Analog(
            "pcm", dac_bits=6, adc_bits=7, output_noise=0.03, adc_bound=9.0, input_range="sigma", compensation="column"
        ),
        "other": Analog("pcm", input_range="percentile", compensation="none"),
        "head": Analog("pcm-hermes"),
    }
    converted = convert(Small().eval(), targets)
    calibrate(converted, data())
    genuine = to_aihwkit(converted)
    tiles = {name: next(getattr(genuine.network, name).analog_tiles()) for name in targets}
    conv = tiles["conv"].rpu_config
    assert (conv.forward.inp_res, conv.forward.out_res) == (1 / (2**6 - 2), 1 / (2**7 - 2))
    assert (conv.forward.out_noise, conv.forward.out_bound) == (0.03, 9.0)
    kinds = {name: type(tile.rpu_config.drift_compensation) for name, tile in tiles.items()}
    assert kinds == {"conv": PerColumnDriftCompensation, "other": type(None), "head": GlobalDriftCompensation}
    assert type(tiles["conv"].rpu_config.noise_model) is PCMLikeNoiseModel
    assert type(tiles["head"].rpu_config.noise_model) is HermesNoiseModel
    for name, tile in tiles.items():
        crossbar = getattr(converted.network, name).crossbar
        if name == "head":  # each vector by its own largest value, as aihwkit's ABS_MAX does
            assert (tile.input_range, tile.rpu_config.forward.noise_management.name) == (None, "ABS_MAX")
        else:
            assert float(tile.input_range) == float(torch.maximum(crossbar.input_range, crossbar.output_range))
        assert tile.rpu_config.forward.out_bound == crossbar.adc_bound()
        weight, bias = getattr(genuine.network, name).get_weights()
        mine = getattr(converted.network, name)
        assert torch.allclose(weight.view_as(mine.weight), mine.weight, atol=1e-6)
        assert torch.equal(bias, mine.bias)


def test_output_noise_has_the_same_spread():
    torch.manual_seed(0)
    converted = convert(nn.Sequential(nn.Linear(20, 4)), Analog("pcm", output_noise=0.05, training_noise=0.0))
    calibrate(converted, torch.rand(50, 20))
    genuine = to_aihwkit(converted)
    x = torch.rand(1, 20).expand(20_000, 20)
    with torch.no_grad():
        theirs = genuine(x).std(0)
        converted.train()
        converted.network[0].crossbar.observations.fill_(51)  # no more learning
        mine = converted(x).std(0)
    # 20000 samples each: the ratio has sd 0.7 %, four columns; 5 sd, false alarm 2e-6
    assert torch.allclose(mine / theirs, torch.ones(4), atol=0.035)


def test_attention_goes_out_with_its_four_projections():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0).eval()
    converted = convert(layer, Analog("pcm", output_noise=0.0))
    x = torch.rand(20, 5, 8)
    calibrate(converted, x)
    genuine = to_aihwkit(converted)
    assert len(aihwkit_layers(genuine)) == 6
    with torch.no_grad():
        assert ((genuine(x) - converted(x)).abs() < 1e-5).double().mean() > 0.99


def test_pulsed_layers_are_genuine_already():
    converted = convert(nn.Sequential(nn.Linear(6, 3)), InMemory("pcm", device="ecram"))
    genuine = to_aihwkit(converted)
    assert genuine is not converted
    assert torch.equal(genuine.network[0].get_weights()[0], converted.network[0].get_weights()[0])


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
        save_chips(chips, "nowhere.pt")


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
