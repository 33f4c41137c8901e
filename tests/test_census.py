"""The census against torch's flop counter, NeuroBench, brute force and hand formulas."""

from __future__ import annotations

import copy
import json
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from hpml_sim import models
from hpml_sim.census import Census, LayerCount, census, product, register_counter
from hpml_sim.errors import HpmlError, UnknownNameError
from hpml_sim.shapes import SHAPES, shape

few = settings(max_examples=25, deadline=None)


def flop_counter_macs(model: nn.Module, *inputs: torch.Tensor) -> float:
    """Half the FLOPs that torch's own counter sees, below the layers; on the meta device attention is decomposed."""
    model = copy.deepcopy(model).to("meta")
    with FlopCounterMode(display=False) as counter:
        model(*(x.to("meta") for x in inputs))
    return counter.get_total_flops() / 2


def rows(counts: Census) -> dict[tuple[str, str], LayerCount]:
    return {(layer.name, layer.op): layer for layer in counts.layers}


def random_snn_input(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 3


class HandWritten(nn.Module):
    """Attention, products of bare parameters, and residual sums written with functions only."""

    def __init__(self, width: int = 8, heads: int = 2):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Parameter(torch.randn(width, 3 * width))
        self.out = nn.Parameter(torch.randn(width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = (x @ self.qkv).chunk(3, dim=-1)
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in parts)
        scores = torch.softmax(q @ k.transpose(2, 3), dim=-1)
        return x + torch.einsum("bhqk,bhkd->bhqd", scores, v).transpose(1, 2).flatten(2) @ self.out


class Grouped(nn.Module):
    """Grouped-query attention, fused."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.kv = nn.Linear(16, 16), nn.Linear(16, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q = self.q(x).unflatten(2, (4, 4)).transpose(1, 2)
        k, v = (part.unflatten(2, (1, 4)).transpose(1, 2) for part in self.kv(x).chunk(2, dim=2))
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)


class CrossAttention(nn.Module):
    """Learned queries over keys and values of other widths, with torch's extra rows."""

    def __init__(self) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(1, 6, 8))
        self.attention = nn.MultiheadAttention(
            8, 2, kdim=5, vdim=3, add_bias_kv=True, add_zero_attn=True, batch_first=True
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.attention(self.queries.expand(len(x), -1, -1), x, x[..., :3], need_weights=False)[0]


class LoRA(nn.Linear):
    """A subclass that does more than its base class."""

    def __init__(self) -> None:
        super().__init__(6, 5)
        self.down, self.up = nn.Parameter(torch.randn(2, 6)), nn.Linear(2, 5, bias=False)

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - nn.Linear's name
        return super().forward(input) + self.up(F.linear(input, self.down))


def encoder(**kwargs: bool) -> nn.Module:
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, **kwargs)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


NETWORKS = {
    "mlp": (lambda: models.mlp(12, 7, 5), (4, 12)),
    "cnn": (lambda: models.cnn((3, 8, 8), 10), (4, 3, 8, 8)),
    "grouped": (lambda: nn.Conv2d(4, 6, 3, padding=1, groups=2), (4, 4, 5, 7)),
    "depthwise": (lambda: nn.Conv2d(4, 8, 3, stride=2, groups=4, dilation=2), (4, 4, 9, 8)),
    "same, circular": (lambda: nn.Conv1d(4, 6, 4, padding="same", padding_mode="circular"), (4, 4, 9)),
    "conv3d": (lambda: nn.Conv3d(2, 3, (3, 2, 1), padding="valid"), (4, 2, 5, 6, 3)),
    "transposed": (lambda: nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, groups=2, dilation=2), (4, 4, 5, 6)),
    "unet": (lambda: nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU(), nn.ConvTranspose1d(4, 2, 3)), (4, 2, 9)),
    "self-attention": (lambda: encoder(), (4, 5, 16)),
    "pre-norm": (lambda: encoder(norm_first=True), (4, 5, 16)),
    "hand-written": (HandWritten, (4, 5, 8)),
    "grouped queries": (Grouped, (4, 5, 16)),
    "cross-attention": (CrossAttention, (4, 7, 5)),
    "lora": (LoRA, (4, 6)),
    "weight norm": (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)), (4, 4)),
}


