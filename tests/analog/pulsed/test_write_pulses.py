import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import hpml_sim as hs
from hpml_sim.analog.pulsed.write_pulses import TileCounter, expected_pulses
from hpml_sim.targets import InMemory


def update(**options):
    from aihwkit.simulator.parameters import UpdateParameters

    return UpdateParameters(**options)


def test_expected_pulses_by_hand():
    x, d = torch.tensor([[0.5, -0.25]]), torch.tensor([[0.1, 0.2, -0.4]])
    # without management: A = B = sqrt(0.1 / (0.01 * 10)) = 1, so 10 * (0.5 + 0.25) * (0.1 + 0.2 + 0.4) pulses
    plain = update(desired_bl=10, update_management=False, update_bl_management=False)
    assert expected_pulses(x, d, 0.1, 0.01, plain) == pytest.approx(10 * 0.75 * 0.7)
    # four times the rate: A = B = 2, and the probabilities are (1, 0.5) and (0.2, 0.4, 0.8)
    assert expected_pulses(x, d, 0.4, 0.01, plain) == pytest.approx(10 * 1.5 * 1.4)
    # nine times: A = B = 3, (1.5 -> 1, 0.75) and (0.3, 0.6, 1.2 -> 1)
    assert expected_pulses(x, d, 0.9, 0.01, plain) == pytest.approx(10 * 1.75 * 1.9)
    # managed: 0.1 * 0.5 * 0.4 / 0.01 = 2 pulses at the device with the most, so a train of 2 slots, where the largest
    # x and d have probability 1: (1, 0.5) and (0.25, 0.5, 1)
    managed = update(desired_bl=31)
    assert expected_pulses(x, d, 0.1, 0.01, managed) == pytest.approx(2 * 1.5 * 1.75)
    # 160 asked for, 31 is the most: x stays (1, 0.5), d saturates: 0.4 is 160 / 31, 0.2 and 0.1 are 80 and 40 / 31
    assert expected_pulses(x, d, 8.0, 0.01, managed) == pytest.approx(31 * 1.5 * 3)
    # where nothing saturates it is the size of the change over the step: lr |x| |d| / dw, summed
    assert expected_pulses(x, d, 0.07, 0.01, managed) == pytest.approx(0.07 * 0.75 * 0.7 / 0.01)
    assert expected_pulses(torch.zeros(1, 2), d, 0.1, 0.01, managed) == 0
    several = expected_pulses(torch.cat([x, x, 0 * x]), torch.cat([d, d, d]), 0.1, 0.01, managed)
    assert several == pytest.approx(2 * 2 * 1.5 * 1.75)


def step_device():
    """Devices without any variation: a pulse changes a weight by 0.001, and the change counts the pulses."""
    from aihwkit.simulator.configs.devices import ConstantStepDevice

    same = {"dw_min_dtod": 0.0, "dw_min_std": 0.0, "up_down_dtod": 0.0, "w_max_dtod": 0.0, "w_min_dtod": 0.0}
    return ConstantStepDevice(dw_min=0.001, w_max=10.0, w_min=-10.0, **same)


def tile_of(config):
    from aihwkit.nn import AnalogLinear
    from aihwkit.optim import AnalogSGD

    config.forward.is_perfect = config.backward.is_perfect = True
    layer = AnalogLinear(6, 4, bias=False, rpu_config=config)
    layer.set_weights(torch.zeros(4, 6))
    optimizer = AnalogSGD(layer.parameters(), lr=0.05)
    optimizer.regroup_param_groups()
    return layer, optimizer


def step(layer, optimizer, counter, x, d):
    """One update with inputs x and errors d; what the counter says, and by how much the weights changed."""
    before = layer.get_weights()[0].clone()
    (layer(x) * d).sum().backward()
    counter.before_step()
    optimizer.step()
    return counter.after_step(), layer.get_weights()[0] - before


def test_sgd_agrees_with_the_pulses_that_aihwkit_drew():
    from aihwkit.simulator.configs import SingleRPUConfig

    layer, optimizer = tile_of(SingleRPUConfig(device=step_device()))
    counter = TileCounter(next(layer.analog_tiles()))
    generator = torch.Generator().manual_seed(0)
    expected = drawn = 0.0
    for _ in range(40):
        # one sign each, so that no pulse undoes another
        x, d = torch.rand(16, 6, generator=generator), torch.rand(16, 4, generator=generator)
        count, change = step(layer, optimizer, counter, x, d)
        expected += count
        drawn += float(change.abs().sum()) / 0.001
    assert drawn > 50_000
    # drawn / expected in 30 runs: 1.000, sd 0.0022; 9 sd
    assert drawn == pytest.approx(expected, rel=0.02)


