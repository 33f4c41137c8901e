"""`fit`: one training loop for digital, analog (hardware-aware) and spiking (surrogate-gradient) networks."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hpml_sim.analog.pulsed.training import InMemoryTraining
from hpml_sim.analog.pulsed.write_pulses import WritePulses
from hpml_sim.conversion.modes import stateless
from hpml_sim.data import Data, samples_of
from hpml_sim.data.batches import Samples
from hpml_sim.errors import HpmlError, NotFiniteError, UnknownNameError
from hpml_sim.training.distillation import DistillationLoss
from hpml_sim.training.distributed import ProcessGroup
from hpml_sim.training.loading import BatchLoader, Shard
from hpml_sim.training.progress import progress

Optimizer = str | Callable[..., torch.optim.Optimizer]
"""A class of `torch.optim` by name ("adamw", "SGD"), or a function (parameters, lr=) -> optimizer, such as a class."""


@dataclass(frozen=True)
class History:
    """What a training did, epoch by epoch.

    Attributes:
        loss: mean training loss. accuracy: on the training samples as they came, share in [0, 1].
        writes: pulses that in-memory training sent to the devices; None where weights are not pulsed devices.
    """

    loss: tuple[float, ...]
    accuracy: tuple[float, ...]
    writes: WritePulses | None = None


def fit(
    model: nn.Module,
    data: str | Data | Samples | tuple[Samples, Samples],
    *,
    epochs: int = 10,
    lr: float | None = None,
    batch_size: int | None = None,
    optimizer: Optimizer | None = None,
    teacher: nn.Module | None = None,
    temperature: float = 4.0,
    alpha: float = 0.5,
    seed: int = 0,
    show_progress: bool = True,
    title: str = "training",
) -> History:
    """Train in place with cross-entropy and a cosine schedule of the learning rate; reproducible from `seed`.

    What makes training hardware-aware or spiking lies in the model's own layers, so the loop is the same for all. Where
    weights are pulsed devices (`Analog(..., device=...)`), aihwkit's SGD sends the pulses in place of Adam; they cannot
    be seeded, so two such trainings differ. Under `torchrun` the processes train together (`hpml_sim.training.distributed`).

    Only one batch of a dataset, a loader or another iterable is held at a time, so that it may be larger than the
    memory; tensors in memory are used as they lie. Each batch starts with all neurons at rest, also where the model
    keeps its state from call to call (`keep_state`); that state stays as it was found.

    With a teacher, usually the digital network that the model was made from, the loss is

        (1 - teacher_share) CE(labels) + teacher_share temperature^2 KL(teacher || model),

    both distributions of KL at the temperature. Source: G. Hinton, O. Vinyals, J. Dean, arXiv:1503.02531, 2015.

    Args:
        model: (batch, *input_shape) -> (batch, classes), logits.
        data: a name, a `Data`, a (train, test) pair, or the training samples themselves: a dataset of (input, label)
            items, which are shuffled in each epoch, or a `DataLoader` or another iterable of (inputs, labels) batches,
            which come as they are and must be able to begin anew.
        epochs: passes over the training set, >= 0.
        lr: first learning rate, > 0; None takes 2e-3, or for pulsed devices the one measured for device and rule.
        batch_size: samples a step, >= 1; None takes 64. What makes its own batches takes no other size.
        optimizer: name or class of an optimizer in `torch.optim`, or any function (parameters, lr=) -> optimizer, for
            example `partial(torch.optim.SGD, momentum=0.9)`; None takes Adam. Weights are clipped whichever it is.
        teacher: (batch, *input_shape) -> logits of the same shape as the model's. It runs in evaluation mode and
            without gradients, once on data in memory and batch by batch on all other, and is left as it was found.
        temperature: softens the outputs in distillation, > 0.
        teacher_share: of the loss, in [0, 1]; the labels have the rest.
        seed: of the order of samples and of all noise drawn in training; the caller's random state is left alone.
        show_progress: draw a progress bar where there is a terminal.
        title: stands before the bar.

    Returns:
        Loss and accuracy of each epoch, and the pulses where devices were trained in memory.

    Raises:
        HpmlError: an argument out of range, a model without trainable parameters, a teacher with another output, pulsed
            devices on several processes, a batch that is none, or a loss that is not finite. The model then has the
            weights that it came with.
        UnknownNameError: `torch.optim` has no optimizer of this name.
    """
    if epochs < 0 or (batch_size is not None and batch_size < 1):
        raise HpmlError(f"fit: epochs={epochs!r} must be >= 0 and batch_size={batch_size!r} >= 1")
    pulsed = InMemoryTraining.of(model)
    if pulsed is not None:
        lr = pulsed.learning_rate(lr)
    elif lr is None:
        lr = 2e-3
    if not (math.isfinite(lr) and lr > 0):
        raise HpmlError(f"fit: lr={lr!r} must be a finite number > 0; try 2e-3")
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise HpmlError("fit: the model has no trainable parameters (requires_grad is false for all of them)")
    samples = samples_of(data, "train")
    device = parameters[0].device
    team = ProcessGroup.join(device)
    if pulsed is not None and team.size > 1:
        raise HpmlError(
            f"fit: pulsed devices train on one process, not on {team.size}: pulses cannot be averaged as gradients can;"
            " start the script without torchrun"
        )
    if pulsed is not None:
        if optimizer is not None:
            raise HpmlError(
                f"fit: optimizer={optimizer!r} cannot send pulses; leave it out, aihwkit's SGD trains pulsed devices"
            )
        stepper = pulsed.optimizer(lr)
    else:
        stepper = _optimizer(optimizer or "Adam", parameters, lr)
    objective = DistillationLoss(teacher, temperature, alpha)
    state = model.state_dict() if pulsed is None else pulsed.state()
    before = copy.deepcopy(state)
    feed = BatchLoader(samples, batch_size, device, team, objective)
    cuda = [device] if device.type == "cuda" else []
    losses: list[float] = []
    accuracies: list[float] = []
    was_training = model.training
    with (
        torch.random.fork_rng(devices=cuda),
        _threads_for(model, feed.batch_size),
        stateless(model),
        progress(title, epochs, enabled=show_progress and team.rank == 0) as step,
    ):
        torch.manual_seed(seed + 1_000_003 * team.rank)  # noise of their own; the order of samples is process 0's
        order = torch.Generator().manual_seed(seed) if team.size > 1 else None
        called = team.wrap(model)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(stepper, T_max=max(1, epochs * feed.batches))
        if pulsed is not None and teacher is None:  # a teacher's loss has another level of chance
            pulsed.start(*feed.first(1024))
        try:
            model.train()
            for epoch in range(epochs):
                loss, accuracy = _epoch(called, feed.epoch(order), objective, stepper, schedule, team, device)
                if not math.isfinite(loss):
                    raise NotFiniteError(
                        f"fit: the loss became {loss} in epoch {epoch + 1} at lr={lr}; the weights are as before. "
                        f"Try a smaller learning rate, such as {lr / 10:g}, and check the inputs for NaN"
                    )
                if pulsed is not None:
                    pulsed.end_epoch(epoch, epochs, loss, lr)
                losses.append(loss)
                accuracies.append(accuracy)
                step(note=f"loss {loss:.3f}, accuracy {100 * accuracy:.1f} %")
            team.broadcast_buffers(model)
        except Exception:
            model.load_state_dict(before, strict=pulsed is None)
            raise
        finally:
            model.train(was_training)
    return History(tuple(losses), tuple(accuracies), None if pulsed is None else pulsed.writes())


def _optimizer(given: Optimizer, parameters: list[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    """The optimizer that was asked for, over all parameters."""
    if isinstance(given, str):
        kinds: dict[str, Callable[..., torch.optim.Optimizer]] = {
            name: kind
            for name, kind in vars(torch.optim).items()
            if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer) and kind is not torch.optim.Optimizer
        }
        found = {name.lower(): kind for name, kind in kinds.items()}.get(given.lower())
        if found is None:
            raise UnknownNameError("optimizer", given, kinds)
        factory = found
    else:
        factory = given
    try:
        optimizer = factory(parameters, lr=lr)
    except (TypeError, ValueError) as error:
        raise HpmlError(f"fit: optimizer={given!r} cannot be made for this model: {error}") from error
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise HpmlError(
            f"fit: optimizer={given!r} gave {type(optimizer).__name__}; it must be a name or class of torch.optim, or "
            "a function (parameters, lr=) -> torch.optim.Optimizer"
        )
    return optimizer


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
    parts: Iterable[Shard],
    objective: DistillationLoss,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    team: ProcessGroup,
    device: torch.device,
) -> tuple[float, float]:
    """Mean loss and accuracy of all samples, each before the step that it was used in."""
    total_loss, correct, samples = 0.0, 0, 0
    for part in parts:
        loss, right = _step(model, part, objective, optimizer, team)
        schedule.step()
        total_loss += loss * part.samples
        correct += right
        samples += part.samples
    correct = int(team.total(torch.tensor(correct, device=device)))
    return total_loss / samples, correct / samples


def _step(
    model: nn.Module, part: Shard, objective: DistillationLoss, optimizer: torch.optim.Optimizer, team: ProcessGroup
) -> tuple[float, int]:
    """One step on a batch: its loss before the step, and how many of this process' part were right."""
    right: list[int] = []
    random_state = torch.get_rng_state()

    def closure() -> Tensor:
        if right:  # optimizers that look at a batch several times, such as LBFGS, must see the same noise
            torch.set_rng_state(random_state)
        optimizer.zero_grad(set_to_none=True)
        logits = model(part.x)
        if logits.dim() != 2 or len(logits) != len(part.y):
            raise HpmlError(
                f"fit: for {len(part.y)} inputs the model gave shape {tuple(logits.shape)}; expected (batch, classes)"
            )
        if part.most >= logits.shape[1]:
            raise HpmlError(f"fit: label {part.most}, but the model has {logits.shape[1]} outputs, for labels from 0")
        right.append(int((logits.detach().argmax(dim=1) == part.y).sum()) if part.weight else 0)
        loss = objective(logits, part.y, part.teacher_log_probs) * part.weight
        loss.backward()
        return team.total(loss.detach() / team.size)  # of the whole batch: all processes decide alike

    # torch's type of it is too narrow
    loss: Tensor = optimizer.step(closure)  # pyright: ignore[reportCallIssue, reportArgumentType]
    return float(loss), right[0]