# ----------------------------------------------------------------------------------------- against torch's flop counter


@pytest.mark.parametrize("name", NETWORKS)
def test_macs_equal_the_flop_counter(name: str) -> None:
    build, size = NETWORKS[name]
    torch.manual_seed(0)
    model, x = build(), torch.randn(size)
    expected = flop_counter_macs(model, x)
    assert expected > 0
    for counts in (
        census(model, data=x),
        census(model, data=x, batch_size=3),
        census(model, input_shape=size[1:]),
        census(copy.deepcopy(model).to("meta"), input_shape=size[1:]),
    ):
        assert counts.total("macs") * size[0] == expected
        assert counts.not_counted == ()
        assert counts.total("weight_count") == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", sorted(SHAPES.keys() - {"llama-3-70b"}))  # the 8b, only larger
@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_macs_of_known_networks_equal_the_flop_counter(name: str, phase: str) -> None:
    if phase == "decode" and not SHAPES[name].decodes:
        return
    module, example = shape(name, phase=phase)
    assert census(module, data=example).total("macs") == flop_counter_macs(module, *example)


def test_encoder_and_decoder_with_two_inputs() -> None:
    model = nn.Transformer(8, 2, 2, 2, 16, batch_first=True)
    source, target = torch.randn(3, 4, 8), torch.randn(3, 5, 8)
    counts = census(model, data=(source, target))
    assert counts.total("macs") * 3 == flop_counter_macs(model, source, target)
    assert counts.total("weight_count") == sum(p.numel() for p in model.parameters())


def test_the_fast_path_hides_nothing() -> None:
    model = encoder().eval()
    x = torch.randn(2, 5, 16)
    before = torch.backends.mha.get_fastpath_enabled()
    with torch.no_grad():  # the setting in which torch takes its fused kernels
        counts = census(model, data=x)
    assert counts.total("macs") * 2 == flop_counter_macs(model, x)
    assert torch.backends.mha.get_fastpath_enabled() == before


# ------------------------------------------------------------------------------------------------------- hand formulas


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
    counts = census(model, data=torch.randn(steps, batch, ins), batch_dim=1)
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
    assert census(model, data=x).total("macs") == 5 * a_step

    def packed(model: nn.Module, x: torch.Tensor) -> object:
        return model(nn.utils.rnn.pack_padded_sequence(x, [5, 3, 1], batch_first=True))

    assert census(model, data=x, forward=packed).total("macs") == pytest.approx((5 + 3 + 1) / 3 * a_step)


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

    counts = census(Loop(), data=torch.randn(3, 5, 4))
    assert counts.total("macs") == 5 * gates * 6 * (4 + 6)
    hidden = rows(counts)["cell.hh", "recurrent"]
    assert hidden.active_fraction == pytest.approx(4 / 5)  # the first state is zero
    assert hidden.calls == 5


def test_embedding_reads_only_its_rows() -> None:
    model = nn.Embedding(100, 8)
    (layer,) = census(model, data=torch.randint(0, 100, (3, 5))).layers
    assert (layer.op, layer.weight_count, layer.weights_read, layer.input_elements) == ("embedding", 800, 40, 5)
    assert layer.bytes_moved() == (40 + 5 + 40) * 4


def test_bytes_of_a_linear_layer() -> None:
    (layer,) = census(nn.Linear(6, 4, dtype=torch.bfloat16), input_shape=(6,)).layers
    assert (layer.weight_bits, layer.activation_bits) == (16, 16)
    assert layer.bytes_moved() == 2 * (24 + 6 + 4)
    assert layer.bytes_moved(weight_bits=4, activation_bits=8) == 12 + 10


def test_attention_reads_grouped_keys_once() -> None:
    counts = census(Grouped(), data=torch.randn(2, 5, 16))
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
    (count,) = census(layer, data=x).layers
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


