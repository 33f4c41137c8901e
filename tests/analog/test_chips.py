from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import hpml_sim.analog.nn as analog_nn
import hpml_sim.spiking  # noqa: F401 - its converter
from hpml_sim.analog import calibrate, load_chips, program, save_chips
from hpml_sim.analog.chip_files import KIND
from hpml_sim.analog.crossbar import Crossbar
from hpml_sim.analog.seeds import Purpose, derive
from hpml_sim.conversion import convert
from hpml_sim.errors import HpmlError, UnsupportedTimeError
from hpml_sim.errors.files import read_tensors, write_tensors
from hpml_sim.networks.models import build, mlp
from hpml_sim.targets import Analog, Spiking

TIMES = (0.0, 1.0, "1 h", "1 day", "1 year")


def net(seed=0):
    torch.manual_seed(seed)
    return mlp(20, 16, 5)


@pytest.fixture
def model():
    converted = convert(net(), "pcm")
    calibrate(converted, inputs())
    return converted


def inputs(n=12):
    return torch.rand(n, 20, generator=torch.Generator().manual_seed(3))


def test_chips_are_the_first_dimension(model):
    y = program(model, chips=7, seed=0).at("1 h")(inputs())
    assert y.shape == (7, 12, 5)
    assert torch.isfinite(y).all()
    assert len({tuple(chip[0].tolist()) for chip in y}) == 7
    assert torch.allclose(y.mean(0), model.eval()(inputs()), atol=0.3)


def test_the_same_seed_gives_the_same_bits_in_any_order_of_times(model):
    first = program(model, chips=3, seed=5)
    forward = {time: first.at(time)(inputs()) for time in TIMES}
    second = program(model, chips=3, seed=5)
    torch.manual_seed(123)
    backward = {time: second.at(time)(inputs()) for time in reversed(TIMES)}
    assert all(torch.equal(forward[time], backward[time]) for time in TIMES)
    assert not torch.equal(forward["1 h"], program(model, chips=3, seed=6).at("1 h")(inputs()))
    assert not torch.equal(forward["1 h"], forward["1 day"])


def test_a_chip_is_the_same_among_few_and_among_many(model):
    few, many = program(model, chips=2, seed=0).at("1 day"), program(model, chips=9, seed=0).at("1 day")
    assert torch.equal(few(inputs()), many(inputs())[:2])


def test_drift_never_compounds(model):
    chips = program(model, chips=2, seed=0)
    alone = chips.at("1 day")(inputs())
    for _ in range(3):
        chips.at("1 year")(inputs())
        chips.at("1 day")
    assert torch.equal(chips.at("1 day")(inputs()), alone)


def test_models_of_different_times_live_side_by_side(model):
    chips = program(model, chips=2, seed=0)
    early, late = chips.at(0), chips.at("1 year")
    expected = chips.at(0)(inputs())
    late(inputs())
    assert torch.equal(early(inputs()), expected)


def test_each_call_draws_new_noise_and_a_new_model_repeats_it(model):
    chips = program(model, chips=2, seed=0)
    first = chips.at(1)
    a, b = first(inputs()), first(inputs())
    assert not torch.equal(a, b)
    again = chips.at(1)
    assert torch.equal(again(inputs()), a)
    assert torch.equal(again(inputs()), b)


def test_programming_leaves_the_model_alone_and_later_training_takes_effect(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    mode = model.training
    chips = program(model, chips=2, seed=0)
    old = chips.at("1 h")(inputs())
    assert model.training is mode
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    model.train()
    nn.functional.cross_entropy(model(inputs()), torch.zeros(12, dtype=torch.long)).backward()
    optimizer.step()
    assert torch.equal(chips.at("1 h")(inputs()), old)
    assert not torch.equal(program(model, chips=2, seed=0).at("1 h")(inputs()), old)


def test_the_callers_random_state_is_left_alone(model):
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - the caller's global state is what is tested
    torch_before, numpy_before = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    program(model, chips=2, seed=0).at(1)(inputs())
    assert torch.equal(torch.random.get_rng_state(), torch_before)
    assert (np.random.get_state()[1] == numpy_before).all()  # noqa: NPY002


def test_seeds_are_the_same_on_every_machine_and_never_meet():
    assert derive(0, Purpose.PROGRAMMING) == 1679244459469518809
    grid = {
        derive(seed, purpose, layer=layer, chip=chip, time_s=time_s, call=call)
        for seed in (0, 1, 2**40)
        for purpose in Purpose
        for layer in (0, 1, 7)
        for chip in (0, 1, 24)
        for time_s in (0.0, 1.0, 86400.0)
        for call in (0, 1)
    }
    assert len(grid) == 3 * len(Purpose) * 3 * 3 * 3 * 2


# ---------------------------------------------------------------------------------------------- what a chip computes


class Folding(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1, padding_mode="circular"), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2)
        )
        self.depthwise = nn.Conv2d(6, 6, 3, groups=6, stride=2)
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        x = self.depthwise(self.features(x))
        return self.head(x.flatten(2).mean(-1)) + self.head(x.amax((2, 3)))


