"""A comparison speaks in the scores of its task, trains all machines alike, and refuses first."""

from __future__ import annotations

import json
import textwrap

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import hpml_sim as hs
from hpml_sim.cli import main
from hpml_sim.errors import HpmlError
from hpml_sim.experiments import pipeline

X = torch.rand(48, 4, generator=torch.Generator().manual_seed(0))
NUMBERS = TensorDataset(X, X.sum(1))
OPTIONS = {"chips": 2, "times": ["1 day"]}


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))


def test_rows_and_table_of_a_regression_and_the_same_training_for_all():
    result = hs.compare(network(), (NUMBERS, NUMBERS), ["h200", "pcm-hermes"], epochs=1, finetune_epochs=2, **OPTIONS)
    assert [row.target for row in result.rows] == ["h200", "h200, fine-tuned", "pcm-hermes"]
    assert [str(row.training) for row in result.rows] == [
        "1 epochs",
        "1 epochs, then 2 digital",
        "1 epochs, then 2 hardware-aware",
    ]
    assert {(row.task, *(score.metric for score in row.scores)) for row in result.rows} == {
        ("regression", "RMSE", "MAE", "R2")
    }
    net = network()
    hs.fit(net, NUMBERS, epochs=1, lr=5e-3, seed=0)
    assert result.rows[0].score == hs.evaluate(net, NUMBERS)
    hs.fit(net, NUMBERS, epochs=2, lr=5e-3, seed=0)
    assert result.rows[1].score == hs.evaluate(net, NUMBERS)
    frame = result.table()
    assert frame["rmse_mean"].iloc[0] == result.rows[0].score.mean
    assert set(frame["metric"]) == {"RMSE"}
    assert frame.attrs["higher_is_better"] == {"RMSE": False, "MAE": False, "R2": True}
    ranked = result.rank("rmse")["rmse_nominal"].tolist()
    assert ranked == sorted(ranked)
    assert result.rank("R2")["r2_nominal"].is_monotonic_decreasing


def test_by_the_command_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "mine.py").write_text(
        textwrap.dedent(
            """
            import torch, hpml_sim as hs
            from torch.utils.data import TensorDataset
            def net():
                return torch.nn.Linear(4, 3)
            def data():
                x = torch.rand(32, 4, generator=torch.Generator().manual_seed(0))
                return TensorDataset(x, (x[:, :3] > 0.5).float()), TensorDataset(x, (x[:, :3] > 0.5).float())
            """
        )
    )
    monkeypatch.chdir(tmp_path)
    arguments = [
        "compare",
        "--model",
        "mine.py:net",
        "--data",
        "mine.py:data",
        "--targets",
        "h200",
        "--epochs",
        "1",
        "--json",
    ]
    for task, metric in ((None, "F1"), ("regression", "RMSE")):
        with pytest.raises(SystemExit) as left:
            main([*arguments, *(["--task", task] if task else [])])
        assert not left.value.code
        row = json.loads(capsys.readouterr().out.splitlines()[0])
        assert row["scores"][0]["metric"] == metric


def test_a_network_that_knows_its_task_is_not_trained_again():
    net = network()
    hs.fit(net, NUMBERS, epochs=60, lr=2e-2)
    known = hs.compare(net, (NUMBERS, NUMBERS), ["h200", "pcm-hermes"], **OPTIONS)
    assert known.rows[0].score == hs.evaluate(net, NUMBERS)
    assert [str(row.training) for row in known.rows] == ["trained before the run"] * 2
    asked = hs.compare(net, (NUMBERS, NUMBERS), ["h200"], epochs=1, **OPTIONS)
    assert asked.rows[0].score != known.rows[0].score
    fresh = hs.compare(network(), (NUMBERS, NUMBERS), ["h200"], **OPTIONS)
    assert fresh.rows[0].training.epochs == 40


