"""Conductances and weights of programmed chips against what the chips multiply with."""

import numpy as np
import pytest
import torch
from torch import nn

import hpml_sim as hs
from hpml_sim.analog import fused_backend
from hpml_sim.analog.layers import crossbars
from hpml_sim.errors import HpmlError, UnknownNameError, UnsupportedTimeError


def programmed(target, layer=None, chips=2):
    torch.manual_seed(0)
    net = nn.Sequential(layer or nn.Linear(300, 9, bias=False))
    return hs.program(hs.convert(net, target), chips=chips, seed=5)


@pytest.mark.parametrize("options", [{}, {"levels": 8, "slices": 2}, {"stuck_at_g_min": 0.1, "stuck_at_g_max": 0.05}])
@pytest.mark.parametrize("card", ["pcm", "pcm-hermes"])
def test_conductances_are_those_that_the_chip_multiplies_with(card, options):
    """To the bit, though one pass makes weights alone and another every device."""
    chips = programmed(hs.Analog(card, compensation="none", **options))
    found = chips.conductances("0", "1 day")
    (crossbar,) = crossbars(chips.at("1 day")).values()
    tiling, slices = crossbar.tiling, len(found.significance)
    assert found.positive_s.shape == found.negative_s.shape == (2, slices, 9, 300)
    span = float((found.g_max_s - found.g_min_s) * 1e6)
    assert found.negative_s is not None
    cells = (found.positive_s * 1e6).float().sub((found.negative_s * 1e6).float()) / span
    own = crossbar.programmed.weight.unflatten(3, (slices, 9))[:, 0].permute(0, 2, 3, 1, 4).flatten(3)[..., :300]
    assert torch.allclose(cells, own, rtol=0, atol=1e-6)
    scale = found.full_scale.repeat_interleave(tiling.height, 0).T[:, :300]
    weight = sum(share * cells[:, s] for s, share in enumerate(found.significance)) * scale
    assert torch.allclose(weight, chips.weights("0", "1 day"), atol=1e-5)


def test_conductances_in_siemens_lie_around_their_targets():
    """5 standard errors of the programming noise of the card's paper, a false alarm in 2 million."""
    layer = nn.Linear(200, 100, bias=False)
    with torch.no_grad():
        layer.weight.fill_(0.5)
        layer.weight[:, 0] = 1.0
    found = programmed("pcm", layer).conductances("0")
    assert found.time_s is None
    g, sigma = found.positive_s[..., 1:] * 1e6, 0.26348 + 1.9650 * 0.5 - 1.1731 * 0.25
    assert float(g.mean()) == pytest.approx(12.5, abs=5 * sigma / np.sqrt(g.numel()))
    assert float(g.std()) == pytest.approx(sigma, rel=5 / np.sqrt(2 * g.numel()))
    assert float(found.negative_s.min()) == 0.0
    assert torch.equal(found.full_scale, torch.ones_like(found.full_scale))


def test_one_device_a_weight_has_no_partner(card_file):
    found = programmed(card_file(model="reram-cmo")).conductances("0", "1 day")
    assert found.negative_s is None
    assert float(found.positive_s.min()) >= found.g_min_s == pytest.approx(9e-6)


@pytest.mark.parametrize(
    "layer",
    [lambda: nn.Conv2d(4, 6, 3, groups=2), lambda: nn.ConvTranspose1d(4, 6, 3, groups=2), lambda: nn.Conv1d(2, 3, 2)],
)
def test_weights_have_the_shape_of_the_layers(layer):
    chips = programmed(hs.Analog("pcm-hermes", compensation="column"), layer())
    found = chips.weights("0", "1 h")
    assert found.shape == (2, *layer().weight.shape)
    for chip in range(2):
        assert torch.equal(hs.to_digital(chips.at("1 h", only=chip))[0].weight, found[chip])
    assert torch.equal(chips.weights("network.0", "1 h", only=[1])[0], found[1])


def test_a_chip_is_the_same_whatever_runs_beside_it():
    chips, x = programmed("pcm-hermes", chips=4), torch.rand(3, 300)
    y = chips.at("1 day")(x)
    for only in (2, [2], range(2, 3)):
        assert torch.equal(chips.at("1 day", only=only)(x), y[2:3])
    assert torch.equal(chips.at("1 day", only=[3, 0])(x), y[[3, 0]])


def test_chips_that_do_not_fit_together_run_one_by_one(monkeypatch):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.LSTM(30, 6))
    chips, x = hs.program(hs.convert(net, "pcm-hermes"), chips=5, seed=0), torch.rand(4, 3, 20)
    together = chips.at("1 day")
    first, second = together(x), together(x)
    assert together.chip_by_chip is None
    assert list(together.parts()) == [together]
    size = chips.backend.chip_bytes
    monkeypatch.setattr("hpml_sim.analog.chips.TOGETHER_BYTES", 2 * size)
    apart = chips.at("1 day")
    assert "5 chips take" in str(apart.chip_by_chip)
    for want in (first, second):  # noise goes on from call to call, chip by chip
        y = apart(x)
        assert all(torch.equal(a, b) for a, b in zip(y[0].unbind(), want[0].unbind(), strict=True))
    held = [c.programmed.weight.shape[0] for c in crossbars(apart).values()]
    assert set(held) == {1}
    parts = list(apart.parts())
    assert [part.n_chips for part in parts] == [2, 2, 1]
    assert torch.equal(torch.cat([part(x)[0] for part in parts]), first[0])
    half = chips.at("1 day").to(torch.float64)
    assert half(x.double())[0].dtype == torch.float64
    assert fused_backend.TOGETHER_BYTES == 2**28