@pytest.mark.parametrize("rows", [256, 5])
def test_ideal_devices_compute_what_the_digital_network_computes(card_file, rows):
    torch.manual_seed(0)
    digital = Folding()
    digital(torch.randn(50, 3, 8, 8))  # statistics of the batch norm
    digital.eval()
    target = Analog(card_file(rows=rows, model="none"), dac_bits=16, adc_bits=16, output_noise=0.0)
    x = torch.randn(6, 3, 8, 8)
    y = program(convert(digital, target), chips=3, seed=0).at("1 year")(x)
    assert torch.allclose(y, digital(x).expand(3, 6, 4), atol=5e-3)


def test_output_noise_has_its_size(card_file):
    options = {"dac_bits": 16, "adc_bits": 16, "adc_bound": 30.0, "compensation": "none"}
    layer = analog_nn.AnalogLinear(30, 400, card=Analog(card_file(model="none"), **options))
    x = torch.ones(1, 30)
    y = program(nn.Sequential(layer), chips=100, seed=0).at(0)(x)[:, 0]
    noise = ((y - nn.functional.linear(x, layer.weight, layer.bias)) / layer.weight.abs().amax(1)).detach()
    assert float(noise.std()) == pytest.approx(0.04, rel=0.02)  # 40,000 draws: 5 standard errors


