"""`evaluate`: the accuracy of a model, or of many programmed chips, with its spread."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hpml_sim.analog.programmed_model import ProgrammedModel, noise_by_sample
from hpml_sim.conversion.inputs import check_finite, check_weights_finite, in_type_of_weights, integers_explained
from hpml_sim.conversion.modes import eval_mode
from hpml_sim.conversion.modules import check_network, running
from hpml_sim.data import Data, samples_of
from hpml_sim.data.batches import Samples, check_labels, in_order
from hpml_sim.errors import HpmlError, NotFiniteError, check_whole, shown
from hpml_sim.training.score import Score


def evaluate(model: nn.Module, data: str | Data | Samples | tuple[Samples, Samples], *, batch_size: int = 500) -> Score:
    """Accuracy on the test set; for programmed chips one accuracy a chip.

    Args:
        model: (batch, ...) -> (batch, classes), or programmed chips (`chips.at(time)`): (batch, ...) -> (chips, batch,
            classes). It runs in evaluation mode, each batch from rest, and is left as it was found.
        data: a name, a `Data`, a (train, test) pair, or the test samples themselves: a dataset of (input, label) items,
            a `DataLoader` or another iterable of (inputs, labels) batches. One batch is held at a time.
        batch_size: samples evaluated at a time, >= 1. A loader keeps its own size. The result does not depend on it:
            chips draw the noise at their outputs by sample. Where a network mixes samples, this is logged.

    Returns:
        Mean, spread and 95 % interval: over the chips, or over the test samples for a single model.

    Raises:
        NotFiniteError: an input, an output or a weight that is NaN, or an input or output that is infinite.
        HpmlError: an argument of another kind, an output of the wrong shape, a label that the model has no output for,
            inputs of a type or shape that it does not take, or no samples.

    Example:
        >>> import hpml_sim as hs, torch
        >>> _ = torch.manual_seed(0)
        >>> net = hs.models.mlp(64, 10)
        >>> _ = hs.fit(net, "digits", epochs=8, lr=1e-2)
        >>> hs.evaluate(net, "digits").mean > 0.9
        True
        >>> chips = hs.program(hs.convert(net, "pcm-hermes"), chips=3, seed=0)
        >>> hs.evaluate(chips.at("1 day"), "digits").n
        3
    """
    check_network("evaluate: model", model, other=data)
    batch_size = check_whole("evaluate: batch_size", batch_size, low=1)
    samples = samples_of(data, "test")
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    right, count = [], 0
    # chips of a large network are drawn one after another: one goes through all data before the next is made
    for part in model.parts() if isinstance(model, ProgrammedModel) else (model,):
        found, count = _right(part, samples, batch_size, device)
        right.append(found)
        del part  # before the next one is drawn
    check_weights_finite("evaluate", model, "the accuracy would mean nothing: train anew, with a smaller learning rate")
    return Score.of([int(r) / count for r in torch.cat(right)], count)


def _right(model: nn.Module, samples: Samples, batch_size: int, device: torch.device) -> tuple[Tensor, int]:
    """How many samples each chip has right, (chips,) or (1,), and how many there are."""
    noise = noise_by_sample(model)
    right, count = torch.zeros((), dtype=torch.int64, device=device), 0
    with eval_mode(model):
        for x, y in in_order(samples, batch_size):
            check_finite("evaluate", x, numbers=range(count, count + len(x)))
            x = in_type_of_weights(model, x.to(device))
            with (
                running("evaluate", model, [x]),
                integers_explained("evaluate", x),
                noise.batch(count, len(x), lambda numbers, x=x: model(x[numbers.to(x.device)])),
            ):
                logits = model(x)
            right = right + _correct(logits, y, len(x))
            count += len(y)
    return torch.atleast_1d(right), count


def _correct(logits: object, labels: Tensor, inputs: int) -> Tensor:
    """How many of a batch are right: (batch, classes) -> scalar, (chips, batch, classes) -> (chips,)."""
    if not isinstance(logits, Tensor):
        raise HpmlError(
            f"evaluate: the model gave {shown(logits)}; expected a tensor of logits (batch, classes): wrap it so that "
            "its forward() gives these alone"
        )
    if logits.dim() not in (2, 3) or logits.shape[-2] != inputs:
        raise HpmlError(
            f"evaluate: for {inputs} inputs the model gave shape {tuple(logits.shape)}; "
            "expected (batch, classes) or (chips, batch, classes)"
        )
    labels = check_labels("evaluate", labels, inputs, logits.shape[-1]).to(logits.device)
    if not torch.isfinite(logits).all():
        raise NotFiniteError("evaluate: the model's output holds NaN or infinity; the accuracy would mean nothing")
    return (logits.argmax(dim=-1) == labels).sum(dim=-1)
