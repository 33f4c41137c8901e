"""The row: what a run knows of one target, seed and time, and how each figure came about.

A row holds the very objects that the library computes with (`Score`, `Estimate`, `Measurement`); written as JSON, it is
their serialised form. Reading it checks them again: bounds in order, no NaN, shares between 0 and 1, no unknown field.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from hpml_sim.cost.result import Estimate
from hpml_sim.measurement.result import Measurement
from hpml_sim.tasks.score import Score

SCHEMA = 5
"""Version of the row's format. Rows of another version are refused."""


class _Model(BaseModel):
    # strings: JSON has no infinity, and null would not come back as a number.
    # "always": an object is checked when a row takes it up, not only when a file is read.
    # defer_build: the checks are made when the first row is, which keeps `import hpml_sim` fast.
    model_config = ConfigDict(
        frozen=True, extra="forbid", ser_json_inf_nan="strings", revalidate_instances="always", defer_build=True
    )


class CardInfo(_Model):
    """The card, and its version, that a row rests on.

    Attributes:
        name: of the card, as `load_card` takes it; where layers lie on several, their names joined by "+".
        title: what it describes.
        kind: "digital", "crossbar" or "neuromorphic".
        version: of the card's figures; of several cards the largest.
        scope: what its figures include.
    """

    name: str
    title: str
    kind: str
    version: int
    scope: str


class Training(_Model):
    """What the network of a row was trained with.

    Attributes:
        epochs: passes over the training data before conversion; 0: the network as it came.
        finetune_epochs: passes over the training data after conversion.
        finetuned_as: how it was trained then: "digital", "hardware-aware" (with the noise of the crossbars), "surrogate
            gradients" (spikes), "pulses in memory"; "" where it was not.
        lr: first learning rate of both; pulsed devices have one of their own.
        samples: training samples.
        loss: the loss function.
        came_trained: whether the network had learned the task before the run.
    """

    epochs: int
    finetune_epochs: int
    finetuned_as: str = ""
    lr: float
    samples: int
    loss: str = ""
    came_trained: bool = False

    def __str__(self) -> str:
        before = "trained before the run" if self.came_trained else ""
        own = f"{self.epochs} epochs" if self.epochs else "" if before else "not trained"
        after = f"{self.finetune_epochs} {self.finetuned_as}" if self.finetune_epochs else ""
        return ", then ".join(part for part in (before, own, after) if part)


def floating_point(metric: str) -> str:
    """What the score in floating point is called, beside a `metric` that was measured in a machine's own integers."""
    return f"floating-point {metric}"


Key = tuple[str, int, float | None]
"""(target, seed, time_s)."""


class Row(_Model):
    """One (target, seed, time): scores, estimates and measurements, kept apart, and where they come from.

    Attributes:
        schema_version: of the row's format.
        run: hash of the run's configuration.
        model: name of the network.
        data: name of the data set.
        target: label of the target in this run (the card's name, or what the caller called it).
        config: the target's configuration with its class.
        options: those options of `config` that a sweep or a search chose, by name.
        card: the device card.
        seed: of everything random in this row.
        time_s: seconds since programming; None for machines that do not drift.
        task: what was learned, such as "classification".
        training: what the network was trained with.
        scores: of every metric of the task, the most important first, and of a network in a machine's integers the
            same in floating point; empty where the device model supports no such time, or where training or the
            outputs were not finite (`notes` says so).
        simulated: what was simulated to get the scores, and where it comes from.
        estimates: one a batch size, batch 1 first.
        systems: the same at system scope, which all machines have: what `Comparison.rank` orders.
        decodes: of a language model that makes text, one token with as many in the cache as a sample has; `estimates`
            are then of reading a prompt of so many tokens.
        decode_systems: the same at system scope.
        measurements: one a batch size, batch 1 first, on the machine at hand; without the time of every single call.
        layers: the conversion report, a dictionary a layer.
        compression: what was done to the trained network before it was converted, such as "pruned to 2:4, int8".
        notes: why a figure is missing, and what to keep in mind.
        versions: of the packages that computed the row.
        machine: that computed it.
    """

    schema_version: int = SCHEMA
    run: str
    model: str
    data: str
    target: str
    config: dict[str, Any]
    options: dict[str, Any] = {}
    card: CardInfo
    seed: int
    time_s: float | None
    task: str = "classification"
    training: Training | None = None
    scores: list[Score]
    simulated: str = ""
    estimates: list[Estimate]
    systems: list[Estimate] = []
    decodes: list[Estimate] = []
    decode_systems: list[Estimate] = []
    measurements: list[Measurement]
    layers: list[dict[str, Any]]
    compression: str = ""
    notes: list[str]
    versions: dict[str, str]
    machine: dict[str, str]

    def __repr__(self) -> str:
        when = "" if self.time_s is None else f", time_s={self.time_s:g}"
        score = f"no {self.task} score" if self.score is None else self.score.short()
        return f"Row({self.target!r}, seed={self.seed}{when}: {score}, {len(self.estimates)} estimates)"

    @property
    def score(self) -> Score | None:
        """The score of the most important metric; None where there is none."""
        return self.scores[0] if self.scores else None

    @property
    def floating_point(self) -> Score | None:
        """The same score in floating point, where `score` is in the machine's own integers; None elsewhere."""
        name = floating_point(self.scores[0].metric) if self.scores else ""
        return next((score for score in self.scores if score.metric == name), None)

    @property
    def key(self) -> Key:
        """What makes a row the same row: (target, seed, time_s)."""
        return (self.target, self.seed, self.time_s)


def first_fault(error: ValidationError) -> str:
    """The first fault in an `error` of a row, on one line: its place in the row, and what is wrong."""
    fault = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in fault["loc"])
    return f"{place}: {fault['msg']}" if place else fault["msg"]


def config_hash(config: dict[str, Any]) -> str:
    """Twelve hex digits of the SHA-256 of a configuration `config`, independent of the order of its keys."""
    canonical = json.dumps(config, sort_keys=True, default=str, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]
