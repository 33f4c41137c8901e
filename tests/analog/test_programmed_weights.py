"""Chips multiply with what was programmed; networks that mean other weights are refused, or digital with the reason."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.utils import prune

import hpml_sim as hs


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 6), nn.Linear(6, 4)

    def forward(self, x):
        return self.b(F.relu(self.a(x)))


class Assigned(Two):
    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Parameter(torch.randn(4, 6))

    def forward(self, x):
        self.b.weight = self.other
        return super().forward(x)


class MaxNorm(Two):
    def forward(self, x):
        with torch.no_grad():
            self.b.weight.renorm_(2, 0, 0.3)
        return super().forward(x)


class MaxNormByData(Two):
    def forward(self, x):
        self.b.weight.data = self.b.weight.data.renorm(2, 0, 0.3)
        return super().forward(x)


class Normalized(Two):
    def __init__(self) -> None:
        super().__init__()
        self.v, self.g = nn.Parameter(torch.randn(4, 6)), nn.Parameter(torch.rand(4, 1) + 0.5)

    def forward(self, x):
        self.b.weight = nn.Parameter(self.g * self.v / self.v.norm(dim=1, keepdim=True))
        return super().forward(x)


class Decays(Two):
    def forward(self, x):
        with torch.no_grad():
            self.b.weight.mul_(0.9)
        return super().forward(x)


class DecaysByData(Two):
    def forward(self, x):
        self.b.weight.data.mul_(0.9)
        return super().forward(x)


class Teacher(nn.Module):
    """A teacher that follows its student a little in each call."""

    def __init__(self) -> None:
        super().__init__()
        self.student, self.teacher = nn.Linear(8, 4), nn.Linear(8, 4)

    def forward(self, x):
        with torch.no_grad():
            for follows, leads in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
                follows.mul_(0.9).add_(leads, alpha=0.1)
        return self.student(x) + self.teacher(x)


class TeacherByValues(Teacher):
    """The same with control flow by values, which runs chip by chip."""

    def forward(self, x):
        y = super().forward(x)
        return y + 1 if float(y.sum()) > -1e9 else y


class Hyper(nn.Module):
    """A layer whose weights another one makes from the input."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.makes = nn.Linear(8, 6), nn.Linear(6, 4), nn.Linear(8, 24)

    def weights(self, x):
        return {"weight": self.makes(x).mean(0).view(4, 6)}

    def forward(self, x):
        return self.given(self.weights(x), F.relu(self.a(x)))

    def given(self, weights, x):
        return functional_call(self.b, weights, x)


class HyperByHand(Hyper):
    """The same without functional_call: nothing in the code names it."""

    def given(self, weights, x):
        own = self.b._parameters.pop("weight")
        self.b.weight = weights["weight"]
        try:
            return self.b(x)
        finally:
            del self.b.weight
            self.b.weight = own


