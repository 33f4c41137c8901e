"""`Plan`: what a comparison was asked to do, checked before anything is computed, and the folder that holds it."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hpml_sim import models
from hpml_sim.cards import load_card
from hpml_sim.data import Data
from hpml_sim.errors import HpmlError
from hpml_sim.machine import versions
from hpml_sim.results import ResultFile, Row, config_hash
from hpml_sim.targets import Spiking, Target, analog_part, as_target
from hpml_sim.times import parse_time

TIMES = ("1 s", "1 h", "1 day", "1 year")


@dataclass(frozen=True)
class Plan:
    """Everything that decides the rows of a run; its hash names the run.

    Attributes:
        version: of hpml_sim; rows of different versions are never mixed in one run.
        model: the network's name. fingerprint: of the network's structure and first weights and
            of the data.
        data: the data set's name. targets: label -> configuration.
        seeds: one full repetition each. chips: programmed for each analog target. times_s: seconds since programming.
        epochs: of the digital training. tune_epochs: of the training after conversion. lr: first learning rate.
        card_versions: card -> its version.
    """

    version: str
    model: str
    fingerprint: str
    data: str
    targets: dict[str, dict[str, Any]]
    seeds: tuple[int, ...]
    chips: int
    times_s: tuple[float, ...]
    epochs: int
    tune_epochs: int
    lr: float
    card_versions: dict[str, int]

    @property
    def hash(self) -> str:
        """Twelve hex digits that are the same for the same plan."""
        return config_hash(asdict(self))


def make_plan(
    network: nn.Module,
    name: str,
    task: Data,
    targets: Mapping[str, Target],
    *,
    seeds: int | Sequence[int],
    chips: int,
    times: Sequence[str | float],
    epochs: int | None,
    tune_epochs: int | None,
    lr: float,
) -> Plan:
    """Check every argument of `compare` and write down what will be run.

    Raises:
        HpmlError: an argument out of range, with its name and what is allowed.
    """
    default = max(5, min(40, 60_000 // len(task.train)))  # type: ignore[arg-type]
    if isinstance(times, (str, int, float)) or not times:
        raise HpmlError(f"times={times!r} must be a list of at least one time, such as ['1 s', '1 day']")
    if not (math.isfinite(lr) and lr > 0):
        raise HpmlError(f"lr={lr!r} must be a finite number > 0; try 5e-3")
    return Plan(
        version=versions()["hpml_sim"],
        model=name,
        fingerprint=_fingerprint(network, task),
        data=task.name,
        targets={label: {"target": type(t).__name__, **asdict(t)} for label, t in targets.items()},
        seeds=_seeds(seeds),
        chips=_at_least("chips", chips, 1),
        times_s=tuple(sorted({parse_time(time) for time in times})),
        epochs=_at_least("epochs", default if epochs is None else epochs, 0),
        tune_epochs=_at_least("tune_epochs", -(-default // 2) if tune_epochs is None else tune_epochs, 0),
        lr=lr,
        card_versions={name: load_card(name).version for name in sorted(_cards_of(targets.values()))},
    )


def _cards_of(targets: Iterable[Target]) -> set[str]:
    """Every card that the rows rest on: of the targets, and of the crossbars that hold their weights."""
    used = {part.card for target in targets for part in (target, analog_part(target)) if part is not None}
    return {str(card) for card in used}


def labelled_targets(on: Sequence[str | Target] | Mapping[str, str | Target]) -> dict[str, Target]:
    """Targets by label: the card's name unless a mapping gives labels of its own.

    Raises:
        HpmlError: an empty list, or a label that stands twice. UnknownNameError: no card has this name.
    """
    if isinstance(on, str) or not on:
        raise HpmlError(f"on={on!r} must be a list of cards or targets, at least one, such as ['cpu', 'pcm-hermes']")
    pairs = list(on.items()) if isinstance(on, Mapping) else [(_label(target), target) for target in on]
    labels = [label for label, _ in pairs]
    if twice := {label for label in labels if labels.count(label) > 1}:
        raise HpmlError(f"on= names {sorted(twice)} twice; give a mapping from labels of your own to the targets")
    return {label: as_target(target) for label, target in pairs}


def _label(target: str | Target) -> str:
    if isinstance(target, Spiking) and target.synapses is not None:
        return f"{target.card}+{target.synapses.card}"
    return str(getattr(target, "card", target))


def resolve_model(model: str | nn.Module, task: Data, *, seed: int = 0) -> tuple[nn.Module, str]:
    """A network of the caller's own to change, and its name.

    Args:
        model: a network (copied with its weights), a built-in name, or "package.module:callable".
        task: gives built-in networks their sizes.
        seed: of the first weights, where they are drawn here.

    Raises:
        UnknownNameError: no built-in network has this name. HpmlError: the callable cannot be imported, or gives
            something that is not an `nn.Module`.
    """
    if isinstance(model, nn.Module):
        return copy.deepcopy(model), type(model).__name__
    if ":" not in model:
        return models.build(model, task.input_shape, task.classes, seed=seed), model
    return models.imported(model, seed=seed), model


def _seeds(seeds: int | Sequence[int]) -> tuple[int, ...]:
    if isinstance(seeds, int):
        return tuple(range(_at_least("seeds", seeds, 1)))
    if not seeds or len(set(seeds)) != len(seeds):
        raise HpmlError(f"seeds={list(seeds)!r} must name at least one seed, and none twice")
    return tuple(_at_least("seeds", seed, 0) for seed in seeds)


def _at_least(argument: str, value: int, least: int) -> int:
    if not isinstance(value, int) or value < least:
        raise HpmlError(f"{argument}={value!r} must be a whole number >= {least}")
    return value


def _fingerprint(network: nn.Module, task: Data) -> str:
    """Of the network's structure and first weights, and of the data: its sizes and some samples."""
    digest = hashlib.sha256(repr(network).encode())
    samples = [task.test[i] for i in range(min(16, len(task.test)))]  # type: ignore[arg-type]
    sizes = (len(task.train), len(task.test))  # type: ignore[arg-type]
    values = {**network.state_dict(), **{f"sample {i}": torch.as_tensor(x) for i, (x, _) in enumerate(samples)}}
    digest.update(repr((task.name, sizes, [int(label) for _, label in samples])).encode())
    for name, value in values.items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:12]


