"""The task is inferred where data and outputs leave no doubt, and asked for where they do."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import hpml_sim as hs
from hpml_sim.errors import HpmlError, UnknownNameError

X = torch.rand(24, 6, generator=torch.Generator().manual_seed(0))
IDS = torch.arange(24)[:, None].add(torch.arange(7)) % 5


class Tokens(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Embedding(5, 4), nn.Linear(4, 5))


def score(net, x, y, **options):
    torch.manual_seed(0)
    return hs.evaluate(net, TensorDataset(x, y), **options)


@pytest.mark.parametrize(
    ("net", "x", "y", "metric"),
    [
        (nn.Linear(6, 3), X, torch.arange(24) % 3, "accuracy"),
        (nn.Linear(6, 1), X, X.sum(1, keepdim=True), "RMSE"),
        (nn.Linear(6, 1), X, X.sum(1), "RMSE"),
        (nn.Linear(6, 3), X, (X[:, :3] > 0.5).float(), "F1"),
        (nn.Linear(6, 3), X, (X[:, :3] > 0.5).long(), "F1"),
        (nn.Linear(6, 6), X, X, "MSE"),
        (nn.Conv2d(1, 2, 1), X.view(24, 1, 2, 3), (X > 0.5).long().view(24, 2, 3), "mean IoU"),
        (Tokens(), IDS[:, :-1], IDS[:, 1:], "perplexity"),
        (Tokens(), IDS, IDS, "perplexity"),
    ],
)
def test_what_leaves_no_doubt(net, x, y, metric):
    assert score(net, x, y).metric == metric
    assert hs.fit(net, TensorDataset(x, y), epochs=1, show_progress=False).metric == metric


def test_a_metric_that_needs_an_option_names_it():
    with pytest.raises(HpmlError, match=r"metric='psnr'.*hs\.tasks\.reconstruction\(peak=1\.0\) measures PSNR"):
        score(nn.Linear(6, 6), X, X, metric="psnr")
    assert score(nn.Linear(6, 6), X, X, task=hs.tasks.reconstruction(peak=1.0), metric="PSNR").unit == "dB"


@pytest.mark.parametrize(
    ("net", "x", "y"),
    [
        (nn.Linear(6, 2), X, X.sum(1, keepdim=True)),  # two outputs, one number
        (nn.Linear(6, 3), X, nn.functional.one_hot(torch.arange(24) % 3).float()),  # classes, or several labels?
        (Tokens(), IDS, (IDS + 2) % 5),  # a class for each token, or something else?
        (nn.Linear(6, 4), X, torch.arange(24)[:, None].expand(24, 4)),
    ],
)
def test_what_is_in_doubt_is_asked_for_in_one_line(net, x, y):
    for verb in (hs.evaluate, hs.fit):
        with pytest.raises(HpmlError, match="which task is it") as said:
            verb(net, TensorDataset(x, y))
        assert "\n" not in str(said.value)
        assert "tensor(" not in str(said.value)
        assert "give task=" in str(said.value)


def test_a_name_that_no_task_has():
    with pytest.raises(UnknownNameError, match="Did you mean 'regression'"):
        score(nn.Linear(6, 1), X, X.sum(1), task="regresion")
    with pytest.raises(HpmlError, match=r"must be an hs\.Task or a name"):
        score(nn.Linear(6, 1), X, X.sum(1), task=hs.tasks.regression)


class Gives(nn.Module):
    def __init__(self, pack):
        super().__init__()
        self.net, self.pack = nn.Linear(6, 3), pack

    def forward(self, x):
        return self.pack(self.net(x))


LABELS = torch.arange(24) % 3


@pytest.mark.parametrize(
    ("pack", "outputs"),
    [
        (lambda y: SimpleNamespace(logits=y, loss=None), None),
        (lambda y: {"logits": y, "hidden": y}, None),
        (lambda y: (y,), None),
        (lambda y: (y, y.sum()), 0),
        (lambda y: SimpleNamespace(scores=y), "scores"),
        (lambda y: {"a": {"b": y}}, lambda given: given["a"]["b"]),
    ],
)
def test_outputs_are_read_wherever_they_are(pack, outputs):
    net = Gives(pack)
    task = hs.tasks.classification(outputs=outputs)
    samples = TensorDataset(X, LABELS)
    assert hs.evaluate(net, samples, task=task).mean == hs.evaluate(net.net, samples).mean
    analog = hs.convert(net, "pcm-hermes")
    hs.fit(analog, samples, task=task, epochs=1, show_progress=False, teacher=net)
    assert hs.evaluate(hs.program(analog, chips=2, seed=0).at(1.0), samples, task=task).n == 2


@pytest.mark.parametrize(
    ("pack", "outputs", "said"),
    [
        (
            lambda y: SimpleNamespace(scores=y),
            "logits",
            r"outputs='logits'.*SimpleNamespace with \{scores: \(2?\d, 3\)",
        ),
        (lambda y: (y, y), 2, "outputs=2: .*tuple of 2"),
        (lambda y: (y, y), None, r"a tuple of 2.*with_outputs\(0\)"),
    ],
)
def test_a_field_that_is_not_there(pack, outputs, said):
    task = hs.tasks.classification(outputs=outputs)
    with pytest.raises(HpmlError, match=said) as found:
        hs.evaluate(Gives(pack), TensorDataset(X, LABELS), task=task)
    assert "\n" not in str(found.value)


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 3), nn.Linear(6, 3)

    def forward(self, x, y):
        return self.a(x) + self.b(y)


@pytest.mark.parametrize(
    "items",
    [
        [((x, x), y) for x, y in zip(X, LABELS, strict=True)],
        [{"x": x, "y": x, "labels": y} for x, y in zip(X, LABELS, strict=True)],
    ],
)
def test_several_inputs(items):
    net = Two()
    want = float((net(X, X).argmax(1) == LABELS).double().mean())
    assert hs.evaluate(net, items).mean == pytest.approx(want)
    assert len(hs.fit(net, items, epochs=1, show_progress=False).scores) == 1


@pytest.mark.parametrize(
    ("task", "labels", "said"),
    [
        ("classification", X[:, 0], "labels are torch.float32"),
        ("regression", torch.full((24, 3), float("nan")), "hold NaN"),
        ("regression", torch.rand(24, 2), r"outputs .* must have the same shape"),
        ("multi_label", torch.rand(24, 3), "other values than 0 and 1"),
        ("language_model", LABELS, "must be token numbers"),
    ],
)
def test_labels_that_do_not_fit_a_task(task, labels, said):
    net = nn.Linear(6, 3)
    for verb in (hs.evaluate, hs.fit):
        with pytest.raises(HpmlError, match=said) as found:
            verb(net, TensorDataset(X, labels), task=task)
        assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("name", "metric"), [("transcription_by_step", "token error rate"), ("phonemes", "phoneme error rate")]
)
def test_transcription_without_a_blank_has_names(name, metric):
    """Step i answers label i: two of 4 x 6 are wrong; what stands behind the end of phonemes counts for nothing."""
    labels = torch.tensor([[5, 6, 7, 4, 3, 5]]).repeat(4, 1)
    logits = 9.0 * nn.functional.one_hot(labels, 8).float()
    logits[0, 1] = logits[2, 0] = torch.tensor([9.0, 0, 0, 0, 0, 0, 0, 0])
    found = score(nn.Identity(), logits, labels, task=name)
    assert found.metric == metric
    assert found.mean == pytest.approx(2 / 24 if name == "transcription_by_step" else 2 / 16)