def test_a_subclass_that_pads_on_its_own() -> None:
    class Same(nn.Conv1d):
        def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - nn.Conv1d's name
            return F.conv1d(F.pad(input, (1, 1)), self.weight, self.bias)

    model, x = Same(2, 3, 3), torch.ones(1, 2, 5)
    (count,) = census(model, data=x).layers
    assert count.macs == flop_counter_macs(model, x)
    assert count.sops == count.macs  # its borders are not known: padding counts as input


def test_input_and_weight_statistics() -> None:
    layer = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[4.0, -2.0], [0.0, 1.0]]))
    (count,) = census(layer, data=torch.tensor([[2.0, 0.0], [-1.0, 1.0]])).layers
    assert count.input_mean_square == pytest.approx((1 + 0 + 0.25 + 0.25) / 4)
    assert count.weight_mean_abs == pytest.approx((1 + 0.5 + 0 + 0.25) / 4)
    assert (count.active_fraction, count.zero_weights, count.binary_input) == (0.75, 1, False)
    assert census(layer, input_shape=(2,)).layers[0].input_mean_square is None


# ------------------------------------------------------------------------------------------------- against NeuroBench


def neurobench(net: nn.Module, x: torch.Tensor, *, spiking: bool) -> dict[str, object]:
    from neurobench.benchmarks import Benchmark
    from neurobench.metrics.static import ConnectionSparsity, ParameterCount
    from neurobench.metrics.workload import ActivationSparsity, SynapticOperations
    from neurobench.models import SNNTorchModel, TorchModel
    from torch.utils.data import DataLoader, TensorDataset

    data = DataLoader(TensorDataset(x, torch.zeros(len(x))), batch_size=len(x))
    wrapped = SNNTorchModel(net) if spiking else TorchModel(net)
    metrics = [[ConnectionSparsity, ParameterCount], [ActivationSparsity, SynapticOperations]]
    return Benchmark(wrapped, data, [], [], metrics).run(quiet=True)


def step_by_step(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """(batch, steps, features), as NeuroBench feeds it."""
    from snntorch import utils

    utils.reset(net)
    return torch.stack([net(step)[0] for step in x.unbind(1)])


def snn(seed: int = 0) -> nn.Sequential:
    """The 16-12-4 network of leaky neurons, four weights zero."""
    import snntorch

    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Linear(16, 12),
        snntorch.Leaky(0.9, init_hidden=True),
        nn.Linear(12, 4),
        snntorch.Leaky(0.9, init_hidden=True, output=True),
    )
    with torch.no_grad():
        net[0].weight[:2, :2] = 0
    return net


def assert_as_neurobench(counts: Census, theirs: dict[str, object]) -> None:
    ours = counts.synaptic_operations("neurobench")
    expected = theirs["SynapticOperations"]
    figures = {"Effective_MACs": ours.effective_macs, "Effective_ACs": ours.effective_acs, "Dense": ours.dense}
    assert figures == pytest.approx(expected, rel=1e-14)  # they divide one sum, we add up quotients
    assert counts.activation_sparsity == pytest.approx(theirs["ActivationSparsity"], rel=1e-12)
    assert counts.connection_sparsity is not None
    assert round(counts.connection_sparsity, 4) == theirs["ConnectionSparsity"]
    assert counts.extra["parameters"] == theirs["ParameterCount"]


@pytest.mark.parametrize("spikes", [True, False])
@pytest.mark.parametrize("seed", [0, 1])
def test_equals_neurobench_on_a_spiking_network(spikes: bool, seed: int) -> None:
    net, x = snn(seed), random_snn_input((24, 5, 16), seed)
    if spikes:
        x = (x > 2).float()
    counts = census(net, data=x, forward=step_by_step)
    assert_as_neurobench(counts, neurobench(net, x, spiking=True))
    dense = 5 * (16 * 12 + 12 * 4)
    assert counts.synaptic_operations("neurobench").dense == dense == 1200
    ours = counts.synaptic_operations()
    assert ours.effective_macs + ours.effective_acs == counts.total("sops")
    # zero weights: ours counts them, theirs does not
    first = counts.layers[0]
    assert first.sops > first.effective_macs + first.effective_acs
    assert first.binary_input is spikes
    assert (counts.kind, counts.steps, counts.samples) == ("spiking", 5, 24)


