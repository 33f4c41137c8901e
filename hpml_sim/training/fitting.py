"""`fit`: one training loop for digital, analog (hardware-aware) and spiking (surrogate-gradient) networks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hpml_sim.compress import KeptWeights
from hpml_sim.conversion.cloning import copied
from hpml_sim.conversion.idle_layers import IdleLayers
from hpml_sim.conversion.inputs import check_weights_finite, integers_explained, numeric_parameters
from hpml_sim.conversion.modes import eval_mode, stateless
from hpml_sim.conversion.modules import check_network, is_large, running
from hpml_sim.conversion.network_call import call_network, map_tensors, samples_in, tensors_in
from hpml_sim.conversion.training_sessions import Optimizer, after_training, before_training, training_session
from hpml_sim.data import Data, load_data, samples_of
from hpml_sim.data.batches import Batch, Samples
from hpml_sim.errors import HpmlError, NotFiniteError, check_switch, check_whole, shown
from hpml_sim.tasks.tally import Tally
from hpml_sim.tasks.task import Task
from hpml_sim.training.distillation import DistillationLoss, check_teacher
from hpml_sim.training.distributed import ProcessGroup
from hpml_sim.training.evaluation import task_of
from hpml_sim.training.execution import Execution
from hpml_sim.training.gradients import GradientSession
from hpml_sim.training.history import History, score_text
from hpml_sim.training.loading import BatchLoader, Shard
from hpml_sim.training.pace import Pace
from hpml_sim.training.progress import progress
from hpml_sim.training.trying import few_samples

_TRIED = 64
"""Samples on which it is tried before training what the hardware will do with the network, no more than a batch; of a
large network one."""
_DISTILLATION = (4.0, 0.5)
"""Temperature and weight of the teacher where none are given."""


def fit(
    model: nn.Module,
    data: str | Data | Samples | tuple[Samples, Samples],
    *,
    task: str | Task | None = None,
    epochs: int = 10,
    lr: float | None = None,
    batch_size: int | None = None,
    optimizer: Optimizer | None = None,
    schedule: Literal["cosine", "linear", "constant"] = "cosine",
    warmup: float = 0.0,
    max_grad_norm: float | None = None,
    teacher: nn.Module | None = None,
    temperature: float = 4.0,
    alpha: float = 0.5,
    autocast: Literal["bfloat16"] | None = None,
    checkpoint: bool = False,
    compile: bool = False,  # noqa: A002 - torch's name
    seed: int = 0,
    show_progress: bool = True,
    title: str = "training",
) -> History:
    """Train in place with the task's loss and a cosine schedule of the learning rate; reproducible from `seed`.

    Pruned networks keep their zeros, and quantized ones their numbers of few bits: both run forwards and backwards as
    they will be, and the steps go to values beside them (`hs.prune`, `hs.quantize`).

    What makes training hardware-aware or spiking lies in the model's own layers, so the loop is the same for all. Where
    weights are pulsed devices (`hs.InMemory`), aihwkit's SGD sends the pulses in place of Adam; they cannot be seeded,
    so two such trainings differ. Under `torchrun` the processes train together (`hpml_sim.training.distributed`).

    Only one batch of a dataset, a loader or another iterable is held at a time, so that it may be larger than the
    memory; tensors in memory are used as they lie. Each batch starts with all neurons at rest, also where the model
    keeps its state from call to call (`keep_state`); that state stays as it was found.

    With a teacher, usually the digital network that the model was made from, the loss is

        (1 - alpha) loss(labels) + alpha distance(teacher, model).

    The distance is the task's: for classes temperature^2 KL(teacher || model), both distributions at the temperature;
    for numbers the mean squared distance.

    Args:
        model: (batch, ...) -> outputs (batch, ...), such as logits, or an object or mapping that holds them.
        data: a name, a `Data`, a (train, test) pair, or the training samples themselves: a dataset of (input, label)
            items, which are shuffled in each epoch, or a `DataLoader` or another iterable of (inputs, labels) batches,
            which come as they are and must be able to begin anew. Items and batches may be mappings with "labels" in
            them; a model of several inputs takes ((a, b), label).
        task: what is learned: a name of `hs.tasks`, such as "regression", or an `hs.Task`; None takes that of the data,
            or the only one that labels and outputs leave no doubt about. Whole numbers, one a sample, are classes.
        epochs: passes over the training set, >= 0.
        lr: first learning rate, > 0; None takes 2e-3, or for pulsed devices the one measured for device and rule.
        batch_size: samples a step, >= 1; None takes 64. A loader has a size of its own and takes no other.
        optimizer: name or class of an optimizer in `torch.optim`, or any function (parameters, lr=) -> optimizer, for
            example `partial(torch.optim.SGD, momentum=0.9)`; None takes Adam. Weights are clipped whichever it is.
        schedule: how the learning rate falls, to zero at the end: along a "cosine" or "linear"; "constant" does not.
        warmup: share of all steps in which it first rises from near zero, 0 to below 1.
        max_grad_norm: gradients of a step are scaled down to this norm of all of them together, above 0; None: never.
        teacher: takes what the model takes, and gives outputs of the same shape. It runs in evaluation mode and without
            gradients, once on data in memory and batch by batch on all other, and is left as it was found.
        temperature: softens the outputs in distillation, > 0.
        alpha: weight of the teacher in the loss, in [0, 1]; the labels have the rest.
        autocast: "bfloat16": products run in it, while the loss and the weights stay in float32; None: in the type of
            the weights. Layers on crossbars then run operator by operator.
        checkpoint: keep of each block (what an `nn.ModuleList` holds) its input alone, and run it again for the
            gradient, with the same noise: less memory, a third more time.
        compile: run the network through `torch.compile`. The first step takes minutes; worth it on GPUs.
        seed: of the order of samples and of all noise drawn in training, >= 0; the caller's random state is left alone.
        show_progress: draw a progress bar where there is a terminal.
        title: stands before the bar.

    Returns:
        Loss and score of each epoch, and the pulses where devices were trained in memory.

    Raises:
        HpmlError: an argument out of range, a model without trainable parameters, a teacher with another output, pulsed
            devices on several processes, a batch that is none, inputs of a type that the model does not take, labels
            that do not fit the task, or a task that is in doubt. The model then has the weights that it came with.
        NotFiniteError: an input, the loss or a weight is not finite. The model then has the weights that it came with.
        UnknownNameError: `torch.optim` has no optimizer of this name, or no schedule or type has it.

    Source: the loss with a teacher is that of G. Hinton, O. Vinyals, J. Dean, arXiv:1503.02531, 2015.

    Example:
        >>> import hpml_sim as hs, torch
        >>> _ = torch.manual_seed(0)
        >>> net = hs.models.mlp(64, 10)
        >>> history = hs.fit(net, "digits", epochs=3, lr=1e-2)
        >>> history.metric, history.scores[-1] > 0.9
        ('accuracy', True)
        >>> hs.fit(net, "digits", epochs="3")
        Traceback (most recent call last):
        hpml_sim.errors.HpmlError: fit: epochs='3': must be a whole number >= 0
    """
    check_network("fit: model", model, other=data)
    epochs = check_whole("fit: epochs", epochs, low=0)
    if batch_size is not None:
        batch_size = check_whole("fit: batch_size", batch_size, low=1, hint="None takes 64")
    seed = check_whole("fit: seed", seed, low=0, high=2**62)
    check_switch("fit: show_progress", show_progress)
    if not isinstance(title, str):
        raise HpmlError(f"fit: title={shown(title)}: must be text, such as 'training'")
    if teacher is model:
        raise HpmlError("fit: teacher= is the model itself; give another network, such as a trained copy of it")
    check_teacher(teacher, temperature, alpha)
    if teacher is None and (temperature, alpha) != _DISTILLATION:
        raise HpmlError("fit: temperature= and alpha= belong to distillation; give teacher= as well, or leave them out")
    pace = Pace.checked(schedule, warmup, max_grad_norm)
    running_as = Execution.checked(model, autocast, checkpoint, compile)
    session = training_session(model) or GradientSession(model)
    if not isinstance(session, GradientSession):
        pace.refuse_on_devices()
    lr = session.learning_rate(lr)
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise HpmlError("fit: the model has no trainable parameters (requires_grad is false for all of them)")
    check_weights_finite("fit", model, "they came so: build or load the network anew")
    data = load_data(data) if isinstance(data, str) else data
    samples = samples_of(data, "train")
    chosen = task_of("fit", model, data, samples, task)
    objective = DistillationLoss(chosen, teacher, temperature, alpha)
    device = parameters[0].device
    group = ProcessGroup.join(device)
    stepper = session.optimizer(optimizer, lr, processes=group.size)
    before = copied(session.state())
    kept = KeptWeights(model)
    batches = BatchLoader(samples, batch_size, device, group, objective, model)
    if epochs and group.rank == 0:
        large = is_large(model)
        tried = batches.first(1 if large else min(_TRIED, batches.batch_size))
        with running("fit", model, list(tensors_in(tried[0]))), integers_explained("fit", tried[0]):
            before_training(model, few_samples(*tried, chosen, large=large))
    cuda = [device] if device.type == "cuda" else []
    how = _Steps(pace, running_as, device, tuple(parameters), kept)
    last: Shard | None = None
    losses: list[float] = []
    scores: list[float] = []
    metric = chosen.metric
    was_training = model.training
    with (
        torch.random.fork_rng(devices=cuda),
        _threads_for(model, batches.batch_size),
        stateless(model),
        running_as.keeping_less(),
        progress(title, epochs, enabled=show_progress and group.rank == 0) as step,
    ):
        torch.manual_seed(seed + 1_000_003 * group.rank)  # noise of their own; the order of samples is process 0's
        order = torch.Generator().manual_seed(seed) if group.size > 1 else None
        called = running_as.called(group.wrap(model))
        scheduler = pace.scheduler(stepper, max(1, epochs * len(batches)))
        session.begin(None if teacher is not None else lambda most: _before(model, batches.first(most), chosen))
        try:
            model.train()
            for epoch in range(epochs):
                shards = batches.epoch(order)
                if epoch == 0:
                    shards = IdleLayers(model, "fit").over(shards)
                loss, score, last = _epoch(called, shards, objective, stepper, scheduler, group, how)
                if not math.isfinite(loss):
                    raise NotFiniteError(
                        f"fit: the loss became {loss} in epoch {epoch + 1} at lr={lr}; the weights are as before. "
                        f"Try a smaller learning rate, such as {min(lr / 10, 2e-3):g}, and check the inputs for NaN"
                    )
                check_weights_finite(
                    "fit", model, f"they are put back. Try a smaller learning rate, such as {min(lr / 10, 2e-3):g}"
                )
                session.end_epoch(epoch, epochs, loss, lr)
                losses.append(loss)
                scores.append(score)
                step(note=f"loss {loss:.3f}, {metric.name} {score_text(score, metric.unit)}")
            kept.settle()
            if last is not None:
                batch = group.of_first(last.x)  # ranges are chosen alike, and sharded weights gathered in one order
                after_training(model, lambda: call_network(model, batch))
            group.broadcast_buffers(model)
            if last is not None and not _usable(model, last, chosen, group):
                raise NotFiniteError(
                    f"fit: after the last step weights or outputs are not finite at lr={lr}; the weights are as "
                    f"before. Try a smaller learning rate, such as {min(lr / 10, 2e-3):g}"
                )
        except Exception:
            session.restore(before)
            raise
        finally:
            model.train(was_training)
    better = metric.higher_is_better
    return History(tuple(losses), tuple(scores), metric.name, metric.unit, better, session.writes())


def _before(model: nn.Module, batch: Batch, task: Task) -> tuple[float, float | None]:
    """The loss of a model before its training, and that of the best guess without looking, where that is known."""
    inputs, labels = batch
    with eval_mode(model):
        outputs = task.read("fit", call_network(model, inputs), type(model).__name__)
    labels = task.labels("fit", labels, samples_in(inputs), outputs)
    chance = None
    if task.name == "classification":  # the entropy of the labels
        shares = torch.bincount(labels).double() / len(labels)
        chance = float(torch.special.entr(shares).sum())
    return float(task.loss(outputs, labels)), chance


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


@dataclass(frozen=True)
class _Steps:
    """What all steps of a training have in common."""

    pace: Pace
    running_as: Execution
    device: torch.device
    parameters: tuple[nn.Parameter, ...]
    kept: KeptWeights


def _epoch(
    model: nn.Module,
    shards: Iterable[Shard],
    objective: DistillationLoss,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    group: ProcessGroup,
    how: _Steps,
) -> tuple[float, float, Shard | None]:
    """Mean loss and score of all samples, each before the step that it was used in; and the last shard."""
    shard = None
    total_loss, samples = 0.0, 0
    tally = Tally(objective.task.metric, spread=False)
    for shard in shards:
        loss = _step(model, shard, objective, optimizer, group, tally, how)
        scheduler.step()
        total_loss += loss * shard.samples
        samples += shard.samples
    sums = tally.sums
    if sums is not None:
        sums = group.all_reduce(sums.to(how.device)).cpu()
    return total_loss / samples, tally.values(sums)[0], shard


def _usable(model: nn.Module, shard: Shard, task: Task, group: ProcessGroup) -> bool:
    """Whether the weights, and the outputs of a batch with them, are finite: no loss has seen the last step."""
    with eval_mode(model):
        finite = all(bool(torch.isfinite(p).all()) for p in numeric_parameters(model).values())
        given = call_network(model, shard.x)
        outputs = task.read("fit", given, type(model).__name__)
        finite = finite and bool(torch.isfinite(outputs).all())
    failed = torch.tensor(float(not finite), device=outputs.device)
    return float(group.all_reduce(failed)) == 0  # all processes decide alike


def _step(
    model: nn.Module,
    shard: Shard,
    objective: DistillationLoss,
    optimizer: torch.optim.Optimizer,
    group: ProcessGroup,
    tally: Tally,
    how: _Steps,
) -> float:
    """One step on a batch: its loss before the step; the tally gets this process' part of it."""
    counted = False
    random_state = torch.get_rng_state()

    def closure() -> Tensor:
        with how.kept.applied():
            return passes()

    def passes() -> Tensor:
        nonlocal counted
        if counted:  # optimizers that look at a batch several times, such as LBFGS, must see the same noise
            torch.set_rng_state(random_state)
        optimizer.zero_grad(set_to_none=True)
        with (
            running("fit", model, list(tensors_in(shard.x))),
            integers_explained("fit", shard.x),
            how.running_as.products(how.device),
        ):
            given = call_network(model, shard.x)
        if how.running_as.autocast is not None:  # the loss keeps all bits
            given = map_tensors(lambda t: t.float() if t.dtype == how.running_as.autocast else t, given)
        outputs, labels = _read(objective.task, given, shard, type(model).__name__)
        if not counted and shard.weight:
            tally.add([outputs.detach()], labels)
        counted = True
        loss = objective(outputs, labels, shard.teacher) * shard.weight
        check_loss("fit", objective.task, loss)
        with running("fit", model, list(tensors_in(shard.x))):
            loss.backward()
        how.pace.limit_gradients(how.parameters)
        return group.all_reduce(loss.detach() / group.size)  # of the whole batch: all processes decide alike

    # torch's type of it is too narrow
    loss: Tensor = optimizer.step(closure)  # pyright: ignore[reportCallIssue, reportArgumentType]
    return float(loss)


def _read(task: Task, given: object, shard: Shard, network: str) -> tuple[Tensor, Any]:
    """The outputs of a batch and its labels as the loss takes them."""
    outputs, count = task.read("fit", given, network), samples_in(shard.x)
    if outputs.dim() == 0 or len(outputs) != count:
        raise HpmlError(f"fit: for {count} inputs the model gave shape {tuple(outputs.shape)}; expected {task.layout}")
    return outputs, task.labels("fit", shard.y, count, outputs)


def check_loss(where: str, task: Task, loss: object) -> None:
    """Refuse a loss that is no single number.

    Args:
        where: the function that the caller called, which begins the message.
        task: whose loss it is.
        loss: what it gave for a batch.

    Raises:
        HpmlError: no floating-point tensor without dimensions.
    """
    if not isinstance(loss, Tensor) or loss.dim() != 0 or not loss.is_floating_point():
        given = f"a tensor {tuple(loss.shape)}" if isinstance(loss, Tensor) else shown(loss)
        raise HpmlError(f"{where}: the loss of the task {task.name!r} gave {given}; it must be one number, a mean")
