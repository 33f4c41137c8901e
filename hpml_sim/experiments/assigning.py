"""`hs.assign`: which layers of a network go onto crossbars, and with which converters, under a floor of the score."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from torch import nn

from hpml_sim.conversion import Converted
from hpml_sim.conversion.converting import LayerChoice
from hpml_sim.conversion.modules import check_network, is_large
from hpml_sim.data import Data, load_data, samples_of
from hpml_sim.data.batches import Samples, first
from hpml_sim.errors import HpmlError, check_choice, check_real, check_whole, shown
from hpml_sim.experiments.assignment import AssignedLayer, Assignment, figure, points, target_text
from hpml_sim.experiments.assignment_search import Found, Search
from hpml_sim.experiments.assignment_trials import ChipTrials, Costs, as_targets
from hpml_sim.targets import Analog, as_target
from hpml_sim.tasks.metric import Metric
from hpml_sim.tasks.score import RATIO, SHARE, Score
from hpml_sim.tasks.task import Task
from hpml_sim.training.evaluation import scores, task_of
from hpml_sim.training.progress import progress
from hpml_sim.units.times import format_time, parse_time

if TYPE_CHECKING:
    import pandas as pd

CALIBRATION_SAMPLES = 128
"""Training samples on which ranges are found and operations counted; of a large network, one."""
Candidate = Analog | str | Path


def assign(
    model: nn.Module,
    data: str | Data | tuple[Samples, Samples],
    target: Candidate | Sequence[Candidate] = "pcm-hermes",
    *,
    loses_at_most: float | None = None,
    floor: float | None = None,
    times: Sequence[str | float] = ("1 day", "1 year"),
    task: str | Task | None = None,
    metric: str | Metric | None = None,
    chips: int = 6,
    seed: int = 0,
    evaluations: int = 30,
    sensitivity: Literal["chips", "converters"] | None = None,
    only: LayerChoice = None,
    skip: LayerChoice = None,
) -> Assignment:
    """Choose the layers that go onto crossbars, so that the score stays above a floor and energy is least.

    All layers that save energy are tried on crossbars first. Where the chips then lose too much, what each layer loses
    alone at the last time is measured on a third of the chips, layers are put in order by what they lose for each joule
    saved, the longest beginning of that order that holds is found by bisection, and exchanges of layers are tried with
    what is left of the budget. Of several targets, each layer takes the one that suits it. The network is taken as it
    is: one that was trained for the hardware (`hs.fit` of a converted one, then `hs.to_digital`) loses less. Energies
    are of one inference at system scope, where a layer that stays digital costs arithmetic, memory and time.

    Which assignment is taken depends on the samples it was tried on. Choose on validation samples, as the second of a
    pair, and score the result on others and on chips of another seed.

    Source: C. Lammie et al., LionHeart: A Layer-Based Mapping Framework for Heterogeneous Systems With Analog
    In-Memory Computing Tiles, IEEE Transactions on Emerging Topics in Computing (2025).

    Args:
        model: the trained network. It is not changed.
        data: a name, a `Data`, or a pair of training samples, on which ranges are found, and samples that are scored.
        target: crossbars that a layer may be on: an `hs.Analog`, a card's name or path, or a list of them, such as
            converters of other bits or ranges. Cards must be of one scope.
        loses_at_most: what the mean over the chips may lose against the network itself at each of the times, >= 0, in
            the unit of the metric: 0.01 of accuracy is one point. None: 0.01 of a share or ratio.
        floor: in its place, the worst score that is allowed, in the unit of the metric.
        times: seconds since programming, or texts such as "1 day".
        task: what is measured: a name of `hs.tasks` or an `hs.Task`; None takes that of the data, or the only one that
            fits.
        metric: which of the task's metrics, by name, or an `hs.tasks.Metric`; None takes the first.
        chips: programmed for each assignment, >= 1.
        seed: of the chips, 0 to 2^63 - 1.
        evaluations: assignments and single layers that are programmed and scored at most, >= 1.
        sensitivity: how what a layer loses alone is found: on "chips", an evaluation each, or from what its
            "converters" lose, without one. None takes chips where the budget is large enough.
        only: layers that may be on crossbars: names or a predicate, as in `hs.convert`; None: all that can.
        skip: layers that stay digital, in the same way; None: none.

    Returns:
        A mapping from layers to targets, which `hs.convert` and `hs.compare` take, with all evaluations and the order.

    Raises:
        HpmlError: an argument out of range, a floor that the network itself or no assignment that was tried reaches
            (the message names the nearest that does), crossbars that save nothing, or a network that is converted.
        ConversionError: no layer can be put onto crossbars.
        UnknownNameError: no card, data set, task, metric or layer has this name.

    Example:
        >>> import torch, hpml_sim as hs
        >>> net = hs.models.mlp(64, 64, 10)
        >>> _ = hs.fit(net, "digits", epochs=2, lr=1e-2)
        >>> found = hs.assign(net, "digits", loses_at_most=0.05, times=["1 day"], chips=2)
        >>> list(found), hs.convert(net, found).report["became"].tolist()  # the head takes less in digital
        (['1'], ['digital', 'AnalogLinear', 'digital', 'digital'])
    """
    check_network("assign: model", model, other=data)
    if isinstance(model, Converted):
        raise HpmlError(
            "assign: model is converted already; give the network that it was made from, or hs.to_digital(model)"
        )
    candidates = _candidates(target)
    times_s = _times(times)
    chips = check_whole("assign: chips", chips, low=1)
    evaluations = check_whole("assign: evaluations", evaluations, low=1, hint="30 are usual")
    if sensitivity is not None:
        check_choice("assign: sensitivity", sensitivity, ("chips", "converters"))
    if loses_at_most is not None and floor is not None:
        raise HpmlError(f"assign: loses_at_most={loses_at_most!r} and floor={floor!r}: say the same; give one of them")
    if loses_at_most is not None:
        loses_at_most = check_real("assign: loses_at_most", loses_at_most, low=0, hint="0.01 is one point of accuracy")
    if floor is not None:
        floor = check_real("assign: floor", floor)
    data = load_data(data) if isinstance(data, str) else data
    samples, training = samples_of(data, "test"), samples_of(data, "train")
    chosen_task = task_of("assign", model, data, samples, task)
    chosen_metric = chosen_task.metric_named(metric)
    digital = scores(model, samples, chosen_task, [chosen_metric])[0]
    allowed = _allowed(digital, loses_at_most, floor)
    inputs = first(training, 1 if is_large(model) else CALIBRATION_SAMPLES)[0]
    costs = Costs(model, candidates, inputs, only=only, skip=skip)
    names = [target_text(candidate) for candidate in candidates]
    in_digital, saved = costs.digital(), costs.savings()
    if not any(joules > 0 for each in saved.values() for joules in each):
        raise _saves_nothing(names)
    with progress("evaluations", evaluations) as step:
        trials = ChipTrials(
            model, costs, samples, chosen_task, chosen_metric, inputs, times_s=times_s, chips=chips, seed=seed,
            digital=digital, allowed=allowed, budget=evaluations, step=step,
        )  # fmt: skip
        measure = None if sensitivity is None else sensitivity == "chips"
        found = Search(trials, saved, names, allowed).run(costs.errors(), measure=measure)
    if found.choice is None:
        raise _nothing_holds(found, trials, names, digital, times_s)
    own = costs.of(found.choice)
    if own.energy_j.nominal >= in_digital.energy_j.nominal:
        raise _saves_nothing(names)
    everything = {layer: max(range(len(names)), key=each.__getitem__) for layer, each in saved.items()}
    chosen = {layer: found.choice[layer] for layer in costs.layers if layer in found.choice}
    return Assignment(
        targets=as_targets(chosen, candidates),
        layers=_layers(costs, found, saved, candidates),
        evaluations=tuple(trials.evaluations),
        digital=digital,
        allowed=allowed,
        estimate=own,
        digital_estimate=in_digital,
        analog_estimate=costs.of(everything),
        measured=found.measured,
    )


def converter_sensitivity(
    model: nn.Module,
    data: str | Data | tuple[Samples, Samples],
    target: Candidate,
    *,
    only: LayerChoice = None,
    skip: LayerChoice = None,
) -> pd.DataFrame:
    """Layers by what their converters lose, the worst first: found from a few samples, without any evaluation.

    It is what `assign` goes by with sensitivity="converters". Programming noise and drift are not in it.

    Args:
        model: the trained network. It is not changed.
        data: as for `assign`; ranges are found on training samples.
        target: crossbars.
        only: as for `assign`.
        skip: as for `assign`.

    Returns:
        One row a layer: its name, converter_db (power of the exact outputs over that of the error, decibels), and error
        (power of the error over that of the outputs).

    Raises:
        HpmlError: as `assign`.

    Example:
        >>> from hpml_sim.experiments.assigning import converter_sensitivity
        >>> import hpml_sim as hs
        >>> net = hs.models.mlp(64, 32, 10)
        >>> converter_sensitivity(net, "digits", hs.Analog("pcm-hermes", adc_bits=4)).columns.tolist()
        ['layer', 'converter_db', 'error']
    """
    import pandas as pd

    check_network("converter_sensitivity: model", model, other=data)
    training = samples_of(load_data(data) if isinstance(data, str) else data, "train")
    inputs = first(training, 1 if is_large(model) else CALIBRATION_SAMPLES)[0]
    costs = Costs(model, _candidates(target)[:1], inputs, only=only, skip=skip)
    errors, decibels = costs.errors(), costs.decibels()
    rows = [
        {"layer": layer, "converter_db": decibels[layer][0], "error": errors[layer][0]}
        for layer in sorted(costs.layers, key=lambda layer: -errors[layer][0])
    ]
    return pd.DataFrame(rows, columns=["layer", "converter_db", "error"])


def _candidates(target: Any) -> list[Analog]:
    given = [target] if isinstance(target, (str, Path)) or not isinstance(target, Sequence) else list(target)
    found = [one if isinstance(one, Analog) else as_target(one) for one in given]
    for one in found:
        if not isinstance(one, Analog):
            raise HpmlError(
                f"assign: target={shown(target)}: must be crossbars that are programmed: an hs.Analog(...), the name "
                "of a crossbar card, or a list of them"
            )
    if not found or len(set(map(repr, found))) < len(found):
        raise HpmlError(f"assign: target={shown(target)}: must hold at least one target, none twice")
    return [one for one in found if isinstance(one, Analog)]


def _times(times: Any) -> list[float]:
    if isinstance(times, (str, int, float)) or not isinstance(times, Sequence) or not times:
        raise HpmlError(f"assign: times={shown(times)}: must be a list of times, such as ['1 day', '1 year']")
    return sorted({parse_time(time) for time in times})


def _allowed(digital: Score, loses_at_most: float | None, floor: float | None) -> float:
    """What may be lost, in the metric's unit."""
    if floor is not None:
        allowed = digital.mean - floor if digital.higher_is_better else floor - digital.mean
        if allowed < 0:
            raise HpmlError(
                f"assign: floor={floor:g}: the network itself has {digital.metric} "
                f"{figure(digital.mean, digital.unit)}; "
                f"the nearest floor that works is {digital.mean:.6g}, with nothing on crossbars: train it further, or "
                "lower the floor"
            )
        return allowed
    if loses_at_most is None:
        if digital.unit not in (SHARE, RATIO):
            raise HpmlError(
                f"assign: loses_at_most=None: {digital.metric} is no share; say how much may be lost of "
                f"{figure(digital.mean, digital.unit)}, such as loses_at_most={abs(digital.mean) / 50:.2g}"
            )
        return 0.01
    return loses_at_most


