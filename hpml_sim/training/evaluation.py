"""Accuracy of a model, or of many programmed chips, with its spread."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hpml_sim.conversion.modes import eval_mode
from hpml_sim.data import Data, samples_of
from hpml_sim.data.batches import Samples, in_order
from hpml_sim.errors import HpmlError, NotFiniteError


@dataclass(frozen=True)
class Accuracy:
    """Share of test samples classified right, in [0, 1].

    Attributes:
        values: one accuracy a chip (or a single one). samples: size of the test set.
        mean: over `values`. std: sample standard deviation over `values` (0 for one value). n: how many values.
        ci95: 95 % interval of the mean: Student's t over chips; for one value Wilson's interval over the test samples.
    """

    values: tuple[float, ...]
    samples: int
    mean: float
    std: float
    n: int
    ci95: tuple[float, float]

    @classmethod
    def of(cls, values: list[float], samples: int) -> Accuracy:
        """From the accuracies of n chips on `samples` test samples."""
        n = len(values)
        mean = math.fsum(values) / n
        std = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1)) if n > 1 else 0.0
        if n > 1:
            from scipy.stats import t

            half = float(t.ppf(0.975, n - 1)) * std / math.sqrt(n)
            interval = (max(0.0, mean - half), min(1.0, mean + half))
        else:
            interval = _wilson(mean, samples)
        return cls(tuple(values), samples, mean, std, n, interval)

    def __str__(self) -> str:
        low, high = self.ci95
        over = f"{self.n} chips" if self.n > 1 else f"{self.samples} samples"
        spread = f" ± {100 * self.std:.2f}" if self.n > 1 else ""
        return f"{100 * self.mean:.2f}{spread} % (95 % interval {100 * low:.2f}..{100 * high:.2f}, {over})"


def _wilson(share: float, n: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """Wilson's score interval of a binomial share (E. B. Wilson, JASA 22:209, 1927)."""
    center = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, min(share, center - half)), min(1.0, max(share, center + half))  # rounding may leave the share out


def evaluate(
    model: nn.Module, data: str | Data | Samples | tuple[Samples, Samples], *, batch_size: int = 500
) -> Accuracy:
    """Accuracy on the test set; for programmed chips one accuracy a chip.

    Args:
        model: (batch, ...) -> (batch, classes), or programmed chips (`chips.at(time)`): (batch, ...) -> (chips, batch,
            classes). It runs in evaluation mode, each batch from rest, and is left as it was found.
        data: a name, a `Data`, a (train, test) pair, or the test samples themselves: a dataset of (input, label) items,
            a `DataLoader` or another iterable of (inputs, labels) batches. One batch is held at a time.
        batch_size: samples evaluated at a time; it does not change the result. What makes its own batches keeps them.

    Returns:
        Mean, spread and 95 % interval: over the chips, or over the test samples for a single model.

    Raises:
        NotFiniteError: an output that is NaN or infinite. HpmlError: one of the wrong shape, or no samples.
    """
    if batch_size < 1:
        raise HpmlError(f"evaluate: batch_size={batch_size!r} must be >= 1")
    samples = samples_of(data, "test")
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    right, count = torch.zeros((), dtype=torch.int64, device=device), 0
    with eval_mode(model):
        for x, y in in_order(samples, batch_size):
            right = right + _correct(model(x.to(device)), y.to(device))
            count += len(y)
    return Accuracy.of([int(r) / count for r in torch.atleast_1d(right)], count)


def _correct(logits: Tensor, labels: Tensor) -> Tensor:
    """How many of a batch are right: (batch, classes) -> scalar, (chips, batch, classes) -> (chips,)."""
    if logits.dim() not in (2, 3) or logits.shape[-2] != len(labels):
        raise HpmlError(
            f"evaluate: for {len(labels)} inputs the model gave shape {tuple(logits.shape)}; "
            "expected (batch, classes) or (chips, batch, classes)"
        )
    if not torch.isfinite(logits).all():
        raise NotFiniteError("evaluate: the model's output holds NaN or infinity; the accuracy would mean nothing")
    return (logits.argmax(dim=-1) == labels).sum(dim=-1)