def test_mixed_precision_agrees_with_aihwkit():
    from aihwkit.simulator.configs import DigitalRankUpdateRPUConfig
    from aihwkit.simulator.configs.compounds import MixedPrecisionCompound

    layer, optimizer = tile_of(DigitalRankUpdateRPUConfig(device=MixedPrecisionCompound(device=step_device())))
    counter = TileCounter(next(layer.analog_tiles()))
    generator = torch.Generator().manual_seed(0)
    total, moved = 0.0, 0.0
    for _ in range(150):
        x, d = 0.2 * torch.rand(16, 6, generator=generator), 0.2 * torch.randn(16, 4, generator=generator)
        count, change = step(layer, optimizer, counter, x, d)
        total += count
        moved += float(change.abs().sum()) / 0.001
    assert total > 1000
    # what the digital sum sends is exact, but rounding makes trains of 2 slots of those of 1, and they are drawn
    # drawn / counted in 30 runs: 1.0005, sd 0.0042; 9 sd
    assert moved == pytest.approx(total, rel=0.04)


@pytest.mark.parametrize("rule", ["tiki-taka", "tiki-taka-v2", "chopped-tiki-taka-v2", "agad"])
def test_the_fast_array_of_the_transfer_rules_agrees_with_aihwkit(rule):
    from aihwkit.simulator.configs import build_config

    name = {"tiki-taka": "tiki-taka", "tiki-taka-v2": "ttv2", "chopped-tiki-taka-v2": "c-ttv2", "agad": "agad"}[rule]
    config = build_config(name, step_device())
    if rule != "tiki-taka":
        config.device.in_chop_prob = 0.0  # a chopper turns signs, and pulses would undo each other
    layer, optimizer = tile_of(config)
    tile = next(layer.analog_tiles())
    counter = TileCounter(tile)
    generator = torch.Generator().manual_seed(0)
    expected = drawn = 0.0
    for _ in range(150):
        before = tile.get_hidden_parameters()["hidden_weights_0"].clone(), tile.tile.get_weights().clone()
        x, d = torch.rand(4, 6, generator=generator), 0.1 * torch.rand(4, 4, generator=generator)
        count, _ = step(layer, optimizer, counter, x, d)
        after = tile.get_hidden_parameters()["hidden_weights_0"], tile.tile.get_weights()
        expected += count
        drawn += sum(float((b - a).abs().sum()) for a, b in zip(before, after, strict=True)) / 0.001
    assert drawn > 1500
    # drawn / expected in 30 runs: 1.00 with sd 0.018 at most, and 0.975 with sd 0.02 for agad; 4 sd, false alarm < 1e-4
    assert drawn == pytest.approx(expected, rel=0.11)


def test_fit_reports_pulses_by_layer_and_epoch_and_what_they_cost():
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 10))
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.rand(64, 1, 8, 8, generator=generator), torch.arange(64) % 10
    split = TensorDataset(images, labels)
    digits = hs.Data("few", split, split, (1, 8, 8), 10)
    for card, device, known in (("pcm-hermes", "pcm", True), ("pcm-hermes", "ecram", False), ("pcm", "pcm", False)):
        converted = hs.convert(net, InMemory(card, device=device))
        writes = hs.fit(converted, digits, epochs=2).writes
        assert list(writes.pulses) == ["network.0", "network.3"]
        assert all(len(epochs) == 2 and min(epochs) > 0 for epochs in writes.pulses.values())
        assert writes.total == pytest.approx(sum(map(sum, writes.pulses.values())))
        if known:
            # 180 pJ a pulse, 20 to 1000
            assert writes.energy_j.nominal == pytest.approx(180e-12 * writes.total)
            assert writes.energy_j.high == pytest.approx(1e-9 * writes.total)
            assert "J (" in str(writes)
        else:
            assert writes.energy_j is None
            assert card in writes.why_no_energy
    assert hs.fit(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), digits, epochs=1).writes is None