def _nothing_holds(
    found: Found, trials: ChipTrials, names: Sequence[str], digital: Score, times_s: Sequence[float]
) -> HpmlError:
    """The error of a floor that no assignment reached, which names the nearest that was tried."""
    choice, lost = min(found.tried, key=lambda tried: tried[1])
    layers = ", ".join(f"{layer!r} on {names[k]}" for layer, k in list(choice.items())[:3])
    layers += f" and {len(choice) - 3} more layers" if len(choice) > 3 else ""
    unit, tried = digital.unit, len(trials.evaluations)
    return HpmlError(
        f"assign: nothing that was tried ({tried} evaluation{'s'[: tried != 1]}) keeps within "
        f"{points(trials.allowed, unit)} of {figure(digital.mean, unit)} up to {format_time(times_s[-1])}; the nearest "
        f"is {layers}, which loses {points(lost, unit)}: give loses_at_most={_above(lost):g}, or take other targets"
    )


def _saves_nothing(names: Sequence[str]) -> HpmlError:
    return HpmlError(
        f"assign: target={', '.join(names)}: crossbars take no less energy than digital there; the network itself is "
        "the best assignment. Larger layers, or another card, may save"
    )


def _above(value: float) -> float:
    """A round number that is not below a value."""
    rounded = float(f"{value:.2g}")
    return rounded if rounded >= value else float(f"{value * 1.05:.2g}")


