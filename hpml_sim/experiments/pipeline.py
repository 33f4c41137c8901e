"""The work behind a row: train, then three passes that never mix: scores, estimate, measurement.

`Work` says what to compute with and can be sent to another process; `train` and `rows` compute. They depend on nothing
but their arguments, so a row is the same wherever it is computed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from pydantic import ValidationError
from torch import Tensor, nn

from hpml_sim.analog import calibrate, has_analog_layers, program
from hpml_sim.analog.pulsed.training import IN_MEMORY_NOTE
from hpml_sim.cards import CrossbarCard, load_card
from hpml_sim.conversion import Converted
from hpml_sim.conversion.cloning import clone
from hpml_sim.conversion.modules import is_large
from hpml_sim.cost import Estimate, estimate, followed_bits
from hpml_sim.counting import Workload, workload
from hpml_sim.data import Data, load_data
from hpml_sim.data.batches import first
from hpml_sim.errors import HpmlError, NotFiniteError, UnsupportedTimeError
from hpml_sim.experiments.chip_integers import floating_scores, in_own_integers
from hpml_sim.experiments.compressing import Compressing
from hpml_sim.experiments.language_models import generation_figures
from hpml_sim.experiments.plan import AnyNetwork, Plan, Point, configuration, own_network
from hpml_sim.experiments.target_list import AnyTarget
from hpml_sim.experiments.timing import clock_readings
from hpml_sim.measurement import Measurement
from hpml_sim.measurement.machine import machine, versions
from hpml_sim.results import CardInfo, Row, Training, first_fault
from hpml_sim.targets import Analog, Digital, InMemory, Spiking, cards_of, crossbar_targets, in_memory
from hpml_sim.tasks.score import Score
from hpml_sim.tasks.task import Task
from hpml_sim.training import fit
from hpml_sim.training.evaluation import scores as scores_of
from hpml_sim.training.history import History
from hpml_sim.units.times import format_time

_log = logging.getLogger(__name__)

CALIBRATION_SAMPLES = 64
"""Training samples on which ranges are found; of a large network, one."""
WORKLOAD_SAMPLES = 100
"""Test samples over which activity (spikes, zeros) is averaged."""
SLOW_S = 5.0
"""Seconds of an evaluation after which its result is logged as soon as it is known."""


class Work:
    """What all rows of a run are computed from; it can be sent to another process.

    Args:
        plan: the run.
        model: a name, code by name, or a module, which is copied where it is changed.
        data: a name or the data.
        task: what is learned and measured.
    """

    def __init__(self, plan: Plan, model: AnyNetwork, data: str | Data, task: Task):
        self.plan, self.model, self.data, self.task = plan, model, data, task
        self._restored: tuple[tuple[str, int], nn.Module] | None = None
        self._compressed: tuple[tuple[str, int, Compressing], nn.Module] | None = None

    def __reduce__(self) -> tuple[type[Work], tuple[Plan, AnyNetwork, str | Data, Task]]:
        return Work, (self.plan, self.model, self.data, self.task)

    @property
    def dataset(self) -> Data:
        """The data; where a name was sent to another process, loaded there once."""
        return self.data if isinstance(self.data, Data) else _loaded(self.data, self.plan.fingerprint)

    def trained_network(self, options: Mapping[str, Any], seed: int, state: Mapping[str, Tensor]) -> nn.Module:
        """The network with its trained weights, to convert and not to change.

        It is made from the state alone, as in a resumed run or in another process: what training leaves in a module
        beside its state dict must not reach the rows. All machines of a seed are converted from the one that is kept.

        Args:
            options: arguments of the network.
            seed: of its first weights and training.
            state: what `train` gave for these two.
        """
        key = (repr(options), seed)
        if self._restored is None or self._restored[0] != key:
            network = own_network(self.model, self.dataset, options, seed=seed)
            network.load_state_dict(state)
            self._restored = (key, network)
        return self._restored[1]

    def network_for(self, point: Point, seed: int, state: Mapping[str, Tensor]) -> nn.Module:
        """The trained network, pruned and quantized as the machine's row asks, to convert and not to change.

        Args:
            point: the machine.
            seed: of the network's first weights and training.
            state: what `train` gave.
        """
        network = self.trained_network(point.network, seed, state)
        if not point.compressing:
            return network
        key = (repr(point.network), seed, point.compressing)
        if self._compressed is None or self._compressed[0] != key:
            self._compressed = (key, point.compressing.of(network, self.dataset))
        return self._compressed[1]


@lru_cache(maxsize=1)
def _loaded(name: str, _fingerprint: str) -> Data:
    """The fingerprint is there to load anew what has changed since another run."""
    return load_data(name)


def train(work: Work, options: Mapping[str, Any], seed: int) -> dict[str, Tensor] | str:
    """Make and train the digital network.

    Args:
        work: what to train, and on what.
        options: arguments of the network.
        seed: of weights and training.

    Returns:
        Its state, or why there is none: the loss was not finite.
    """
    plan = work.plan
    model = own_network(work.model, work.dataset, options, seed=seed)
    _log.info("training %s on %s (seed %d, %d epochs)", plan.model, plan.data, seed, plan.epochs)
    try:
        title = f"training {plan.model}"
        fit(model, work.dataset, task=work.task, epochs=plan.epochs, lr=plan.lr, seed=seed, title=title)
    except NotFiniteError as error:
        return _reason(error)
    return {name: value.detach().cpu() for name, value in model.state_dict().items()}


def rows(
    work: Work, point: Point, seed: int, times: Sequence[float | None], trained: Mapping[str, Tensor] | str
) -> Iterator[Row]:
    """Compute the rows of a point, one a time, each as soon as it is known.

    Where training or outputs are not finite there is a row all the same: without scores, and with the reason.

    Args:
        work: what the run computes with.
        point: the machine.
        seed: of everything random.
        times: seconds since programming, or None where nothing drifts.
        trained: what `train` gave.
    """
    plan, target, data = work.plan, point.target, work.dataset
    if isinstance(trained, str):
        notes = [f"no {work.task.metric.name}: {trained}"]
        yield from (_row(work, point, seed, time_s, notes=notes) for time_s in times)
        return
    _log.info("%s: %s", point.label, _card_info(target).title)
    network = work.network_for(point, seed, trained)
    wrote: list[str] = []
    layers: list[dict[str, Any]] = []
    try:
        if point.finetuned and isinstance(target, Digital):  # as the network itself; a target may round its weights
            network = clone(network)
            _finetune(work, point, network, seed)
        model = point.converted(network, plan.skip)
        layers = [asdict(layer) for layer in model.layers]
        if point.finetuned and not isinstance(target, Digital):
            history = _finetune(work, point, model, seed)
            wrote = [] if history.writes is None else [str(history.writes)]
    except NotFiniteError as error:
        notes = [f"no {work.task.metric.name}: {_reason(error)}"]
        yield from (_row(work, point, seed, time_s, layers=layers, notes=notes) for time_s in times)
        return
    layers = [asdict(layer) for layer in model.layers_now()]  # with the ranges that training has found
    if plan.finetune_epochs == 0 and plan.came_trained:
        _find_ranges(point, model, data)
        layers = [asdict(layer) for layer in model.layers_now()]
    floating, arithmetic = model, ""
    if isinstance(target, Spiking):
        model, arithmetic = in_own_integers(model, target, data)
        layers = [asdict(layer) for layer in model.layers_now()]
    costs = estimate_target(target, model, data, tokens=plan.tokens)
    missing = costs.missing
    estimates, decodes = (costs.systems, costs.decode_systems) if plan.scope == "system" else (costs.own, costs.decodes)
    measurements, unmeasured = clock_readings(point, model, data) if plan.timed else ([], [])
    beside = [] if floating is model else floating_scores(floating, data, work.task)
    for time_s, scores, notes in _scores(work, point.label, model, seed, times):
        yield _row(
            work, point, seed, time_s, scores=[*scores, *(beside if scores else [])], estimates=estimates,
            systems=costs.systems, decodes=decodes, decode_systems=costs.decode_systems, measurements=measurements,
            layers=layers, notes=[*notes, *wrote, *missing, *unmeasured, *_mode_notes(target)], arithmetic=arithmetic,
        )  # fmt: skip


def _finetune(work: Work, point: Point, model: nn.Module, seed: int) -> History:
    """Train a network on for a machine; 0 epochs keep it, and say so in the model's own session."""
    lr = None if in_memory(point.target) else work.plan.lr  # pulsed devices have learning rates of their own
    return fit(
        model, work.dataset, task=work.task, epochs=work.plan.finetune_epochs, lr=lr, seed=seed,
        title=f"tuning for {point.label}",
    )  # fmt: skip


