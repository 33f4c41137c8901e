"""Samples that do not fit the memory: only a batch of them is held, and the result is that of tensors in memory."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from hpml_sim.conversion import convert
from hpml_sim.conversion.modes import eval_mode
from hpml_sim.data.batches import batches_in, first, has_items, in_order, resident_tensors
from hpml_sim.errors import HpmlError
from hpml_sim.networks import models
from hpml_sim.targets import InMemory, Spiking
from hpml_sim.training import fit
from hpml_sim.training.distributed import ProcessGroup
from hpml_sim.training.evaluation import evaluate

SHAPE, CLASSES = (1, 8, 8), 4


def tensors(count=90):
    x = torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(0))
    y = torch.arange(count) % CLASSES
    x[:, 0, 0] += 2 * torch.nn.functional.one_hot(y, 8)
    return TensorDataset(x.clamp(max=1), y)


class Counting(Dataset):
    """The same samples, each read when it is asked for; it knows how many of them exist at a time."""

    def __init__(self, count=90):
        self.source = tensors(count)
        self.alive, self.most = 0, 0

    def __len__(self):
        return len(self.source)

    def __getitem__(self, i):
        x, y = self.source[i]
        x = x.clone()
        self.alive += 1
        self.most = max(self.most, self.alive)
        weakref.finalize(x, self._gone)
        return x, int(y)

    def _gone(self):
        self.alive -= 1


class Flow(IterableDataset):
    def __iter__(self):
        return ((x, int(y)) for x, y in tensors())


class Unsized:
    """Batches without a length."""

    def __iter__(self):
        return iter(DataLoader(tensors(), batch_size=20))


def net():
    return models.build("mlp", SHAPE, CLASSES, width=8)


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize(
    "target", [None, "pcm-hermes", Spiking("loihi", steps=3)], ids=["digital", "analog", "spiking"]
)
@pytest.mark.parametrize("teacher", [False, True])
def test_a_dataset_read_item_by_item_trains_as_tensors_in_memory_do(target, teacher):
    trained = []
    for samples in (tensors(), Subset(tensors(), range(90)), dataset := Counting()):
        model = net() if target is None else convert(net(), target)
        fit(model, samples, epochs=2, batch_size=16, seed=3, teacher=net() if teacher else None)
        trained.append((weights(model), evaluate(model, samples).mean))
    assert torch.equal(trained[0][0], trained[1][0])
    # a teacher sees batches of another size, which may change the last bits of its products
    torch.testing.assert_close(trained[2][0], trained[0][0], rtol=0, atol=1e-3 if teacher else 0)
    assert trained[0][1] == trained[1][1]
    assert dataset.most <= 91  # evaluation takes all 90 at a time


def test_no_more_than_a_batch_is_held():
    gc.disable()  # what is let go is gone at once
    try:
        train, test = Counting(), Counting()
        model = net()
        fit(model, (train, test), epochs=2, batch_size=16)
        evaluate(model, (train, test), batch_size=16)
    finally:
        gc.enable()
    assert 16 <= train.most <= 17
    assert 16 <= test.most <= 17


class TooLarge(Dataset):
    """A tebibyte: 4 million pictures of 256 KiB, of which a test can look at few."""

    def __len__(self):
        return 1 << 22

    def __getitem__(self, i):
        return torch.full((1, 256, 256), (i % 2) * 1.0), i % 2


class EnoughError(Exception):
    pass


def test_what_no_memory_could_hold_is_trained_on():
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(1 << 16, 2))
    calls = []

    def stop(*_):
        calls.append(1)
        if len(calls) == 4:
            raise EnoughError

    model.register_forward_hook(stop)
    before = weights(model)
    with pytest.raises(EnoughError):
        fit(model, TooLarge(), batch_size=4, epochs=1)
    assert torch.equal(weights(model), before)  # a training that fails leaves the weights as they were
    with pytest.raises(HpmlError, match="label 1, but the model has 1 outputs"):
        fit(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(1 << 16, 1)), TooLarge(), batch_size=4)


@pytest.mark.parametrize(
    "samples",
    [
        lambda: DataLoader(tensors(), batch_size=20),
        lambda: DataLoader(tensors(), batch_size=20, shuffle=True),
        lambda: DataLoader(Flow(), batch_size=20),
        lambda: Flow(),
        lambda: Unsized(),
        lambda: list(DataLoader(tensors(), batch_size=20)),
    ],
    ids=["loader", "shuffled", "loader-of-a-flow", "flow", "unsized", "list"],
)
def test_batches_as_they_come_train_and_are_evaluated(samples):
    model, train, test = net(), samples(), samples()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    history = fit(model, train, epochs=3, lr=0.02)
    found = evaluate(model, (train, test))
    assert torch.equal(torch.rand(3), expected)  # loaders draw from torch's own random numbers
    assert found.samples == 90
    assert history.loss[-1] < history.loss[0]
    assert found.mean == evaluate(model, tensors()).mean


def test_devices_are_trained_in_memory_on_batches_as_they_come():
    model = convert(net(), InMemory("pcm-hermes", device="ecram"))
    history = fit(model, DataLoader(Counting(), batch_size=20), epochs=1)
    assert history.writes.total > 0


def test_a_shuffled_loader_has_another_order_each_epoch_and_the_same_one_for_a_seed():
    seen = []

    class Watches(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = net()

        def forward(self, x):
            if self.training:
                seen.append(float(x.sum()))
            return self.inner(x)

    for seed in (0, 0, 1):
        fit(Watches(), DataLoader(tensors(), batch_size=45, shuffle=True), epochs=2, seed=seed)
    first_run, second, other = seen[:4], seen[4:8], seen[8:]
    assert first_run == second != other
    assert first_run[:2] != first_run[2:]


def test_what_is_no_batch_is_named_and_the_weights_are_as_before():
    good = list(DataLoader(tensors(), batch_size=20))
    model = net()
    before = weights(model)
    for bad, said in (
        ([*good, (torch.zeros(2, *SHAPE), torch.zeros(2))], "labels are torch.float32: must be whole numbers from 0"),
        ([*good, (torch.zeros(2, *SHAPE), torch.tensor([0, -1]))], r"whole numbers >= 0"),
        (
            [*good, (torch.zeros(3, *SHAPE), torch.zeros(2, dtype=torch.int64))],
            r"each batch must be \(inputs, labels\)",
        ),
        ([*good, torch.zeros(2, *SHAPE)], r"each batch must be \(inputs, labels\)"),
        ([*good, (torch.zeros(2, *SHAPE), torch.tensor([0, 7]))], "label 7, but the model has 4 outputs"),
        ([(torch.zeros(3), 0), (torch.zeros(4), 1), (torch.zeros(3), 1)], r"item \d has shape"),
        ([(torch.zeros(*SHAPE), 0.5)] * 3, r"which task is it\? .* labels \(3,\) float32"),
        ([], "there are no samples"),
        (iter(good), "can be gone through only once"),
        (7, "neither a name"),
    ):
        with pytest.raises(HpmlError, match=said):
            fit(model, bad, epochs=1)
        assert torch.equal(weights(model), before)
    with pytest.raises(HpmlError, match="makes its own batches"):
        fit(model, DataLoader(tensors(), batch_size=20), batch_size=10)
    with pytest.raises(HpmlError, match="no samples"):
        evaluate(model, iter(()))
    assert evaluate(model, iter(good)).samples == 90  # once is enough


def test_loaders_are_not_shared_out_among_processes(monkeypatch):
    monkeypatch.setattr(ProcessGroup, "join", classmethod(lambda cls, device: cls(0, 2)))
    with pytest.raises(HpmlError, match=r"on 2 processes a DataLoader cannot be shared out.*\.dataset"):
        fit(net(), DataLoader(tensors()))


def test_what_a_split_is():
    assert resident_tensors(DataLoader(tensors())) is None
    assert resident_tensors(Counting()) is None
    whole = resident_tensors(Subset(Subset(tensors(), range(10, 90)), [3, 0]))
    assert whole is not None
    x, y = whole
    assert torch.equal(x, tensors().tensors[0][[13, 10]])
    assert y.tolist() == [1, 2]
    assert has_items([(torch.zeros(3), 1)])
    assert not has_items([(torch.zeros(2, 3), torch.tensor([0, 1]))])
    assert batches_in(Unsized(), 7) == 5
    assert batches_in(Flow(), 7) == 13
    assert [len(y) for _, y in in_order(Flow(), 40)] == [40, 40, 10]
    for samples in (tensors(), Counting(), Flow(), Unsized(), DataLoader(tensors(), batch_size=20)):
        x, y = first(samples, 33)
        assert torch.equal(x, tensors().tensors[0][:33])
        assert torch.equal(y, tensors().tensors[1][:33])


def test_what_is_observed_is_left_as_it_was():
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(4), torch.nn.Dropout())
    model[0].eval()  # frozen, as fine-tuning does
    with eval_mode(model):
        assert not any(module.training for module in model.modules())
        assert not torch.is_grad_enabled()
    assert [module.training for module in model.modules()] == [True, False, True]
