"""`evaluate`: the scores of a model, or of many programmed chips, with their spread."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hpml_sim.conversion.chips_in_front import ChipsInFront, SampleStreams, sample_streams
from hpml_sim.conversion.inputs import check_finite, check_weights_finite, in_type_of_weights, integers_explained
from hpml_sim.conversion.modes import eval_mode, statistics_of_one_sample
from hpml_sim.conversion.modules import check_network, running
from hpml_sim.conversion.network_call import Inputs, call_network, map_tensors, samples_in, tensors_in
from hpml_sim.conversion.output_structure import take_apart
from hpml_sim.data import Data, load_data, samples_of
from hpml_sim.data.batches import Batch, Samples, cut, first, has_items, in_order
from hpml_sim.errors import HpmlError, NotFiniteError, check_whole
from hpml_sim.tasks.choosing import TRIED, Sample, choose_task
from hpml_sim.tasks.metric import Metric
from hpml_sim.tasks.score import Score
from hpml_sim.tasks.tally import Tally, score_of
from hpml_sim.tasks.task import Task

_BATCH = 500
"""Samples at a time, where their outputs are small."""
_OUTPUT_BYTES = 2**28
"""Outputs of a batch that are held at a time: the logits of a language model are large."""
_FIRST = 8
"""Samples of the first batch where it is not known how large the outputs are."""
_LOOKED_AT = 16
"""Samples whose labels say which task it is."""


def evaluate(
    model: nn.Module,
    data: str | Data | Samples | tuple[Samples, Samples],
    *,
    task: str | Task | None = None,
    metric: str | Metric | None = None,
    batch_size: int | None = None,
) -> Score:
    """How good a network is on the test set; for programmed chips one value a chip.

    Args:
        model: a network, or programmed chips (`chips.at(time)`), whose outputs have the chips in front. It runs in
            evaluation mode, each batch from rest, and is left as it was found.
        data: a name, a `Data`, a (train, test) pair, or the test samples themselves: a dataset of (input, label) items,
            a `DataLoader` or another iterable of (inputs, labels) batches. One batch is held at a time. Items and
            batches may be mappings with "labels" in them; a network of several inputs takes ((a, b), label).
        task: what is measured: a name of `hs.tasks`, such as "regression", or an `hs.Task`; None takes that of the
            data, or the only one that labels and outputs leave no doubt about.
        metric: which of the task's metrics, by name, or an `hs.tasks.Metric`; None takes the first.
        batch_size: samples evaluated at a time, >= 1; None takes 500, or as many as 256 MB of outputs hold. A loader
            keeps its own size. The result does not depend on it: chips draw the noise at their outputs by sample.
            Where a network mixes samples this cannot be, and is logged. Where it picks or routes rows by their values,
            as experts do, the other rows of a batch decide which noise a row gets: results of chips then differ within
            that noise.

    Returns:
        Mean, spread and 95 % interval: over the chips, or over the test samples for a single model or chip.

    Raises:
        NotFiniteError: an input, an output or a weight that is NaN, or an input or output that is infinite.
        HpmlError: an argument of another kind, an output of the wrong shape, labels that do not fit the task, inputs of
            a type or shape that the model does not take, a task that is in doubt, or no samples.

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
    if batch_size is not None:
        batch_size = check_whole("evaluate: batch_size", batch_size, low=1)
    data = load_data(data) if isinstance(data, str) else data
    if isinstance(data, Iterator):  # it gives its batches once, and they are looked at more than once
        data = list(data)
    samples = samples_of(data, "test")
    chosen = task_of("evaluate", model, data, samples, task)
    return scores(model, samples, chosen, [chosen.metric_named(metric)], batch_size=batch_size)[0]