class Decaying(nn.Module):
    def __init__(self, layer: nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.layer, self.shape = layer, shape

    def forward(self, x):
        with torch.no_grad():
            for parameter in self.layer.parameters():
                parameter.mul_(0.9)
        y = self.layer(x)
        return y[0] if isinstance(y, tuple) else y


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def x() -> torch.Tensor:
    return torch.rand(5, 8)


def chips_of(analog: nn.Module, n: int = 3) -> hs.Chips:
    return hs.program(analog, chips=n, seed=0)


@pytest.mark.parametrize("kind", [Decays, DecaysByData, Teacher, HyperByHand])
@pytest.mark.filterwarnings("ignore:forward\\(\\) calls")
def test_weights_that_change_from_call_to_call_are_refused(kind, x):
    analog = hs.convert(kind(), "pcm-hermes")
    analog.eval()(x)
    name = "teacher" if kind is Teacher else "b"
    for n in (1, 3):
        with pytest.raises(hs.HpmlError, match=f"layer '{name}': its chips were .*skip='{name}'") as refused:
            chips_of(analog, n).at("1 day")(x)
        assert "\n" not in str(refused.value)
    if kind is Decays:
        assert "line " in str(refused.value)
        assert "test_programmed_weights.py" in str(refused.value)


@pytest.mark.parametrize("kind", [Assigned, MaxNorm, MaxNormByData, Normalized])
def test_weights_that_settle_are_refused_before_and_programmed_after(kind, x):
    analog = hs.convert(kind(), "pcm-hermes")
    with pytest.raises(hs.HpmlError, match="call the converted network once and program it again"):
        chips_of(analog).at("1 day")(x)
    analog.eval()(x)
    plain = Two()
    plain.load_state_dict({key: analog.network.state_dict()[key] for key in plain.state_dict()})
    want = chips_of(hs.convert(plain, "pcm-hermes")).at("1 day")(x)
    chips = chips_of(analog).at("1 day")
    assert torch.equal(chips(x), want)
    assert chips(x).shape == want.shape  # the second call is not refused either


@pytest.mark.parametrize(
    ("layer", "shape", "name"),
    [
        (nn.Conv2d(2, 3, 3), (4, 2, 6, 6), "layer"),
        (nn.ConvTranspose1d(2, 3, 3), (4, 2, 6), "layer"),
        (nn.LSTM(4, 3, batch_first=True), (4, 5, 4), "layer"),
        (nn.MultiheadAttention(4, 2, batch_first=True), (4, 5, 4), "layer"),
        (nn.GRUCell(4, 3), (4, 4), "layer"),
    ],
)
def test_every_kind_of_layer_is_watched(layer, shape, name):
    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.own = copy.deepcopy(layer)

        def forward(self, x):
            return self.own(x, x, x)[0]

    net = Decaying(layer, shape)
    if isinstance(layer, nn.MultiheadAttention):
        net, name = Decaying(Attends(), shape), "layer.own"
    with pytest.raises(hs.HpmlError, match=f"layer '{name}': its chips"):
        chips_of(hs.convert(net, "pcm-hermes")).at("1 day")(torch.rand(shape))


@pytest.mark.parametrize("kind", [Teacher, TeacherByValues])
def test_a_digital_teacher_follows_once_a_call_whatever_chips_run(kind, x):
    analog = hs.convert(kind(), "pcm-hermes", skip="teacher")
    together = chips_of(analog).at("1 day")
    found = [together(x) for _ in range(3)]
    assert (together.chip_by_chip is None) == (kind is Teacher)
    for chip in range(3):
        alone = chips_of(analog).at("1 day", only=chip)
        for call in found:
            assert torch.allclose(call[chip], alone(x)[0], atol=1e-6)


def test_a_call_at_one_time_leaves_the_chips_at_other_times_alone(x):
    analog = hs.convert(Teacher(), "pcm-hermes", skip="teacher")
    chips = chips_of(analog)
    later = chips.at("1 year")
    chips.at("1 day")(x)
    assert torch.equal(later(x), chips_of(analog).at("1 year")(x))
    assert torch.equal(chips.at("1 year")(x), chips_of(analog).at("1 year")(x))


def test_functional_call_leaves_its_layer_digital_and_says_so(x):
    net = Hyper()
    analog = hs.convert(net, "pcm-hermes")
    report = analog.report.set_index("layer")
    assert report.loc["b", "became"] == "digital"
    assert "functional_call" in report.loc["b", "why"]
    assert report.loc["a", "became"] == "AnalogLinear"
    assert hs.workload(analog, input_shape=(8,)) is not None
    ideal = hs.Analog("pcm-hermes", dac_bits="ideal", adc_bits="ideal", output_noise=0.0)
    chip = chips_of(hs.convert(net, ideal)).at("1 day", only=0)
    twin = Hyper()
    twin.load_state_dict(net.state_dict())
    for layer in ("a", "makes"):  # the only ones that a chip holds
        weight = chips_of(hs.convert(net, ideal)).weights(layer, "1 day", only=0)[0]
        twin.get_submodule(layer).weight.data.copy_(weight)
    with torch.no_grad():
        assert torch.allclose(chip(x)[0], twin(x), atol=1e-5)


def test_weights_that_a_call_brings_along_are_named_by_the_first_call(x):
    analog = hs.convert(HyperByHand(), "pcm-hermes")
    with pytest.warns(RuntimeWarning, match=r"calls 'b' with other weights .* skip=\['b'\]"):
        hs.calibrate(analog, x)


def test_fit_warns_and_compare_refuses_before_training(x, monkeypatch):
    data = torch.utils.data.TensorDataset(torch.rand(32, 8), torch.randint(0, 4, (32,)))
    with pytest.warns(RuntimeWarning, match="will not run after the training: layer 'b': its chips"):
        hs.fit(hs.convert(Decays(), "pcm-hermes"), data, epochs=1, show_progress=False)

    def trains(*_args, **_kwargs):
        raise AssertionError("it trained")

    monkeypatch.setattr("hpml_sim.experiments.pipeline.fit", trains)
    with pytest.raises(hs.HpmlError, match="layer 'b': its chips"):
        hs.compare(Decays(), (data, data), {"it": "pcm-hermes"}, epochs=1, chips=3)


def test_weights_changed_by_hand_are_refused_by_all_that_draws_chips_anew(x, tmp_path):
    chips = chips_of(hs.convert(Two(), "pcm-hermes"))
    model = chips.at("1 day")
    model(x)
    with torch.no_grad():
        model.network.network.b.weight[0, 0] += 1
    for call in (
        lambda: model(x),
        lambda: chips.at("1 year"),
        lambda: chips.weights("b", "1 day"),
        lambda: hs.save_chips(chips, tmp_path / "chips.safetensors"),
    ):
        with pytest.raises(hs.HpmlError, match="layer 'b': its chips"):
            call()


def test_moves_and_number_formats_are_no_other_weights(x):
    chips = chips_of(hs.convert(Two(), "pcm-hermes"))
    want = chips.at("1 day")(x)
    assert torch.allclose(chips.at("1 day").double()(x.double()).float(), want, atol=1e-2)
    half = chips.at("1 day").to(torch.bfloat16)
    assert half(x.bfloat16()).dtype == torch.bfloat16
    again = half.float()
    assert again(x).dtype == torch.float32
    assert torch.equal(copy.deepcopy(chips.at("1 day"))(x), want)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_number_formats_of_positive_weights_are_no_other_weights(dtype):
    layer = nn.Linear(4096, 4)
    nn.init.normal_(layer.weight, 1.0, 0.01)
    run = chips_of(hs.convert(nn.Sequential(layer), "pcm-hermes")).at("1 day")
    assert run.to(dtype)(torch.rand(2, 4096, dtype=dtype)).dtype == dtype
    with torch.no_grad():
        run.network.network[0].weight *= 1.05
    with pytest.raises(hs.HpmlError, match="layer '0': its chips"):
        run(torch.rand(2, 4096, dtype=dtype))


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_a_layer_may_be_pruned_or_normed_after_its_conversion(x):
    for change in (lambda layer: prune.l1_unstructured(layer, "weight", 0.5), nn.utils.weight_norm):
        analog = hs.convert(Two(), "pcm-hermes")
        change(analog.network.b)
        analog.eval()(x)
        chips = chips_of(analog)
        twin = Two()
        with torch.no_grad():
            for name in ("a", "b"):
                for part in ("weight", "bias"):
                    getattr(twin.get_submodule(name), part).copy_(getattr(analog.network.get_submodule(name), part))
        assert torch.equal(chips.at("1 day")(x), chips_of(hs.convert(twin, "pcm-hermes")).at("1 day")(x))


def test_chips_take_the_memory_format_of_images():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))
    chips, x = chips_of(hs.convert(net, "pcm-hermes")), torch.rand(2, 3, 6, 6)
    run = chips.at("1 day").to(memory_format=torch.channels_last)
    got = run(x.to(memory_format=torch.channels_last))
    assert torch.allclose(got, chips.at("1 day")(x), atol=1e-5)
