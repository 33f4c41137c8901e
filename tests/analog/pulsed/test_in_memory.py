import logging
from typing import get_args

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import hpml_sim as hs
from hpml_sim.analog import in_memory_optimizer
from hpml_sim.analog.pulsed.devices import pulsed_tiles
from hpml_sim.analog.pulsed.learning_rates import learning_rate
from hpml_sim.data import Data
from hpml_sim.errors import HpmlError
from hpml_sim.targets import Analog, InMemory, PulsedDevice, TrainingRule


def pulsed(device="ecram", rule="sgd", **options):
    return InMemory("pcm", device=device, rule=rule, **options)


def blobs(classes=3, samples=96):
    """Points around as many corners as there are classes."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(samples) % classes
    inputs = nn.functional.one_hot(labels, 6).float() + 0.2 * torch.randn(samples, 6, generator=generator)
    split = TensorDataset(inputs, labels)
    return Data("blobs", split, split, (6,), classes)


def weights(model):
    return [tile.get_weights()[0].clone() for tiles in pulsed_tiles(model).values() for tile in tiles]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"device": "ecrma"}, "Did you mean 'ecram'"),
        ({"device": "ecram", "rule": "tiki-taka-2"}, "Did you mean 'tiki-taka-v2'"),
        ({"rule": "sgd"}, "device: missing; give one of"),
        ({"device": "pcm", "rule": "agad"}, "only goes up"),
        ({"device": "ecram", "levels": 4}, r"levels: unknown option; .*hs\.Analog"),
        ({"device": "ecram", "weight_clip": None}, r"weight_clip: unknown option; .*hs\.Analog"),
        ({"device": "ecram", "engine": "aihwkit"}, r"engine: unknown option; .*hs\.Analog"),
    ],
)
def test_a_target_that_makes_no_sense_is_refused(options, said):
    with pytest.raises(HpmlError, match=said):
        InMemory("pcm", **options)


def test_programmed_crossbars_have_no_device_to_train():
    with pytest.raises(HpmlError, match=r"device: unknown option; .*hs\.InMemory"):
        Analog("pcm", device="ecram")


def test_layers_are_aihwkits_with_weights_carried_over(card_file):
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, groups=4), nn.Flatten(), nn.Linear(64, 5), nn.LSTM(5, 5)
    )
    target = InMemory(card_file(rows=20, cols=3), device="ecram", rule="mixed-precision")
    converted = hs.convert(net, target)
    report = converted.report.set_index("layer")
    assert list(report["became"]) == ["aihwkit.AnalogConv2d", "digital", "digital", "aihwkit.AnalogLinear", "digital"]
    assert list(report["tiles"].dropna()) == [2, 8]
    assert "groups=4" in report["why"]["1"]
    assert "trained in place; weights carried over within" in report["why"]["0"]
    assert "no layer for LSTM" in report["why"]["4"]
    for index in (0, 3):
        held, bias = converted.network[index].get_weights()
        given = net[index].weight.detach()
        # these devices hold up to 0.83 +- 5 % of their range on the smaller side; new weights stay well below that
        assert torch.allclose(held.view_as(given), given, atol=1e-6)
        assert torch.equal(bias, net[index].bias)


def test_trained_weights_are_not_clipped_where_the_devices_range_varies_much():
    from aihwkit.nn import AnalogLinear
    from aihwkit.simulator.presets import IdealizedPreset

    torch.manual_seed(0)
    layer = nn.Linear(100, 100)
    layer.weight.data.normal_(std=0.7)

    def lost(analog):
        held, given = analog.get_weights()[0], layer.weight.detach()
        return float((held - given).norm() / given.norm())

    # aihwkit's default puts weights onto the devices as they are, and those beyond about 1 +- 0.3 are clipped
    assert lost(AnalogLinear.from_digital(layer, IdealizedPreset())) > 0.2
    converted = hs.convert(nn.Sequential(layer), pulsed("idealized"))
    assert lost(converted.network[0]) < 0.05
    assert "at 0.1 of the range" not in converted.report["why"][0]  # and it does not drown in the converters' noise


def test_new_weights_keep_room_to_grow():
    converted = hs.convert(nn.Sequential(nn.Linear(40, 40)), pulsed("ecram"))
    assert "the largest at 0.125 of the range" in converted.report["why"][0]


def test_devices_of_a_seed_are_the_same_and_tiles_have_devices_of_their_own(card_file):
    def bounds(**options):
        target = InMemory(card_file(rows=10, cols=3), device="idealized", **options)
        tiles = pulsed_tiles(hs.convert(nn.Sequential(nn.Linear(20, 3), nn.Linear(3, 3)), target))
        return [tile.get_hidden_parameters()["max_bound"] for layer in tiles.values() for tile in layer]

    first, again, other = bounds(), bounds(), bounds(device_seed=1)
    assert len(first) == 3
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert not torch.equal(first[0], first[1])


@pytest.mark.parametrize(
    ("device", "rule"),
    [("ecram", "sgd"), ("ecram", "mixed-precision"), ("pcm", "mixed-precision"), ("capacitor", "tiki-taka-v2")],
)
def test_fit_trains_in_memory(device, rule):
    data = blobs()
    net = nn.Sequential(nn.Linear(6, 3))
    converted = hs.convert(net, pulsed(device, rule))
    before = weights(converted)
    history = hs.fit(converted, data, epochs=30, batch_size=16)
    assert all(not torch.equal(a, b) for a, b in zip(before, weights(converted), strict=True))
    assert history.loss[-1] < history.loss[0]
    assert hs.evaluate(converted, data).mean > 0.8


def test_a_wrong_optimizer_is_refused_and_nothing_changes():
    from aihwkit.optim import AnalogAdam, AnalogSGD

    converted = hs.convert(nn.Sequential(nn.Linear(6, 3)), pulsed())
    before, bias = weights(converted), converted.network[0].analog_module.bias
    bias_before = bias.detach().clone()
    parameters = list(converted.parameters())
    wrong = [
        (torch.optim.SGD(parameters, lr=0.1), "sends no pulses"),
        (torch.optim.Adam(parameters), "sends no pulses"),
        (AnalogAdam(parameters), "none as it should"),
        (AnalogSGD(parameters, lr=0.1, momentum=0.9), "ignore momentum"),
        (AnalogSGD(parameters, lr=0.0), "lr=0.0"),
    ]
    for optimizer, said in wrong:
        converted(torch.rand(8, 6)).sum().backward()
        with pytest.raises(HpmlError, match=said):
            optimizer.step()
    for options in ({"lr": 0.0}, {"lr": float("inf")}):
        with pytest.raises(HpmlError, match="lr="):
            hs.fit(converted, blobs(), **options)
    with pytest.raises(HpmlError, match="lr="):
        in_memory_optimizer(converted, 0)
    assert all(torch.equal(a, b) for a, b in zip(before, weights(converted), strict=True))
    assert torch.equal(bias, bias_before)

    optimizer = in_memory_optimizer(converted)
    optimizer.step()
    assert not any(torch.equal(a, b) for a, b in zip(before, weights(converted), strict=True))


def test_the_state_comes_back(tmp_path):
    net, target = nn.Sequential(nn.Linear(6, 3)), pulsed("capacitor", "tiki-taka-v2")
    trained = hs.convert(net, target)
    hs.fit(trained, blobs(), epochs=1)
    torch.save(trained.state_dict(), tmp_path / "trained.pt")
    fresh = hs.convert(net, target)
    fresh.load_state_dict(torch.load(tmp_path / "trained.pt", weights_only=False))
    for a, b in zip(weights(trained), weights(fresh), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("value", [0.0, 0.3])
def test_a_layer_of_equal_weights_is_carried_over(value):
    layer = nn.Linear(6, 3)
    nn.init.constant_(layer.weight, value)
    held, _ = hs.convert(nn.Sequential(layer), pulsed()).network[0].get_weights()
    assert torch.allclose(held, layer.weight, atol=1e-6)


def test_other_models_keep_their_optimizers():
    hs.convert(nn.Linear(6, 3), pulsed())  # from here on optimizers are checked
    net = nn.Linear(6, 3)
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.rand(8, 6)).sum().backward()
    optimizer.step()
    with pytest.raises(HpmlError, match="no pulsed devices"):
        in_memory_optimizer(net)


def test_there_is_nothing_to_program():
    converted = hs.convert(nn.Linear(6, 3), pulsed())
    for call in (lambda: hs.program(converted), lambda: hs.calibrate(converted, torch.rand(2, 6))):
        with pytest.raises(HpmlError, match="trained in place"):
            call()


def test_what_fit_cannot_do_with_pulsed_devices(monkeypatch):
    from hpml_sim.training.distributed import ProcessGroup

    converted = hs.convert(nn.Sequential(nn.Linear(6, 3)), pulsed())
    before = weights(converted)
    with pytest.raises(HpmlError, match="optimizer='adam' cannot send pulses; leave it out"):
        hs.fit(converted, blobs(), optimizer="adam")
    monkeypatch.setattr(ProcessGroup, "join", classmethod(lambda cls, device: cls(0, 2)))
    with pytest.raises(HpmlError, match="pulsed devices train on one process, not on 2"):
        hs.fit(converted, blobs())
    assert all(torch.equal(a, b) for a, b in zip(before, weights(converted), strict=True))


def test_spiking_networks_train_in_memory():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3))
    spiking = hs.convert(net, hs.Spiking("loihi", steps=8, encoder="direct", synapses=pulsed(rule="mixed-precision")))
    before = weights(spiking)
    # a tenth of the default and less: gradients add up over the steps (loss ratio in 8 runs at 0.1: 0.34 at most)
    history = hs.fit(spiking, blobs(), epochs=8, batch_size=8, lr=0.1)
    assert not any(torch.equal(a, b) for a, b in zip(before, weights(spiking), strict=True))
    assert history.loss[-1] < history.loss[0]
    assert history.writes.total > 0
    assert "write pulses" in repr(history)
    assert "training in memory sent" in history._repr_html_()


def test_pulsed_and_programmed_layers_do_not_mix():
    net = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 3))
    with pytest.raises(HpmlError, match="cannot be trained together"):
        hs.convert(net, {"0": pulsed(), "1": Analog("pcm")})
    both = hs.convert(net, {"0": pulsed(), "1": pulsed("capacitor")})
    assert len(pulsed_tiles(both)) == 2


def test_a_training_that_does_not_train_is_told(caplog):
    # labels that have nothing to do with the inputs
    generator = torch.Generator().manual_seed(0)
    split = TensorDataset(torch.randn(600, 6, generator=generator), torch.randint(3, (600,), generator=generator))
    data = Data("noise", split, split, (6,), 3)
    with caplog.at_level(logging.WARNING, logger="hpml_sim"):
        hs.fit(hs.convert(nn.Sequential(nn.Linear(6, 3)), pulsed()), data, epochs=3, lr=0.01)
    assert "is not training" in caplog.text
    assert "device='ecram', rule='sgd'" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="hpml_sim"):
        hs.fit(hs.convert(nn.Sequential(nn.Linear(6, 3)), pulsed()), blobs(), epochs=3, batch_size=8)
    assert not caplog.text


class Infinite(nn.Module):
    def forward(self, x):
        return x * float("inf")


def test_a_loss_that_is_not_finite_puts_the_devices_back():
    inputs = torch.ones(8, 6)
    split = TensorDataset(inputs, torch.zeros(8, dtype=torch.int64))
    converted = hs.convert(nn.Sequential(nn.Linear(6, 3), Infinite()), pulsed())
    before = weights(converted)
    with pytest.raises(HpmlError, match="the weights are as before"):
        hs.fit(converted, Data("nan", split, split, (6,), 3), epochs=1, batch_size=4)
    assert all(torch.equal(a, b) for a, b in zip(before, weights(converted), strict=True))


def test_a_comparison_takes_pulsed_devices():
    result = hs.compare(
        nn.Sequential(nn.Flatten(), nn.Linear(6, 3)), blobs(), {"ecram": pulsed()}, epochs=1, finetune_epochs=5
    )
    (row,) = result.rows
    assert row.time_s is None
    assert "cannot be seeded" in row.simulated
    assert any("write pulses; energy unknown: card 'pcm' has no figure" in note for note in row.notes)


def test_every_device_has_a_learning_rate_under_every_rule():
    for device in get_args(PulsedDevice):
        for rule in get_args(TrainingRule):
            if device != "pcm" or rule in ("sgd", "mixed-precision"):
                assert learning_rate(device, rule) > 0
