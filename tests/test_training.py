import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from hpml_sim import models
from hpml_sim.data import Data, load_data
from hpml_sim.errors import HpmlError
from hpml_sim.evaluation import evaluate
from hpml_sim.training import fit


def test_the_digits_network_learns_to_96_percent():
    digits = load_data("digits")
    net = models.build("mlp", digits.input_shape, digits.classes)
    history = fit(net, digits, epochs=40, lr=5e-3)
    assert evaluate(net, digits).mean >= 0.96
    assert len(history.loss) == len(history.accuracy) == 40
    assert history.loss[-1] < history.loss[0]


def test_same_seed_same_weights_whatever_was_drawn_before():
    def trained(seed):
        net = models.build("mlp", (1, 8, 8), 10)
        fit(net, "digits", epochs=1, seed=seed)
        return net[1].weight.detach()

    first = trained(3)
    torch.rand(17)
    assert torch.equal(first, trained(3))
    assert not torch.equal(first, trained(4))


def test_the_callers_random_state_is_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit(models.build("mlp", (1, 8, 8), 10), "digits", epochs=1)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("options", "named"),
    [({"epochs": -1}, "epochs"), ({"lr": 0.0}, "lr"), ({"lr": float("nan")}, "lr"), ({"batch_size": 0}, "batch_size")],
)
def test_bad_arguments_are_named(options, named):
    with pytest.raises(HpmlError, match=named):
        fit(models.mlp(64, 10), "digits", **options)


def test_no_parameters():
    with pytest.raises(HpmlError, match="no trainable parameters"):
        fit(nn.Identity(), "digits")


def test_a_loss_that_explodes_puts_the_weights_back():
    inputs = torch.full((8, 4), float("nan"))
    split = TensorDataset(inputs, torch.zeros(8, dtype=torch.int64))
    net = models.mlp(4, 2)
    before = net[1].weight.detach().clone()
    with pytest.raises(HpmlError, match="smaller learning rate"):
        fit(net, Data("nan", split, split, (4,), 2), epochs=1)
    assert torch.equal(net[1].weight, before)