def test_fused_neurons_give_what_neurobench_sees_step_by_step() -> None:
    """Time folded into the batch, our neurons: the same network, the same figures."""
    from hpml_sim.spiking import LeakyNeurons

    net, x = snn(), random_snn_input((24, 5, 16))
    fused = nn.Sequential(net[0], LeakyNeurons(0.9, steps=5), net[2], LeakyNeurons(0.9, steps=5))
    counts = census(fused, data=x, forward=lambda m, x: m(x.transpose(0, 1).flatten(0, 1)))
    assert_as_neurobench(counts, neurobench(net, x, spiking=True))
    stepped = census(net, data=x, forward=step_by_step)
    for one, other in zip(
        [y for y in counts.layers if y.op != "elementwise"],
        [y for y in stepped.layers if y.op != "elementwise"],
        strict=True,
    ):
        for name in ("op", "rows", "cols", "vectors", "macs", "sops", "neurons", "updates", "spikes", "steps"):
            assert getattr(one, name) == pytest.approx(getattr(other, name)), name


def test_equals_neurobench_on_a_convolutional_network() -> None:
    torch.manual_seed(0)
    net = models.cnn((1, 8, 8), 10)
    with torch.no_grad():
        net[3].weight[net[3].weight.abs() < 0.02] = 0
    x = torch.rand(6, 1, 8, 8)
    assert_as_neurobench(census(net, data=x), neurobench(net, x, spiking=False))


# -------------------------------------------------------------------------------------------------- spiking networks


