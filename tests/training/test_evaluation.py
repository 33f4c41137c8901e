from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.utils.data import TensorDataset

import hpml_sim as hs
from hpml_sim.data import Data
from hpml_sim.errors import HpmlError
from hpml_sim.tasks.score import Score
from hpml_sim.training.evaluation import evaluate


def task(n=40, classes=4):
    """Inputs that are one-hot labels: the identity network is always right."""
    labels = torch.arange(n) % classes
    inputs = nn.functional.one_hot(labels, classes).float()
    return Data("one-hot", TensorDataset(inputs, labels), TensorDataset(inputs, labels), (classes,), classes)


def test_interval_over_chips_is_students_t():
    values = [0.90, 0.92, 0.95, 0.91]
    a = Score.of(values, samples=100)
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert (a.mean, a.std) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    assert a.ci95 == pytest.approx((low, high))


def test_interval_of_one_model_is_wilsons_over_the_samples():
    a = Score.of([0.95], samples=360)
    expected = stats.binomtest(342, 360).proportion_ci(0.95, method="wilson")
    assert a.ci95 == pytest.approx((expected.low, expected.high))
    assert a.std == 0.0
    assert a.n == 1


def test_interval_stays_within_zero_and_one():
    assert Score.of([1.0, 1.0, 0.99], samples=10).ci95[1] <= 1.0
    assert Score.of([0.0], samples=10).ci95[0] == 0.0


def test_a_right_network_scores_one_and_a_shifted_one_zero():
    assert evaluate(nn.Identity(), task()).mean == 1.0

    class Shifted(nn.Module):
        def forward(self, x):
            return x.roll(1, dims=1)

    assert evaluate(Shifted(), task()).mean == 0.0


def test_batch_size_changes_nothing():
    torch.manual_seed(0)
    net = nn.Linear(4, 4)
    assert evaluate(net, task(41), batch_size=7) == evaluate(net, task(41), batch_size=1000)


def test_chips_give_one_accuracy_each():
    class TwoChips(nn.Module):
        def forward(self, x):
            return torch.stack([x, x.roll(1, dims=1)])

    a = evaluate(TwoChips(), task())
    assert a.values == (1.0, 0.0)
    assert a.n == 2


def test_training_mode_is_put_back():
    net = nn.Sequential(nn.Dropout(0.9)).train()
    assert evaluate(net, task()).mean == 1.0  # dropout is off in evaluation
    assert net.training


def test_nan_and_wrong_shapes_are_named():
    class Broken(nn.Module):
        def forward(self, x):
            return x * float("nan")

    with pytest.raises(HpmlError, match="NaN"):
        evaluate(Broken(), task())
    with pytest.raises(HpmlError, match=r"expected \(batch, classes\)"):
        evaluate(nn.Flatten(0), task())


def test_an_interval_holds_its_share_even_at_the_ends():
    for samples in range(1, 400):
        for share in (0.0, 1.0, 1 / samples):
            low, high = Score.of([share], samples).ci95
            assert 0 <= low <= share <= high <= 1


@pytest.mark.parametrize("pack", [tuple, lambda parts: {"all": parts}, lambda parts: SimpleNamespace(all=parts)])
def test_a_function_that_reads_outputs_sees_those_of_one_chip(pack):
    class Steps(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 3)

        def forward(self, x):
            return pack([self.layer(x), self.layer(2 * x)])

    def read(out):
        parts = out if isinstance(out, tuple) else out["all"] if isinstance(out, dict) else out.all
        return torch.stack(list(parts)).sum(0)

    torch.manual_seed(0)
    chips = hs.program(hs.convert(Steps(), hs.Analog("pcm-hermes", output_noise=0.0)), chips=3, seed=0).at("1 s")
    x, y = torch.randn(20, 6), torch.randint(0, 3, (20,))
    with torch.no_grad():
        given = chips(x)
    parts = given if isinstance(given, tuple) else given["all"] if isinstance(given, dict) else given.all
    alone = [float(((parts[0][k] + parts[1][k]).argmax(1) == y).float().mean()) for k in range(3)]
    score = evaluate(chips, TensorDataset(x, y), task=hs.tasks.classification(outputs=read))
    assert list(score.values) == pytest.approx(alone)
