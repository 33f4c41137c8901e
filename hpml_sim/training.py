"""`fit`: one training loop for digital, analog (hardware-aware) and spiking (surrogate-gradient) networks."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hpml_sim.analog.in_memory import InMemoryTraining
from hpml_sim.data import Data, load_data, stacked
from hpml_sim.errors import HpmlError
from hpml_sim.progress import progress


@dataclass(frozen=True)
class History:
    """Mean training loss and accuracy (share in [0, 1]) of each epoch."""

    loss: tuple[float, ...]
    accuracy: tuple[float, ...]


def fit(
    model: nn.Module,
    data: str | Data | tuple,
    *,
    epochs: int = 10,
    lr: float | None = None,
    batch_size: int = 64,
    seed: int = 0,
    show_progress: bool = True,
    title: str = "training",
) -> History:
    """Train in place with Adam, cross-entropy and a cosine schedule; reproducible from `seed`.

    What makes training hardware-aware or spiking lies in the model's own layers, so the loop is the same for all. Where
    weights are pulsed devices (`Analog(..., device=...)`), aihwkit's SGD sends the pulses in place of Adam; they cannot
    be seeded, so two such trainings differ.

    Args:
        model: (batch, *input_shape) -> (batch, classes), logits.
        data: a name, a `Data`, or a (train, test) pair of datasets of (input, label).
        epochs: passes over the training set, >= 0.
        lr: first learning rate, > 0; None takes 2e-3, or for pulsed devices the one measured for device and rule.
        batch_size: samples a step, >= 1.
        seed: of the order of samples and of all noise drawn in training; the caller's random state is left alone.
        show_progress: draw a progress bar where there is a terminal.
        title: stands before the bar.

    Returns:
        Loss and accuracy of each epoch.

    Raises:
        HpmlError: an argument out of range, a model without trainable parameters, or a loss that is not finite (the
            model then has the weights it came with).
    """
    if epochs < 0 or batch_size < 1:
        raise HpmlError(f"fit: epochs={epochs!r} must be >= 0 and batch_size={batch_size!r} >= 1")
    in_memory = InMemoryTraining.of(model)
    if in_memory is not None:
        lr = in_memory.learning_rate(lr)
    elif lr is None:
        lr = 2e-3
    if not (math.isfinite(lr) and lr > 0):
        raise HpmlError(f"fit: lr={lr!r} must be a finite number > 0; try 2e-3")
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise HpmlError("fit: the model has no trainable parameters (requires_grad is false for all of them)")
    inputs, labels = stacked(load_data(data).train)
    device = parameters[0].device
    inputs, labels = inputs.to(device), labels.to(device)

    state = model.state_dict() if in_memory is None else in_memory.state()
    before = copy.deepcopy(state)
    cuda = [device] if device.type == "cuda" else []
    losses: list[float] = []
    accuracies: list[float] = []
    was_training = model.training
    with (
        torch.random.fork_rng(devices=cuda),
        _threads_for(model, batch_size),
        progress(title, epochs, enabled=show_progress) as step,
    ):
        torch.manual_seed(seed)
        batches = math.ceil(len(inputs) / batch_size)
        optimiser = torch.optim.Adam(parameters, lr=lr) if in_memory is None else in_memory.optimiser(lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=max(1, epochs * batches))
        if in_memory is not None:
            in_memory.start(inputs[:1024], labels[:1024])
        model.train()
        for epoch in range(epochs):
            loss, accuracy = _epoch(model, inputs, labels, batch_size, optimiser, schedule)
            if not math.isfinite(loss):
                model.load_state_dict(before, strict=in_memory is None)
                model.train(was_training)
                raise HpmlError(
                    f"fit: the loss became {loss} in epoch {epoch + 1} at lr={lr}; the weights are as before. "
                    f"Try a smaller learning rate, such as {lr / 10:g}, and check the inputs for NaN"
                )
            if in_memory is not None:
                in_memory.judge(epoch, epochs, loss, lr)
            losses.append(loss)
            accuracies.append(accuracy)
            step(note=f"loss {loss:.3f}, accuracy {100 * accuracy:.1f} %")
    model.train(was_training)
    return History(tuple(losses), tuple(accuracies))


@contextmanager
def _threads_for(model: nn.Module, batch_size: int) -> Iterator[None]:
    """One thread for small fully connected networks: there the threads' barriers cost more than the products.

    On a busy machine two threads were seen to train a 64-128-10 network 4 to 45 times slower than one.
    """
    convolves = any(isinstance(module, nn.modules.conv._ConvNd) for module in model.modules())
    small = sum(p.numel() for p in model.parameters()) * batch_size < 20_000_000
    before = torch.get_num_threads()
    torch.set_num_threads(1 if small and not convolves else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _epoch(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    batch_size: int,
    optimiser: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
) -> tuple[float, float]:
    total_loss, correct = 0.0, 0
    for chosen in torch.randperm(len(inputs)).to(inputs.device).split(batch_size):
        x, y = inputs[chosen], labels[chosen]
        optimiser.zero_grad(set_to_none=True)
        logits = model(x)
        loss = nn.functional.cross_entropy(logits, y)
        loss.backward()
        optimiser.step()
        schedule.step()
        total_loss += float(loss.detach()) * len(y)
        correct += int((logits.detach().argmax(dim=1) == y).sum())
    return total_loss / len(inputs), correct / len(inputs)