@pytest.mark.parametrize("options", [{}, {"levels": 8, "slices": 2, "output_noise": 0.0}, {"dac_bits": 5}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_kernel_computes_what_the_layer_computes_in_torch(card_file, monkeypatch, options, dtype):
    """Chip by chip in one pass, or all chips operator by operator: up to a code where a product lies between two."""
    torch.manual_seed(0)
    model = convert(Folding().eval().to(dtype), Analog(card_file(rows=5), **options))
    x = torch.rand(6, 3, 8, 8, dtype=dtype)
    calibrate(model, x)
    chips = program(model, chips=3, seed=0)
    fused = chips.at("1 day")(x)
    monkeypatch.setattr(Crossbar, "fuses", lambda *_: False)
    plain = chips.at("1 day")(x)
    assert (fused - plain).abs().max() < 0.1 * plain.std()
    assert torch.isclose(fused, plain, atol=1e-5).double().mean() > 0.5
    single = convert(nn.Linear(20, 30, dtype=dtype), Analog(card_file(rows=7), **options))
    x = torch.rand(50, 20, dtype=dtype)
    calibrate(single, x)
    plain = program(single, chips=2, seed=1).at("1 h")(x)
    monkeypatch.undo()
    fused = program(single, chips=2, seed=1).at("1 h")(x)
    assert torch.isclose(fused, plain, atol=1e-6).double().mean() > 0.99


def ratio(model, time, **options):
    """Least-squares gain of 20 chips against the network without noise, mean over the chips."""
    target = Analog("pcm", output_noise=0.0, adc_bits=12, **options)
    layer = analog_nn.AnalogLinear(200, 100, bias=False, card=target)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(100, 200, generator=torch.Generator().manual_seed(0)).clamp(-2.5, 2.5))
    x = torch.randn(100, 200, generator=torch.Generator().manual_seed(1))
    y = program(nn.Sequential(layer), chips=20, seed=0).at(time)(x)
    clean = x @ layer.weight.detach().T
    return float((y * clean).sum() / (20 * (clean * clean).sum()))


@pytest.mark.parametrize("compensation", ["global", "column"])
def test_compensation_restores_the_gain_that_drift_takes(compensation):
    # gains of aihwkit for clipped Gaussian weights: 0.99 when programmed, then 0.767, 0.657 and 0.494
    for time, gain in (("1 h", 0.767), ("1 day", 0.657), ("1 year", 0.494)):
        assert ratio("pcm", time, compensation="none") == pytest.approx(gain, abs=0.02)
        assert ratio("pcm", time, compensation=compensation) == pytest.approx(0.99, abs=0.02)


def test_compensation_is_one_factor_a_tile_or_one_a_column(card_file):
    shape = {"rows": 8, "cols": 4}
    # read-outs are codes of the ADC, so two columns may agree by chance
    for compensation, distinct in (("none", {1}), ("global", {5, 6}), ("column", {*range(15, 22)})):
        target = Analog(card_file(**shape), compensation=compensation)
        torch.manual_seed(0)
        model = nn.Sequential(analog_nn.AnalogLinear(20, 7, card=target))
        chips = program(model, chips=1, seed=0)
        programmed = chips.at("1 day").network[0].crossbar.programmed
        factors = programmed.scale.squeeze() / chips.backend.layers["0"].column_scale.squeeze()
        assert len({round(float(f), 5) for f in factors.flatten()}) in distinct


# ---------------------------------------------------------------------------------------------------- saving, loading


def test_chips_come_back_from_a_file_exactly(model, tmp_path):
    chips = program(model, chips=3, seed=4)
    path = tmp_path / "chips.safetensors"
    save_chips(chips, path)
    torch.load(path, weights_only=True)
    other = convert(net(seed=9), "pcm")  # other weights: those of the file count
    back = load_chips(path, other)
    assert (len(back), back.seed) == (3, 4)
    for time in TIMES:
        assert torch.equal(back.at(time)(inputs()), chips.at(time)(inputs()))
    again = tmp_path / "again.pt"
    save_chips(load_chips(path, model), again)
    assert torch.equal(load_chips(again, other).at("1 day")(inputs()), chips.at("1 day")(inputs()))


def test_a_file_of_chips_is_no_larger_than_the_network(model, tmp_path):
    sizes = []
    for count in (1, 50):
        path = tmp_path / f"{count}.pt"
        save_chips(program(model, chips=count, seed=0), path)
        sizes.append(path.stat().st_size)
    assert sizes[1] < sizes[0] + 50 * 4 * (16 + 5) + 1000


def test_files_that_do_not_fit_are_refused(model, tmp_path):
    path = tmp_path / "chips.safetensors"
    save_chips(program(model, chips=2, seed=0), path)
    with pytest.raises(HpmlError, match="does not exist"):
        load_chips(tmp_path / "none.pt", model)
    with pytest.raises(HpmlError, match="other settings \\(compensation\\)"):
        load_chips(path, convert(net(), Analog("pcm", compensation="none")))
    with pytest.raises(HpmlError, match="other settings \\(card"):
        load_chips(path, convert(net(), "pcm-hermes"))
    with pytest.raises(HpmlError, match="has the analog layers"):
        load_chips(path, convert(net(), "pcm", skip=["3"]))
    with pytest.raises(HpmlError, match="no analog layers"):
        load_chips(path, net())
    tensors, content = read_tensors(path, KIND)
    other = {name: value + 1e-6 if name.startswith("baseline.") else value for name, value in tensors.items()}
    write_tensors(path, KIND, other, {**content, "made_with": "hpml_sim 99"})
    with pytest.raises(HpmlError, match=r"saved by hpml_sim 99; hpml_sim .* draws other devices"):
        load_chips(path, model)
    write_tensors(path, replace(KIND, format=KIND.format + 1), tensors, content)
    with pytest.raises(HpmlError, match=f"has format {KIND.format + 1}, this version reads {KIND.format}; program the"):
        load_chips(path, model)


# ---------------------------------------------------------------------------------------------------------- bad input


def test_bad_arguments_are_named(model):
    for chips in (0, -1, 2.5, True):
        with pytest.raises(HpmlError, match="chips="):
            program(model, chips=chips)
    for seed in (-1, 0.5, 2**63):
        with pytest.raises(HpmlError, match="seed="):
            program(model, seed=seed)
    with pytest.raises(HpmlError, match="has no analog layers"):
        program(net())
    chips = program(model, chips=1)
    for time in (-1, "-1 h", "later"):
        with pytest.raises(HpmlError, match="time"):
            chips.at(time)
    with pytest.raises(HpmlError, match="cannot be trained"):
        chips.at(1).train()
    with pytest.raises(HpmlError, match="programmed chips"):
        program(chips.at(1))


def test_nan_weights_are_not_programmed(model):
    with torch.no_grad():
        next(model.parameters())[0, 0] = float("nan")
    with pytest.raises(HpmlError, match=r"layer 'network\.1': weights are NaN"):
        program(model)


def test_times_without_data_are_refused():
    chips = program(convert(net(), "reram-neurram"), chips=1)
    assert torch.isfinite(chips.at("2 days")(inputs())).all()
    for time in (0, "1 h", "1 year"):
        with pytest.raises(UnsupportedTimeError, match="1 s, 1 day, 2 days only"):
            chips.at(time)


def test_networks_that_turn_or_lose_the_batch(card_file):
    class Transposed(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            return self.layer(x.transpose(0, 1)).transpose(0, 1)

    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            return self.layer(x).mean()

    for network, x, shape in (
        (Transposed(), torch.rand(3, 5, 4), (2, 3, 5, 4)),
        (Mean(), torch.rand(3, 4), (2,)),
    ):
        model = convert(network, "pcm")
        two, one = (program(model, chips=n).at(0)(x) for n in (2, 1))
        assert two.shape == shape
        assert torch.equal(two[0], one[0])
        assert not torch.equal(two[0], two[1])


# ----------------------------------------------------------------------------------------------------- spiking, whole


def test_spiking_networks_run_on_crossbars():
    hybrid = convert(build("mlp", (1, 8, 8), 10), Spiking("loihi", steps=4, synapses=Analog("pcm-hermes")))
    x = torch.rand(6, 1, 8, 8)
    hybrid(x)
    chips = program(hybrid, chips=3, seed=0)
    y = chips.at("1 day")(x)
    assert y.shape == (3, 6, 10)
    assert torch.equal(chips.at("1 day")(x), y)