def test_what_a_machine_cannot_run_is_refused_before_anything_is_trained(tmp_path):
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.e, self.o = nn.Embedding(5, 8), nn.Linear(8, 2)

        def forward(self, ids):
            return self.o(self.e(ids).mean(1).relu())

    split = TensorDataset(torch.randint(0, 5, (24, 6)), torch.arange(24) % 2)
    targets = {"h200": "h200", "rates": hs.Spiking("loihi", encoder="rate")}
    with pytest.raises(HpmlError, match=r"^rates: .*leave it out") as said:
        hs.compare(Tokens(), (split, split), targets, epochs=1, out=tmp_path / "run", **OPTIONS)
    assert "\n" not in str(said.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("labels", "task", "said"),
    [
        (X[:, 0], "classification", "labels are torch.float32"),
        (torch.full((48,), float("nan")), "regression", "hold NaN"),
        (X.sum(1), "regresion", "Did you mean 'regression'"),
        (torch.rand(48, 5), None, "which task is it"),
    ],
)
def test_labels_that_do_not_fit_are_refused_before_anything_is_trained(labels, task, said, tmp_path):
    split = TensorDataset(X, labels)
    with pytest.raises(HpmlError, match=said) as found:
        hs.compare(network(), (split, split), ["h200"], task=task, out=tmp_path / "run")
    assert "\n" not in str(found.value)
    assert not (tmp_path / "run").exists()


class Wordy(torch.utils.data.Dataset):
    """Items whose labels are what each test makes of them."""

    def __init__(self, labels):
        self.labels = labels

    def __len__(self):
        return 8

    def __getitem__(self, i):
        return X[i], self.labels(i)


@pytest.mark.parametrize(
    ("labels", "task", "said"),
    [
        (
            lambda i: 7,
            None,
            r"must give logits of shape \(2, 8\), one for each class; they give a tensor of shape \(2, 2\)",
        ),
        (lambda i: -1, None, r"is -1: labels must be whole numbers >= 0"),
        (lambda i: 1.0, "classification", r"labels are torch\.float32: must be whole numbers"),
        (lambda i: float("nan"), "classification", r"labels are torch\.float32: must be whole numbers"),
        (lambda i: [0.0, float("nan")], "regression", r"labels \(2, 2\) float32 hold NaN or infinity"),
        (lambda i: [0.0, 1.0, 0.0], "multi_label", r"outputs \(2, 2\) and labels \(2, 3\) must have the same shape"),
        (lambda i: torch.zeros(1 + i), "regression", r"the label of item 1 has shape \(2,\), that of item 0 \(1,\)"),
        (
            lambda i: "a word",
            None,
            r"the label of item 0 of the training set is str: must be a tensor, an array or numbers",
        ),
        (
            lambda i: [1 + i % 2, 1 + i % 2],
            hs.tasks.transcription(blank=0),
            r"outputs \(2, 2\) must be \(batch, steps, classes\)",
        ),
        (
            lambda i: i % 2,
            hs.tasks.classification(outputs="scores"),
            r"outputs='scores': Sequential gave a tensor \(2, 2\)",
        ),
    ],
)
def test_each_mistake_costs_one_line_with_shapes_and_nothing_is_trained(labels, task, said, monkeypatch, tmp_path):
    trained = []
    monkeypatch.setattr(pipeline, "fit", lambda *args, **options: trained.append(args))
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    split = Wordy(labels)
    with pytest.raises(HpmlError, match=said) as found:
        hs.compare(net, (split, split), ["h200", "pcm-hermes"], task=task, out=tmp_path / "run", **OPTIONS)
    assert "\n" not in str(found.value)
    assert "tensor(" not in str(found.value)
    assert not trained
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        (
            hs.tasks.Metric("Spearman", "regression.SpearmanCorrCoef"),
            r"metric 'Spearman': .* on outputs \(2, 2\): .*; give metrics that fit outputs and labels",
        ),
        (
            hs.tasks.Metric("rho", "regression.Spearman"),
            r"metric 'rho': torchmetrics' regression\.Spearman cannot be made",
        ),
        (
            hs.tasks.Metric("own", lambda y, t: (y - t).mean()),
            r"metric 'own': of 2 samples its function gave a tensor \(\)",
        ),
    ],
)
def test_a_metric_that_does_not_fit_is_refused_before_anything_is_trained(metric, said, monkeypatch):
    trained = []
    monkeypatch.setattr(pipeline, "fit", lambda *args, **options: trained.append(args))
    split = TensorDataset(X, X[:, :2])
    net = nn.Linear(4, 2)
    with pytest.raises(HpmlError, match=said) as found:
        hs.compare(net, (split, split), ["h200"], task=hs.tasks.regression(metrics=[metric]), **OPTIONS)
    assert "\n" not in str(found.value)
    assert not trained
