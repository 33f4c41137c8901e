import numpy as np
import pytest
import torch

from hpml_sim.errors import HpmlError, UnknownNameError
from hpml_sim.kernels.common.noise_keys import NoiseKeys
from hpml_sim.kernels.crossbar_product import cpu, crossbar_product
from hpml_sim.kernels.crossbar_product.noise import fill_noise

# (chips, groups, vectors, tiles, height, cols, slices)
ARCHITECTURES = [
    (1, 1, 1, 1, 1, 1, 1),
    (2, 1, 5, 3, 7, 4, 1),
    (3, 2, 4, 1, 9, 5, 2),
    (1, 3, 33, 2, 16, 17, 3),
    (2, 1, 0, 2, 3, 4, 1),
]
GAINS = {"dac_gain": 9.3, "dac_qmax": 7, "adc_gain": 0.0831, "adc_qmax": 15}


def draw(shape, dtype=torch.float32, *, whole=True, seed=0):
    """x, matrix, scale and noise. Whole-number weights: their sums are exact in whatever order."""
    chips, groups, vectors, tiles, height, cols, slices = shape
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn((chips, groups, vectors, tiles, height), generator=generator, dtype=dtype)
    matrix = 4 * torch.randn((chips, groups, tiles, slices * cols, height), generator=generator, dtype=dtype)
    scale = torch.rand((chips, groups, tiles, slices * cols), generator=generator, dtype=dtype)
    noise = torch.randn((chips, groups, tiles, vectors, slices * cols), generator=generator, dtype=dtype)
    return x, matrix.round() if whole else matrix, scale, noise


def run(drawn, shape, *, sigma=0.7, engine="auto", **options):
    x, matrix, scale, noise = drawn
    fill = lambda chip, buffer: buffer.copy_(noise[chip])  # noqa: E731
    return crossbar_product(
        x, matrix, scale, sigma=sigma, normal=fill, slices=shape[-1], engine=engine, **{**GAINS, **options}
    )


def oracle(drawn, shape, sigma, real, unit=None):
    """One output after the other, in the arithmetic of `real`."""
    x, matrix, scale, noise = (t.numpy() for t in drawn)
    chips, groups, vectors, tiles, _, cols, slices = shape
    z = np.zeros((chips, groups, vectors, cols), real)
    dac_gain, adc_gain, sigma = real(GAINS["dac_gain"]), real(GAINS["adc_gain"]), real(sigma)
    for c, g, v, j in np.ndindex(*z.shape):
        total = real(0)
        for t in range(tiles):
            one = x[c, g, v, t] if unit is None else x[c, g, v, t] / unit[c, g, v].numpy()
            codes = np.clip(np.rint(one * dac_gain), -7, 7)
            for s in range(slices):
                y = (codes * matrix[c, g, t, s * cols + j]).sum(dtype=real)
                k = np.rint(y * adc_gain + noise[c, g, t, v, s * cols + j] * sigma)
                total = total + np.clip(k, -15, 15) * scale[c, g, t, s * cols + j]
        z[c, g, v, j] = total if unit is None else total * unit[c, g, v].numpy()
    return z


