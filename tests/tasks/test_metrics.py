"""Metrics against scikit-learn, torchmetrics, torch and plain numpy; the same in one batch and in many."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sklearn.metrics as sk
import torch
from torch import nn

from hpml_sim import tasks
from hpml_sim.errors import HpmlError, NotFiniteError
from hpml_sim.tasks.tally import Tally, score_of

G = torch.Generator().manual_seed(0)
N = 60


def measured(task, outputs, labels, batch=7):
    """Every metric of a task by name, from batches."""
    tallies = [Tally(metric) for metric in task.metrics]
    for start in range(0, len(outputs), batch):
        part = outputs[start : start + batch]
        right = task.labels("test", labels[start : start + batch], len(part), part)
        for tally in tallies:
            tally.add([part], right)
    return {tally.metric.name: score_of([tally]) for tally in tallies}


def test_accuracy_and_f1_of_classes():
    logits, labels = torch.randn(N, 5, generator=G), torch.randint(0, 5, (N,), generator=G)
    task = tasks.classification(metrics=[tasks.accuracy(), tasks.f1()])
    found = measured(task, logits, labels)
    assert found["accuracy"].mean == sk.accuracy_score(labels, logits.argmax(1))
    assert found["F1"].mean == pytest.approx(sk.f1_score(labels, logits.argmax(1), average="macro"))


def test_labels_that_are_there_or_not():
    logits, labels = torch.randn(N, 4, generator=G), torch.randint(0, 2, (N, 4), generator=G)
    found = measured(tasks.multi_label(), logits, labels)
    assert found["F1"].mean == pytest.approx(sk.f1_score(labels, logits > 0, average="macro"))
    assert found["label accuracy"].mean == pytest.approx(float(((logits > 0) == (labels == 1)).float().mean()))


def test_intersection_over_union_leaves_out_what_has_no_class():
    logits, labels = torch.randn(N, 3, 4, 5, generator=G), torch.randint(0, 3, (N, 4, 5), generator=G)
    labels[:, 0] = -100
    found = measured(tasks.segmentation(), logits, labels)
    said, true = logits.argmax(1)[labels >= 0], labels[labels >= 0]
    assert found["mean IoU"].mean == pytest.approx(sk.jaccard_score(true, said, average="macro"))
    assert found["pixel accuracy"].mean == pytest.approx(sk.accuracy_score(true, said))


def test_numbers():
    y, t = torch.randn(N, 3, generator=G), torch.randn(N, 3, generator=G)
    found = measured(tasks.regression(unit="K"), y, t)
    assert found["RMSE"].mean == pytest.approx(sk.mean_squared_error(t, y) ** 0.5, rel=1e-6)
    assert found["MAE"].mean == pytest.approx(sk.mean_absolute_error(t, y), rel=1e-6)
    assert found["R2"].mean == pytest.approx(sk.r2_score(t, y), rel=1e-6)
    assert (found["RMSE"].unit, found["RMSE"].higher_is_better, found["R2"].higher_is_better) == ("K", False, True)


def test_labels_without_a_column_are_no_matrix_of_differences():
    y = torch.randn(N, 1, generator=G)
    assert measured(tasks.regression(), y, y[:, 0])["RMSE"].mean == 0


def test_decibels():
    y, t = torch.rand(N, 8, generator=G), torch.rand(N, 2, 4, generator=G)
    error = float((y - t.flatten(1)).square().mean())
    found = measured(tasks.reconstruction(peak=2.0), y, t)
    assert found["MSE"].mean == pytest.approx(error, rel=1e-6)
    assert found["PSNR"].mean == pytest.approx(10 * np.log10(4 / error), rel=1e-6)


@pytest.mark.parametrize("shift", [False, True])
def test_perplexity_is_that_of_the_mean_cross_entropy(shift):
    logits, ids = torch.randn(N, 6, 9, generator=G), torch.randint(0, 9, (N, 6), generator=G)
    ids[::3, -2:] = -100
    found = measured(tasks.language_model(shift=shift), logits, ids)
    own, labels = (logits[:, :-1], ids[:, 1:]) if shift else (logits, ids)
    entropy = nn.functional.cross_entropy(own.reshape(-1, 9).double(), labels.reshape(-1), ignore_index=-100)
    assert found["perplexity"].mean == pytest.approx(float(entropy.exp()), rel=1e-6)
    low, high = found["perplexity"].ci95
    assert low < found["perplexity"].mean < high


def test_error_rates_of_sequences():
    answers = torch.tensor([[1, 2, 2, 0, 3], [0, 4, 4, 0, 4]])  # CTC: 1 2 3 and 4 4
    logits = nn.functional.one_hot(answers, 5).float()
    labels = torch.tensor([[1, 2, 3, 3], [4, -100, -100, -100]])  # one deletion, one insertion
    found = measured(tasks.transcription(tokens="phoneme"), logits, labels)
    assert found["phoneme error rate"].mean == pytest.approx(2 / 5)
    assert found["sequence accuracy"].mean == 0
    plain = measured(
        tasks.transcription(blank=None, end=0), answers, torch.tensor([[1, 2, 2, -100], [4, -100, -100, -100]])
    )
    assert plain["token error rate"].mean == pytest.approx(1 / 4)  # the second answer ends at once


def test_ctc_needs_a_step_a_label_and_a_blank_between_equal_ones():
    """A network that could never be right had a loss of 0, and was trained on nothing."""
    task, logits = tasks.transcription(), torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0))
    fits = torch.tensor([[1, 2, 3, 4], [1, 1, 2, -100]])
    assert 0 < float(task.loss(logits, fits)) < math.inf
    long, equal = (torch.tensor([[1, 2, 3, 4, 5]] * 2), torch.tensor([[1, 2, -100, -100], [1, 1, 2, 3]]))
    with pytest.raises(HpmlError, match="a sample has 5 labels, which take CTC 5 steps, and the outputs have 4"):
        task.loss(logits, long)
    with pytest.raises(HpmlError, match="a sample has 4 labels, which take CTC 5 steps, and the outputs have 4"):
        task.loss(logits, equal)
    with pytest.raises(HpmlError, match=r"fit: a label is 0, CTC's blank.*or 'transcription_by_step'"):
        task.labels("fit", torch.tensor([[1, 0], [2, 3]]), 2, logits)
    assert tasks.transcription(blank=None).labels("fit", torch.tensor([[1, 0], [2, 3]]), 2, logits) is not None


def test_what_comes_first():
    scores = torch.tensor([[0.1, 0.9, 0.5], [0.3, 0.2, 0.1]])
    found = measured(tasks.ranking(), scores, torch.tensor([2, 0]))
    assert found["MRR"].mean == pytest.approx((1 / 2 + 1) / 2)
    assert found["NDCG@10"].mean == pytest.approx(sk.ndcg_score([[0, 0, 1], [1, 0, 0]], scores.numpy()), rel=1e-6)


def test_a_bootstrap_interval_covers_as_often_as_it_says():
    """RMSE of 100 normal errors, 150 times: percentile intervals of so few hold the truth 94 times in 100.

    Outside of 0.87 to 0.99 is a false alarm in less than 1 of 1,000 (binomial); the seeds are fixed.
    """
    task = tasks.regression(metrics=tasks.regression().metrics[0])
    inside = 0
    for seed in range(150):
        y = torch.randn(100, 1, generator=torch.Generator().manual_seed(seed))
        low, high = measured(task, y, torch.zeros(100, 1), batch=100)["RMSE"].ci95
        inside += low <= 1 <= high
    assert 0.87 <= inside / 150 <= 0.99


def test_a_metric_of_torchmetrics():
    from torchmetrics.regression import MeanAbsoluteError

    y, t = torch.randn(N, 1, generator=G), torch.randn(N, 1, generator=G)
    task = tasks.regression(metrics=[MeanAbsoluteError(), tasks.regression().metrics[1]])
    found = measured(task, y, t)
    assert found["MeanAbsoluteError"].mean == pytest.approx(found["MAE"].mean, rel=1e-6)
    assert not found["MeanAbsoluteError"].higher_is_better
    for bound, own in zip(found["MeanAbsoluteError"].ci95, found["MAE"].ci95, strict=True):
        assert bound == pytest.approx(own, abs=0.1)


def test_a_metric_without_a_value_says_what_the_labels_lack():
    y = torch.randn(N, 1, generator=G)
    with pytest.raises(NotFiniteError, match=r"R2 has no finite value on these 60 samples.*labels that differ"):
        measured(tasks.regression(metrics=tasks.regression().metrics[2]), y, torch.ones(N, 1))


def test_a_metric_of_your_own_that_is_none():
    metric = tasks.Metric("mine", lambda y, t: (y - t).abs().mean())
    with pytest.raises(
        HpmlError, match=r"metric 'mine': of 7 samples its function gave a tensor \(\); it must give one"
    ):
        measured(tasks.regression(metrics=metric), torch.rand(N, 1), torch.rand(N, 1))