def _layers(
    costs: Costs, found: Found, saved: dict[str, list[float]], candidates: Sequence[Analog]
) -> tuple[AssignedLayer, ...]:
    """Each layer with the reason why it is where it is."""
    choice = found.choice or {}
    last = {step.layer: place for place, step in enumerate(found.steps, 1)}
    ranks = {layer: rank for rank, layer in enumerate(sorted(last, key=last.__getitem__), 1)}
    decibels = costs.decibels()
    rows = []
    for layer in costs.layers:
        best = max(range(len(candidates)), key=saved[layer].__getitem__)
        k = choice.get(layer, best)
        losses = found.losses.get(layer)
        if layer not in choice:
            why = (
                "takes no less energy on crossbars"
                if saved[layer][best] <= 0
                else "loses most for what it saves"
                if ranks.get(layer) == len(ranks)
                else "with it, more is lost than may be"
            )
        elif not found.steps:
            why = "all layers together hold"
        elif k != best:
            why = f"{target_text(candidates[best])} saves more and loses too much"
        else:
            why = "loses little for what it saves"
        rows.append(
            AssignedLayer(
                layer,
                candidates[choice[layer]] if layer in choice else None,
                ranks.get(layer),
                None if losses is None else losses[k],
                saved[layer][k],
                decibels[layer][k],
                why,
            )
        )
    return tuple(rows)
