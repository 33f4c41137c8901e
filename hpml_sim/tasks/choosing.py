"""Which task it is: the one that was given, the one of the data, or the only one that data and outputs allow."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from hpml_sim.conversion.network_call import shapes_of, tensors_in
from hpml_sim.errors import HpmlError, UnknownNameError, shown
from hpml_sim.networks.importing import called, names_code
from hpml_sim.networks.pretrained import pronunciation
from hpml_sim.tasks.class_tasks import classification, multi_label, segmentation
from hpml_sim.tasks.number_tasks import reconstruction, regression
from hpml_sim.tasks.pair_tasks import ranking, similarity
from hpml_sim.tasks.sequence_tasks import language_model, transcription
from hpml_sim.tasks.task import IGNORED, Task

_log = logging.getLogger(__name__)

TRIED = 2
"""Samples that a network is given to see what its outputs are like."""
TASKS: Mapping[str, Callable[[], Task]] = {
    "classification": classification,
    "language_model": language_model,
    "multi_label": multi_label,
    "phonemes": partial(transcription, tokens="phoneme", blank=None, end=pronunciation.END),
    "ranking": ranking,
    "reconstruction": reconstruction,
    "regression": regression,
    "segmentation": segmentation,
    "similarity": similarity,
    "transcription": transcription,
    "transcription_by_step": partial(transcription, blank=None),
}
"""The tasks that have a name; of transcription also the kinds without CTC's blank, in which step i answers label i."""


def as_task(given: str | Task) -> Task:
    """A task from its name, or itself.

    Args:
        given: a name of `TASKS`, "package.module:callable" or "file.py:callable" that gives an `hs.Task`, or a task.

    Raises:
        UnknownNameError: no task has this name.
        HpmlError: code that fails or gives no task, or something else.
    """
    if isinstance(given, Task):
        return given
    if not isinstance(given, str):
        hint = "; call it" if callable(given) else ""
        raise HpmlError(f"task={shown(given)}: must be an hs.Task or a name, such as 'regression'{hint}")
    if names_code(given):
        made = called("task", given)
        if not isinstance(made, Task):
            raise HpmlError(f"task {given!r} gave {shown(made)}; it must give an hs.Task")
        return made
    if given not in TASKS:
        raise UnknownNameError("task", given, TASKS, hint="Or give an hs.Task, or file.py:callable that makes one.")
    return TASKS[given]()


@dataclass(frozen=True)
class Sample:
    """A few samples, from which a task is inferred.

    Attributes:
        inputs: of the network, tensors (batch, ...).
        labels: tensors (batch, ...).
        give: runs the network on the first `TRIED` inputs; it is called where the labels alone leave a doubt.
        network: its class, for messages.
        chips: whether its outputs have chips in front.
    """

    inputs: Any
    labels: Any
    give: Callable[[], Any]
    network: str
    chips: bool = False


def choose_task(where: str, given: str | Task | None, named: str | None, sample: Callable[[], Sample]) -> Task:
    """The task that was given, else that of the data, else the one that data and outputs leave no doubt about.

    Args:
        where: the function that the caller called, which begins messages.
        given: by the caller.
        named: by the data set.
        sample: gives a few samples; asked for where nobody said the task.

    Raises:
        HpmlError: no task has this name, or data and outputs leave a doubt; the message has the tasks to choose from.
    """
    if given is not None or named is not None:
        return as_task(given if given is not None else named)  # type: ignore[arg-type]
    found = _inferred(where, sample())
    if found.name != "classification":
        _log.info("%s: the task is taken to be %s; give task= where it is another one", where, found.name)
    return found


def _inferred(where: str, sample: Sample) -> Task:
    labels = sample.labels
    if not isinstance(labels, Tensor):
        raise _doubt(where, sample, None, "labels of several tensors belong to no task of hs.tasks")
    whole = not (labels.is_floating_point() or labels.is_complex())
    if whole and labels.dim() == 1:  # the network is not asked: its outputs are checked when it is used
        return classification()
    outputs = classification().read(where, sample.give(), sample.network)
    outputs = outputs[0] if sample.chips else outputs
    if outputs.dim() == 0 or len(outputs) != min(TRIED, len(labels)):
        raise _doubt(where, sample, outputs, "expected one output for each sample")
    outputs = outputs[:1].expand(len(labels), *outputs.shape[1:])
    found = _of_classes(sample, outputs) if whole else _of_numbers(sample, outputs)
    if found is None:
        raise _doubt(where, sample, outputs, "they fit none, or more than one, of hs.tasks")
    return found


def _of_classes(sample: Sample, outputs: Tensor) -> Task | None:
    """Labels that are whole numbers, two dimensions or more."""
    labels = sample.labels
    tokens = labels.dim() == 2 and outputs.dim() == 3 and outputs.shape[:2] == labels.shape
    pixels = outputs.dim() == labels.dim() + 1 and outputs.shape[2:] == labels.shape[1:]
    if tokens and not (pixels and outputs.shape[1] == outputs.shape[2]):
        return _of_tokens(sample)
    if pixels and not tokens:
        return segmentation()
    return multi_label() if outputs.shape == labels.shape and _yes_or_no(labels) else None


def _of_tokens(sample: Sample) -> Task | None:
    """The next token where the labels are the inputs moved by one, or the inputs themselves."""
    inputs = next(tensors_in(sample.inputs))
    labels = sample.labels
    if inputs.shape != labels.shape:
        return None

    def same(a: Tensor, b: Tensor) -> bool:
        return a.numel() > 0 and bool(((a == b) | (b == IGNORED)).all())

    if same(inputs, labels):
        return language_model(shift=True)
    return language_model() if same(inputs[:, 1:], labels[:, :-1]) else None


def _of_numbers(sample: Sample, outputs: Tensor) -> Task | None:
    """Labels that are floating-point numbers."""
    labels = sample.labels
    inputs = next(tensors_in(sample.inputs))
    if inputs.shape == labels.shape and labels.numel() == outputs.numel() and torch.equal(inputs, labels):
        return reconstruction()
    # labels without a column stand for one output
    if outputs.shape != labels.shape and not (outputs.dim() == 2 and outputs.shape == (*labels.shape, 1)):
        return None
    if not bool(((labels == 0) | (labels == 1)).all()):
        return regression()
    return multi_label() if _yes_or_no(labels) else None


def _yes_or_no(labels: Tensor) -> bool:
    """Whether labels are zeros and ones of both kinds, and not one class a sample in another form (one-hot)."""
    there = labels == 1
    if labels.dim() > 2 or not bool((there | (labels == 0)).all()) or bool(there.all()) or not bool(there.any()):
        return False
    return labels.dim() == 1 or labels.shape[1] == 1 or not bool((there.sum(1) == 1).all())


def _doubt(where: str, sample: Sample, outputs: Tensor | None, why: str) -> HpmlError:
    gave = "" if outputs is None else f", outputs {shapes_of(outputs)}"
    return HpmlError(
        f"{where}: which task is it? Inputs {shapes_of(sample.inputs)[:120]}, labels {shapes_of(sample.labels)[:80]}"
        f"{gave}: {why}; give task=: {', '.join(TASKS)}, or an hs.Task of your own (of one-hot labels take "
        "labels.argmax(dim=1))"
    )
