"""The verb `assign`: which layers of a network go onto crossbars, under a floor of the score."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from hpml_sim.cli.arguments import Cards, Json, Number, OptionalNumber, option
from hpml_sim.cli.output import say
from hpml_sim.errors import HpmlError

if TYPE_CHECKING:
    from torch import nn

    from hpml_sim.data import Data
    from hpml_sim.experiments.assignment import Assignment
    from hpml_sim.targets import Analog


def assign(
    targets: Cards = ("pcm-hermes",),
    model: Annotated[str, option("MODEL")] = "mlp",
    data: Annotated[str, option("NAME")] = "digits",
    search_space: Annotated[tuple[str, ...], option("OPTION=VALUES [...]")] = (),
    loses_at_most: Annotated[float | None, option("NUMBER")] = None,
    floor: Annotated[float | None, option("NUMBER")] = None,
    times: Annotated[tuple[str, ...], option("TIME [TIME ...]")] = ("1 day", "1 year"),
    task: Annotated[str | None, option("TASK")] = None,
    epochs: OptionalNumber = None,
    chips: Number = 6,
    seed: Number = 0,
    evaluations: Number = 30,
    skip: Annotated[tuple[str, ...], option("LAYER [LAYER ...]")] = (),
    json_output: Json = False,
) -> int:
    """Choose which layers of a network go onto crossbars, so that its score holds over time and energy is least.

    Args:
        targets: crossbar cards that a layer may be on (`hpml-sim cards` lists them).
        model: mlp, g2p or another name that `hpml-sim networks` lists, package.module:callable, or file.py:callable.
            A network that has not learned its task is trained first.
        data: a data set by name, package.module:callable, or file.py:callable. Ranges are found on its training
            samples, and the choice is made on its test samples.
        search_space: options of the crossbars that a layer may have one or the other of, such as adc_bits=4,6,8.
        loses_at_most: what may be lost against the network itself at each time, in the unit of the metric; unset, 0.01
            (one point) of an accuracy or an error rate.
        floor: in its place, the worst score that is allowed, in the unit of the metric.
        times: times since programming.
        task: what is measured; unset, that of the data.
        epochs: passes over the training data of a network that has not learned its task; unset, as many as suit it.
        chips: programmed for each assignment.
        seed: of the chips, and of a training.
        evaluations: assignments and single layers that are scored at most.
        skip: layers that stay digital.
        json_output: print the assignment as JSON: layers with the options of their targets, and what was tried.
    """
    from hpml_sim.data import load_data
    from hpml_sim.experiments.assigning import assign as run

    candidates = _candidates(targets, search_space)
    loaded = load_data(data)
    network = _trained(model, loaded, task, epochs, seed)
    found = run(
        network, loaded, candidates, loses_at_most=loses_at_most, floor=floor, times=times, task=task, chips=chips,
        seed=seed, evaluations=evaluations, skip=skip or None,
    )  # fmt: skip
    print(json.dumps(_plain(found), indent=2) if json_output else found)
    return 0


def _candidates(cards: tuple[str, ...], options: tuple[str, ...]) -> list[Analog]:
    """A target for each card and each combination of the options."""
    from hpml_sim.experiments.config import SweepConfig
    from hpml_sim.experiments.points import sweep_points
    from hpml_sim.targets import Analog
    from hpml_sim.targets.checking import checked

    base = {card: Analog(card) for card in cards}
    if not options:
        return list(base.values())
    if any(text.startswith("model.") for text in options):
        raise HpmlError(
            "--search-space: options of the network are not assigned to its layers; give those of crossbars"
        )
    points = sweep_points(checked(SweepConfig, {"search_space": list(options)}), base, "mlp")
    return [point.target for point in points if isinstance(point.target, Analog)]


def _trained(model: str, data: Data, task: str | None, epochs: int | None, seed: int) -> nn.Module:
    from hpml_sim.experiments.checks import comes_trained, find_task, try_samples
    from hpml_sim.experiments.config import ExperimentConfig
    from hpml_sim.experiments.plan import epochs_of, own_network
    from hpml_sim.training import fit

    known = find_task(try_samples(model, data), data, task)
    network = own_network(model, data, {}, seed=seed)
    if not comes_trained(model, data, known):
        say(f"training {model} on {data.name} first")
        many, _ = epochs_of(ExperimentConfig(epochs=epochs), data, came_trained=False)
        fit(network, data, task=known, epochs=many, lr=5e-3, seed=seed, title=f"training {model}")
    return network.eval()


def _plain(found: Assignment) -> dict[str, Any]:
    energies = {
        "energy_j": found.estimate,
        "digital_energy_j": found.digital_estimate,
        "analog_energy_j": found.analog_estimate,
    }
    return {
        "targets": {layer: asdict(target) for layer, target in found.items()},
        "metric": found.digital.metric,
        "digital": found.digital.mean,
        "allowed": found.allowed,
        "lost": found.lost,
        "saving": found.saving,
        **{name: one.energy_j.nominal for name, one in energies.items()},
        "layers": json.loads(str(found.table().to_json(orient="records"))),
        "evaluations": json.loads(str(found.evaluations_table().to_json(orient="records"))),
    }
