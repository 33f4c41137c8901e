"""The `Digital` target: precisions, engines, reports and refusals."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from hpml_sim.baselines import CompiledNetwork, DigitalNetwork, digital
from hpml_sim.conversion import convert
from hpml_sim.errors import ConversionError, HpmlError
from hpml_sim.networks.models import cnn, mlp
from hpml_sim.targets import Digital
from hpml_sim.training import fit
from hpml_sim.training.evaluation import evaluate

X = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def test_default_is_the_network_itself_to_the_bit():
    net = cnn((1, 8, 8), 10)
    converted = convert(net, Digital())
    assert isinstance(converted, DigitalNetwork)
    assert torch.equal(converted(X), net(X))
    assert type(converted.network) is type(net)
    before = net(X).detach()
    converted(X).sum().backward()
    torch.optim.SGD(converted.parameters(), lr=0.1).step()
    assert not torch.equal(converted(X), before)
    assert torch.equal(net(X), before)  # the copy was trained, not the original


@pytest.mark.parametrize(("precision", "bits"), [("bf16", 8), ("fp16", 11)])
def test_low_precision_rounds_weights_once_and_speaks_float32(precision, bits):
    net = cnn((1, 8, 8), 10)
    converted = convert(net, Digital(precision=precision))
    y = converted(X)
    assert y.dtype == torch.float32
    assert {p.element_size() for p in converted.parameters()} == {2}
    assert not any(p.requires_grad for p in converted.parameters())
    assert all(p.requires_grad and p.dtype == torch.float32 for p in net.parameters())
    # rounding to `bits` bits in each of a handful of layers
    assert 0 < (y - net(X)).abs().max() < 20 * 2.0**-bits * net(X).abs().max()
    with pytest.raises(HpmlError, match="no trainable parameters"):
        fit(converted, "digits", epochs=1, show_progress=False)


def test_bf16_keeps_the_accuracy_of_a_trained_network():
    net = mlp(64, 32, 10)
    fit(net, "digits", epochs=5, lr=1e-2, show_progress=False)
    full, low = (evaluate(convert(net, Digital(precision=p)), "digits").mean for p in ("fp32", "bf16"))
    assert full > 0.9
    assert abs(full - low) < 0.02


def test_a_layer_left_out_keeps_its_float32_weights():
    net = cnn((1, 8, 8), 10)
    converted = convert(net, Digital(precision="bf16"), skip=["9"])
    head = converted.network.get_submodule("9")
    assert isinstance(head, nn.Linear)
    assert torch.equal(head.weight, net.get_submodule("9").weight)  # type: ignore[arg-type]
    assert converted(X).dtype == torch.float32
    assert converted.report.set_index("layer").loc["9", "why"] == "left out by only= or skip="
    again = pickle.loads(pickle.dumps(converted))
    assert torch.equal(again(X), converted(X))


def test_report_has_a_row_for_every_layer():
    rows = convert(cnn((1, 8, 8), 10), Digital(precision="fp16")).report
    assert list(rows["layer"]) == [str(i) for i in range(10)]
    assert rows.iloc[0]["became"] == "Conv2d (fp16)"


def test_a_float64_network_becomes_float32():
    converted = convert(mlp(64, 10).double(), Digital())
    assert converted(X).dtype == torch.float32


@pytest.mark.parametrize("target", [Digital("h200", precision="tf32"), Digital(engine="torch-compile")])
def test_whole_network_targets_refuse_to_leave_layers_out(target):
    with pytest.raises(ConversionError, match="leaves out '1'"):
        convert(mlp(64, 8, 10), target, skip=["1"])


def test_choosing_no_layer_is_refused():
    with pytest.raises(ConversionError, match="leave no layer"):
        convert(mlp(64, 10), Digital(), only=lambda name, layer: False)


def test_unknown_precision_and_engine_name_what_is_allowed():
    with pytest.raises(HpmlError, match=r"precision='int4': unknown; did you mean 'int8'\?"):
        Digital(precision="int4")  # type: ignore[arg-type]
    with pytest.raises(HpmlError, match="engine='jax': unknown; known: torch, torch-compile, cuda-graph, numba-cuda"):
        Digital(engine="jax")  # type: ignore[arg-type]


def test_tf32_is_refused_on_a_cpu():
    with pytest.raises(HpmlError, match=r"the input is on cpu; TF32 exists on NVIDIA GPUs"):
        convert(mlp(64, 10), Digital("h200", precision="tf32"))(X)


@pytest.mark.parametrize("precision", ["ieee", "tf32"])
def test_how_a_gpu_multiplies_is_set_within_and_put_back(precision):
    # Read here on whatever build of torch; the flags exist without a GPU.
    backends = torch.backends
    places = (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn)  # type: ignore[attr-defined]
    before = [place.fp32_precision for place in places]
    with digital._float32_products(precision):
        assert [place.fp32_precision for place in places] == [precision] * 3
    assert [place.fp32_precision for place in places] == before


# ----------------------------------------------------------------------------------------------------------------- int8


def test_int8_rounds_linear_layers_and_says_what_stays():
    net = cnn((1, 8, 8), 10)
    converted = convert(net, Digital(precision="int8"))
    y, exact = converted(X), net(X)
    assert y.dtype == torch.float32
    assert not any(p.requires_grad for p in converted.parameters())
    # two layers of 8-bit factors: half a step in 127 for weights and activations each, random signs
    assert 0 < (y - exact).abs().max() < 4 / 127 * exact.abs().max()
    rows = converted.report.set_index("layer")
    assert rows.loc["7", "became"] == "Linear (int8, torchao)"
    assert rows.loc["0", "became"] == "Conv2d (fp32)"
    assert rows.loc["0", "why"] == "torchao's int8 is for linear layers"
    assert torch.equal(pickle.loads(pickle.dumps(converted))(X), y)


def test_int8_products_equal_integers_worked_out_by_hand():
    drawn = torch.Generator().manual_seed(1)
    layer, x = nn.Linear(6, 4), torch.randn(3, 6, generator=drawn)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(4, 6, generator=drawn))
    w, b = layer.weight.detach().double(), layer.bias.detach().double()
    scale_w = (w.abs().amax(1, keepdim=True) / 127.5).float().double()
    scale_x = (x.double().abs().amax(1, keepdim=True) / 127.5).float().double()
    q_w = (w / scale_w).round().clamp(-128, 127)
    q_x = (x.double() / scale_x).round().clamp(-128, 127)
    expected = (q_x @ q_w.T) * scale_x * scale_w.T + b
    y = convert(nn.Sequential(layer), Digital(precision="int8"))(x)
    # the largest value of a row falls between two integers and may be rounded to either: a step of each factor
    step = float((scale_x * scale_w.T).max()) * 128
    assert (y.double() - expected).abs().max() < 2 * step


def test_int8_keeps_the_accuracy_of_a_trained_network():
    net = mlp(64, 32, 10)
    fit(net, "digits", epochs=5, lr=1e-2, show_progress=False)
    full, low = (evaluate(convert(net, Digital(precision=p)), "digits").mean for p in ("fp32", "int8"))
    assert full > 0.9
    assert abs(full - low) < 0.01


def test_int8_leaves_out_what_is_asked_for_and_refuses_a_network_without_linear_layers():
    converted = convert(mlp(64, 8, 10), Digital(precision="int8"), skip=["3"])
    assert converted.report.set_index("layer").loc["3", "why"] == "left out by only= or skip="
    with pytest.raises(ConversionError, match=r"torchao quantizes nn\.Linear"):
        convert(nn.Sequential(nn.Conv2d(1, 2, 3)), Digital(precision="int8"))


def test_int8_without_torchao_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(HpmlError, match=r"needs a package .*torchao.*hpml_sim\[quant\]"):
        convert(mlp(64, 10), Digital(precision="int8"))


# -------------------------------------------------------------------------------------------------------- channels last


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_channels_last_changes_the_layout_and_not_the_result(precision):
    net = cnn((1, 8, 8), 10)
    plain, last = (convert(net, Digital(precision=precision, channels_last=flag)) for flag in (False, True))
    weight = last.network.get_submodule("3").weight
    assert isinstance(weight, Tensor)
    assert weight.is_contiguous(memory_format=torch.channels_last)
    seen = []
    last.network.get_submodule("3").register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    assert torch.allclose(last(X), plain(X), rtol=0, atol=1e-6 if precision == "fp32" else 1e-2)
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    assert convert(mlp(64, 10), Digital(channels_last=True))(torch.rand(2, 64)).shape == (2, 10)


def test_channels_last_is_refused_on_the_kernels():
    with pytest.raises(HpmlError, match="leave channels_last out"):
        Digital(engine="numba-cuda", channels_last=True)


# ---------------------------------------------------------------------------------------------------------- CUDA graphs


def test_graphs_without_a_gpu_say_what_still_works(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConversionError, match=r"torch finds no GPU.*engine='torch' or 'torch-compile'"):
        convert(mlp(64, 10), Digital("h200", engine="cuda-graph"))


def test_a_graph_of_an_input_on_the_cpu_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    converted = convert(mlp(64, 10), Digital("h200", engine="cuda-graph"))
    with torch.no_grad(), pytest.raises(HpmlError, match=r"the input is on cpu; graphs exist on NVIDIA GPUs"):
        converted(X)
    assert converted(X).requires_grad  # a graph keeps nothing for the way back: training runs eagerly


@pytest.mark.gpu
@pytest.mark.parametrize("target", [{}, {"precision": "bf16"}, {"channels_last": True}, {"precision": "tf32"}], ids=str)
def test_graphs_equal_eager_and_see_weights_that_change(target):
    net = cnn((1, 8, 8), 10).cuda()
    eager, graph = convert(net, Digital("h200", **target)), convert(net, Digital("h200", engine="cuda-graph", **target))
    with torch.no_grad():
        for batch in (5, 1, 5):
            x = torch.rand(batch, 1, 8, 8, device="cuda")
            assert torch.equal(graph(x), eager(x))
        first = graph(x)
        for parameter in (*eager.parameters(), *graph.parameters()):
            parameter.mul_(0.5)
        assert torch.equal(graph(x), eager(x))
        assert not torch.equal(graph(x), first)


@pytest.mark.gpu
def test_a_network_that_decides_by_values_cannot_be_recorded():
    class Decides(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if float(x.sum()) > 0 else -x

    converted = convert(nn.Sequential(nn.Linear(4, 4), Decides()).cuda(), Digital("h200", engine="cuda-graph"))
    with torch.no_grad(), pytest.raises(HpmlError, match="cannot be recorded"):
        converted(torch.rand(2, 4, device="cuda"))


# ------------------------------------------------------------------------------------------------------------ compiling


@pytest.fixture
def compiled_calls(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """Each call of what stands in for compiled code, by the network it was made for."""
    calls: list[nn.Module] = []

    def stand_in(network: nn.Module):
        def run(x: Tensor) -> Tensor:
            calls.append(network)
            return network(x)

        return run

    monkeypatch.setattr(digital, "_compile", stand_in)
    return calls


def test_compiled_code_runs_unless_a_hook_wants_to_see_the_layers(compiled_calls):
    converted = convert(mlp(64, 8, 10), Digital(engine="torch-compile"))
    converted(X)
    assert len(compiled_calls) == 1
    seen = []
    handle = converted.network.get_submodule("1").register_forward_hook(lambda *_: seen.append(1))
    converted(X)
    assert len(compiled_calls) == 1
    assert seen == [1]
    handle.remove()
    converted(X)
    assert len(compiled_calls) == 2


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_compiles_its_own_network(duplicate, compiled_calls):
    converted = convert(mlp(64, 8, 10), Digital(engine="torch-compile"))
    converted(X)
    twin = duplicate(converted)
    twin(X)
    assert isinstance(twin, CompiledNetwork)
    assert compiled_calls == [converted.network, twin.network]
    seen = []
    twin.network.get_submodule("1").register_forward_hook(lambda *_: seen.append(1))
    twin(X)
    assert seen == [1]


def test_compiling_without_a_compiler_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(digital.shutil, "which", lambda _: None)
    with pytest.raises(ConversionError, match="needs a C\\+\\+ compiler on a CPU"):
        convert(mlp(64, 10), Digital(engine="torch-compile"))


@pytest.mark.slow
def test_torch_compile_equals_eager():
    net = mlp(64, 8, 10)
    converted = convert(net, Digital(engine="torch-compile"))
    with torch.no_grad():
        assert torch.allclose(converted(X), net(X), rtol=0, atol=1e-6)
    assert converted.layers[1].became == "Linear (fp32, torch-compile)"


# ------------------------------------------------------------------------------------------------- what may be missing

_WITHOUT_ANYTHING = """
import sys
import hpml_sim.baselines
assert "numba" not in sys.modules, "importing hpml_sim.baselines must not import numba"
from hpml_sim.conversion import convert
from hpml_sim.errors import ConversionError
from hpml_sim.networks.models import mlp
from hpml_sim.targets import Digital

def says():
    try:
        convert(mlp(2, 2), Digital(engine="numba-cuda"))
    except ConversionError as error:
        return " ".join(str(error).split())

sys.modules["numba"] = None
said = says()
assert "numba-CUDA needs a package" in said and "hpml_sim[cuda]" in said, said
del sys.modules["numba"]
said = says()
assert "finds no GPU" in said and "NUMBA_ENABLE_CUDASIM=1" in said, said
print("ok")
"""


def test_without_gpu_and_simulator_the_message_says_what_to_do(repository):
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "0", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(repository)}
    ran = subprocess.run(
        [sys.executable, "-c", _WITHOUT_ANYTHING], env=environment, capture_output=True, text=True, check=False
    )
    assert ran.stdout.strip() == "ok", ran.stderr