# ---------------------------------------------------------------------------------------------------------- the folder

OUR_FILES = ("run.json", "results.jsonl", "table.csv", "report.html")


def open_folder(folder: Path, plan: Plan, *, resume: bool, force: bool) -> list[Row]:
    """Make or take up the folder of a run; return the rows it already holds.

    Raises:
        HpmlError: another run is in it, and neither `resume` nor `force` was given (or it cannot be resumed).
    """
    asked = folder / "run.json"
    if resume and force:
        raise HpmlError("resume and force exclude each other: go on with the run in the folder, or replace it")
    if folder.exists() and not folder.is_dir():
        raise HpmlError(f"out={str(folder)!r} is a file; give a folder")
    held = _held(asked)
    if any((folder / name).exists() for name in OUR_FILES) and not force:
        if not resume:
            raise HpmlError(
                f"{folder} already holds {_described(held)}; add --resume to go on with it, --force to replace it, "
                "or choose another --out"
            )
        if held is None or held["hash"] != plan.hash:
            raise HpmlError(
                f"{folder} holds {_described(held)}, not the run asked for ({_differences(held or {}, plan)}); "
                "repeat its options, choose another --out, or replace it with --force"
            )
        return ResultFile(folder / "results.jsonl").read()
    for name in OUR_FILES:
        (folder / name).unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / "run.json.part"
    draft.write_text(json.dumps({"hash": plan.hash, **_jsonable(plan)}, indent=2))
    draft.replace(asked)
    return []


def _held(asked: Path) -> dict[str, Any] | None:
    """What an earlier `run.json` says, or None where there is none that can be read."""
    try:
        return json.loads(asked.read_text())
    except (OSError, json.JSONDecodeError):
        return None


def _described(held: dict[str, Any] | None) -> str:
    return f"run {held['hash']} ({held['model']} on {held['data']})" if held else "results without a readable run.json"


def _jsonable(plan: Plan) -> dict[str, Any]:
    return json.loads(json.dumps(asdict(plan)))


def _differences(held: dict[str, Any], plan: Plan) -> str:
    now = _jsonable(plan)
    changed = [f"{k}: {held.get(k)!r} there, {v!r} asked" for k, v in now.items() if held.get(k) != v]
    return "; ".join(changed)
