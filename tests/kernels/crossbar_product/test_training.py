"""The passes of training against plain numpy, one after the other."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hpml_sim.kernels.crossbar_product import training
from hpml_sim.kernels.random.reference import normal

GROUPS, COLS, ROWS, TILES, HEIGHT, VECTORS = 2, 3, 75, 2, 40, 4  # 40 rows on the first tile, 35 on the second


def random(seed: int, *shape: int, dtype: type = np.float64) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def drawn(seed: int, *shape: int) -> np.ndarray:
    """What the passes draw from a seed, by the definition of the numbers."""
    return normal(int(np.prod(shape)), seed).reshape(shape)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("noisy", [False, True])
def test_tiles(dtype, noisy):
    weight = random(0, GROUPS * COLS, ROWS, dtype=dtype)
    weight[1, :HEIGHT] = 0  # a column of a tile without weights has a full scale of 1
    shape = (GROUPS, TILES, COLS, HEIGHT)
    noise, matrix, scale = drawn(1, *shape), np.full(shape, np.nan, dtype), np.empty(shape[:3], dtype)
    training.noisy_tiles(weight, 1.1, 0.1 if noisy else None, 1, matrix, scale)
    padded = np.zeros((GROUPS * COLS, TILES * HEIGHT), dtype)
    padded[:, :ROWS] = np.clip(weight, -dtype(1.1), dtype(1.1))
    want = padded.reshape(GROUPS, COLS, TILES, HEIGHT).transpose(0, 2, 1, 3)
    largest = np.abs(want).max(-1)
    largest = np.where(largest > 0, largest, 1)
    assert largest[0, 0, 1] == 1
    np.testing.assert_array_equal(scale, largest)
    if noisy:
        want = want + dtype(0.1) * largest[..., None] * noise
    # the numbers are drawn in float32
    np.testing.assert_allclose(matrix, want, rtol=1e-6 if dtype is np.float32 else 1e-14, atol=1e-6 if noisy else 0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_noise_by_the_size_of_a_weight(dtype):
    """Sigma is a table over weights from -1 to 1 in units of their column's full scale, with lines in between."""
    weight, table = random(0, GROUPS * COLS, ROWS, dtype=dtype), np.float32([0.3, 0.1, 0.0, 0.02, 0.2])
    shape = (GROUPS, TILES, COLS, HEIGHT)
    matrix, scale = np.full(shape, np.nan, dtype), np.empty(shape[:3], dtype)
    training.noisy_tiles(weight, 1.1, table, 1, matrix, scale)
    padded = np.zeros((GROUPS * COLS, TILES * HEIGHT), dtype)
    padded[:, :ROWS] = np.clip(weight, -1.1, 1.1)
    want = padded.reshape(GROUPS, COLS, TILES, HEIGHT).transpose(0, 2, 1, 3)
    sigma = np.interp(want / scale[..., None], np.linspace(-1, 1, 5), table)
    assert (sigma == np.float32(0.3)).any()
    assert (sigma == np.float32(0.2)).any()  # both ends are met
    inside = (np.arange(TILES * HEIGHT) < ROWS).reshape(1, TILES, 1, HEIGHT)
    want = np.where(inside, want + sigma * scale[..., None] * drawn(1, *shape), 0)
    np.testing.assert_allclose(matrix, want, rtol=0, atol=2e-6)


def test_the_gradient_of_clipped_weights_brings_them_back():
    """A descent step goes against the gradient: it may bring a clipped weight back, and never push it further."""
    weight = np.array([[2.0, 2.0, -2.0, -2.0, 0.5, -0.5]])
    grad = np.array([3.0, -3.0, 3.0, -3.0, 3.0, -3.0, 0.0, 0.0]).reshape(1, 2, 1, 4)
    result = np.full_like(weight, np.nan)
    training.tiles_backward(grad, weight, 1.0, result)
    assert result.tolist() == [[3.0, 0.0, 0.0, -3.0, 3.0, -3.0]]