def test_evaluation_goes_through_all_data_with_one_part_at_a_time(monkeypatch):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    chips = hs.program(hs.convert(net, "pcm-hermes"), chips=5, seed=0)
    want = hs.evaluate(chips.at("1 day"), "digits")
    monkeypatch.setattr("hpml_sim.analog.chips.TOGETHER_BYTES", 2 * chips.backend.chip_bytes)
    assert hs.evaluate(chips.at("1 day"), "digits").values == want.values
    assert want.n == 5


def test_functions_of_torch_are_a_noise_model_too():
    """A model put in the place of the card's own: drawn by its functions, chip by chip, from the same seeds."""

    class Mine:
        def apply_programming_noise_to_conductance(self, g):
            return g + 0.5 * torch.randn(g.shape)

        def generate_drift_coefficients(self, g):
            return 0.05 + 0.01 * torch.randn_like(g)

        def apply_drift_noise_to_conductance(self, g, nu, t):
            return g * (1 + t) ** -nu

    chips = programmed(hs.Analog("pcm", compensation="none", stuck_at_g_max=0.01))
    model = chips.backend.layers["network.0"].device_model
    model.noise_model.physics = Mine()
    del model.__dict__["law"]
    state = torch.random.get_rng_state()
    first, again = chips.conductances("0", "1 day"), chips.conductances("0", "1 day")
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first.positive_s, again.positive_s)
    assert not torch.equal(first.positive_s[0], first.positive_s[1])
    before = chips.conductances("0").positive_s
    moved = (before > 5e-6) & (before < first.g_max_s)
    ratio = (first.positive_s / before)[moved].log() / np.log(86401)
    assert float(-ratio.mean()) == pytest.approx(0.05, abs=5 * 0.01 / np.sqrt(int(moved.sum())))
    stuck = first.positive_s == first.g_max_s
    assert 0.002 < float(stuck.double().mean()) < 0.02


def test_wrong_readings_are_refused_in_one_line():
    chips = programmed("reram-neurram")
    for call, kind, said in (
        (lambda: chips.conductances("head"), UnknownNameError, r"unknown layer in chips\.conductances: layer= 'head'"),
        (lambda: chips.conductances(0), HpmlError, "layer=0: must be the name"),
        (lambda: chips.conductances("0", "1 h"), UnsupportedTimeError, "has data at"),
        (lambda: chips.conductances("0", "soon"), HpmlError, "soon"),
        (lambda: chips.conductances("0", only=2), HpmlError, "only=2"),
        (lambda: chips.weights("0", None), HpmlError, "their weights have a time"),
        (lambda: chips.at("1 day", only=[]), HpmlError, "at least one chip"),
        (lambda: chips.at("1 day", only=[0, 0]), HpmlError, "twice"),
    ):
        with pytest.raises(kind, match=said) as raised:
            call()
        assert "\n" not in str(raised.value)


def test_what_is_not_free_is_refused_before_anything_is_programmed(monkeypatch):
    torch.manual_seed(0)
    analog = hs.convert(nn.Linear(400, 300), "pcm-hermes")
    chips = hs.program(analog, chips=2, seed=0)
    weights = 400 * 300
    together = chips.at("1 day")
    for module in ("errors", "analog.chips"):  # room for one chip and what runs through it, and for no second one
        monkeypatch.setattr(f"hpml_sim.{module}.free_memory_bytes", lambda: 10.0 * weights)
    one_by_one = chips.at("1 day")
    assert together.chip_by_chip is None
    assert "2 chips take" in str(one_by_one.chip_by_chip)
    x = torch.rand(3, 400)
    assert torch.equal(one_by_one(x), together(x))
    for module in ("errors", "analog.chips"):  # the copy of the network fits, a chip's weights do not
        monkeypatch.setattr(f"hpml_sim.{module}.free_memory_bytes", lambda: 7.0 * weights)
    with pytest.raises(HpmlError, match="program: chips=1 of"):
        hs.program(analog, chips=1)
    for module in ("errors", "analog.chips"):
        monkeypatch.setattr(f"hpml_sim.{module}.free_memory_bytes", lambda: 1000.0)
    monkeypatch.setattr("hpml_sim.analog.fused_backend.FusedBackend.program", None)
    with pytest.raises(
        HpmlError, match=r"program: chips=3 of 120,000 weights, one after another: needs at least .* are free; take a"
    ):
        hs.program(analog, chips=3)
    with pytest.raises(HpmlError, match=r"program: chips=100000 of .* free; program fewer chips$"):
        hs.program(analog, chips=100_000)
    with pytest.raises(HpmlError, match=r"chips\.at: the weights of 1 chip: needs at least"):
        chips.at("1 day")
    with pytest.raises(HpmlError, match=r"chips\.conductances: layer '' on 2 chips"):
        chips.conductances("")
