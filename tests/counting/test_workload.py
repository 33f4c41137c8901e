"""The model is left as it was, and what the result says."""

from __future__ import annotations

import copy
import json
import subprocess
import sys

import pytest
import torch
from torch import nn

from hpml_sim.counting import Workload, workload
from hpml_sim.errors import HpmlError, UnknownNameError
from hpml_sim.networks import models
from tests.counting.networks import NETWORKS


def test_the_model_is_left_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    model[2].eval()
    before = copy.deepcopy(model.state_dict())
    torch.manual_seed(3)
    workload(model, data=torch.randn(5, 4, generator=torch.Generator().manual_seed(0)))
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
    one, same, other = (workload(model, data=x, seed=seed).total("sops") for seed in (0, 0, 1))
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

    counts = workload(Tries(), data=torch.randn(2, 4))
    assert [(layer.name, layer.op) for layer in counts.layers] == [("fc", "linear"), ("Tries", "elementwise")]


@pytest.mark.gpu
@pytest.mark.parametrize("name", NETWORKS)
def test_a_gpu_counts_the_same(name: str) -> None:
    build, size = NETWORKS[name]
    torch.manual_seed(0)
    model, x = build(), torch.relu(torch.randn(size))
    one, other = workload(model, data=x), workload(copy.deepcopy(model).cuda(), data=x.cuda())
    for field in ("macs", "sops", "dense_sops", "effective_macs", "output_elements", "weight_count"):
        assert other.total(field) == pytest.approx(one.total(field), rel=1e-3)  # a value near zero may round to it
    lstm = nn.LSTM(4, 6, 2, batch_first=True).cuda()  # cuDNN keeps its weights in one block
    counts = workload(lstm, data=torch.randn(3, 5, 4, device="cuda"))
    assert counts.total("weight_count") == sum(p.numel() for p in lstm.parameters())


# ----------------------------------------------------------------------------------------------------- the result


def test_table_totals_and_json() -> None:
    counts = workload(models.cnn((1, 8, 8), 10), data=torch.rand(3, 1, 8, 8))
    table = counts.table()
    assert list(table["name"]) == [layer.name for layer in counts.layers]
    for name in ("macs", "weights_read"):
        assert sum(table[name].tolist()) == counts.total(name)
    assert Workload.from_dict(json.loads(json.dumps(counts.to_dict()))) == counts
    assert (counts.samples, counts.input_elements, counts.output_elements) == (3, 64, 10)
    assert Workload(()).table().empty
    with pytest.raises(HpmlError, match="not what"):
        Workload.from_dict({"layers": [{"nome": "x"}], "not_counted": []})


def test_shapes_only_measures_nothing() -> None:
    counts = workload(models.cnn((1, 8, 8), 10), input_shape=(1, 8, 8))
    assert (counts.samples, counts.activation_sparsity) == (0, None)
    assert all(not layer.binary_input and layer.active_fraction == 1 for layer in counts.layers)
    assert counts.total("sops") == counts.total("dense_sops") == counts.synaptic_operations("neurobench").effective_macs
    assert workload(models.mlp(3, 2), data=torch.zeros(2, 3)).total("sops") == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: workload(m), "one of input_shape= .* or data="),
        (lambda m: workload(m, input_shape=(4,), data=torch.ones(1, 4)), "one of input_shape= .* or data="),
        (lambda m: workload(m, data=torch.ones(0, 4)), r"no samples in dimension 0 .*\(0, 4\)"),
        (lambda m: workload(m, data=()), "no tensor"),
        (lambda m: workload(m, data=torch.ones(3, 4), batch_dim=5), "no samples in dimension 5"),
        (lambda m: workload(m, data=torch.ones(3, 4), batch_size=0), "batch_size=0: must be a whole number >= 1"),
        (lambda m: workload(m, input_shape=(0,)), r"input_shape=\(0,\)"),
        (lambda m: workload("mlp", input_shape=(4,)), "model='mlp': must be a network"),
        (lambda m: workload(nn.Linear, input_shape=(4,)), "this is its class"),
        (lambda m: workload(m, input_shape=4), "input_shape=4: must be the sizes of one sample"),
        (lambda m: workload(m, input_shape=(4.0,)), r"input_shape=\(4\.0,\)"),
        (lambda m: workload(m, data="digits"), "data='digits': must be a batch of samples.*load_data"),
        (lambda m: workload(m, data=3), "data=3: must be a batch of samples"),
        (lambda m: workload(m, input_shape=(4,), dtype="float"), "dtype='float': must be a data type of torch"),
        (lambda m: workload(m, input_shape=(4,), seed="0"), "seed='0': must be a whole number"),
        (lambda m: workload(m, input_shape=(4,), batch_dim=True), "batch_dim=True: must be a whole number >= 0"),
        (lambda m: workload(m, input_shape=(4,), forward=3), "forward=3: must be a function"),
        (lambda m: workload(m, data=torch.ones(3, 7)), r"Linear failed on an input of shape \(3, 7\)"),
        (lambda m: workload(nn.LazyLinear(3), input_shape=(4,)), "lazy"),
        (lambda m: workload(m, input_shape=(4,)).total("mac"), "unknown count 'mac'. Did you mean 'macs'"),
        (lambda m: workload(m, input_shape=(4,)).synaptic_operations("neurobunch"), "Did you mean 'neurobench'"),
    ],
)
def test_bad_input(call, message: str) -> None:
    with pytest.raises(HpmlError, match=message) as refusal:
        call(nn.Linear(4, 3))
    assert "\n" not in str(refusal.value)