@pytest.mark.parametrize("engine", ["torch", "numba", "numba-cuda"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sigma", [0.0, 0.7])
@pytest.mark.parametrize("shape", ARCHITECTURES)
def test_every_engine_equals_the_equations_to_the_last_bit(shape, sigma, dtype, engine):
    drawn = draw(shape, dtype)
    want = oracle(drawn, shape, sigma, np.float64 if dtype == torch.float64 else np.float32)
    if engine == "numba-cuda" and torch.cuda.is_available():
        drawn = tuple(t.cuda() for t in drawn)
    np.testing.assert_array_equal(run(drawn, shape, sigma=sigma, engine=engine).cpu().numpy(), want)


@pytest.mark.parametrize("engine", ["torch", "numba", "numba-cuda"])
@pytest.mark.parametrize("shape", ARCHITECTURES)
def test_a_unit_of_each_vector_divides_it_and_multiplies_its_result(shape, engine):
    drawn = draw(shape)
    unit = 0.25 + torch.rand(drawn[0].shape[:3], generator=torch.Generator().manual_seed(1))
    want = oracle(drawn, shape, 0.7, np.float32, unit)
    if engine == "numba-cuda" and torch.cuda.is_available():
        drawn, unit = tuple(t.cuda() for t in drawn), unit.cuda()
    np.testing.assert_array_equal(run(drawn, shape, engine=engine, unit=unit).cpu().numpy(), want)


@pytest.mark.parametrize("engine", ["torch", "numba", "numba-cuda"])
@pytest.mark.parametrize("shape", ARCHITECTURES)
def test_an_input_that_is_the_same_for_all_chips_is_given_once(shape, engine):
    x, *others = draw(shape)
    if engine == "numba-cuda" and torch.cuda.is_available():
        x, *others = (t.cuda() for t in (x, *others))
    copies = x[:1].expand(x.shape[0], *x.shape[1:])
    assert torch.equal(run((x[:1], *others), shape, engine=engine), run((copies, *others), shape, engine=engine))


@pytest.mark.parametrize("engine", ["torch", "numba", "numba-cuda"])
def test_halves_round_to_even_and_codes_are_clipped(engine):
    device = "cuda" if engine == "numba-cuda" and torch.cuda.is_available() else "cpu"
    x = torch.tensor([0.5, 1.5, 2.5, -0.5, -1.5, 9.0, -9.0], device=device).view(1, 1, 7, 1, 1)
    one = torch.ones(1, 1, 1, 1, 1, device=device)
    options = {"dac_gain": 1.0, "dac_qmax": 3, "adc_gain": 0.5, "adc_qmax": 1, "engine": engine}
    y = crossbar_product(x, one, one[0], **options).flatten()
    # codes 0 2 2 0 -2 3 -3; halves of them 0 1 1 0 -1 1.5 -1.5, clipped to 1
    assert y.tolist() == [0, 1, 1, 0, -1, 1, -1]


@pytest.mark.parametrize("engine", ["torch", "numba", "numba-cuda"])
def test_nan_is_not_hidden(engine):
    device = "cuda" if engine == "numba-cuda" and torch.cuda.is_available() else "cpu"
    x = torch.tensor([float("nan"), 1.0], device=device).view(1, 1, 2, 1, 1)
    one = torch.ones(1, 1, 1, 1, 1, device=device)
    y = crossbar_product(x, one, one[0], dac_gain=1.0, dac_qmax=3, adc_gain=1.0, adc_qmax=3, engine=engine).flatten()
    assert y.isnan().tolist() == [True, False]


def test_threads_change_no_bit(monkeypatch):
    shape = (2, 2, 50, 2, 8, 6, 2)
    drawn = draw(shape, whole=False)
    serial = run(drawn, shape, engine="numba")
    monkeypatch.setattr(cpu, "allow_threads", lambda _elements: 2)
    assert torch.equal(run(drawn, shape, engine="numba"), serial)


def test_a_chip_is_the_same_alone_and_beside_others():
    shape = (5, 1, 40, 4, 49, 32, 1)
    drawn = draw(shape, whole=False)
    assert torch.equal(run(drawn, shape)[:2], run(tuple(t[:2] for t in drawn), shape))


def test_real_weights_agree_up_to_one_code(monkeypatch):
    shape = (2, 1, 60, 3, 50, 20, 1)
    drawn = draw(shape, torch.float32, whole=False)
    numba, torch_ = (run(drawn, shape, engine=engine) for engine in ("numba", "torch"))
    assert (numba == torch_).double().mean() > 0.99
    assert (numba - torch_).abs().max() <= drawn[2].max()


def test_inputs_that_do_not_lie_in_order_are_taken():
    shape = (2, 1, 5, 3, 7, 4, 1)
    x, matrix, scale, noise = draw(shape)
    turned = x.transpose(2, 4).contiguous().transpose(2, 4)
    assert torch.equal(run((turned, matrix, scale, noise), shape), run((x, matrix, scale, noise), shape))


def test_bad_arguments_are_named():
    shape = (2, 1, 5, 3, 7, 4, 1)
    x, matrix, scale, noise = draw(shape)
    with pytest.raises(UnknownNameError, match="engine"):
        run((x, matrix, scale, noise), shape, engine="c++")
    with pytest.raises(HpmlError, match="must have 5, 5 and 4 dimensions"):
        run((x[0], matrix, scale, noise), shape)
    with pytest.raises(HpmlError, match="needs a matrix"):
        run((x, matrix[..., :3], scale, noise), shape)
    with pytest.raises(HpmlError, match="slices=3 must divide"):
        crossbar_product(x, matrix, scale, slices=3, **GAINS)
    with pytest.raises(HpmlError, match="one floating type"):
        run((x.double(), matrix, scale, noise), shape)
    with pytest.raises(HpmlError, match=r"needs normal="):
        crossbar_product(x, matrix, scale, sigma=0.1, **GAINS)
    with pytest.raises(HpmlError, match=r"keys= is for the engine 'numba'; engine='torch' needs normal="):
        crossbar_product(x, matrix, scale, sigma=0.1, keys=NoiseKeys, engine="torch", **GAINS)
    half = tuple(t.bfloat16() for t in (x, matrix, scale, noise))
    with pytest.raises(HpmlError, match=r"does not take torch.bfloat16"):
        run(half, shape, engine="numba")
    assert run(half, shape).dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [*ARCHITECTURES, (2, 1, 3, 2, 4, 1500, 1), (5, 1, 700, 2, 3, 9, 2)])
@pytest.mark.parametrize("places", [{}, {"samples": 3, "inner": 2, "first": 7}, {"quiet": True}])
def test_noise_drawn_in_the_pass_is_the_noise_of_its_keys(shape, dtype, places):
    drawn = draw(shape, dtype)
    unit = torch.rand((shape[0], *shape[1:3]), dtype=dtype) + 0.5
    keys = [NoiseKeys(1234567 + 89 * chip, **places) for chip in range(shape[0])]
    for chip, buffer in enumerate(drawn[3]):
        fill_noise(buffer, keys[chip])
    found = crossbar_product(
        *drawn[:3], unit=unit, sigma=0.7, keys=keys.__getitem__, slices=shape[-1], engine="numba", **GAINS
    )
    want = run(drawn, shape, unit=unit)
    # a rounding on the edge of two codes may tip over
    assert float((found - want).abs().gt(1e-5).float().mean()) < 1e-3 if found.numel() else True
