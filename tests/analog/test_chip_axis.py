"""How chips run: together under vmap or one by one, what a network keeps, writes and draws, and its own methods."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hpml_sim as hs
from hpml_sim.analog.chip_pass import ChipPass, running
from hpml_sim.errors import HpmlError
from hpml_sim.kernels.common.vmapping import is_mapped

N_CHIPS = 3


class Kept(nn.Module):
    """Keeps a state, a list, a dict and a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.h: Tensor | None = None
        self.seen: list[Tensor] = []
        self.named: dict[str, Any] = {}
        self.pair: tuple[Tensor, int] | None = None
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        y = self.layer(x if self.h is None else x + torch.tanh(self.h))
        self.h = y
        self.seen.append(y)
        self.named["last"] = y
        self.pair = (y, self.calls)
        return y


class Cache(nn.Module):
    """Writes into a buffer, at a place that a counter names."""

    cache: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.register_buffer("cache", torch.zeros(3, 5, 4))
        self.register_buffer("count", torch.zeros(()))
        self.step = 0

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        self.cache[self.step] = self.layer(x)
        self.step += 1
        return self.cache.sum(0)


def test_a_cache_is_written_chip_by_chip() -> None:
    x = torch.randn(3, 5, 4)
    chips, one = programmed(Cache()), programmed(Cache(), 1)
    for step, part in enumerate(x, 1):
        y, alone = chips(part), one(part)
        assert y.shape == (N_CHIPS, 5, 4)
        torch.testing.assert_close(y[:1], alone)
        assert not torch.equal(y[0], y[1])
        for model in (chips, one):
            assert model.network.network.step == step
            assert set(model.network.network.count.tolist()) == {step}
            assert model.network.network.cache.shape[1:] == (3, 5, 4)
    assert "Cache" in str(chips.chip_by_chip)


class KeptChipByChip(Kept):
    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y * (1 + float(y.sum() > 1e9))


def programmed(network: nn.Module, n_chips: int = N_CHIPS, **options: Any) -> Any:
    torch.manual_seed(0)
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    return hs.program(hs.convert(network, hs.Analog("pcm-hermes", **options)), chips=n_chips, seed=0).at("1 day")


@pytest.mark.parametrize("kind", [Kept, KeptChipByChip])
def test_what_a_network_keeps_has_the_chips_in_front_and_goes_on_chip_by_chip(kind: type[Kept]) -> None:
    x = torch.randn(2, 5, 4)
    chips, one = programmed(kind()), programmed(kind(), 1)
    assert (chips.chip_by_chip is None) or kind is KeptChipByChip
    for step, part in enumerate(x, 1):
        y, alone = chips(part), one(part)
        torch.testing.assert_close(y[:1], alone)
        for model, got in ((chips, y), (one, alone)):
            inner = model.network.network
            assert torch.equal(inner.h, got)
            assert torch.equal(inner.named["last"], got)
            assert torch.equal(inner.pair[0], got)
            assert torch.equal(inner.seen[-1], got)
            assert inner.calls == step
            assert len(inner.seen) == step
            assert type(inner.h) is Tensor
            assert not is_mapped(inner.h)
    assert chips.n_passes == (1 if kind is Kept else N_CHIPS)
    chips.network.network.h = None  # what the user resets stays reset
    again = programmed(kind())
    again(x[0])
    again.network.network.h = None
    assert again(x[0]).shape == (N_CHIPS, 5, 4)


@pytest.mark.parametrize("by_chip", [False, True])
def test_what_a_hook_keeps_has_the_chips_in_front(by_chip: bool) -> None:
    chips = programmed(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)))
    seen: list[Tensor] = []
    shapes: list[tuple[int, ...]] = []
    last = None
    named: dict[str, Tensor] = {}

    def keep(_module: nn.Module, _args: Any, output: Tensor) -> None:
        nonlocal last
        named["hidden"] = last = output
        shapes.append(tuple(output.shape))
        if by_chip:
            float(output.sum())

    layers = chips.network.network
    layers[1].register_forward_hook(keep)
    layers[0].register_forward_hook(lambda _module, _args, output: seen.append(output))
    y = chips(torch.randn(5, 4))
    assert (chips.chip_by_chip is not None) == by_chip
    assert named["hidden"].shape == (N_CHIPS, 5, 6)
    assert last is not None
    assert shapes == [(5, 6)]  # as the network sees it
    assert torch.equal(last, named["hidden"])
    assert [tensor.shape for tensor in seen] == [(N_CHIPS, 5, 6)]
    torch.testing.assert_close(named["hidden"], seen[0].relu())
    assert y.shape == (N_CHIPS, 5, 3)


