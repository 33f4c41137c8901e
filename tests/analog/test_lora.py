"""`hs.lora`: adapters beside frozen analog weights; the oracle of a product is float64 numpy."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import hpml_sim as hs

IDEAL = hs.Analog("pcm-hermes", dac_bits="ideal", adc_bits="ideal", output_noise=0.0)


class _Kinds(nn.Module):
    """A layer of every kind that lies on crossbars."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 8, 3, padding=1, groups=2)
        self.spread = nn.ConvTranspose2d(8, 6, 3, stride=2, groups=2)
        self.lstm = nn.LSTM(6, 8, batch_first=True)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x, _ = self.lstm(self.spread(self.conv(x)).flatten(2).mT)
        return self.head(self.attention(x, x, x)[0].mean(1))


def _trained(model, size=0.3):
    """Adapters as training could leave them."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("adapter.up.weight"):
                parameter.normal_(0, size)
    return model


def _with(name, adapted):
    return {key: value.detach().double().numpy() for key, value in adapted.state_dict().items() if name in key}


def test_new_adapters_change_nothing():
    torch.manual_seed(0)
    analog = hs.convert(_Kinds(), "pcm-hermes").eval()
    x = torch.randn(3, 4, 5, 5)
    before = analog(x)
    adapted = hs.lora(analog, rank=2)
    assert torch.equal(adapted(x), before)
    assert not any("adapter" in key for key in analog.state_dict())
    places = [row.layer for row in adapted.layers if row.was == "LowRankAdapter"]
    assert places == [
        *("conv.adapter", "spread.adapter", "lstm.cells.0.input.adapter", "lstm.cells.0.hidden.adapter"),
        *(f"attention.{part}.adapter" for part in ("query", "key", "value", "output")),
        "head.adapter",
    ]


def test_linear_adds_scale_times_up_times_down():
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(7, 5))
    adapted = _trained(hs.lora(hs.convert(net, IDEAL), rank=3, scale=0.5)).eval()
    found = _with("adapter", adapted)
    down, up = (found[f"network.0.adapter.{part}.weight"] for part in ("down", "up"))
    x = torch.randn(4, 7)
    weight = net[0].weight.detach().double().numpy() + 0.5 * up @ down
    expected = x.double().numpy() @ weight.T + net[0].bias.detach().double().numpy()
    assert np.allclose(adapted(x).detach().numpy(), expected, atol=1e-6)
    assert np.allclose(hs.to_digital(adapted)[0].weight.detach().numpy(), weight, atol=1e-6)


@pytest.mark.parametrize("groups", [1, 2])
def test_convolution_adds_a_matrix_of_rank_r_in_each_group(groups):
    torch.manual_seed(2)
    net = nn.Sequential(nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=groups))
    adapted = _trained(hs.lora(hs.convert(net, IDEAL), rank=2)).eval()
    found = _with("adapter", adapted)
    down, up = (found[f"network.0.adapter.{part}.weight"] for part in ("down", "up"))
    own = [
        np.einsum("or,rikl->oikl", up[g * 6 // groups : (g + 1) * 6 // groups, :, 0, 0], down[2 * g : 2 * g + 2])
        for g in range(groups)
    ]
    weight = net[0].weight.detach().double() + torch.from_numpy(np.concatenate(own))
    x = torch.randn(3, 4, 9, 9)
    expected = F.conv2d(x.double(), weight, net[0].bias.detach().double(), 2, 1, groups=groups)
    assert torch.allclose(adapted(x).double(), expected, atol=1e-5)
    assert torch.allclose(hs.to_digital(adapted)[0].weight.double(), weight, atol=1e-6)


def test_transposed_convolution():
    torch.manual_seed(3)
    net = nn.Sequential(nn.ConvTranspose1d(4, 6, 5, stride=2, padding=1, output_padding=1, groups=2))
    adapted = _trained(hs.lora(hs.convert(net, IDEAL), rank=2)).eval()
    found = _with("adapter", adapted)
    down, up = (found[f"network.0.adapter.{part}.weight"] for part in ("down", "up"))
    own = [np.einsum("ri,rok->iok", down[2 * g : 2 * g + 2, :, 0], up[2 * g : 2 * g + 2]) for g in range(2)]
    weight = net[0].weight.detach().double() + torch.from_numpy(np.concatenate(own))
    x = torch.randn(3, 4, 9)
    expected = F.conv_transpose1d(x.double(), weight, net[0].bias.detach().double(), 2, 1, 1, 2)
    assert torch.allclose(adapted(x).double(), expected, atol=1e-5)
    assert torch.allclose(hs.to_digital(adapted)[0].weight.double(), weight, atol=1e-6)


def test_every_kind_is_the_digital_network_with_the_adapters_in_its_weights():
    torch.manual_seed(4)
    adapted = _trained(hs.lora(hs.convert(_Kinds(), IDEAL), rank=2)).eval()
    x = torch.randn(3, 4, 5, 5)
    digital = hs.to_digital(adapted)
    assert list(digital.state_dict()) == list(_Kinds().state_dict())
    assert all(parameter.requires_grad for parameter in digital.parameters())
    assert torch.allclose(adapted(x), digital(x), atol=1e-6)


def test_training_moves_the_adapters_alone():
    torch.manual_seed(5)
    net = hs.models.mlp(64, 32, 10)
    hs.fit(net, "digits", epochs=3)
    adapted = hs.lora(hs.convert(net, hs.Analog("pcm-hermes", training_noise=0.2)), rank=4)
    before = {name: value.detach().clone() for name, value in adapted.named_parameters()}
    hs.fit(adapted, "digits", epochs=1, teacher=net)
    moved = [name for name, value in adapted.named_parameters() if not torch.equal(value, before[name])]
    assert moved == [f"network.{n}.adapter.{part}.weight" for n in (1, 3) for part in ("down", "up")]
    # frozen weights are mapped as they are: cutting them at 2.5 sigma would be another network
    assert adapted.network[1].crossbar.weight_limit == math.inf


def test_weights_that_were_clipped_before_stay_clipped_alike():
    torch.manual_seed(6)
    analog = hs.convert(hs.models.mlp(64, 32, 10), "pcm-hermes")
    hs.fit(analog, "digits", epochs=2)
    limit = float(analog.network[1].crossbar.weight_limit)
    adapted = hs.lora(analog, rank=2)
    hs.fit(adapted, "digits", epochs=2)
    assert float(adapted.network[1].crossbar.weight_limit) == limit < math.inf


def test_each_chip_adds_the_same_digital_product():
    torch.manual_seed(7)
    net = nn.Sequential(nn.Linear(20, 6, bias=False))
    adapted = _trained(hs.lora(hs.convert(net, IDEAL), rank=2))
    chips = hs.program(adapted, chips=3, seed=1)
    found = _with("adapter", adapted)
    added = found["network.0.adapter.up.weight"] @ found["network.0.adapter.down.weight"]
    x = torch.randn(4, 20)
    y = chips.at("1 day")(x).double().numpy()
    for chip, weight in enumerate(chips.weights("0", "1 day").double().numpy()):
        assert np.allclose(y[chip], x.double().numpy() @ (weight + added).T, atol=1e-5)
        twin = hs.to_digital(chips.at("1 day", only=chip))[0]
        assert np.allclose(twin.weight.detach().numpy(), weight + added, atol=1e-6)


def test_counted_and_charged_as_digital_products():
    card = "pcm-design-study"  # the one that knows what a digital operation takes
    analog = hs.convert(hs.models.mlp(64, 32, 10), card)
    adapted = hs.lora(analog, rank=4)
    more = 4 * (64 + 32) + 4 * (32 + 10)
    before, after = (hs.workload(model, input_shape=(64,)) for model in (analog, adapted))
    assert after.total("macs") == before.total("macs") + more
    assert after.total("weight_count") == before.total("weight_count") + more
    assert not after.not_counted
    one, two = (hs.estimate(model, input_shape=(64,)) for model in (analog, adapted))
    assert two.mapping["digital_macs"] == more
    assert two.mapping["tiles"] == one.mapping["tiles"]
    operation = hs.load_card(card).digital.energy_per_op
    assert operation is not None
    assert two.energy_j.nominal - one.energy_j.nominal == pytest.approx(2 * more * operation.si, rel=1e-6)


def test_recurrent_adapters_are_counted_at_every_step():
    analog = hs.convert(nn.Sequential(nn.GRU(6, 8, batch_first=True)), "pcm-hermes")
    before, after = (hs.workload(m, data=torch.rand(2, 5, 6)) for m in (analog, hs.lora(analog, rank=2)))
    assert after.total("macs") - before.total("macs") == 5 * (2 * (6 + 24) + 2 * (8 + 24))


def test_saved_and_loaded(tmp_path):
    torch.manual_seed(8)
    analog = hs.convert(hs.models.mlp(64, 32, 10), "pcm-hermes")
    adapted = _trained(hs.lora(analog, rank=4)).eval()
    x = torch.rand(3, 64)
    torch.save(adapted.state_dict(), tmp_path / "adapted.pt")
    again = hs.lora(analog, rank=4, seed=9).eval()
    again.load_state_dict(torch.load(tmp_path / "adapted.pt", weights_only=True))
    assert torch.equal(again(x), adapted(x))
    chips = hs.program(adapted, chips=2, seed=3)
    hs.save_chips(chips, tmp_path / "chips.safetensors")
    assert torch.equal(hs.load_chips(tmp_path / "chips.safetensors", again).at(1.0)(x), chips.at(1.0)(x))
    with pytest.raises(hs.HpmlError, match="another model"):
        hs.load_chips(tmp_path / "chips.safetensors", analog)


class _OwnProducts(nn.Module):
    """Multiplies with the weights of its layers itself."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.c = nn.Linear(6, 4), nn.Conv1d(2, 3, 3)

    def forward(self, x):
        y = F.conv1d(x.reshape(-1, 2, 3), self.c.weight, self.c.bias, stride=2, padding=1)
        return F.linear(x, self.a.weight).sum(1) + y.sum((1, 2))


