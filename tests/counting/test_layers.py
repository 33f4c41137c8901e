"""Counts of single layers against hand formulas and, where inputs are sparse, brute force."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from hpml_sim.counting import workload
from tests.counting.networks import Grouped, flop_counter_macs, rows

few = settings(max_examples=25, deadline=None)


@pytest.mark.parametrize(("kind", "gates"), [(nn.RNN, 1), (nn.GRU, 3), (nn.LSTM, 4)])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
def test_recurrent_layers(kind: type[nn.RNNBase], gates: int, bidirectional: bool, layers: int) -> None:
    ins, hidden, steps, batch = 4, 6, 5, 3
    model = kind(ins, hidden, layers, bidirectional=bidirectional)
    directions = 2 if bidirectional else 1
    a_step = sum(
        directions * gates * hidden * ((ins if layer == 0 else directions * hidden) + hidden) for layer in range(layers)
    )
    counts = workload(model, data=torch.randn(steps, batch, ins), batch_dim=1)
    assert counts.total("macs") == steps * a_step
    assert counts.total("weight_count") == sum(p.numel() for p in model.parameters())
    assert len(counts.layers) == 2 * layers * directions
    assert counts.layers[0].vectors == steps
    assert counts.not_counted == ()


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
def test_projected_lstm_and_packed_sequences() -> None:
    model = nn.LSTM(4, 6, proj_size=2, batch_first=True)
    a_step = 4 * 6 * (4 + 2) + 6 * 2
    x = torch.randn(3, 5, 4)
    assert workload(model, data=x).total("macs") == 5 * a_step

    def packed(model: nn.Module, x: torch.Tensor) -> object:
        return model(nn.utils.rnn.pack_padded_sequence(x, [5, 3, 1], batch_first=True))

    assert workload(model, data=x, forward=packed).total("macs") == pytest.approx((5 + 3 + 1) / 3 * a_step)


@pytest.mark.parametrize(("kind", "gates"), [(nn.RNNCell, 1), (nn.GRUCell, 3), (nn.LSTMCell, 4)])
def test_cells_count_each_step(kind: type[nn.RNNCellBase], gates: int) -> None:
    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = kind(4, 6)

        def forward(self, x: torch.Tensor) -> object:
            state = None
            for step in x.unbind(1):
                state = self.cell(step, state)
            return state

    counts = workload(Loop(), data=torch.randn(3, 5, 4))
    assert counts.total("macs") == 5 * gates * 6 * (4 + 6)
    hidden = rows(counts)["cell.hh", "recurrent"]
    assert hidden.active_fraction == pytest.approx(4 / 5)  # the first state is zero
    assert hidden.calls == 5


def test_embedding_reads_only_its_rows() -> None:
    model = nn.Embedding(100, 8)
    (layer,) = workload(model, data=torch.randint(0, 100, (3, 5))).layers
    assert (layer.op, layer.weight_count, layer.weights_read, layer.input_elements) == ("embedding", 800, 40, 5)
    assert layer.bytes_moved() == (40 + 5 + 40) * 4


def test_bytes_of_a_linear_layer() -> None:
    (layer,) = workload(nn.Linear(6, 4, dtype=torch.bfloat16), input_shape=(6,)).layers
    assert (layer.weight_bits, layer.activation_bits) == (16, 16)
    assert layer.bytes_moved() == 2 * (24 + 6 + 4)
    assert layer.bytes_moved(weight_bits=4, activation_bits=8) == 12 + 10


def test_attention_reads_grouped_keys_once() -> None:
    counts = workload(Grouped(), data=torch.randn(2, 5, 16))
    attention = next(layer for layer in counts.layers if layer.op == "attention")
    assert attention.macs == 4 * 5 * 5 * (4 + 4)
    assert attention.input_elements == 5 * 16 + 2 * 5 * 4
    assert attention.output_elements == 5 * 16


# ----------------------------------------------------------------------------------- sparse inputs, against brute force


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[nn.Module, torch.Tensor]:
    n, groups = draw(st.integers(1, 2)), draw(st.sampled_from([1, 2]))
    ins, outs = groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 2))
    size = [draw(st.integers(7, 9)) for _ in range(n)]
    kernel = [draw(st.integers(1, 3)) for _ in range(n)]
    stride = [draw(st.integers(1, 2)) for _ in range(n)]
    dilation = [draw(st.integers(1, 2)) for _ in range(n)]
    transposed = draw(st.booleans())
    padding: object = [draw(st.integers(0, 2)) for _ in range(n)]
    settings: dict[str, object] = {"groups": groups, "dilation": dilation, "bias": draw(st.booleans())}
    if transposed:
        kind = (nn.ConvTranspose1d, nn.ConvTranspose2d)[n - 1]
        if min(stride) > 1:
            settings["output_padding"] = draw(st.integers(0, 1))
    else:
        kind = (nn.Conv1d, nn.Conv2d)[n - 1]
        settings["padding_mode"] = draw(st.sampled_from(["zeros", "reflect", "circular", "replicate"]))
        if max(stride) == 1:
            padding = draw(st.sampled_from([padding, "same", "valid"]))
    seed = draw(st.integers(0, 2**16))
    generator = torch.Generator().manual_seed(seed)
    layer = kind(ins, outs, kernel, stride=stride, padding=padding, **settings)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator))
        if draw(st.booleans()):
            layer.weight[torch.rand(layer.weight.shape, generator=generator) < 0.3] = 0
    x = torch.randn(3, ins, *size, generator=generator)
    return layer, x * (torch.rand(x.shape, generator=generator) < draw(st.sampled_from([0.0, 0.5, 1.0])))


@given(convolutions())
@few
def test_synaptic_operations_of_convolutions(drawn: tuple[nn.Module, torch.Tensor]) -> None:
    """Every product done one by one: the layer itself run on ones and zeros in float64."""
    layer, x = drawn
    (count,) = workload(layer, data=x).layers
    plain = copy.deepcopy(layer).double()
    plain.bias = None

    def products(inputs: torch.Tensor, weight: torch.Tensor) -> float:
        with torch.no_grad():
            plain.weight.copy_(weight)
            return float(plain(inputs.double()).sum()) / len(x)

    ones = torch.ones_like(layer.weight)
    assert count.sops == pytest.approx(products(x != 0, ones), rel=1e-12)
    assert count.dense_sops == pytest.approx(products(torch.ones_like(x), ones), rel=1e-12)
    effective = count.effective_macs + count.effective_acs
    assert effective == pytest.approx(products(x != 0, layer.weight != 0), rel=1e-12)
    assert count.zero_weights == int((layer.weight == 0).sum())
    assert count.macs == pytest.approx(flop_counter_macs(layer, x) / len(x))
    assert count.macs == count.rows * count.cols * count.groups * count.vectors
    assert count.rows * count.cols * count.groups == layer.weight.numel()
    assert count.sops <= count.dense_sops


def test_input_and_weight_statistics() -> None:
    layer = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[4.0, -2.0], [0.0, 1.0]]))
    (count,) = workload(layer, data=torch.tensor([[2.0, 0.0], [-1.0, 1.0]])).layers
    assert count.input_mean_square == pytest.approx((1 + 0 + 0.25 + 0.25) / 4)
    assert count.weight_mean_abs == pytest.approx((1 + 0.5 + 0 + 0.25) / 4)
    assert (count.active_fraction, count.zero_weights, count.binary_input) == (0.75, 1, False)
    assert workload(layer, input_shape=(2,)).layers[0].input_mean_square is None
