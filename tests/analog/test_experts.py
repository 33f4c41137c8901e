"""Stacks of expert weights on crossbars: looped, gathered and grouped products run there, and are counted whole."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import hpml_sim as hs
from hpml_sim.analog.expert_reading import expert_stacks
from hpml_sim.analog.experts import AnalogExperts

EXPERTS, WIDTH, HIDDEN, CHOSEN = 4, 8, 12, 2
PRECISE = hs.Analog("pcm-hermes", adc_bits=16, dac_bits=16, output_noise=0.0)
OF_ALL = WIDTH * EXPERTS + EXPERTS * 2 * WIDTH * HIDDEN
"""MACs of a token: the router, and both matrices of every expert."""
OF_CHOSEN = WIDTH * EXPERTS + CHOSEN * 2 * WIDTH * HIDDEN


class Experts(nn.Module):
    """A router, and two stacks of weights."""

    inputs_first = False

    def __init__(self) -> None:
        super().__init__()
        up, down = (HIDDEN, WIDTH), (WIDTH, HIDDEN)
        up, down = (up[::-1], down[::-1]) if self.inputs_first else (up, down)
        self.gate = nn.Linear(WIDTH, EXPERTS)
        self.up, self.down = nn.Parameter(torch.randn(EXPERTS, *up)), nn.Parameter(torch.randn(EXPERTS, *down))

    def route(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.gate(x).softmax(-1).topk(CHOSEN, -1)


class Looped(Experts):
    def forward(self, x: Tensor) -> Tensor:
        shares, chosen = self.route(x)
        y = torch.zeros_like(x)
        for number in range(EXPERTS):
            token, place = (chosen == number).nonzero(as_tuple=True)
            h = F.linear(x[token], self.up[number]).relu()
            y = y.index_add(0, token, F.linear(h, self.down[number]) * shares[token, place, None])
        return y


class LoopedPairs(Experts):
    inputs_first = True

    def forward(self, x: Tensor) -> Tensor:
        shares, chosen = self.route(x)
        y = torch.zeros_like(x)
        for number, (up, down) in enumerate(zip(self.up, self.down, strict=True)):
            token, place = (chosen == number).nonzero(as_tuple=True)
            y = y.index_add(0, token, (x[token] @ up).relu() @ down * shares[token, place, None])
        return y


class Gathered(Experts):
    def forward(self, x: Tensor) -> Tensor:
        shares, chosen = self.route(x)
        h = torch.einsum("td,tkfd->tkf", x, self.up[chosen]).relu()
        return (torch.einsum("tkf,tkdf->tkd", h, self.down[chosen]) * shares[..., None]).sum(1)


class GatheredFlat(Experts):
    inputs_first = True

    def forward(self, x: Tensor) -> Tensor:
        shares, chosen = self.route(x)
        flat = chosen.reshape(-1)
        h = torch.bmm(x.repeat_interleave(CHOSEN, 0).unsqueeze(1), self.up.index_select(0, flat)).relu()
        y = torch.bmm(self.down[flat].mT, h.mT).squeeze(-1)
        return (y * shares.reshape(-1, 1)).unflatten(0, (-1, CHOSEN)).sum(1)


class Grouped(Experts):
    def forward(self, x: Tensor) -> Tensor:
        shares, chosen = self.route(x)
        sorted_experts, order = chosen.reshape(-1).sort()
        ends = torch.histc(sorted_experts.float(), bins=EXPERTS, min=0, max=EXPERTS - 1).cumsum(0, dtype=torch.int32)
        h = F.grouped_mm(x[order // CHOSEN], self.up.transpose(-2, -1), offs=ends).relu()
        y = F.grouped_mm(h, self.down.mT, offs=ends) * shares.reshape(-1)[order, None]
        return torch.zeros_like(x).index_add(0, order // CHOSEN, y)


class Dense(Experts):
    inputs_first = True

    def forward(self, x: Tensor) -> Tensor:
        h = torch.einsum("td,edf->tef", x, self.up).relu()
        return (torch.einsum("tef,efd->ted", h, self.down) * self.gate(x).softmax(-1)[..., None]).sum(1)


class DenseMatmul(Experts):
    inputs_first = True

    def forward(self, x: Tensor) -> Tensor:
        return ((x @ self.up).relu() @ self.down * self.gate(x).softmax(-1).T[..., None]).sum(0)


FORMS: dict[type[Experts], tuple[int, bool]] = {
    Looped: (OF_CHOSEN, False),
    LoopedPairs: (OF_CHOSEN, False),
    Gathered: (OF_CHOSEN, True),
    GatheredFlat: (OF_CHOSEN, True),
    Grouped: (OF_CHOSEN, True),
    Dense: (OF_ALL, True),
    DenseMatmul: (OF_ALL, True),
}
"""By form: MACs of a token by hand, and whether all chips run in one pass."""


def made(form: type[Experts]) -> tuple[Any, Tensor]:
    torch.manual_seed(0)
    return form().eval(), torch.randn(10, WIDTH)


def assert_near(found: Tensor, want: Tensor) -> None:
    torch.testing.assert_close(found, want, rtol=0, atol=0.01 * float(want.abs().max()))


@pytest.mark.parametrize("form", FORMS)
def test_all_forms_are_mapped_counted_and_programmed(form: type[Experts]) -> None:
    net, x = made(form)
    macs, together = FORMS[form]
    parameters = sum(parameter.numel() for parameter in net.parameters())
    analog: Any = hs.convert(net, PRECISE).eval()
    assert dict(zip(analog.report["layer"], analog.report["became"], strict=True)) == {
        "up": "AnalogExperts",
        "down": "AnalogExperts",
        "gate": "AnalogLinear",
    }
    for counted in (net, analog):
        counts = hs.workload(counted, data=x)
        assert counts.total("macs") == pytest.approx(macs)
        assert counts.extra["parameters"] == parameters
        assert counts.not_counted == ()
        assert {(layer.rows, layer.cols, layer.groups) for layer in counts.layers if layer.rows} == {
            (WIDTH, EXPERTS, 1),
            (WIDTH, HIDDEN, EXPERTS),
            (HIDDEN, WIDTH, EXPERTS),
        }
    hs.calibrate(analog, x)
    with torch.no_grad():
        assert_near(analog(x), net(x))
    chips, one = (hs.program(analog, chips=n, seed=1).at("1 day") for n in (3, 1))
    y = chips(x)
    assert (chips.chip_by_chip is None) == together
    torch.testing.assert_close(y[:1], one(x), rtol=0, atol=1e-5 * float(y.abs().max()))
    assert not torch.equal(y[0], y[1])
    tiles = int(analog.report["tiles"].sum())
    assert hs.estimate(analog, data=x).mapping["tiles"] == tiles == analog.mapping.tiles


@pytest.mark.parametrize("form", FORMS)
def test_gradients_are_those_of_the_digital_network(form: type[Experts]) -> None:
    net, x = made(form)
    ideal: Any = {"adc_bits": "ideal", "dac_bits": "ideal", "output_noise": 0.0}
    still = hs.Analog("pcm-hermes", **ideal, training_noise=0.0, weight_clip=None)
    analog: Any = hs.convert(net, still)
    hs.calibrate(analog, x)
    analog.train()
    for model in (net, analog):
        (model(x) ** 2).sum().backward()
    for name in ("up", "down"):
        want, found = getattr(net, name).grad, getattr(analog.network, name).grad
        torch.testing.assert_close(found, want, rtol=0, atol=1e-5 * float(want.abs().max()))


def test_a_number_that_no_expert_has_gives_zeros() -> None:
    torch.manual_seed(0)
    layer = AnalogExperts(nn.Parameter(torch.randn(3, 5, 4)), False, PRECISE).eval()
    y = layer(torch.randn(4, 4), torch.tensor([1, 3, 2, 9]))
    assert [bool(row.any()) for row in y] == [True, False, True, False]
    assert layer(torch.randn(0, 4), torch.empty(0, dtype=torch.long)).shape == (0, 5)


def test_experts_can_be_left_out_by_name() -> None:
    net, x = made(Gathered)
    report = hs.convert(net, PRECISE, skip="up").report.set_index("layer")
    assert list(report.loc[["up", "down"], "became"]) == ["digital", "AnalogExperts"]
    assert report.loc["up", "why"] == "left out by only= or skip="
    assert list(hs.convert(net, PRECISE, only="gate").report["became"]) == ["digital", "digital", "AnalogLinear"]
    mixed: Any = hs.convert(net, {"up": PRECISE, "gate": "pcm-hermes"})
    assert list(mixed.report["became"]) == ["AnalogExperts", "digital", "AnalogLinear"]
    assert mixed(x).shape == x.shape


def test_a_checkpoint_of_the_network_fits() -> None:
    net, x = made(Grouped)
    analog: Any = hs.convert(net, PRECISE).eval()
    other = Grouped().eval()
    missing, unexpected = analog.network.load_state_dict(other.state_dict(), strict=False)
    assert not unexpected
    assert all("crossbar" in name or "_on_tiles" in name for name in missing)
    with torch.no_grad():
        assert_near(analog(x), other(x))


def test_the_way_back_to_digital() -> None:
    net, x = made(GatheredFlat)
    analog = hs.convert(net, PRECISE).eval()
    back = hs.to_digital(analog)
    assert list(back.state_dict()) == list(net.state_dict())
    assert torch.equal(back(x), net(x))
    chips = hs.program(analog, chips=2, seed=0)
    want = chips.at("1 day", only=1)(x)[0]  # the call shows what of the stack's products lies on the chip
    twin = hs.to_digital(chips.at("1 day", only=1))
    with torch.no_grad():
        assert_near(twin(x), want)


class Handed(Experts):
    """Hands its weights to functions."""

    def forward(self, x: Tensor) -> Tensor:
        shares, chosen = self.route(x)
        return (self.expert(_each(x, weight=self.up[chosen]).relu(), self.down[chosen]) * shares[..., None]).sum(1)

    def expert(self, h: Tensor, weight: Tensor) -> Tensor:
        return torch.matmul(weight, h.unsqueeze(-1)).squeeze(-1)


def _each(x: Tensor, weight: Tensor) -> Tensor:
    turned = weight.transpose(-1, -2)
    return torch.matmul(x[:, None, None], turned).squeeze(-2)


class Positions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.positions, self.out = nn.Parameter(torch.randn(1, 5, 8)), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(x + self.positions)


def test_the_direction_of_the_weights_is_read_from_the_code() -> None:
    for form in FORMS:
        assert expert_stacks(form()) == dict.fromkeys(("up", "down"), form.inputs_first)
    assert expert_stacks(Handed()) == {"up": False, "down": False}
    assert expert_stacks(Positions()) == {}
    net, x = made(Handed)
    analog: Any = hs.convert(net, PRECISE).eval()
    assert hs.workload(analog, data=x).total("macs") == OF_CHOSEN
    with torch.no_grad():
        assert_near(analog(x), net(x))


class Halves(Experts):
    """Multiplies with parts of an expert's matrix, which is no product of the crossbar."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.up[0][:4])


def test_products_with_a_part_of_a_matrix_are_digital_and_named() -> None:
    net, x = made(Halves)
    analog = hs.convert(net, PRECISE).eval()
    with pytest.warns(RuntimeWarning, match="multiplies with the weights of 'up'"):
        analog(x)


@pytest.mark.parametrize("implementation", ["eager", "batched_mm", "grouped_mm"])
def test_mixtral_of_transformers(implementation: str) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "num_local_experts": 4, "num_experts_per_tok": 2}
    sizes = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1}
    net = transformers.MixtralForCausalLM(transformers.MixtralConfig(**sizes, **heads)).eval()
    net.set_experts_implementation(implementation)
    given = {"input_ids": torch.randint(32, (3, 5)), "use_cache": False}
    attention = 2 * 16 * 16 + 2 * 16 * 8 + 2 * 5 * 16
    hand = 5 * (attention + 16 * 4 + 2 * 3 * 16 * 24 + 16 * 32)
    analog: Any = hs.convert(net, PRECISE).eval()
    assert list(analog.report["became"]).count("AnalogExperts") == 2
    for counted in (net, analog):
        assert hs.workload(counted, data=given).total("macs") == hand
    with torch.no_grad():
        assert_near(analog(**given).logits, net(**given).logits)