def test_unknown_names_are_hpml_errors() -> None:
    assert issubclass(UnknownNameError, HpmlError)


def test_import_stays_cheap() -> None:
    code = (
        "import sys, hpml_sim.counting, hpml_sim.networks.architectures;"
        "print([m for m in ('pandas', 'snntorch', 'aihwkit', 'numba') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_a_printed_workload_is_a_short_table_with_a_total() -> None:
    model = nn.Sequential(*(nn.Linear(8, 8) for _ in range(40)), nn.Linear(8, 1000))
    counts = workload(model, data=torch.rand(3, 8))
    lines = str(counts).splitlines()
    assert lines[0] == repr(counts) == "Workload: 41 layers, 10.6 k MACs, 11.9 k parameters, 3 samples"
    assert lines[1].split() == ["layer", "op", "matrix", "MACs", "weights", "active"]
    assert len(lines) < 20
    assert max(map(len, lines)) <= 80
    assert any("8 x 1000" in line for line in lines)  # the largest layer is among those shown, although the last
    assert lines[-2].split()[:2] == ["total", "10.6"]
    assert lines[-1] == "29 layers with fewer MACs are not shown (.table() has all)"


def test_spikes_have_a_column_and_what_is_not_counted_is_named() -> None:
    from dataclasses import replace

    import hpml_sim as hs

    spiking = workload(hs.convert(models.mlp(64, 32, 10), hs.Spiking("loihi", steps=4)), data=torch.rand(2, 1, 8, 8))
    named = replace(spiking, not_counted=("weird (Foo)",))
    assert "spikes" in str(named).splitlines()[1]
    assert "4 time steps" in repr(named)
    assert str(named).endswith("not counted: weird (Foo)")


def test_a_workload_in_a_notebook_is_escaped() -> None:
    counts = workload(nn.ModuleDict({"<b>": nn.Linear(3, 2)})["<b>"], input_shape=(3,))
    hostile = Workload(tuple(counts.layers), not_counted=("<script>alert(1)</script>",))
    page = hostile._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert page.count("<tr>") == len(counts.layers) + 2  # headings and total


def test_layers_in_integers_count_as_in_floating_point() -> None:
    """torchao keeps integers and scales in one tensor, which cannot even be transposed."""
    import hpml_sim as hs

    network, x = hs.models.mlp(64, 32, 10), torch.rand(8, 1, 8, 8)
    integers = hs.convert(network, hs.Digital("cpu", precision="int8"))
    ours, theirs = (hs.workload(model, data=x) for model in (integers, network))
    for one, other in zip(ours.layers, theirs.layers, strict=True):
        assert (one.rows, one.cols, one.macs, one.weight_count) == (
            other.rows,
            other.cols,
            other.macs,
            other.weight_count,
        )
