"""The third pass of a row: the clock, where the machine of the row is the one at hand."""

from __future__ import annotations

import logging

import torch

from hpml_sim.cards import Card, DigitalCard, load_card
from hpml_sim.conversion import Converted
from hpml_sim.conversion.modules import is_large
from hpml_sim.data import Data
from hpml_sim.data.batches import cut, first
from hpml_sim.errors import HpmlError
from hpml_sim.experiments.plan import Point
from hpml_sim.measurement import Measurement, measure_in_own_process
from hpml_sim.targets import Digital

_log = logging.getLogger(__name__)

MEASURED_BATCH = 256
"""Test samples of the larger of the two batches that are timed; the other one is 1."""


def clock_readings(point: Point, model: Converted, data: Data) -> tuple[list[Measurement], list[str]]:
    """The clock, in a process of its own, where the card's device is the machine at hand; or why it was not read.

    Args:
        point: the machine.
        model: the network, converted for it.
        data: of whose test samples batches of one and of many are timed.
    """
    target = point.target
    device = _device_at_hand(load_card(target.card)) if isinstance(target, Digital) else None
    if device is None:
        return [], []
    if point.compressing.numbers is not None:
        return [], ["not timed: integers are computed in floating point here, with their values"]
    if point.finetuned:
        return [], ["not timed: the same network with other weights stands in another row"]
    large = is_large(model)
    samples, _ = first(data.test, 1 if large else MEASURED_BATCH)
    batches = [samples] if large else [cut(samples, 1), samples]
    try:
        return measure_in_own_process(model, batches, device=device), []
    except HpmlError as error:  # scores and estimate still hold
        _log.warning("not measured: %s", error)
        return [], [f"not measured: {error}"]


def _device_at_hand(card: Card) -> torch.device | None:
    """The device of this machine that the card may be held against: any CPU, or the GPU of the card's name."""
    if not isinstance(card, DigitalCard):
        return None
    if card.device == "cpu":
        return torch.device("cpu")
    if torch.cuda.is_available() and card.name.split("-")[0].upper() in torch.cuda.get_device_name().upper():
        return torch.device("cuda")
    return None
