"""`compare`: one network on many machines. Accuracy, estimate and measurement are three passes that never mix.

For every seed the network is trained once; for every target it is converted, tuned where the machine needs it
(hardware-aware or surrogate-gradient training), programmed onto chips where the machine is analog, evaluated, counted
and estimated. Each row is on disk as soon as it is known.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from hpml_sim.analog import has_analog_layers, program
from hpml_sim.analog.in_memory import IN_MEMORY_NOTE
from hpml_sim.cards import Card, CrossbarCard, DigitalCard, load_card
from hpml_sim.census import Census, census
from hpml_sim.convert import Converted, convert
from hpml_sim.data import Data, load_data, stacked
from hpml_sim.errors import HpmlError, UnsupportedTimeError
from hpml_sim.estimate import Estimate, estimate
from hpml_sim.evaluation import Accuracy, evaluate
from hpml_sim.machine import machine, versions
from hpml_sim.meters import Measurement, measure
from hpml_sim.plan import TIMES, Plan, labelled_targets, make_plan, open_folder, resolve_model
from hpml_sim.results import (
    AccuracyRow,
    CardInfo,
    EstimateRow,
    MeasurementRow,
    ResultFile,
    Row,
    to_frame,
)
from hpml_sim.targets import Analog, Digital, Spiking, Target, analog_part, in_memory
from hpml_sim.times import format_time
from hpml_sim.training import fit

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_log = logging.getLogger(__name__)

CENSUS_SAMPLES = 100
"""Test samples over which activity (spikes, zeros) is averaged."""


@dataclass(frozen=True)
class Comparison:
    """The rows of a finished comparison, and what people make of them."""

    rows: tuple[Row, ...]
    plan: Plan
    folder: Path | None

    def table(self) -> pd.DataFrame:
        """One line a (target, seed, time, batch); units in the column names."""
        return to_frame(self.rows)

    def plot(self) -> Figure:
        """Energy of one inference against accuracy, a panel for each scope."""
        from hpml_sim.report.plots import energy_against_accuracy

        return energy_against_accuracy(self.rows)

    def report(self, path: str | Path) -> Path:
        """Write the one-file HTML report and return its path."""
        from hpml_sim.report.html import write_report

        return write_report(self.rows, path, run=asdict(self.plan))


def compare(
    model: str | nn.Module,
    data: str | Data | tuple,
    on: Sequence[str | Target] | Mapping[str, str | Target],
    *,
    seeds: int | Sequence[int] = 1,
    chips: int = 25,
    times: Sequence[str | float] = TIMES,
    epochs: int | None = None,
    tune_epochs: int | None = None,
    lr: float = 5e-3,
    out: str | Path | None = None,
    resume: bool = False,
    force: bool = False,
) -> Comparison:
    """Run one network on several machines.

    Args:
        model: a built-in name ("mlp", "cnn"), "package.module:callable" (called without arguments, must return an
            `nn.Module`), or a network, which is copied, never changed.
        data: a name, a `Data`, or a (train, test) pair of datasets of (input, label).
        on: cards' names, targets, or a mapping from a label of your choice to either.
        seeds: how many (0, 1, ...), or which: of the first weights (where a name is given), training and chips.
        chips: programmed chips of each analog target, >= 1.
        times: since programming, seconds or strings such as "1 h"; machines without drift ignore them.
        epochs: of the digital training; by default chosen from the size of the data (40 for digits), 0 keeps the
            network as it comes.
        tune_epochs: of the training after conversion; by default half as many.
        lr: first learning rate of both.
        out: folder for `run.json`, `results.jsonl`, `table.csv` and `report.html`; None keeps the rows in memory.
        resume: go on with a run that `out` holds.
        force: replace a run that `out` holds.

    Raises:
        HpmlError: a name that does not exist, an argument out of range, or a folder with another run in it; raised
            before anything is computed or written.
    """
    targets = labelled_targets(on)
    task = load_data(data)
    network, name = resolve_model(model, task)
    plan = make_plan(
        network, name, task, targets,
        seeds=seeds, chips=chips, times=times, epochs=epochs, tune_epochs=tune_epochs, lr=lr,
    )  # fmt: skip
    folder = None if out is None else Path(out)
    known = [] if folder is None else open_folder(folder, plan, resume=resume, force=force)
    file = None if folder is None else ResultFile(folder / "results.jsonl")

    rows = list(known)
    for row in _run(plan, targets, model, task, done={row.key for row in known}):
        if file is not None:
            file.append(row)
        rows.append(row)
    order = {label: i for i, label in enumerate(targets)}
    rows.sort(key=lambda row: (order[row.target], row.seed, -1.0 if row.time_s is None else row.time_s))
    comparison = Comparison(tuple(rows), plan, folder)
    if folder is not None:
        comparison.table().to_csv(folder / "table.csv", index=False)
        comparison.report(folder / "report.html")
    return comparison


# ------------------------------------------------------------------------------------------------------------ the work


def _run(
    plan: Plan, targets: Mapping[str, Target], model: str | nn.Module, task: Data, *, done: set[tuple]
) -> Iterator[Row]:
    for seed in plan.seeds:
        open_targets = {label: t for label, t in targets.items() if not _wanted(plan, label, t, seed) <= done}
        if not open_targets:
            continue
        trained, _ = resolve_model(model, task, seed=seed)
        _log.info("training %s on %s (seed %d, %d epochs)", plan.model, plan.data, seed, plan.epochs)
        fit(trained, task, epochs=plan.epochs, lr=plan.lr, seed=seed, title=f"training {plan.model}")
        for label, target in open_targets.items():
            _log.info("%s: %s", label, load_card(target.card).title)
            for row in _target_rows(plan, label, target, trained, task, seed):
                if row.key not in done:
                    yield row


def _wanted(plan: Plan, label: str, target: Target, seed: int) -> set[tuple]:
    times = plan.times_s if analog_part(target) and not in_memory(target) else (None,)
    return {(label, seed, time) for time in times}


def _target_rows(plan: Plan, label: str, target: Target, trained: nn.Module, task: Data, seed: int) -> Iterator[Row]:
    machine_model = convert(trained, target)
    if not isinstance(target, Digital):
        lr = None if in_memory(target) else plan.lr  # pulsed devices have learning rates of their own
        fit(machine_model, task, epochs=plan.tune_epochs, lr=lr, seed=seed, title=f"tuning for {label}")
    card = load_card(target.card)
    estimates, missing = _estimates(target, machine_model, task)
    measurements = [_measurement_row(m) for m in _measurements(card, target, machine_model, task)]
    for time_s, accuracy, notes in _accuracies(plan, machine_model, task, seed):
        yield Row(
            run=plan.hash,
            model=plan.model,
            data=plan.data,
            target=label,
            config=plan.targets[label],
            card=CardInfo(name=card.name, title=card.title, kind=card.kind, version=card.version, scope=card.scope),
            seed=seed,
            time_s=time_s,
            accuracy=None if accuracy is None else _accuracy_row(accuracy),
            accuracy_model=_simulated(target),
            estimates=[_estimate_row(e) for e in estimates],
            measurements=measurements,
            layers=[asdict(layer) for layer in machine_model.layers],
            notes=[*notes, *missing, *_mode_notes(target)],
            versions=versions(),
            machine=machine(),
        )


def _accuracies(
    plan: Plan, model: Converted, task: Data, seed: int
) -> Iterator[tuple[float | None, Accuracy | None, list[str]]]:
    """First pass: (time, accuracy or None, notes)."""
    if not has_analog_layers(model):
        yield None, evaluate(model, task), []
        return
    chips = program(model, chips=plan.chips, seed=seed)
    for time_s in plan.times_s:
        try:
            yield time_s, evaluate(chips.at(time_s), task), []
        except UnsupportedTimeError as error:
            _log.warning("no accuracy at %s: %s", format_time(time_s), error)
            yield time_s, None, [str(error)]


def _simulated(target: Target) -> str:
    """What stands behind the accuracy, with its source."""
    words = []
    if isinstance(target, Digital):
        words.append(f"the network itself in {target.precision} arithmetic on the machine at hand")
    if isinstance(target, Spiking):
        words.append(f"{target.neuron} spiking neurons in floating point, with the equations of hpml_sim/kernels")
    if (analog := analog_part(target)) is not None and analog.device is not None:
        words.append(f"{analog.device} devices trained in memory by aihwkit's model of them; {IN_MEMORY_NOTE}")
    elif analog is not None:
        card = _crossbar(analog)
        noise = card.noise
        source = f"{noise.where}; {card.sources[noise.source].reference}"
        words.append(f"device noise and drift by aihwkit's model {noise.model!r} with the settings of {source}")
    return "; ".join(words)


def _estimates(target: Target, model: Converted, task: Data) -> tuple[list[Estimate], list[str]]:
    """Second pass: what the card's equations give, from counts on real samples; and why there is nothing, if so."""
    counts = census(model, data=stacked(task.test)[0][:CENSUS_SAMPLES])
    try:
        return _estimated(target, model, counts), []
    except HpmlError as error:  # a card without energy, or a network that does not fit: the accuracy still holds
        _log.warning("no estimate: %s", error)
        return [], [f"no estimate: {error}"]


