"""What holds for every workload."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from hpml_sim.counting import workload
from tests.counting.networks import NETWORKS, rows

few = settings(max_examples=25, deadline=None)


LAYERS = {
    "linear": lambda: nn.Linear(8, 8),
    "relu": nn.ReLU,
    "norm": lambda: nn.LayerNorm(8),
    "attention": lambda: nn.TransformerEncoderLayer(8, 2, 8, batch_first=True),
    "dropout": nn.Dropout,
}
stacks = st.lists(st.sampled_from(sorted(LAYERS)), min_size=1, max_size=4)
TOTALS = ("macs", "vectors", "weight_count", "input_elements", "output_elements", "dense_sops", "weights_read", "calls")


def stack(names: list[str]) -> nn.Sequential:
    with torch.device("meta"):
        return nn.Sequential(*(LAYERS[name]() for name in names))


@given(stacks, st.randoms(use_true_random=False))
@few
def test_permutation_of_layers_changes_nothing(names: list[str], random: object) -> None:
    shuffled = list(names)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = (workload(stack(order), input_shape=(3, 8)) for order in (names, shuffled))
    assert {name: one.total(name) for name in TOTALS} == {name: other.total(name) for name in TOTALS}


@given(stacks, stacks)
@few
def test_parts_sum_to_the_total_and_more_layers_mean_more(first: list[str], second: list[str]) -> None:
    whole, one, other = (workload(stack(names), input_shape=(3, 8)) for names in (first + second, first, second))
    for name in TOTALS:
        assert whole.total(name) == one.total(name) + other.total(name)
        assert whole.total(name) == sum(getattr(layer, name) for layer in whole.layers)
        assert whole.total(name) >= one.total(name)


@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 4), st.integers(1, 6))
@few
def test_linear_in_vectors(ins: int, outs: int, vectors: int, times: int) -> None:
    layer = nn.Linear(ins, outs)
    once, more = (workload(layer, input_shape=(n, ins)).layers[0] for n in (vectors, vectors * times))
    for name in ("vectors", "macs", "sops", "dense_sops", "input_elements", "output_elements"):
        assert getattr(more, name) == times * getattr(once, name)
    for name in ("rows", "cols", "weight_count", "weights_read"):
        assert getattr(more, name) == getattr(once, name)


@given(st.sampled_from(sorted(NETWORKS)), st.integers(1, 4), st.integers(1, 5))
@settings(max_examples=15, deadline=None)
def test_counts_are_for_one_inference(name: str, samples: int, batch_size: int) -> None:
    build, size = NETWORKS[name]
    torch.manual_seed(0)
    model, x = build(), torch.randn(samples, *size[1:])
    whole = workload(model, data=x)
    parts = workload(model, data=x, batch_size=batch_size)
    single = [workload(model, data=sample[None]) for sample in x]
    for field in ("macs", "vectors", "dense_sops", "input_elements", "output_elements", "sops", "weight_count"):
        assert whole.total(field) == pytest.approx(parts.total(field))
        assert whole.total(field) == pytest.approx(sum(c.total(field) for c in single) / samples)
    assert [layer.name for layer in whole.layers] == [layer.name for layer in single[0].layers]


def test_work_on_weights_is_not_shared_by_the_batch() -> None:
    class LowRank(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Parameter(torch.randn(6, 2)), nn.Parameter(torch.randn(2, 5))
            self.place = nn.Embedding(3, 6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x + self.place(torch.arange(3))) @ (self.a @ self.b)

    one, seven = (workload(LowRank(), data=torch.randn(n, 3, 6)) for n in (1, 7))
    assert one.total("macs") == seven.total("macs") == 6 * 2 * 5 + 3 * 6 * 5
    assert rows(seven)["place", "embedding"].output_elements == 18


@pytest.mark.parametrize("kind", ["parameter", "buffer", "embedding"])
def test_layers_on_constants_are_not_shared_by_the_batch(kind: str) -> None:
    """Such as the filters that an MLP makes of positions, or biases of attention."""

    class Implicit(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.place = nn.Linear(3, 8), nn.Linear(8, 6), nn.Embedding(7, 3)
            self.own = nn.Parameter(torch.rand(7, 3))
            self.register_buffer("held", torch.rand(7, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            constants = {"parameter": self.own, "buffer": self.held, "embedding": self.place(torch.arange(7))}
            return x * self.b(torch.relu(self.a(constants[kind]))).mean(0)

    for samples in (1, 2, 20):
        layers = rows(workload(Implicit(), data=torch.randn(samples, 6)))
        assert (layers["a", "linear"].macs, layers["b", "linear"].macs) == (7 * 3 * 8, 7 * 8 * 6)


def test_a_state_that_starts_at_zero_is_the_batch_s() -> None:
    class Elman(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w, self.u = nn.Parameter(torch.randn(4, 5)), nn.Parameter(torch.randn(5, 5))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = torch.zeros(len(x), 5)
            for step in x.unbind(1):
                h = torch.tanh(step @ self.w + h @ self.u)
            return h

    for samples in (1, 3, 8):
        layers = rows(workload(Elman(), data=torch.randn(samples, 6, 4)))
        assert (layers["w", "linear"].macs, layers["u", "linear"].macs) == (6 * 20, 6 * 25)
        assert layers["u", "linear"].calls == 6
