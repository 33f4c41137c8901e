import pytest
import torch

from hpml_sim.errors import HpmlError, UnknownNameError
from hpml_sim.networks import models


def test_shapes_of_the_built_in_networks():
    assert models.mlp(64, 32, 10)(torch.rand(5, 1, 8, 8)).shape == (5, 10)
    assert models.cnn((1, 28, 28), 7)(torch.rand(2, 1, 28, 28)).shape == (2, 7)
    for name in models.BUILT_IN:
        assert models.build(name, (1, 8, 8), 10)(torch.rand(3, 1, 8, 8)).shape == (3, 10)


def test_build_is_reproducible_and_leaves_the_random_state_alone():
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    a, b = (models.build("mlp", (4,), 2, seed=7)[1].weight for _ in range(2))
    assert torch.equal(a, b)
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.parametrize("sizes", [(), (3,), (3, 0)])
def test_too_few_or_empty_layers(sizes):
    with pytest.raises(HpmlError, match="each >= 1"):
        models.mlp(*sizes)


def test_a_side_that_cannot_be_pooled_twice():
    with pytest.raises(HpmlError, match="multiples of 4"):
        models.cnn((1, 30, 30), 10)


def test_a_misspelt_name_is_guessed():
    with pytest.raises(UnknownNameError, match="Did you mean 'mlp'"):
        models.build("mpl", (4,), 2)
