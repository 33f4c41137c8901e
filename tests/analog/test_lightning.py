import contextlib
import io

import pytest
import torch
from torch import nn

from hpml_sim.analog import from_lightning, program, to_aihwkit
from hpml_sim.analog.layers import crossbars
from hpml_sim.errors import ConversionError, HpmlError

with contextlib.redirect_stdout(io.StringIO()):  # prints that it found no Triton
    from aihwkit_lightning.nn import AnalogRNN, AnalogVanillaRNNCell
    from aihwkit_lightning.nn.conversion import convert_to_analog
    from aihwkit_lightning.simulator.configs import TorchInferenceRPUConfig
    from aihwkit_lightning.simulator.parameters import (
        WeightClipType,
        WeightNoiseInjectionType,
        WeightQuantizationType,
    )


def config(**forward):
    """Converters of 8 bits over each column's range, as ours are."""
    made = TorchInferenceRPUConfig()
    made.forward.inp_res, made.forward.out_res, made.forward.out_bound = 2**8 - 2, 2**8 - 2, 10.0
    for name, value in forward.items():
        setattr(made.forward, name, value)
    made.pre_post.input_range.enable = True
    made.clip.type, made.clip.sigma = WeightClipType.LAYER_GAUSSIAN_PER_CHANNEL, 2.5
    made.modifier.noise_type, made.modifier.std_dev = WeightNoiseInjectionType.ADD_NORMAL_PER_CHANNEL, 0.07
    return made


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(144, 20), nn.Linear(20, 3))


def data(n=50):
    return torch.rand(n, 1, 6, 6, generator=torch.Generator().manual_seed(1))


def lightning(made=None, **options):
    """A network with input ranges that clip a few inputs."""
    model = convert_to_analog(network(), made or config(), **options).eval()
    for layer, full in zip(model.analog_layers(), (0.8, 1.1, 0.9), strict=False):
        layer.input_range.data.fill_(full)
    return model


def test_the_same_network_computes_the_same():
    theirs = lightning()
    before = {name: value.clone() for name, value in theirs.state_dict().items()}
    ours = from_lightning(theirs, "pcm", output_noise=0.0)
    with torch.no_grad():
        difference = (ours(data()) - theirs(data())).abs()
    # a value that lies on the edge between two codes may be rounded the other way: one code of the last ADC is
    # 10 / 127 x 0.9 x 0.22 = 0.016
    assert difference.median() < 1e-6
    assert (difference < 1e-5).double().mean() > 0.98
    assert difference.max() < 0.1
    assert all(torch.equal(theirs.state_dict()[name], value) for name, value in before.items())


def test_settings_are_carried_over():
    ours = from_lightning(lightning(config(inp_res=1 / (2**6 - 2), out_noise=0.02, out_bound=12.0)))
    found = crossbars(ours)
    assert list(found) == ["network.0", "network.3", "network.4"]
    assert [float(c.input_range) for c in found.values()] == pytest.approx([0.8, 1.1, 0.9])
    target = ours.target
    assert (target.dac_bits, target.adc_bits, target.output_noise, target.adc_bound) == (6, 8, 0.02, 12.0)
    assert (target.training_noise, target.weight_clip) == (0.07, 2.5)
    ranges = config().pre_post.input_range
    assert (target.input_range.sigmas, target.input_range.decay) == (ranges.init_std_alpha, ranges.decay)
    assert from_lightning(lightning(), adc_bits=5, compensation="none").target.adc_bits == 5
    # aihwkit-lightning's containers are gone, and the weights are those that were there
    assert all(not type(module).__module__.startswith("aihwkit_lightning") for module in ours.modules())
    assert torch.equal(ours.network[3].weight, lightning()[3].weight)


