import numpy as np
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


@pytest.mark.parametrize("sizes", [(), (3,)])
def test_too_few_layers(sizes):
    with pytest.raises(HpmlError, match="each >= 1"):
        models.mlp(*sizes)


@pytest.mark.parametrize(
    ("size", "given"), [(0, "0"), (-2, "-2"), (64.0, r"64\.0"), ("64", "'64'"), (True, "True"), (None, "None")]
)
def test_sizes_are_whole_numbers(size, given):
    with pytest.raises(HpmlError, match=f"mlp: size 2={given}: must be a whole number >= 1; such as mlp"):
        models.mlp(64, size, 10)
    with pytest.raises(HpmlError, match=f"cnn: classes={given}: must be a whole number >= 1"):
        models.cnn((1, 8, 8), size)
    with pytest.raises(HpmlError, match=f"width={given}: must be a whole number >= 1"):
        models.build("cnn", (1, 8, 8), 10, width=size)


def test_numpys_numbers_are_sizes():
    assert models.mlp(np.int64(64), np.int32(10))[1].weight.shape == (10, 64)


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((1, 30, 30), "multiples of 4"),
        ((28, 28), r"input_shape=\(28, 28\): must be \(channels, height, width\)"),
        (28, "input_shape=28: must be"),
        ("abc", "input_shape='abc': must be"),
        ((1, 28.0, 28), r"input_shape=28\.0: must be a whole number >= 1"),
    ],
)
def test_shapes_that_are_no_images(shape, said):
    with pytest.raises(HpmlError, match=said):
        models.cnn(shape, 10)


def test_a_misspelt_name_is_guessed():
    with pytest.raises(UnknownNameError, match="Did you mean 'mlp'"):
        models.build("mpl", (4,), 2)


@pytest.mark.parametrize("name", ["mpl", 3, None, "", "x" * 5000, "a\x00b"])
def test_names_that_are_none(name):
    with pytest.raises(UnknownNameError, match=r"^unknown model ") as caught:
        models.build(name, (4,), 2)
    assert "\n" not in str(caught.value)


def test_an_unknown_option_and_a_seed_that_is_none():
    with pytest.raises(UnknownNameError, match="Did you mean 'width'"):
        models.build("mlp", (4,), 2, widht=3)
    with pytest.raises(HpmlError, match="seed='0': must be a whole number >= 0"):
        models.build("mlp", (4,), 2, seed="0")


@pytest.mark.parametrize("shape", [None, 8, "8", b"8", (8.0,), (0,), np.zeros(2), object()])
@pytest.mark.parametrize("name", models.BUILT_IN)
def test_shapes_of_no_sample(name, shape):
    with pytest.raises(HpmlError, match=r"input_shape=.*: must be "):
        models.build(name, shape, 2)


@pytest.mark.parametrize("spec", [3, None, b"torch.nn:Linear", ["torch.nn:Linear"]])
def test_code_is_named_by_text(spec):
    with pytest.raises(HpmlError, match=r"model=.*: must be text, package\.module:callable or file\.py:callable"):
        models.imported(spec)