def test_spiking_neurons() -> None:
    import snntorch

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.lif1 = nn.Linear(6, 5), snntorch.Leaky(0.9)
            self.fc2, self.lif2 = nn.Linear(5, 3), snntorch.RLeaky(0.9, linear_features=3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            mem, (spk2, mem2), out = self.lif1.reset_mem(), self.lif2.init_rleaky(), []
            for step in x:
                spk, mem = self.lif1(self.fc1(step), mem)
                spk2, mem2 = self.lif2(self.fc2(spk), spk2, mem2)
                out.append(spk)
            return torch.stack(out)

    torch.manual_seed(0)
    net, x = Net(), random_snn_input((7, 4, 6))
    counts = census(net, data=x, batch_dim=1)
    layers = rows(counts)
    lif = layers["lif1", "neuron"]
    assert (lif.neurons, lif.steps, lif.updates, lif.calls) == (5, 7, 35, 7)
    assert lif.spikes == float(torch.count_nonzero(net(x))) / 4 > 0
    assert lif.zero_outputs == 35 - lif.spikes
    fc2 = layers["fc2", "linear"]
    assert fc2.binary_input
    assert (fc2.vectors, fc2.macs, fc2.steps) == (7, 7 * 15, 7)
    assert fc2.sops == pytest.approx(3 * lif.spikes)
    assert layers["lif2.recurrent", "linear"].macs == 7 * 9  # the neuron speaks for itself, not for the layer inside
    assert not layers["fc1", "linear"].binary_input
    assert counts.not_counted == ()


@pytest.mark.parametrize("encoder", ["direct", "rate"])
@pytest.mark.parametrize("on_crossbars", [False, True])
def test_converted_networks(encoder: str, on_crossbars: bool) -> None:
    import hpml_sim.analog
    import hpml_sim.spiking  # noqa: F401 - registers the converter
    from hpml_sim.convert import convert
    from hpml_sim.targets import Analog, Spiking

    torch.manual_seed(0)
    net = models.mlp(64, 32, 10)
    synapses = Analog("pcm-hermes") if on_crossbars else None
    converted = convert(net, Spiking("loihi", steps=6, encoder=encoder, synapses=synapses))
    x = torch.rand(5, 1, 8, 8)
    digital, spiking = census(net, data=x), census(converted, data=x)
    assert spiking.not_counted == ()
    assert spiking.total("macs") == 6 * digital.total("macs")
    assert spiking.total("weight_count") == digital.total("weight_count")
    matrices = [layer for layer in spiking.layers if layer.rows]
    assert [layer.steps for layer in matrices] == [6, 6]
    assert matrices[0].binary_input is (encoder == "rate")
    assert matrices[1].binary_input
    neurons = [layer for layer in spiking.layers if layer.op == "neuron"]
    assert [layer.neurons for layer in neurons] == [32, 10]
    assert matrices[1].sops == pytest.approx(10 * neurons[0].spikes)


def test_analog_layers_count_as_the_layers_they_replace() -> None:
    import hpml_sim.analog  # noqa: F401 - registers the converter
    from hpml_sim.convert import convert
    from hpml_sim.targets import Analog

    torch.manual_seed(0)
    net, x = models.cnn((1, 8, 8), 10), torch.rand(3, 1, 8, 8)
    analog = convert(net, Analog("pcm-hermes"))
    one, other = census(net, data=x), census(analog, data=x)
    assert other.not_counted == ()
    names = ("op", "rows", "cols", "groups", "vectors", "macs", "weight_count", "input_elements", "output_elements")
    as_tuples = [[tuple(getattr(layer, name) for name in names) for layer in c.layers] for c in (one, other)]
    assert as_tuples[0] == as_tuples[1]


# ------------------------------------------------------------------------------------------------------ property tests


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
    one, other = (census(stack(order), input_shape=(3, 8)) for order in (names, shuffled))
    assert {name: one.total(name) for name in TOTALS} == {name: other.total(name) for name in TOTALS}


@given(stacks, stacks)
@few
def test_parts_sum_to_the_total_and_more_layers_mean_more(first: list[str], second: list[str]) -> None:
    whole, one, other = (census(stack(names), input_shape=(3, 8)) for names in (first + second, first, second))
    for name in TOTALS:
        assert whole.total(name) == one.total(name) + other.total(name)
        assert whole.total(name) == sum(getattr(layer, name) for layer in whole.layers)
        assert whole.total(name) >= one.total(name)


@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 4), st.integers(1, 6))
@few
def test_linear_in_vectors(ins: int, outs: int, vectors: int, times: int) -> None:
    layer = nn.Linear(ins, outs)
    once, more = (census(layer, input_shape=(n, ins)).layers[0] for n in (vectors, vectors * times))
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
    whole = census(model, data=x)
    parts = census(model, data=x, batch_size=batch_size)
    single = [census(model, data=sample[None]) for sample in x]
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

    one, seven = (census(LowRank(), data=torch.randn(n, 3, 6)) for n in (1, 7))
    assert one.total("macs") == seven.total("macs") == 6 * 2 * 5 + 3 * 6 * 5
    assert rows(seven)["place", "embedding"].output_elements == 18


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
        layers = rows(census(Elman(), data=torch.randn(samples, 6, 4)))
        assert (layers["w", "linear"].macs, layers["u", "linear"].macs) == (6 * 20, 6 * 25)
        assert layers["u", "linear"].calls == 6


# -------------------------------------------------------------------------------------------- what cannot be counted