def _estimated(target: Target, model: Converted, counts: Census) -> list[Estimate]:
    if isinstance(target, Digital):
        return [estimate(counts, target.card, batch=b, precision=target.precision) for b in (1, "best")]
    analog = analog_part(target)
    if analog is None:
        return [estimate(counts, target.card)]
    left = [f"network.{layer.layer}" for layer in model.layers if layer.tiles is None]
    digital = [
        counted.name
        for counted in counts.layers
        if counted.rows and any(counted.name == name or counted.name.startswith(f"{name}.") for name in left)
    ]
    return [estimate(counts, _with_slices(_crossbar(analog), analog.slices), digital_layers=digital)]


def _with_slices(card: CrossbarCard, slices: int) -> CrossbarCard:
    """The card with that many times the columns for a weight, so that tiles, energy and area count every slice."""
    cells = card.array.cells_per_weight
    array = card.array.model_copy(update={"cells_per_weight": cells.model_copy(update={"value": cells.value * slices})})
    return card.model_copy(update={"array": array})


def _mode_notes(target: Target) -> list[str]:
    """Where accuracy and energy are not of one mode, because the target has other converters than its card."""
    analog = analog_part(target)
    if analog is None:
        return []
    io = _crossbar(analog).io
    asked = {"dac_bits": (analog.dac_bits, io.dac_bits), "adc_bits": (analog.adc_bits, io.adc_bits)}
    return [
        f"accuracy is with {name}={bits}; energy, time and area are the card's, with {int(own)}"
        for name, (bits, own) in asked.items()
        if bits is not None and bits != int(own)
    ]