def scores(
    model: nn.Module,
    samples: Samples,
    task: Task,
    metrics: Sequence[Metric],
    *,
    batch_size: int | None = None,
    notes: list[str] | None = None,
) -> list[Score]:
    """Several metrics of a network or of programmed chips, in one pass over the test samples.

    Args:
        model: a network, or programmed chips.
        samples: the test samples.
        task: what is measured.
        metrics: of the task.
        batch_size: samples at a time; None takes 500, or as many as 256 MB of outputs hold.
        notes: gets a line for each metric after the first that has no value on these samples, and is left out; None
            raises for these as well.

    Raises:
        HpmlError: see `evaluate`.
        NotFiniteError: see `evaluate`.
    """
    # chips of a large network are drawn one after another: one goes through all data before the next is made
    of_chips = isinstance(model, ChipsInFront)
    alone = not isinstance(model, ChipsInFront) or model.n_chips == 1
    found: list[list[Tally]] = []
    for part in model.parts() if isinstance(model, ChipsInFront) else (model,):
        found.append(_tallies(part, samples, task, metrics, batch_size, spread=alone))
        del part  # before the next one is drawn
    check_weights_finite(
        "evaluate", model, f"the {metrics[0].name} would mean nothing: train anew, with a smaller learning rate"
    )
    return list(_found(list(zip(*found, strict=True)), of_chips, notes))


def _tallies(
    model: nn.Module,
    samples: Samples,
    task: Task,
    metrics: Sequence[Metric],
    batch_size: int | None,
    *,
    spread: bool,
) -> list[Tally]:
    """Each metric of a network, or of some of its chips, over all samples."""
    tallies: list[Tally] = []
    count = 0
    pieces, noise = _Pieces(samples, task, batch_size), sample_streams(model)
    with eval_mode(model):
        for x, y in pieces:
            each = _outputs(model, task, x, y, count, noise)
            pieces.sample_bytes = sum(one.nbytes for one in each) / len(each[0])
            labels = task.labels("evaluate", on_device(y, each[0].device), samples_in(x), each[0])
            tallies = tallies or [Tally(metric, len(each), spread=spread) for metric in metrics]
            for tally in tallies:
                tally.add(each, labels)
            count += samples_in(x)
    return tallies


class _Pieces:
    """The batches of an evaluation; those of outputs that are large are cut as soon as one has been seen.

    Attributes:
        sample_bytes: of the outputs of one sample; 0 before the first batch.
    """

    def __init__(self, samples: Samples, task: Task, batch_size: int | None):
        self._samples, self._size = samples, batch_size
        small = task.name == "classification" or batch_size is not None or not has_items(samples)
        self._first = None if small else _FIRST
        self.sample_bytes = 0.0

    def __iter__(self) -> Iterator[Batch]:
        for x, y in in_order(self._samples, self._size or _BATCH):
            if self._first is None:
                yield x, y
                continue
            done, whole = 0, samples_in(x)
            while done < whole:
                bound = _OUTPUT_BYTES / self.sample_bytes if self.sample_bytes else self._first
                most = int(max(1, min(_BATCH, bound)))
                rows = slice(done, done + most)
                yield tuple(map_tensors(lambda t, rows=rows: t[rows], part) for part in (x, y))  # type: ignore[misc]
                done += most


def _outputs(
    model: nn.Module, task: Task, inputs: Inputs, labels: Any, before: int, noise: SampleStreams
) -> list[Tensor]:
    """The outputs of each chip for a batch, (batch, ...) each; of one network a list of one."""
    count = samples_in(inputs)
    check_finite("evaluate", inputs, numbers=range(before, before + count))
    x = in_type_of_weights(model, on_device(inputs, device_of(model)))

    def run(numbers: Tensor) -> Any:
        return call_network(model, map_tensors(lambda tensor: tensor[numbers.to(tensor.device)], x))

    with (
        running("evaluate", model, list(tensors_in(x))),
        integers_explained("evaluate", x),
        noise.batch(before, count, tuple(tuple(tensor.shape[1:]) for tensor in tensors_in(x)), run),
    ):
        given = call_network(model, x)
    found = _read(model, task, given)
    each = list(found) if _chips_in_front(model, task, found, labels, count) else [found]
    if any(one.dim() == 0 or len(one) != count for one in each):
        raise HpmlError(
            f"evaluate: for {count} inputs the model gave shape {tuple(found.shape)}; expected {task.layout} or "
            f"{task.layout.replace('(batch', '(chips, batch', 1)}"
        )
    if found.is_floating_point() and not bool(torch.isfinite(found).all()):
        raise NotFiniteError(
            f"evaluate: the model's output holds NaN or infinity; the {task.metric.name} would mean nothing"
        )
    return each