def test_a_kernel_of_its_own_is_named() -> None:
    class InNumpy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(x.numpy() @ self.weight.detach().numpy())

    class WithoutWeights(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(x.numpy() * 2)

    model = nn.Sequential(nn.Linear(4, 4), InNumpy(), nn.ReLU(), WithoutWeights())
    counts = census(model, data=torch.randn(3, 4))
    assert counts.not_counted == ("1 (InNumpy)", "3 (WithoutWeights)")
    assert counts.total("macs") == 16
    assert counts.extra["parameters"] == 20 + 16


def test_unknown_products_are_named() -> None:
    class Spread(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x[:, :, None] * self.weight).sum(1)

    class Buried(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 4))
            self.bias = nn.Parameter(torch.zeros(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(x.numpy() @ self.weight.detach().numpy()) + self.bias

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pair = nn.Bilinear(4, 4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.pair(x, x)

    for samples in (1, 3):
        x = torch.randn(samples, 4)
        assert census(Spread(), data=x).not_counted == ("Spread (Spread): aten.mul.Tensor",)
        assert census(Both(), data=x).not_counted == ("pair (Bilinear): aten._trilinear.default",)
        assert census(Buried(), data=x).not_counted == ("Buried (Buried): parameter weight was not seen in use",)


def test_elementwise_modules_are_seen() -> None:
    class RMSNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5) * self.weight

    counts = census(nn.Sequential(nn.Linear(4, 4), RMSNorm()), data=torch.randn(3, 4))
    assert counts.not_counted == ()
    layer = rows(counts)["1", "elementwise"]
    assert (layer.weight_count, layer.macs, layer.calls) == (4, 0, 6)


def test_register_counter() -> None:
    class Packed(nn.Module):
        """Weights in a form that only its kernel reads."""

        def __init__(self) -> None:
            super().__init__()
            self.packed = nn.Linear(6, 5, bias=False).weight.detach().numpy()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(x.numpy() @ self.packed.T)

    model, x = nn.Sequential(Packed(), nn.ReLU()), torch.randn(3, 6)
    assert census(model, data=x).not_counted == ("0 (Packed)",)

    @register_counter(Packed)
    def count_packed(module, inputs, output):
        return [product(inputs[0][None], 5)]

    class Derived(Packed):
        pass

    for layer in (Packed(), Derived()):
        counts = census(nn.Sequential(layer, nn.ReLU()), data=x)
        assert counts.not_counted == ()
        assert (counts.layers[0].macs, counts.layers[0].module) == (30, type(layer).__name__)


def test_products_of_derived_weights_are_matrices() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(5, 6))
            self.mask = nn.Buffer(torch.eye(5, 6))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.linear(x, self.weight * self.mask)

    layer = rows(census(Masked(), data=torch.ones(3, 6)))["weight", "linear"]
    assert (layer.rows, layer.cols, layer.zero_weights, layer.sops, layer.effective_acs) == (6, 5, 25, 30, 5)


def test_tied_weights_are_stored_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.head = nn.Embedding(20, 4), nn.Linear(4, 20, bias=False)
            self.head.weight = self.words.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.words(x))

    counts = census(Tied(), data=torch.randint(0, 20, (3, 5)))
    assert counts.total("weight_count") == counts.extra["parameters"] == 80
    assert counts.total("weights_read") == 5 * 4 + 80


def test_aihwkit_layers_count_their_tiles_once() -> None:
    import aihwkit.nn
    from aihwkit.simulator import configs

    for config in (configs.InferenceRPUConfig(), configs.TorchInferenceRPUConfig()):
        counts = census(aihwkit.nn.AnalogLinear(6, 5, rpu_config=config), data=torch.rand(3, 6))
        (layer,) = counts.layers
        assert (layer.op, layer.rows, layer.cols, layer.macs, layer.weight_count) == ("linear", 6, 5, 30, 35)
        assert counts.extra["parameters"] == 35


# ------------------------------------------------------------------------------------------ nothing is left behind