def test_output_noise_has_the_same_spread():
    made = config(out_noise=0.05, out_noise_per_channel=True)
    made.modifier.noise_type, made.clip.type = WeightNoiseInjectionType.NONE, WeightClipType.LAYER_GAUSSIAN_PER_CHANNEL
    made.pre_post.input_range.init_from_data = 0
    torch.manual_seed(0)
    theirs = convert_to_analog(nn.Sequential(nn.Linear(30, 6)), made).train()
    theirs[0].input_range.data.fill_(1.0)
    ours = from_lightning(theirs, weight_clip=None)
    assert ours.training
    x = torch.rand(1, 30).expand(20_000, 30)
    with torch.no_grad():
        spreads = [model(x).std(0) for model in (ours, theirs)]
    # 20000 samples each: the ratio has sd sqrt(2 / 20000 / 2) = 0.7 %, six columns; 5 sd, false alarm 4e-6
    assert torch.allclose(spreads[0] / spreads[1], torch.ones(6), atol=0.035)


def test_weights_are_those_of_the_forward_pass():
    made = config()
    made.clip.type = WeightClipType.LEARNABLE_PER_CHANNEL
    made.modifier.quantization_type, made.modifier.res = WeightQuantizationType.DISCRETIZE_PER_CHANNEL, 2**4 - 2
    theirs = convert_to_analog(nn.Sequential(nn.Linear(30, 6)), made).eval()
    theirs[0].learnable_weight_clip.data *= 0.6
    theirs[0].input_range.data.fill_(1.0)
    ours = from_lightning(theirs, output_noise=0.0)
    assert ours.network[0].weight.unique().numel() <= 15 * 6
    assert ours.network[0].weight.abs().max() < 0.65 * theirs[0].weight.abs().max()
    x = torch.rand(40, 30)
    with torch.no_grad():
        difference = (ours(x) - theirs(x)).abs()
    assert (difference < 1e-5).double().mean() > 0.98


def test_layers_that_differ_and_layers_left_digital():
    theirs = convert_to_analog(network(), config(), exclude_modules=["3"])
    ours = from_lightning(theirs)
    assert list(crossbars(ours)) == ["network.0", "network.4"]
    theirs = lightning()
    theirs[3].rpu_config = config(inp_res=2**5 - 2)
    assert [c.target.dac_bits for c in crossbars(from_lightning(theirs)).values()] == [8, 5, 8]
    alone = convert_to_analog(nn.Linear(5, 2), config())
    assert from_lightning(alone)(torch.rand(3, 5)).shape == (3, 2)


def test_it_lives_on_as_ours():
    ours = from_lightning(lightning())
    assert program(ours, chips=3, seed=0).at("1 day")(data()).shape == (3, 50, 3)
    assert type(to_aihwkit(ours).network[3]).__module__.startswith("aihwkit.")


def test_what_cannot_be_carried_over_is_said(caplog):
    made = config()
    made.mapping.max_input_size = 8
    model = convert_to_analog(nn.Sequential(nn.Linear(16, 3)), made)
    model[0].input_range.data.copy_(torch.tensor([1.0, 2.0]))
    assert float(crossbars(from_lightning(model))["network.0"].input_range) == 2.0
    assert "the largest is taken" in caplog.text
    made = config(inp_res=-1)
    made.clip.type = WeightClipType.NONE
    made.pre_post.input_range.enable = False
    made.forward.out_res = -1
    loose = from_lightning(convert_to_analog(nn.Sequential(nn.Linear(16, 3)), made), "pcm-hermes")
    assert "no dac_bits there" in caplog.text
    (crossbar,) = crossbars(loose).values()
    assert not crossbar.calibrated
    assert crossbar.target.weight_clip is None


def test_bad_input_is_refused():
    with pytest.raises(HpmlError, match="no layers of aihwkit-lightning"):
        from_lightning(nn.Linear(3, 3))
    with pytest.raises(ConversionError, match="give dac_bits= yourself"):
        from_lightning(lightning(config(inp_res=100)))
    assert from_lightning(lightning(config(inp_res=100)), dac_bits=7).target.dac_bits == 7
    cell = AnalogRNN(AnalogVanillaRNNCell, 4, 4, rpu_config=config())
    with pytest.raises(ConversionError, match="AnalogRNN"):
        from_lightning(nn.Sequential(cell))
