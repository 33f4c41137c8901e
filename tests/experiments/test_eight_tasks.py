"""Eight tasks by the command line, from a file with networks and data: the metric and its value are the task's."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import hpml_sim as hs
from hpml_sim.cli import main

FILE = Path(__file__).parent / "task_cases.py"


def rmse(y, labels):
    return math.sqrt(((y - labels.reshape(y.shape)) ** 2).mean())


def mean_iou(y, labels):
    said = y.argmax(1)
    both = [np.logical_and(said == c, labels == c).sum() / np.logical_or(said == c, labels == c).sum() for c in (0, 1)]
    return np.mean(both)


def perplexity(y, labels):
    scaled = y - y.max(-1, keepdims=True)
    log_shares = scaled - np.log(np.exp(scaled).sum(-1, keepdims=True))
    return math.exp(-np.take_along_axis(log_shares, labels[..., None], -1).mean())


def macro_f1(y, labels):
    said, true = y > 0, labels > 0.5
    return np.mean(2 * (said & true).sum(0) / np.maximum(said.sum(0) + true.sum(0), 1))


def mse(y, labels):
    return ((y - labels) ** 2).mean()


def accuracy(y, labels):
    return (y.argmax(1) == labels).mean()


CASES = {
    "regression": ("regression", "regression_data", "RMSE", "", False, rmse),
    "labels without a column": ("regression", "flat_regression_data", "RMSE", "", False, rmse),
    "segmentation": ("segmentation", "segmentation_data", "mean IoU", "share", True, mean_iou),
    "next token": ("NextToken", "next_token_data", "perplexity", "", False, perplexity),
    "multi-label": ("multi_label", "multi_label_data", "F1", "share", True, macro_f1),
    "autoencoder": ("autoencoder", "autoencoder_data", "MSE", "", False, mse),
    "two inputs": ("TwoInputs", "two_inputs_data", "accuracy", "share", True, accuracy),
    "logits in an object": ("LogitsInAnObject", "two_classes_data", "accuracy", "share", True, accuracy),
}


@pytest.mark.parametrize(("model", "data", "metric", "unit", "higher", "right"), CASES.values(), ids=CASES)
def test_metric_unit_and_value(model, data, metric, unit, higher, right, tmp_path, no_clock, capsys):
    """The value of the digital row: by numpy, in float64, from the network that the run wrote down."""

    named = ["--model", f"{FILE}:{model}", "--data", f"{FILE}:{data}", "--targets", "cpu", "pcm-hermes"]
    options = ["--chips", "2", "--epochs", "1", "--times", "1 day", "--out", str(tmp_path / "run")]
    with pytest.raises(SystemExit) as left:
        main(["compare", *named, *options])
    assert not left.value.code
    assert metric in capsys.readouterr().out

    rows = hs.load_results(tmp_path / "run").rows
    assert [row.target for row in rows] == ["cpu", "cpu, fine-tuned", "pcm-hermes"]
    for row in rows:
        assert (row.score.metric, row.score.unit, row.score.higher_is_better) == (metric, unit, higher)
        assert len(row.score.values) == (2 if row.target == "pcm-hermes" else 1)
        assert row.score.ci95[0] <= row.score.mean <= row.score.ci95[1]

    network = hs.load_network(f"{FILE}:{model}")
    (held,) = (tmp_path / "run" / "networks").glob("*.safetensors")
    network.load_state_dict(load_file(held))
    items = list(hs.load_data(f"{FILE}:{data}").test)
    labels = torch.stack([label for _, label in items]).numpy()
    columns = [torch.stack(c) for c in zip(*(x if isinstance(x, tuple) else (x,) for x, _ in items), strict=True)]
    with torch.no_grad():
        outputs = network(*columns)
    y = getattr(outputs, "logits", outputs).double().numpy()
    assert rows[0].score.mean == pytest.approx(right(y, labels), rel=1e-5)

    page = (tmp_path / "run" / "report.html").read_text()
    assert metric in page
    if metric != "accuracy":  # which some of these tasks have as another metric, of tokens, pixels or labels
        before, _, others = page.partition("<summary>Other metrics")
        assert "accuracy, %" not in before + others.partition("</details>")[2]