def _training(work: Work, point: Point) -> Training:
    """What the network of a row was trained with."""
    plan, target = work.plan, point.target
    how = {Digital: "digital", Spiking: "surrogate gradients", InMemory: "pulses in memory"}
    return Training(
        epochs=plan.epochs,
        finetune_epochs=plan.finetune_epochs if point.finetuned else 0,
        finetuned_as=how.get(type(target), "hardware-aware") if point.finetuned and plan.finetune_epochs else "",
        lr=plan.lr,
        samples=len(work.dataset.train),  # type: ignore[arg-type]
        loss=str(plan.task.get("loss", "")),
        came_trained=plan.came_trained,
    )


def _reason(error: NotFiniteError) -> str:
    """What happened, without the name of the function that says so: whoever asked for rows called another one."""
    return str(error).removeprefix("fit: ").removeprefix("evaluate: ")


def _row(
    work: Work,
    point: Point,
    seed: int,
    time_s: float | None,
    *,
    scores: Sequence[Score] = (),
    estimates: Sequence[Estimate] = (),
    systems: Sequence[Estimate] = (),
    decodes: Sequence[Estimate] = (),
    decode_systems: Sequence[Estimate] = (),
    measurements: Sequence[Measurement] = (),
    layers: Sequence[dict[str, Any]] = (),
    notes: Sequence[str] = (),
    arithmetic: str = "",
) -> Row:
    plan = work.plan
    try:
        return Row(
            run=plan.hash,
            model=plan.model,
            data=plan.data,
            target=point.label,
            config=configuration(point.target),
            options=dict(point.options),
            card=_card_info(point.target),
            seed=seed,
            time_s=time_s,
            task=work.task.name,
            training=_training(work, point),
            scores=list(scores),
            simulated=_simulated(point.target, arithmetic),
            compression=str(point.compressing),
            estimates=list(estimates),
            systems=list(systems),
            decodes=list(decodes),
            decode_systems=list(decode_systems),
            measurements=list(measurements),
            layers=list(layers),
            notes=list(notes),
            versions=versions(),
            machine=machine(),
        )
    except ValidationError as error:  # a figure that is NaN or out of order: better no row than that one
        raise HpmlError(
            f"{point.label}, seed {seed}, time {time_s}: a figure makes no sense and is not written down: "
            f"{first_fault(error)}; the rows before it are safe. Leave this machine out, or report it with what "
            "`hpml-sim doctor` prints"
        ) from error