class ByValue(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        return y if float(y.sum()) > 0 else -y


def test_what_vmap_cannot_carry_runs_chip_by_chip_and_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    chips = hs.program(hs.convert(nn.Sequential(nn.Linear(4, 4), ByValue()), "pcm-hermes"), chips=N_CHIPS, seed=0)
    x = torch.randn(5, 4)
    with caplog.at_level(logging.WARNING):
        first, later = chips.at("1 h"), chips.at("1 day")
        got = first(x)
        assert later(x).shape == first(x).shape == (N_CHIPS, 5, 4)
    assert len(caplog.records) == 1
    for text in (caplog.text, str(first.chip_by_chip)):
        assert "network.1 (ByValue)" in text
        assert "vmap" in text
    assert first.n_passes == later.n_passes == N_CHIPS
    assert "chip by chip" in repr(first)
    network = chips.at("1 h").network
    with torch.no_grad():
        for chip in range(N_CHIPS):
            with running(ChipPass(chip)):
                assert torch.equal(got[chip], network(x))


def test_errors_of_the_network_are_its_own() -> None:
    chips = programmed(nn.Sequential(nn.Linear(4, 4)))
    for _ in range(2):
        with pytest.raises(HpmlError, match="must have 4 values in dimension -1"):
            chips(torch.randn(5, 3))
        assert chips.chip_by_chip is None  # the next call may fit
    assert chips(torch.randn(5, 4)).shape == (N_CHIPS, 5, 4)


def test_the_first_call_is_checked_against_one_chip_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule that gives chip 0 the values of another chip is found, and the right ones come out."""
    network = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    x = torch.randn(5, 4)
    want = programmed(network)(x)

    class Mixing(torch.autograd.Function):
        @staticmethod
        def forward(x: Tensor) -> Tensor:
            return x.relu()

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None: ...

        @staticmethod
        def vmap(info: Any, in_dims: Any, x: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
            return x.roll(1, in_dims[0]).relu(), in_dims[0]

    monkeypatch.setattr(nn.ReLU, "forward", lambda _self, x: Mixing.apply(x))
    chips = programmed(network)
    torch.testing.assert_close(chips(x), want)
    assert "chip 0 alone has other inputs at product 2" in chips.chip_by_chip
    torch.testing.assert_close(programmed(network)(x), want)


def test_the_check_draws_no_noise() -> None:
    network = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    x = torch.randn(5, 4)
    checked, unchecked, one = programmed(network), programmed(network), programmed(network, 1)
    unchecked._axis._checked = True
    for _ in range(2):
        y = checked(x)
        assert torch.equal(y, unchecked(x))
        assert torch.equal(y[0], one(x)[0])
    assert checked.chip_by_chip is None


@pytest.mark.filterwarnings("ignore:.*no product was computed")  # at the first five rows one layer is not called
def test_a_fallback_in_the_middle_draws_no_noise_twice() -> None:
    class LateByValue(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), ByValue()

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x)) if len(x) > 5 else self.a(x)

    chips, other = programmed(LateByValue()), programmed(LateByValue())
    other._axis.chip_by_chip = "asked for"
    for rows in (5, 6, 5):
        x = torch.randn(rows, 4)
        torch.testing.assert_close(chips(x), other(x))
        assert (chips.chip_by_chip is None) == (rows == 5 and chips._calls == 1)


@pytest.mark.parametrize("by_value", [False, True])
def test_writing_into_an_input_changes_no_other_chip(by_value: bool) -> None:
    class Writes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            x += 1
            y = self.layer(x)
            return y * (1 + float(by_value and y.sum() > 1e9)) if by_value else y

    x = torch.randn(5, 4)
    before = x.clone()
    y = programmed(Writes())(x)
    assert torch.equal(x, before)
    torch.testing.assert_close(y[:1], programmed(Writes(), 1)(x))
    two = programmed(Writes())(before)
    assert torch.equal(y, two)


@pytest.mark.parametrize("by_value", [False, True])
def test_a_network_draws_the_same_for_all_chips(by_value: bool) -> None:
    class Draws(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            y = self.layer(x + torch.randn_like(x))
            kept = torch.nn.functional.dropout(y, 0.5, training=True)
            if by_value:
                float(y.sum())
            return kept, torch.rand_like(y)

    x = torch.randn(50, 4)
    chips, one = programmed(Draws()), programmed(Draws(), 1)
    for _ in range(2):
        (y, noise), (alone, own_noise) = chips(x), one(x)
        torch.testing.assert_close(y[:1], alone)
        assert torch.equal(noise[0], noise[1])
        assert torch.equal(noise[:1], own_noise)
        assert torch.equal(y[0] == 0, y[2] == 0)
        assert not torch.equal(y[0], y[2])
    assert (chips.chip_by_chip is not None) == by_value


class Language(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(9, 4), nn.Linear(4, 9)

    def forward(self, ids: Tensor, mask: Tensor | None = None, *, shift: float = 0.0) -> dict[str, Any]:
        logits = self.head(self.table(ids)) + shift
        return {"logits": logits if mask is None else logits.masked_fill(mask, -1e9), "n": ids.shape[-1]}

    def generate(self, ids: Tensor, steps: int) -> Tensor:
        for _ in range(steps):
            new = self.forward(ids)["logits"][:, -1].argmax(-1, keepdim=True)
            ids = torch.cat([ids, new], 1)
        return ids

    def until(self, ids: Tensor) -> Tensor:
        while int(ids[0, -1]) != 3 and ids.shape[1] < 40:
            ids = self.generate(ids, 1)
        return ids


def test_methods_of_the_network_run_on_chips() -> None:
    chips, one = programmed(Language()), programmed(Language(), 1)
    ids = torch.randint(9, (4, 5))
    got = chips(ids, torch.rand(5, 9) > 0.9, shift=2.0)  # the mask is the same for all samples
    assert got["logits"].shape == (N_CHIPS, 4, 5, 9)
    assert got["n"] == 5
    words = chips.call("generate", ids, steps=6)
    one(ids)
    assert words.shape == (N_CHIPS, 4, 11)
    assert torch.equal(words[:1], one.call("generate", ids, steps=6))
    assert torch.equal(words[:, :, :5], ids.expand(N_CHIPS, 4, 5))
    with pytest.raises(HpmlError, match="method='absent': Language has no method of this name"):
        chips.call("absent", ids)


def test_chips_that_return_other_shapes_are_refused() -> None:
    class Lengths(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return x[: int(1e6 * self.layer(x).abs().sum()) % len(x)]

    with pytest.raises(HpmlError, match=r"tensors of other shapes for other chips.*pad it"):
        programmed(Lengths())(torch.randn(500, 4))


def test_layers_of_several_chips_are_not_called_by_themselves() -> None:
    x = torch.randn(5, 4)
    layers = programmed(nn.Sequential(nn.Linear(4, 3))).network.network
    with pytest.raises(HpmlError, match=r"3 programmed chips and was called by itself; call chips\.at"):
        layers[0](x)
    one = programmed(nn.Sequential(nn.Linear(4, 3)), 1)
    assert one.network.network[0](x).shape == (5, 3)


def test_networks_of_one_chip_each_have_the_same_interface() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> dict[str, Any]:
            one, two = self.layer(torch.cat([x, 2 * x])).chunk(2)
            return {"difference": two - one, "mean": one.mean(), "n": len(x)}

        def twice(self, x: Tensor) -> Tensor:
            return 2 * self.layer(x)

    pytest.importorskip("aihwkit")
    torch.manual_seed(0)
    analog = hs.convert(Two(), hs.Analog("pcm", engine="aihwkit"))
    x = torch.randn(6, 4)
    hs.calibrate(analog, x)
    many, one = (hs.program(analog, chips=n, seed=0).at("1 h") for n in (N_CHIPS, 1))
    got, alone = many(x), one(x)
    assert (got["difference"].shape, got["mean"].shape, got["n"]) == ((N_CHIPS, 6, 4), (N_CHIPS,), 6)
    assert torch.equal(got["difference"][:1], alone["difference"])
    assert many.n_passes == N_CHIPS
    assert "aihwkit" in str(many.chip_by_chip)
    assert many.call("twice", x).shape == (N_CHIPS, 6, 4)


class Selects(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x).flatten()
        return y[(y > 0).nonzero().flatten()]


def test_outputs_of_other_shapes_name_the_line_that_makes_them() -> None:
    torch.manual_seed(0)
    model = hs.convert(nn.Sequential(Selects()), "pcm-hermes")
    with pytest.raises(hs.HpmlError, match=r"other shapes for other chips.*0 \(Selects\), line \d+ of test_chip_axis"):
        hs.program(model, chips=6, seed=0).at("1 day")(torch.randn(9, 6))
