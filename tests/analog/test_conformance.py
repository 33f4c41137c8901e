"""Our chips against genuine aihwkit layers: the same card, weights and inputs.

What is compared is the distribution of a chip's output error and gain over many chips: mean and spread. aihwkit's
pipeline is not ours to the letter: before every drift it re-splits the net weight of a pair, with a scale that depends
on the largest programming error, which moves its mean error by 1 to 2 % and widens its spread (0.0013 here, 0.0020 to
0.0028 there, right after programming). So means must agree within 6 % (gains within 0.01), the spread of the gain
within a factor 3 and that of the error within a factor 4. With 24 chips a side the standard error of a mean is below
0.7 % and that of a ratio of spreads 21 %: a right pair fails a comparison with less than 1e-4. Seeds are fixed, except
that aihwkit's compiled tiles draw their output noise, a small share of the error, from the clock.
"""

import pytest
import torch
from torch import nn

import hpml_sim.analog.nn as analog_nn
from hpml_sim.analog import calibrate, program
from hpml_sim.conversion import convert
from hpml_sim.data import load_data
from hpml_sim.data.batches import first
from hpml_sim.networks import models
from hpml_sim.targets import Analog
from hpml_sim.training import fit
from hpml_sim.training.evaluation import evaluate

CHIPS, INPUTS, OUTPUTS = 96, 96, 48
TIMES = (0.0, 3600.0, 86400.0, 31536000.0)


def weights_and_inputs():
    generator = torch.Generator().manual_seed(0)
    weight = (0.3 * torch.randn(OUTPUTS, INPUTS, generator=generator)).clamp(-0.7, 0.7)
    return weight, torch.randn(40, INPUTS, generator=generator)


def errors(y, clean):
    """Relative output error and gain of each chip; y: (chips, vectors, outputs)."""
    error = (y - clean).square().mean((1, 2)).sqrt() / clean.square().mean().sqrt()
    gain = (y * clean).sum((1, 2)) / (clean * clean).sum()
    return error.numpy(), gain.numpy()


def ours(card, compensation, bits, times):
    weight, x = weights_and_inputs()
    # every vector is scaled by its own largest value, and nothing saturates: as in aihwkit below
    target = Analog(card, dac_bits=bits, adc_bits=bits, compensation=compensation, adc_bound=10.0)
    layer = analog_nn.AnalogLinear(INPUTS, OUTPUTS, bias=False, card=target)
    with torch.no_grad():
        layer.weight.copy_(weight)
    chips = program(nn.Sequential(layer), chips=CHIPS, seed=0)
    return {time: errors(chips.at(time)(x), x @ weight.T) for time in times}


def theirs(card, compensation, bits, times, config):
    from aihwkit.inference import GlobalDriftCompensation
    from aihwkit.inference.noise.hermes import HermesNoiseModel
    from aihwkit.inference.noise.pcm import PCMLikeNoiseModel
    from aihwkit.inference.noise.reram import ReRamWan2022NoiseModel
    from aihwkit.nn import AnalogLinear
    from aihwkit.simulator.parameters.enums import BoundManagementType, NoiseManagementType

    config.mapping.weight_scaling_omega = 1.0
    config.mapping.weight_scaling_columnwise = True
    config.forward.inp_res = config.forward.out_res = 1 / (2**bits - 2)
    config.forward.out_bound, config.forward.out_noise = 10.0, 0.04
    config.forward.noise_management = NoiseManagementType.ABS_MAX
    config.forward.bound_management = BoundManagementType.NONE
    config.noise_model = {
        "pcm": lambda: PCMLikeNoiseModel(g_max=25.0),
        "pcm-hermes": lambda: HermesNoiseModel(num_devices=2),
        "reram-neurram": lambda: ReRamWan2022NoiseModel(g_max=40.0),
    }[card]()
    config.drift_compensation = GlobalDriftCompensation() if compensation == "global" else None
    weight, x = weights_and_inputs()
    found = {time: [] for time in times}
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        layer = AnalogLinear(INPUTS, OUTPUTS, bias=False, rpu_config=config).eval()
        layer.set_weights(weight)
        for _ in range(CHIPS):
            layer.program_analog_weights()
            for time in times:
                layer.drift_analog_weights(time)
                found[time].append(layer(x))
    return {time: errors(torch.stack(y), x @ weight.T) for time, y in found.items()}


CASES = [
    ("pcm", "none", 8, "InferenceRPUConfig"),
    ("pcm", "global", 8, "TorchInferenceRPUConfig"),
    ("pcm", "global", 6, "InferenceRPUConfig"),
    ("pcm", "none", 5, "TorchInferenceRPUConfig"),
    ("pcm-hermes", "global", 8, "InferenceRPUConfig"),
    ("pcm-hermes", "none", 8, "TorchInferenceRPUConfig"),
    ("pcm-hermes", "none", 6, "InferenceRPUConfig"),
    ("pcm-hermes", "global", 5, "TorchInferenceRPUConfig"),
    ("reram-neurram", "global", 8, "TorchInferenceRPUConfig"),
    ("reram-neurram", "global", 6, "InferenceRPUConfig"),
]


@pytest.mark.parametrize(("card", "compensation", "bits", "tile"), CASES)
def test_chips_err_as_genuine_aihwkit_layers_do(card, compensation, bits, tile):
    from aihwkit.simulator import configs

    times = (1.0, 86400.0) if card == "reram-neurram" else TIMES
    mine = ours(card, compensation, bits, times)
    genuine = theirs(card, compensation, bits, times, getattr(configs, tile)())
    for time in times:
        (error, gain), (error_theirs, gain_theirs) = mine[time], genuine[time]
        assert error.mean() == pytest.approx(error_theirs.mean(), rel=0.06)
        assert gain.mean() == pytest.approx(gain_theirs.mean(), abs=0.01)
        assert 1 / 4 < error.std() / error_theirs.std() < 4
        assert 1 / 3 < gain.std() / gain_theirs.std() < 3


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    net = models.mlp(64, 24, 10)
    fit(net, "digits", epochs=12, lr=1e-2, show_progress=False)
    return net


@pytest.mark.parametrize("card", ["pcm", "pcm-hermes"])
@pytest.mark.parametrize("bits", [4, 8])
def test_chips_are_as_accurate_as_genuine_aihwkit_layers(trained, card, bits):
    """Digits, 16 chips a side: means within five standard errors of their difference, or half a point."""
    found = {}
    for engine in ("fused", "aihwkit"):
        target = Analog(card, engine=engine, dac_bits=bits, adc_bits=bits, adc_bound=5.0, compensation="none")
        model = convert(trained, target)
        calibrate(model, first(load_data("digits").train, 10_000)[0][:500])
        chips = program(model, chips=16, seed=0)
        found[engine] = [evaluate(chips.at(time), "digits") for time in TIMES]
    for mine, genuine in zip(found["fused"], found["aihwkit"], strict=True):
        error = ((mine.std**2 + genuine.std**2) / 16) ** 0.5
        assert mine.mean == pytest.approx(genuine.mean, abs=max(5 * error, 0.005))
        assert mine.std < 4 * max(genuine.std, 0.005)
        assert genuine.std < 4 * max(mine.std, 0.005)