def _card_info(target: AnyTarget) -> CardInfo:
    """The card of a target, or those of its layers."""
    cards = [load_card(name) for name in cards_of(target)]
    return CardInfo(
        name="+".join(card.name for card in cards),
        title="; ".join(card.title for card in cards),
        kind=cards[0].kind,
        version=max(card.version for card in cards),
        scope=cards[0].scope,
    )


def _scores(
    work: Work, target: str, model: Converted, seed: int, times: Sequence[float | None]
) -> Iterator[tuple[float | None, list[Score], list[str]]]:
    """First pass: (time, scores, notes). The chips of one time are gone before those of the next are made."""
    chips = program(model, chips=work.plan.chips, seed=seed) if has_analog_layers(model) else None
    task, test = work.task, work.dataset.test
    for place, time_s in enumerate(times):
        found, notes, start = [], [], time.perf_counter()
        try:
            at_time = model if chips is None or time_s is None else chips.at(time_s)
            found = scores_of(at_time, test, task, task.metrics, notes=notes)
        except UnsupportedTimeError as error:
            notes = [str(error)]
        except NotFiniteError as error:
            notes = [f"no {task.metric.name}: {_reason(error)}"]
        if notes:
            when = "any time" if time_s is None else format_time(time_s)
            _log.warning("%s at %s: %s", f"no {task.metric.name}" if not found else "a score", when, notes[0])
        at_time = None
        seconds = time.perf_counter() - start
        if seconds > SLOW_S and found:
            when = "" if time_s is None else f" at {format_time(time_s)}"
            left = seconds * (len(times) - place - 1)
            more = f"; the other times take about {left / 60:.0f} min" if left > 60 else ""
            _log.info("%s%s: %s (%.0f s%s)", target, when, found[0].short(), seconds, more)
        yield time_s, found, notes