def _measurements(card: Card, target: Target, model: Converted, task: Data) -> list[Measurement]:
    """Third pass: the clock, where the card's device is the machine at hand."""
    device = _device_at_hand(card)
    if not isinstance(target, Digital) or device is None:
        return []
    samples = stacked(task.test)[0]
    placed = model.to(device)
    try:
        return [measure(placed, samples[:batch].to(device)) for batch in (1, min(256, len(samples)))]
    finally:
        model.to("cpu")


def _device_at_hand(card: Card) -> torch.device | None:
    """The device of this machine that the card may be held against: any CPU, or the GPU of the card's name."""
    if not isinstance(card, DigitalCard):
        return None
    if card.device == "cpu":
        return torch.device("cpu")
    if torch.cuda.is_available() and card.name.split("-")[0].upper() in torch.cuda.get_device_name().upper():
        return torch.device("cuda")
    return None


def _crossbar(analog: Analog) -> CrossbarCard:
    card = load_card(analog.card)
    assert isinstance(card, CrossbarCard)  # as_target checked it
    return card


# -------------------------------------------------------------------------------------------------- rows from figures


def _accuracy_row(a: Accuracy) -> AccuracyRow:
    over = "chips" if a.n > 1 else "test samples"
    return AccuracyRow(values=list(a.values), mean=a.mean, std=a.std, n=a.n, samples=a.samples, ci95=a.ci95, over=over)


def _estimate_row(e: Estimate) -> EstimateRow:
    fields = {name: value for name, value in asdict(e).items() if name in EstimateRow.model_fields}
    return EstimateRow.model_validate({**fields, "how": e.how})


def _measurement_row(m: Measurement) -> MeasurementRow:
    fields = {name: value for name, value in asdict(m).items() if name in MeasurementRow.model_fields}
    return MeasurementRow.model_validate(fields)