def _read(model: nn.Module, task: Task, given: Any) -> Tensor:
    """The outputs in what a network gave; a function of the user's sees those of one chip, as of one network."""
    name = type(model).__name__
    if not (isinstance(model, ChipsInFront) and callable(task.outputs)):
        return task.read("evaluate", given, name)
    tensors, rebuild = take_apart(given)
    of_each_chip = zip(*tensors, strict=True)
    return torch.stack([task.read("evaluate", rebuild(list(parts)), name) for parts in of_each_chip])


def _chips_in_front(model: nn.Module, task: Task, outputs: Tensor, labels: Any, inputs: int) -> bool:
    """Whether outputs have the chips in front: of programmed chips, and of a network around them."""
    if isinstance(model, ChipsInFront):
        return True
    if outputs.dim() < 2 or outputs.shape[1] != inputs:
        return False
    if task.more_dims is not None and isinstance(labels, Tensor):
        return outputs.dim() == labels.dim() + task.more_dims + 1
    return len(outputs) != inputs


def _found(tallies: Sequence[Sequence[Tally]], of_chips: bool, notes: list[str] | None) -> Iterator[Score]:
    for number, parts in enumerate(tallies):
        try:
            yield score_of(parts, chips=of_chips)
        except NotFiniteError as error:
            if notes is None or number == 0:
                raise
            notes.append(str(error))


def task_of(where: str, model: nn.Module, data: Any, samples: Samples, given: str | Task | None) -> Task:
    """The task of a network on data: given, named by the data, or inferred from some samples and outputs.

    Args:
        where: the function that the caller called, which begins messages.
        model: the network, or programmed chips; it is left as it was found.
        data: as the caller gave it.
        samples: its training or test samples.
        given: the task that the caller gave.

    Raises:
        HpmlError: no task has this name, or data and outputs leave a doubt.
    """
    named = data.task if isinstance(data, Data) else None

    def sample() -> Sample:
        inputs, labels = first(samples, _LOOKED_AT)
        chips, kind = isinstance(model, ChipsInFront), type(model).__name__
        return Sample(inputs, labels, lambda: try_network(where, model, cut(inputs, TRIED)), kind, chips)

    return choose_task(where, given, named, sample)


def try_network(where: str, model: nn.Module, inputs: Inputs) -> Any:
    """What a network gives for a few samples, in evaluation mode; torch's random numbers are afterwards as before.

    Args:
        where: the function that the caller called, which begins messages.
        model: the network, or programmed chips.
        inputs: of a few samples.

    Raises:
        HpmlError: the network fails on them.
    """
    device = device_of(model)
    x = in_type_of_weights(model, on_device(inputs, device))
    with (
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        eval_mode(model),
        statistics_of_one_sample(),
        running(where, model, list(tensors_in(x))),
        integers_explained(where, x),
    ):
        return call_network(model, x)


def device_of(model: nn.Module) -> torch.device:
    """The device of the first parameter; the CPU where there is none.

    Args:
        model: any network.
    """
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def on_device(value: Any, device: torch.device) -> Any:
    """Inputs or labels on a device.

    Args:
        value: tensors (batch, ...), one or several.
        device: where to.
    """
    return map_tensors(lambda tensor: tensor.to(device), value)