def _simulated(target: AnyTarget, arithmetic: str) -> str:
    """What stands behind the scores, with its source."""
    words = []
    if isinstance(target, Digital):
        words.append(f"the network itself in {target.precision} arithmetic on the machine at hand")
    if isinstance(target, Spiking):
        how = arithmetic or "in floating point"
        words.append(f"{target.neuron.name} spiking neurons {how}, with the equations of hpml_sim/kernels")
    for crossbars in crossbar_targets(target):
        if isinstance(crossbars, InMemory):
            words.append(f"{crossbars.device} devices trained in memory by aihwkit's model of them; {IN_MEMORY_NOTE}")
        else:
            card = crossbar_card(crossbars)
            noise = card.noise
            source = f"{noise.where}; {card.sources[noise.source].reference}"
            words.append(f"device noise and drift by aihwkit's model {noise.model!r} with the settings of {source}")
    return "; ".join(dict.fromkeys(words))


class Costs(NamedTuple):
    """What an inference costs on one machine.

    Attributes:
        own: estimates at the card's own scope, at each batch size, batch 1 first; of a language model: of a prompt.
        systems: the same at system scope.
        missing: why there are none, if so.
        decodes: of a language model that makes text: of one token, at the card's own scope.
        decode_systems: the same at system scope.
    """

    own: list[Estimate]
    systems: list[Estimate]
    missing: list[str]
    decodes: Sequence[Estimate] = ()
    decode_systems: Sequence[Estimate] = ()


def _find_ranges(point: Point, model: Converted, data: Data) -> None:
    """Ranges of the converters from training samples, of a network that no training brings them to."""
    if not has_analog_layers(model) or in_memory(point.target):
        return
    samples = first(data.train, 1 if is_large(model) else CALIBRATION_SAMPLES)[0]
    _log.info("%s: finding the converters' ranges on training data", point.label)
    inputs: Any = samples if isinstance(samples, (Tensor, Mapping)) else [(samples, None)]  # a batch without labels
    calibrate(model, inputs)


def estimate_target(target: AnyTarget, model: Converted, data: Data, *, tokens: int = 0) -> Costs:
    """Second pass: what the card's equations give, from counts on real samples.

    Args:
        target: the machine.
        model: the network, converted for it.
        data: its test samples are counted on.
        tokens: of a sample of a language model; 0 of other tasks.

    Returns:
        Estimates at the card's own scope and at system scope, and why there are none, if so.
    """
    try:
        if (found := generation_figures(target, model, tokens)) is not None:
            prompt, token = found
            return Costs(prompt.own, prompt.systems, [], token.own, token.systems)
    except HpmlError as error:
        _log.warning("no estimate: %s", error)
        return Costs([], [], [f"no estimate: {error}"])
    read = {"tokens": float(tokens)} if tokens else {}
    counts = workload(model, data=first(data.test, WORKLOAD_SAMPLES)[0], extra=read)
    try:
        return Costs(_estimated(target, counts), _estimated(target, counts, scope="system"), [])
    except HpmlError as error:  # a card without energy, or a network that does not fit: the scores still hold
        _log.warning("no estimate: %s", error)
        return Costs([], [], [f"no estimate: {error}"])


def _estimated(target: AnyTarget, counts: Workload, scope: Literal["system"] | None = None) -> list[Estimate]:
    batches: tuple[int | Literal["best"], ...] = (1, "best") if isinstance(target, Digital) else (1,)
    return [estimate(counts, target, batch=batch, scope=scope) for batch in batches]


def _mode_notes(target: AnyTarget) -> list[str]:
    """Where the target has other converters than its card: energy scaled to them, or not of the scores' mode."""
    return list(dict.fromkeys(note for own in crossbar_targets(target) for note in _converter_notes(own)))


def _converter_notes(analog: Analog | InMemory) -> list[str]:
    card = crossbar_card(analog)
    if card.preset is None and card.component is None:  # no figures at all
        return []
    into, out = followed_bits(card, dac_bits=analog.dac_bits, adc_bits=analog.adc_bits)
    converters = {
        "dac_bits": (analog.dac_bits, card.io.dac_bits, into),
        "adc_bits": (analog.adc_bits, card.io.adc_bits, out),
    }
    return [
        f"scores are with {name}={bits}; energy, time and area are the card's, with {int(own)}"
        if followed is None
        else f"energy and time with {name}={bits} are scaled from the card's {int(own)}: see its assumptions"
        for name, (bits, own, followed) in converters.items()
        if bits is not None and bits != int(own)
    ]


def crossbar_card(analog: Analog | InMemory) -> CrossbarCard:
    """The card of a target with crossbars.

    Args:
        analog: the target, or the synapses of one.
    """
    card = load_card(analog.card)
    assert isinstance(card, CrossbarCard)  # as_target checked it
    return card