def test_products_with_a_weight_by_itself_take_the_adapter():
    torch.manual_seed(9)
    adapted = _trained(hs.lora(hs.convert(_OwnProducts(), IDEAL), rank=2)).eval()
    x = torch.randn(5, 6)
    assert torch.allclose(adapted(x), hs.to_digital(adapted)(x), atol=1e-5)


def test_a_tied_weight_is_not_changed_for_others():
    torch.manual_seed(10)
    net = nn.Sequential(nn.Embedding(9, 6), nn.Linear(6, 9, bias=False))
    net[1].weight = net[0].weight
    adapted = _trained(hs.lora(hs.convert(net, IDEAL), rank=2)).eval()
    x = torch.arange(4)
    digital = hs.to_digital(adapted)
    assert torch.equal(digital[0].weight, net[0].weight)
    assert torch.allclose(digital(x), adapted(x), atol=1e-6)


def test_some_layers_only():
    analog = hs.convert(hs.models.mlp(64, 32, 10), "pcm-hermes")
    assert [key for key in hs.lora(analog, rank=16, skip="3").state_dict() if "adapter" in key] == [
        "network.1.adapter.down.weight",
        "network.1.adapter.up.weight",
    ]
    assert "network.1.adapter.up.weight" not in hs.lora(analog, only=["3"]).state_dict()


