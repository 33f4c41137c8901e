"""`Task`: what is learned and what is measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from hpml_sim.conversion.network_call import shapes_of, tensors_in
from hpml_sim.errors import HpmlError, shown
from hpml_sim.tasks.metric import Metric, as_metrics

_WITH_OPTIONS = {"PSNR": "; hs.tasks.reconstruction(peak=1.0) measures PSNR of values up to 1.0"}
"""Metrics that a task of ours has where an option says what the data do not."""
_MOST_FIELDS = 3
"""Fields of an output that a message offers."""

Loss = Callable[[Tensor, Any], Tensor]
"""(outputs, labels) of a batch -> the mean loss, a scalar."""
Distillation = Callable[[Tensor, Tensor, float, Any], Tensor]
"""(outputs, teacher's outputs, temperature, labels) of a batch -> what takes the model to the teacher, a scalar. Labels
only say what to leave out."""
IGNORED = -100
"""The label of what is left out, as in torch's cross-entropy."""


class LabelCheck(Protocol):
    """Labels as loss and metrics take them, or an error."""

    def __call__(self, where: str, labels: Any, inputs: int, outputs: Tensor | None) -> Any:
        """The labels of a batch in the right type.

        Args:
            where: the function that the caller called, which begins the message, such as "fit".
            labels: what was given.
            inputs: how many samples the batch has.
            outputs: of the network, (batch, ...); None where they are not known yet.

        Raises:
            HpmlError: they do not fit the task.
        """
        ...


def finite_labels(where: str, labels: Any, inputs: int, outputs: Tensor | None) -> Any:
    """The labels as they are, if they are finite and as many as the inputs: what a task of your own checks.

    Args:
        where: begins the message.
        labels: tensors (batch, ...), one or several.
        inputs: samples of the batch.
        outputs: not looked at.

    Raises:
        HpmlError: NaN, infinity, or another number of labels.
    """
    for part in tensors_in(labels):
        if part.dim() == 0 or len(part) != inputs:
            raise HpmlError(f"{where}: labels {shapes_of(labels)} for {inputs} inputs: must be one for each input")
        if part.is_floating_point() and not bool(torch.isfinite(part).all()):
            raise HpmlError(
                f"{where}: labels {shapes_of(labels)} hold NaN or infinity; leave these samples out, or mend them"
            )
    return labels


def soft_targets(outputs: Tensor, teacher: Tensor, temperature: float, labels: Any = None) -> Tensor:
    """temperature^2 KL(teacher || model) of the softened classes, which lie along the second axis.

    Source: G. Hinton, O. Vinyals, J. Dean, arXiv:1503.02531, 2015.

    Args:
        outputs: logits, (batch, classes, ...).
        teacher: logits, of the same shape.
        temperature: of both, > 0.
        labels: whole numbers (batch, ...): positions with -100 are left out. Others, or None: all count.
    """
    # with the classes last: a language model has its logits so in memory, and is three times as fast
    soft, target = (
        (t if temperature == 1 else t / temperature).movedim(1, -1).flatten(0, -2).log_softmax(-1)
        for t in (outputs, teacher)
    )
    if isinstance(labels, Tensor) and labels.shape == outputs[:, 0].shape and bool((labels == IGNORED).any()):
        meant = (labels != IGNORED).flatten()
        soft, target = soft[meant], target[meant]
    kl = nn.functional.kl_div(soft, target, reduction="sum", log_target=True)
    return temperature**2 * kl / max(len(soft), 1)


def squared_distance(outputs: Tensor, teacher: Tensor, temperature: float, labels: Any = None) -> Tensor:
    """Mean squared distance of the outputs: what numbers are distilled by.

    Args:
        outputs: (batch, ...).
        teacher: of the same shape.
        temperature: not read: numbers are not softened.
        labels: not read.
    """
    return nn.functional.mse_loss(outputs, teacher)


@dataclass(frozen=True)
class Task:
    """What a network learns and how it is measured; `hs.tasks` has the usual ones.

    Attributes:
        loss: (outputs, labels) of a batch -> the mean loss, a scalar, such as `torch.nn.functional.l1_loss` or
            `torch.nn.L1Loss()`.
        metrics: what is measured, the most important first: an `hs.tasks.Metric`, a metric of torchmetrics, or several.
        outputs: how the outputs are read from what the network gives: a name of a field or a key, the place in a tuple,
            or a function, which sees what one chip gave. None takes a tensor as it is, and of an object or a mapping
            its "logits".
        name: in tables and logs.
        labels: checks the labels of a batch and gives them in the right type; see `LabelCheck`.
        distillation: what takes the outputs to those of a teacher; see `Distillation`.
        layout: of the outputs, in messages, such as "(batch, classes)".
        more_dims: how many more dimensions outputs have than labels; None where that is not known.

    Raises:
        HpmlError: a field of another kind.

    Example:
        >>> import torch, hpml_sim as hs
        >>> task = hs.Task(
        ...     loss=torch.nn.functional.l1_loss,
        ...     metrics=hs.tasks.Metric("absolute error", lambda y, t: (y - t).abs().mean(1), higher_is_better=False),
        ... )
        >>> x = torch.rand(64, 4, generator=torch.Generator().manual_seed(0))
        >>> data = torch.utils.data.TensorDataset(x, x.sum(1, keepdim=True))
        >>> net = torch.nn.Linear(4, 1)
        >>> _ = hs.fit(net, data, task=task, epochs=200, lr=0.05)
        >>> score = hs.evaluate(net, data, task=task)
        >>> score.metric, score.mean < 0.1
        ('absolute error', True)
    """

    loss: Loss
    metrics: Any
    outputs: str | int | Callable[[Any], Tensor] | None = None
    name: str = "custom"
    labels: LabelCheck = finite_labels
    distillation: Distillation = squared_distance
    layout: str = "(batch, ...)"
    more_dims: int | None = None

    def __post_init__(self) -> None:
        if not callable(self.loss):
            raise HpmlError(
                f"Task: loss={shown(self.loss)}: must be a function (outputs, labels) -> scalar, such as "
                "torch.nn.functional.l1_loss"
            )
        object.__setattr__(self, "metrics", as_metrics(self.metrics))
        if not (self.outputs is None or isinstance(self.outputs, (str, int)) or callable(self.outputs)):
            raise HpmlError(
                f"Task: outputs={shown(self.outputs)}: must be the name of a field such as 'logits', a place in a "
                "tuple such as 0, a function, or None"
            )
        if not isinstance(self.name, str):
            raise HpmlError(f"Task: name={shown(self.name)}: must be text")

    def __repr__(self) -> str:
        names = ", ".join(metric.name for metric in self.metrics)
        read = "" if self.outputs is None else f", outputs={shown(self.outputs)}"
        return f"<Task {self.name}: {names}{read}>"

    @property
    def metric(self) -> Metric:
        """The most important metric."""
        return self.metrics[0]

    def metric_named(self, name: str | Metric | None) -> Metric:
        """One of its metrics.

        Args:
            name: of the metric, as the task or a table's column spells it; a metric itself; None takes the first.

        Raises:
            HpmlError: the task has no metric of this name.
        """
        if name is None or isinstance(name, Metric):
            return name or self.metric
        found = next((m for m in self.metrics if name in (m.name, m.column)), None)
        if found is None:
            raise HpmlError(
                f"metric={shown(name)}: the task {self.name!r} has {', '.join(repr(m.name) for m in self.metrics)}; "
                f"give one of these, or an hs.tasks.Metric{_WITH_OPTIONS.get(str(name).upper(), '')}"
            )
        return found

    def settings(self) -> dict[str, Any]:
        """What of the task decides results, as plain values."""
        return {
            "name": self.name,
            "loss": _name_of(self.loss),
            "metrics": [[metric.name, metric.unit, metric.higher_is_better] for metric in self.metrics],
            "outputs": self.outputs if isinstance(self.outputs, (str, int, type(None))) else _name_of(self.outputs),
        }

    def with_outputs(self, outputs: str | int | Callable[[Any], Tensor] | None) -> Task:
        """The same task, whose outputs are read in another way.

        Args:
            outputs: as the attribute.
        """
        return replace(self, outputs=outputs)

    def read(self, where: str, given: Any, network: str) -> Tensor:
        """The outputs in what a network gave.

        Args:
            where: the function that the caller called, which begins the message.
            given: a tensor, or an object, a mapping or a tuple with tensors.
            network: its class, for messages.

        Raises:
            HpmlError: the field is not there, there are several tensors and nobody said which, or it is no tensor.
        """
        found = self._field(where, given, network)
        if not isinstance(found, Tensor):
            raise HpmlError(
                f"{where}: {network} gave {_described(found)}; expected a tensor of outputs {self.layout}: say where "
                f"it is, such as {_where(found)}, or let forward() give these alone"
            )
        return found

    def _field(self, where: str, given: Any, network: str) -> Any:
        if callable(self.outputs):
            return self.outputs(given)
        if self.outputs is None:
            if isinstance(given, Tensor):
                return given
            named = _named(given)
            if "logits" in named:
                return named["logits"]
            return given[0] if isinstance(given, (tuple, list)) and len(given) == 1 else given
        if isinstance(self.outputs, int):
            if isinstance(given, (tuple, list)) and -len(given) <= self.outputs < len(given):
                return given[self.outputs]
        elif self.outputs in (named := _named(given)):
            return named[self.outputs]
        raise HpmlError(
            f"{where}: outputs={self.outputs!r}: {network} gave {_described(given)}; name one of its fields"
        )


def _named(given: Any) -> Mapping[str, Any]:
    """The fields of an object, or the entries of a mapping."""
    if isinstance(given, Mapping):
        return given
    if isinstance(given, (Tensor, nn.Module)):
        return {}
    if isinstance(given, tuple):
        return given._asdict() if isinstance(given, tuple) and hasattr(type(given), "_asdict") else {}  # type: ignore[attr-defined]
    return vars(given) if hasattr(given, "__dict__") else {}


def _where(given: Any) -> str:
    """How the tensors that a network gave are asked for: by the names that they have."""
    parts: Any = _named(given)
    if not parts and isinstance(given, (tuple, list)):
        parts = dict(enumerate(given))
    chosen = [field for field, part in parts.items() if isinstance(part, Tensor)][:_MOST_FIELDS] or ["logits", 0]
    return " or ".join(f"task=task.with_outputs({field!r})" for field in chosen)


def _described(given: Any) -> str:
    """What a network gave, in a few words without values."""
    if isinstance(given, Tensor):
        return f"a tensor {shapes_of(given)}"
    if isinstance(given, (tuple, list)) and not _named(given):
        return f"a {type(given).__name__} of {len(given)}: {shapes_of(given)[:160]}"
    fields_of = {name: part for name, part in _named(given).items() if part is not None}
    return f"{type(given).__name__} with {shapes_of(fields_of)[:160]}" if fields_of else f"<{type(given).__name__}>"


def _name_of(function: Any) -> str:
    if isinstance(function, nn.Module):
        return " ".join(repr(function).split())
    own = getattr(function, "func", function)
    return f"{getattr(own, '__module__', '')}.{getattr(own, '__qualname__', type(own).__name__)}"