def test_spread_is_the_standard_deviation():
    weight = random(2, 37, 45, dtype=np.float32) * 3 + 5
    assert training.spread(torch.from_numpy(weight)) == pytest.approx(weight.astype(np.float64).std(), rel=1e-9)


@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize("scaled", [False, True])
def test_the_adc_and_its_way_back(noisy, scaled):
    y = 8 * random(4, GROUPS, TILES, VECTORS, COLS)
    noise, scale = drawn(5, *y.shape), 0.3 + np.abs(random(7, GROUPS, TILES, COLS))
    given = 0.5 + np.abs(random(10, GROUPS, VECTORS))
    unit = given if scaled else np.ones((GROUPS, VECTORS))
    before = y * (1.5 / scale[:, :, None]) + (0.5 * noise if noisy else 0)
    want = (np.clip(np.rint(before), -7, 7) * (0.7 * scale[:, :, None])).sum(1) * unit[..., None]
    inside_wanted = np.abs(before) <= 7
    assert 0.2 < inside_wanted.mean() < 0.8
    flat = (GROUPS * TILES, VECTORS, COLS)
    z, inside = np.empty((GROUPS, VECTORS, COLS)), np.empty(flat, bool)
    seed, sigma = np.uint64(5), 0.5 if noisy else 0.0
    training.adc_training(y.reshape(flat), seed, sigma, 1.5, 7.0, 0.7, scale, given, scaled, z, inside)
    np.testing.assert_allclose(z, want, rtol=1e-13)
    np.testing.assert_array_equal(inside.reshape(y.shape), inside_wanted)

    grad, result = random(8, *z.shape), np.empty(flat)
    training.adc_backward(grad, 0.25, TILES, given, scaled, inside, result)
    want = np.where(inside_wanted, 0.25 * (grad * unit[..., None])[:, None], 0)
    np.testing.assert_allclose(result.reshape(y.shape), want, rtol=1e-14)

    training.adc_backward(np.full((1, 1, 1), 2.0), 0.25, TILES, given, scaled, inside, result)  # as of z.sum()
    want = np.where(inside_wanted, 0.5 * unit[:, None, :, None], 0)
    np.testing.assert_allclose(result.reshape(y.shape), want, rtol=1e-14)


@pytest.mark.parametrize("places", [0, 1, 2])
def test_the_dac_and_its_way_back(places):
    x = random(3, GROUPS, VECTORS, ROWS)
    x[1] = 0  # what is all zero has a unit of 1
    unit = np.ones((GROUPS, VECTORS))
    if places:
        unit[0] = np.abs(x[0]).reshape(-1, places * ROWS).max(-1).repeat(places)
    drive = np.zeros((GROUPS, VECTORS, TILES * HEIGHT))
    drive[..., :ROWS] = x / unit[..., None]
    drive = drive.reshape(GROUPS, VECTORS, TILES, HEIGHT).transpose(0, 2, 1, 3)
    found, codes = np.full(unit.shape, np.nan), np.full((GROUPS * TILES, VECTORS, HEIGHT), np.nan)
    training.dac_training(x, places, 9.0, 6, found, codes)
    assert (np.array_equal(found, unit)) if places else np.isnan(found).all()
    np.testing.assert_array_equal(codes.reshape(drive.shape), np.clip(np.rint(9 * drive), -6, 6))
    assert 0 < (np.abs(9 * drive) > 6).mean() < 0.8

    grad, result = random(9, *codes.shape), np.empty(x.shape)
    training.dac_backward(grad, x, unit, places > 0, 9.0, 6.0, result)
    passed = np.where(np.abs(9 * drive) <= 6, 9 * grad.reshape(drive.shape), 0) / unit[:, None, :, None]
    want = passed.transpose(0, 2, 1, 3).reshape(GROUPS, VECTORS, -1)[..., :ROWS]
    np.testing.assert_allclose(result, want, rtol=1e-14)
