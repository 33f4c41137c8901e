"""What a run refuses before anything is computed: networks, data and machines that do not go together.

A dry run asks the same questions, so it refuses what the run refuses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hpml_sim.analog import calibrate, has_analog_layers, program
from hpml_sim.analog.devices import DeviceModel
from hpml_sim.conversion import Converted, convert
from hpml_sim.conversion.cloning import clone
from hpml_sim.data import Data
from hpml_sim.data.batches import first
from hpml_sim.errors import HpmlError, needs
from hpml_sim.experiments.config import Objective, SearchConfig
from hpml_sim.experiments.pipeline import crossbar_card, estimate_target
from hpml_sim.experiments.plan import Point, given_network, network_name
from hpml_sim.experiments.target_list import AnyTarget
from hpml_sim.targets import Analog, crossbar_targets

COLUMNS: Mapping[Objective, str] = {"accuracy": "accuracy_mean", "energy": "energy_j", "latency": "latency_s"}
"""Objective -> the column of its figures; the estimated ones are attributes of an `Estimate`, too."""


def check_samples(model: str | nn.Module, task: Data) -> None:
    """Send two samples through a copy of the network: it must take their shape and give a logit for each class.

    Args:
        model: a name, code by name, or a module.
        task: the data.

    Raises:
        HpmlError: the network fails on the samples, or gives something else.
    """
    x = torch.stack([torch.as_tensor(task.test[i % len(task.test)][0]) for i in range(2)])  # type: ignore[arg-type]
    where = f"model {network_name(model)!r} on data {task.name!r}"
    network = given_network(model, task, {})
    # A call may change more than the state dict (counters, caches), so not even a network of ours is called itself.
    tried = clone(network).eval()
    device = next((tensor.device for tensor in [*tried.parameters(), *tried.buffers()]), x.device)
    devices = [device] if device.type == "cuda" else []
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=devices):
            y = tried(x.to(device))
    except Exception as error:  # whatever the code of a user's network raises
        raise HpmlError(
            f"{where}: a batch of two samples, shape {tuple(x.shape)}, stops it with {type(error).__name__}: {error}; "
            "change the network or the data so that they fit"
        ) from error
    if not isinstance(y, Tensor) or y.ndim != 2 or len(y) != 2 or y.shape[1] < task.classes:
        got = f"a tensor of shape {tuple(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
        raise HpmlError(
            f"{where}: two samples must give logits of shape (2, {task.classes}), one for each class; they give {got}"
        )


def check_conversions(model: str | nn.Module, task: Data, points: Sequence[Point]) -> None:
    """Convert every network once for every machine, so that one that fails is named before anything is trained.

    Args:
        model: a name, code by name, or a module.
        task: the data.
        points: the machines.

    Raises:
        ConversionError: a network that a machine cannot run.
        HpmlError: a network that cannot be made, or a package that the device model of a machine needs and lacks.
    """
    networks: dict[str, nn.Module] = {}
    for point in points:
        options = repr(point.network)
        if options not in networks:
            networks = {options: given_network(model, task, point.network)}
        try:
            _check_programming(convert(networks[options], point.target), point.target, task)
        except ImportError as error:
            raise HpmlError(f"{point.label}: {error}") from error


def _check_programming(converted: Converted, target: AnyTarget, task: Data) -> None:
    """Ask now what programming asks after the training: for the device model, and what aihwkit's tiles can hold."""
    programmed = [own for own in crossbar_targets(target) if isinstance(own, Analog)]
    for analog in programmed:
        DeviceModel(crossbar_card(analog).noise)
    if any(analog.engine == "aihwkit" for analog in programmed) and has_analog_layers(converted):
        calibrate(converted, first(task.test, 2)[0])
        program(converted, chips=1, seed=0)


def check_search(config: SearchConfig, point: Point, model: str | nn.Module, task: Data) -> None:
    """Refuse objectives that the machine has no figures for, and a search without Optuna.

    Args:
        config: objectives and options.
        point: the machine.
        model: the network.
        task: the data.

    Raises:
        HpmlError: no objectives, one that stands twice or has no figure on this machine, or Optuna is missing.
    """
    if not config.objectives or len(set(config.objectives)) != len(config.objectives):
        raise HpmlError(f"objectives={config.objectives} must name at least one, none twice: {', '.join(COLUMNS)}")
    with needs("search", "hpml_sim[tune]"):
        import optuna  # noqa: F401
    if set(config.objectives) <= {"accuracy"}:
        return
    # Whether a card has energy and latency depends on the card and on the shapes, not on the training.
    found, missing = estimate_target(
        point.target, convert(given_network(model, task, point.network), point.target), task
    )
    for name in config.objectives:
        if name != "accuracy":
            check_figures(name, point.label, [getattr(estimate, COLUMNS[name]) for estimate in found[:1]], missing)


def check_figures(objective: Objective, label: str, figures: Sequence[Any], notes: Sequence[str]) -> None:
    """Refuse an objective without a figure.

    Args:
        objective: what the search weighs.
        label: of the machine.
        figures: of the rows; None where one has none.
        notes: why there is none.

    Raises:
        HpmlError: there is no figure, or one row has none.
    """
    if not figures or any(figure is None for figure in figures):
        raise HpmlError(
            f"objective {objective!r}: {label} has no such figure ({'; '.join(notes)}); search for other objectives or "
            "on another card"
        )
