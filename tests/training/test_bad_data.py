"""Inputs and labels that no network can take are refused alike for digital, analog and spiking networks."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from hpml_sim.conversion import convert
from hpml_sim.errors import HpmlError, NotFiniteError
from hpml_sim.spiking import fuse
from hpml_sim.targets import Analog, Spiking
from hpml_sim.training import fit
from hpml_sim.training.evaluation import evaluate

ENCODERS = ("direct", "rate", "latency", "population", "frames", "delta")


def network(width=6):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(width, 8), nn.ReLU(), nn.Linear(8, 3))


MODELS = {
    "digital": network,
    "analog": lambda: convert(network(), Analog("pcm-hermes")),
    **{
        encoder: lambda encoder=encoder: convert(
            network(48 if encoder == "population" else 6), Spiking("loihi", steps=4, encoder=encoder)
        )
        for encoder in ENCODERS
    },
}


def data(name, n=20):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(n, *((4, 6) if name in ("frames", "delta") else (6,)), generator=generator), torch.arange(n) % 3


class Stream(IterableDataset):
    def __init__(self, x, y):
        self.x, self.y = x, y

    def __iter__(self):
        return zip(self.x, self.y, strict=True)


KINDS = {
    "tensors": TensorDataset,
    "items": lambda x, y: list(zip(x, y.tolist(), strict=True)),
    "batches": lambda x, y: DataLoader(TensorDataset(x, y), batch_size=5),
    "stream": Stream,
}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", MODELS)
def test_values_that_are_not_finite_are_refused_with_their_place(name, value):
    x, y = data(name)
    x[13, ..., 2] = value
    model = MODELS[name]()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with pytest.raises(NotFiniteError, match=f"fit: sample 13 of the input holds {value}"):
        fit(model, TensorDataset(x, y), epochs=1, batch_size=4, show_progress=False)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    with pytest.raises(NotFiniteError, match=f"evaluate: sample 13 of the input holds {value}"):
        evaluate(model, TensorDataset(x, y), batch_size=4)
    with pytest.raises(NotFiniteError, match="sample 13") if name in ENCODERS else pytest.raises(AssertionError):
        assert model(x).isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_place_is_that_in_the_data_whatever_holds_it(kind):
    x, y = data("direct")
    x[13, 2] = float("nan")
    for name in ("digital", "direct"):
        model = MODELS[name]()
        before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
        with pytest.raises(NotFiniteError, match=r"fit: sample 13 of the input holds nan at \[2\]"):
            fit(model, KINDS[kind](x, y), epochs=1, batch_size=None if kind == "batches" else 4, show_progress=False)
        assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
        with pytest.raises(NotFiniteError, match=r"evaluate: sample 13 of the input holds nan at \[2\]"):
            evaluate(model, KINDS[kind](x, y), batch_size=4)


def test_fused_networks_refuse_them_as_well():
    import snntorch as snn

    fused = fuse(nn.Sequential(nn.Linear(6, 3), snn.Leaky(0.9, init_hidden=True)))
    x = torch.rand(7, 5, 6)
    x[4, 3, 2] = float("nan")
    with pytest.raises(NotFiniteError, match=r"fused network: sample 3 of the input holds nan at \[4, 2\]"):
        fused(x)


@pytest.mark.parametrize("name", ["digital", "analog", "direct", "rate"])
def test_weights_that_are_nan_give_no_accuracy(name):
    model = MODELS[name]()
    with torch.no_grad():
        next(model.parameters())[0, 0] = float("nan")
    with pytest.raises(HpmlError, match="NaN"):
        evaluate(model, TensorDataset(*data(name)))
    with pytest.raises(HpmlError, match=r"NaN|nan"):
        fit(model, TensorDataset(*data(name)), epochs=1, show_progress=False)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", MODELS)
def test_inputs_of_another_precision_work(name, dtype):
    x, y = data(name)
    model = MODELS[name]()
    samples = TensorDataset(x.to(dtype), y)
    fit(model, samples, epochs=1, show_progress=False)
    assert evaluate(model, samples).samples == 20
    if name in ENCODERS:
        model.eval()
        assert torch.equal(model(x.to(dtype)), model(x.to(dtype).float()))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool])
@pytest.mark.parametrize("name", [name for name in MODELS if name != "analog"])  # which takes them
def test_inputs_that_are_no_numbers_of_the_networks_get_one_line(name, dtype):
    x, y = data(name)
    model, samples = MODELS[name](), TensorDataset((x > 0.5).to(dtype), y)
    calls = [lambda: fit(model, samples, epochs=1, show_progress=False), lambda: evaluate(model, samples)]
    for call in calls + [lambda: model(samples.tensors[0])] * (name in ENCODERS):
        with pytest.raises(HpmlError, match=r"float") as caught:
            call()
        assert "\n" not in str(caught.value)


def test_token_ids_go_to_embeddings_and_integers_to_networks_that_take_them():
    class Scales(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = network()

        def forward(self, x):
            return self.net(x.float() / 255)

    x, y = torch.randint(0, 9, (20, 6)), torch.arange(20) % 3
    for model in (Scales(), nn.Sequential(nn.Embedding(9, 2), nn.Flatten(), nn.Linear(12, 3))):
        fit(model, TensorDataset(x, y), epochs=1, show_progress=False)
        assert evaluate(model, TensorDataset(x, y)).samples == 20


@pytest.mark.parametrize("name", ["digital", "analog", "direct", "rate"])
@pytest.mark.parametrize("wrong", [3, 250, -1])
def test_labels_without_an_output_are_refused(name, wrong):
    x, y = data(name)
    y[13] = wrong
    model = MODELS[name]()
    with pytest.raises(HpmlError, match=f"evaluate: label {wrong}"):
        evaluate(model, TensorDataset(x, y), batch_size=4)
    with pytest.raises(HpmlError, match=f"label.*{wrong}"):
        fit(model, TensorDataset(x, y), epochs=1, show_progress=False)


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = network()

    def forward(self, x):
        return self.net(x), x


class Named(nn.Module):
    """Outputs in a dictionary of its own."""

    def __init__(self):
        super().__init__()
        self.net = network()

    def forward(self, x):
        return {"scores": self.net(x)}


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (Named, r"say where it is, such as task=task\.with_outputs\('scores'\), or let forward"),
        (Pair, r"task=task\.with_outputs\(0\) or task=task\.with_outputs\(1\), or let forward\(\) give these alone"),
        (lambda: convert(Pair(), Spiking("loihi", steps=4)), r"gives the logits alone"),
    ],
    ids=["named", "digital", "spiking"],
)
def test_outputs_that_are_no_tensor_get_one_line(build, said):
    model, samples = build(), TensorDataset(*data("direct"))
    for call in (lambda: fit(model, samples, epochs=1, show_progress=False), lambda: evaluate(model, samples)):
        with pytest.raises(HpmlError, match=said) as caught:
            call()
        assert "\n" not in str(caught.value)