def _mlp(target="pcm-hermes"):
    return hs.convert(hs.models.mlp(64, 32, 10), target)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: hs.lora(_mlp(), rank=0), "lora: rank=0: must be a whole number >= 1"),
        (lambda: hs.lora(_mlp(), rank=11), r"lora: rank=11: layer '3' \(32 -> 10\) takes at most 10"),
        (lambda: hs.lora(_mlp(), rank=2.5), "lora: rank=2.5"),
        (lambda: hs.lora(_mlp(), scale=0), "lora: scale=0"),
        (lambda: hs.lora(_mlp(), seed=-1), "lora: seed=-1"),
        (lambda: hs.lora(_mlp(), only="2"), "no layer is left"),
        (lambda: hs.lora(_mlp(), skip="head"), "unknown layer in skip= 'head'"),
        (lambda: hs.lora(_mlp(), only=3), "lora: only=3"),
        (lambda: hs.lora(hs.models.mlp(64, 32, 10)), "has no analog layers"),
        (lambda: hs.lora("mlp"), "lora: model='mlp'"),
        (lambda: hs.lora(hs.lora(_mlp())), "has adapters already"),
        (lambda: hs.lora(hs.program(_mlp(), chips=1)), "chips hold their weights for good"),
        (lambda: hs.lora(hs.program(_mlp(), chips=1).at(1.0)), "chips hold their weights for good"),
        (lambda: hs.lora(_mlp(hs.Analog("pcm-hermes", engine="aihwkit"))), "engine='fused'"),
        (lambda: hs.lora(_mlp(hs.InMemory("pcm", device="ecram"))), "pulsed devices"),
    ],
)
def test_mistakes_are_one_line(call, says):
    with pytest.raises(hs.HpmlError, match=says) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_adapters_of_peft_are_the_same_digital_adapters():
    peft = pytest.importorskip("peft")
    torch.manual_seed(11)
    net = nn.Sequential(nn.Linear(20, 12), nn.ReLU(), nn.Linear(12, 5))
    ours = _trained(hs.lora(hs.convert(net, "pcm-hermes"), rank=3, scale=2.0))
    wrapped = peft.get_peft_model(net, peft.LoraConfig(r=3, lora_alpha=6, target_modules=["0", "2"]))
    with torch.no_grad():
        for index in (0, 2):
            layer, adapter = wrapped.base_model.model[index], ours.network[index].adapter
            layer.lora_A["default"].weight.copy_(adapter.down.weight)
            layer.lora_B["default"].weight.copy_(adapter.up.weight)
    theirs = hs.convert(wrapped, "pcm-hermes")
    x = torch.randn(4, 20)
    assert torch.allclose(theirs.eval()(x), ours.eval()(x), atol=1e-6)
    both = [hs.workload(model, data=x) for model in (theirs, ours)]
    assert both[0].total("macs") == both[1].total("macs")
    assert theirs.mapping.tiles == ours.mapping.tiles == 2
    one, two = (hs.program(model, chips=2, seed=5).at("1 h")(x) for model in (theirs, ours))
    assert torch.allclose(one, two, atol=1e-6)
    theirs.train()(x)
    assert theirs.network.base_model.model[0].base_layer.crossbar.weight_limit == math.inf
    assert type(hs.to_digital(theirs)) is type(wrapped)
