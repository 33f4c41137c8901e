"""A neuromorphic row in the integers of its machine, and the score in floating point beside it."""

from __future__ import annotations

from dataclasses import replace

from hpml_sim.cards import NeuromorphicCard, load_card
from hpml_sim.conversion import Converted
from hpml_sim.data import Data
from hpml_sim.data.batches import first
from hpml_sim.errors import ConversionError, NotFiniteError
from hpml_sim.results import floating_point
from hpml_sim.spiking.fixed_point_arithmetic import in_integers_of
from hpml_sim.spiking.model import SpikingModel
from hpml_sim.spiking.own_network import OwnSpikingNetwork
from hpml_sim.targets import Spiking
from hpml_sim.tasks.score import Score
from hpml_sim.tasks.task import Task
from hpml_sim.training.evaluation import scores as scores_of


def in_own_integers(model: Converted, target: Spiking, data: Data) -> tuple[Converted, str]:
    """A spiking network as its machine computes it: in the integers that the card gives.

    Args:
        model: converted for the target; not changed.
        target: a neuromorphic machine.
        data: on a test sample of it batch norms are folded into weights.

    Returns:
        The network in integers, and which ones, in words; where the card or the network has none, the network itself
        and why.
    """
    card = load_card(target.card)
    assert isinstance(card, NeuromorphicCard)  # its target checked it
    if not isinstance(model, (SpikingModel, OwnSpikingNetwork)) or target.synapses is not None:
        return model, "in floating point"
    try:
        found, words = in_integers_of(card, model, first(data.test, 1)[0])
    except ConversionError as error:
        return model, f"in floating point, as {error}"
    return found, f"in the integers of the card: {words}"


def floating_scores(model: Converted, data: Data, task: Task) -> list[Score]:
    """The main metric of a network in floating point, beside that of the machine's integers.

    Args:
        model: in floating point.
        data: its test samples are evaluated.
        task: what is measured.

    Returns:
        The score under a name that says so; none where outputs are not finite.
    """
    try:
        found = scores_of(model, data.test, task, task.metrics[:1])
    except NotFiniteError:
        return []
    return [replace(score, metric=floating_point(score.metric)) for score in found]