def test_the_model_is_left_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    model[2].eval()
    before = copy.deepcopy(model.state_dict())
    torch.manual_seed(3)
    census(model, data=torch.randn(5, 4, generator=torch.Generator().manual_seed(0)))
    state = torch.get_rng_state()
    torch.manual_seed(3)
    assert torch.equal(state, torch.get_rng_state())
    assert [module.training for module in model.modules()] == [True, True, True, False]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_the_seed_rules_what_is_drawn() -> None:
    class Noisy(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.bernoulli(x)

    model, x = nn.Sequential(Noisy(), nn.Linear(50, 3)), torch.full((4, 50), 0.5)
    one, same, other = (census(model, data=x, seed=seed).total("sops") for seed in (0, 0, 1))
    assert one == same != other


def test_an_exception_caught_inside_does_not_confuse_the_names() -> None:
    class Breaks(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise RuntimeError

    class Tries(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.breaks, self.fc = Breaks(), nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            try:
                return self.breaks(x)
            except RuntimeError:
                return self.fc(x) + 1

    counts = census(Tries(), data=torch.randn(2, 4))
    assert [(layer.name, layer.op) for layer in counts.layers] == [("fc", "linear"), ("Tries", "elementwise")]


@pytest.mark.gpu
@pytest.mark.parametrize("name", NETWORKS)
def test_a_gpu_counts_the_same(name: str) -> None:
    build, size = NETWORKS[name]
    torch.manual_seed(0)
    model, x = build(), torch.relu(torch.randn(size))
    one, other = census(model, data=x), census(copy.deepcopy(model).cuda(), data=x.cuda())
    for field in ("macs", "sops", "dense_sops", "effective_macs", "output_elements", "weight_count"):
        assert other.total(field) == pytest.approx(one.total(field), rel=1e-3)  # a value near zero may round to it
    lstm = nn.LSTM(4, 6, 2, batch_first=True).cuda()  # cuDNN keeps its weights in one block
    counts = census(lstm, data=torch.randn(3, 5, 4, device="cuda"))
    assert counts.total("weight_count") == sum(p.numel() for p in lstm.parameters())


# ----------------------------------------------------------------------------------------------------- the result


def test_table_totals_and_json() -> None:
    counts = census(models.cnn((1, 8, 8), 10), data=torch.rand(3, 1, 8, 8))
    table = counts.table()
    assert list(table["name"]) == [layer.name for layer in counts.layers]
    for name in ("macs", "weights_read"):
        assert sum(table[name].tolist()) == counts.total(name)
    assert Census.from_dict(json.loads(json.dumps(counts.to_dict()))) == counts
    assert (counts.samples, counts.input_elements, counts.output_elements) == (3, 64, 10)
    assert Census(()).table().empty
    with pytest.raises(HpmlError, match="not what"):
        Census.from_dict({"layers": [{"nome": "x"}], "not_counted": []})


def test_shapes_only_measures_nothing() -> None:
    counts = census(models.cnn((1, 8, 8), 10), input_shape=(1, 8, 8))
    assert (counts.samples, counts.activation_sparsity) == (0, None)
    assert all(not layer.binary_input and layer.active_fraction == 1 for layer in counts.layers)
    assert counts.total("sops") == counts.total("dense_sops") == counts.synaptic_operations("neurobench").effective_macs
    assert census(models.mlp(3, 2), data=torch.zeros(2, 3)).total("sops") == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: census(m), "one of input_shape= .* or data="),
        (lambda m: census(m, input_shape=(4,), data=torch.ones(1, 4)), "one of input_shape= .* or data="),
        (lambda m: census(m, data=torch.ones(0, 4)), r"no samples in dimension 0 .*\(0, 4\)"),
        (lambda m: census(m, data=()), "no tensor"),
        (lambda m: census(m, data=torch.ones(3, 4), batch_dim=5), "no samples in dimension 5"),
        (lambda m: census(m, data=torch.ones(3, 4), batch_size=0), "batch_size=0 must be >= 1"),
        (lambda m: census(m, input_shape=(0,)), r"input_shape=\(0,\)"),
        (lambda m: census(m, data=torch.ones(3, 7)), r"Linear failed on an input of shape \(3, 7\)"),
        (lambda m: census(nn.LazyLinear(3), input_shape=(4,)), "lazy"),
        (lambda m: census(m, input_shape=(4,)).total("mac"), "unknown count 'mac'. Did you mean 'macs'"),
        (lambda m: census(m, input_shape=(4,)).synaptic_operations("neurobunch"), "Did you mean 'neurobench'"),
    ],
)
def test_bad_input(call, message: str) -> None:
    with pytest.raises(HpmlError, match=message):
        call(nn.Linear(4, 3))


def test_unknown_names_are_hpml_errors() -> None:
    assert issubclass(UnknownNameError, HpmlError)


def test_import_stays_cheap() -> None:
    code = (
        "import sys, hpml_sim.census, hpml_sim.shapes;"
        "print([m for m in ('pandas', 'snntorch', 'aihwkit', 'numba') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
