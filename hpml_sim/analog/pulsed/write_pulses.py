"""Write pulses of in-memory training: how many the devices of each layer get, and what they cost.

aihwkit counts them on a GPU only, so they are counted here from what it is given and what it leaves behind. What counts
is one pulse at one device (a coincidence of a row's and a column's pulse). By rule:

- "sgd", and the fast array of the Tiki-Taka rules: the expected number, given every input vector x and error vector d.
  A train of BL slots pulses row j with probability min(1, B |x_j|) and column i with min(1, A |d_i|), so a pair of
  vectors gives BL sum_j min(1, B |x_j|) sum_i min(1, A |d_i|) pulses. The number that aihwkit draws scatters around it.
- "mixed-precision": the steps that left the digital sum of gradients, from its values before and after.
- the slow array of "tiki-taka": the expected number for the columns that were transferred, read without noise.
- the slow array of the other rules: devices that moved in the step. One pulse each, unless a column was transferred
  more than once in the step (a layer with fewer inputs than samples in the batch): then a lower bound.

Held against aihwkit's own draws on devices whose every pulse is the same, the count is right within 3 %
(tests/analog/pulsed/test_write_pulses.py). Resets, the refresh of PCM pairs, and writing the first weights are not
counted.

Source: T. Gokmen and Y. Vlasov, Front. Neurosci. 10:333 (2016), with the update management of aihwkit
(`rpu_pulsed_meta_parameter.cpp`, `sparse_bit_line_maker.cpp`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hpml_sim.cards import CrossbarCard
from hpml_sim.targets import InMemory
from hpml_sim.targets.cards import card_named
from hpml_sim.units.bands import Band

_FAMILIES = {"pcm": ("pcm", "hermes")}
"""Device -> noise models of the cards whose devices, and so whose programming pulses, are of its kind."""


_MOVED = 0.01
"""A device that moved by less than this share of a pulse has leaked, not been written to."""


@dataclass(frozen=True)
class WritePulses:
    """Pulses that a training sent.

    Attributes:
        pulses: layer -> pulses in each epoch, summed over its devices; see the module for what is counted and how.
        energy_j: energy of all of them, joules, if the card knows the pulse of such a device; else None.
        why_no_energy: the reason for None.
    """

    pulses: dict[str, tuple[float, ...]]
    energy_j: Band | None
    why_no_energy: str = ""

    @property
    def total(self) -> float:
        """Pulses of all layers and epochs."""
        return sum(sum(epochs) for epochs in self.pulses.values())

    def __str__(self) -> str:
        cost = f"energy unknown: {self.why_no_energy}"
        if (energy := self.energy_j) is not None:
            cost = f"{energy.nominal:.2g} J ({energy.low:.2g} to {energy.high:.2g}) by the card's pulse"
        return f"training in memory sent {self.total:.2g} write pulses; {cost}"


def pulse_energy(targets: Iterable[InMemory]) -> tuple[Band | None, str]:
    """Energy of one pulse at a device of some `targets`, joules, or None and the reason."""
    found: Band | None = None
    for target in targets:
        card = card_named(target.card, CrossbarCard)
        if card.noise.model not in _FAMILIES.get(target.device, ()):
            return None, f"card {target.card!r} has no figure for a pulse at a device of kind {target.device!r}"
        quantity = card.programming.energy_per_pulse
        if quantity is None:
            return None, f"card {target.card!r} has no programming.energy_per_pulse"
        if found is not None and found != quantity.band():
            return None, "the layers' cards have different pulses"
        found = quantity.band()
    return found, "" if found is not None else "the devices belong to no card"


def expected_pulses(x: Tensor, d: Tensor, lr: float, granularity: float, update: Any) -> float:
    """Expected pulses of stochastic updates, summed over vectors and devices.

    Args:
        x: inputs, (vectors, rows).
        d: errors, (vectors, columns).
        lr: learning rate, > 0.
        granularity: mean weight change of one pulse, > 0.
        update: aihwkit's `UpdateParameters`: `desired_bl`, `fixed_bl`, `update_bl_management`, `update_management`,
            `um_grad_scale`.

    Source: `PulsedUpdateMetaParameter::performUpdateManagement` and `calculateBlAB`.
    """
    x, d = x.abs().double(), d.abs().double()
    ratio = lr / granularity
    length = torch.full((len(x),), float(update.desired_bl), dtype=torch.float64)
    if not (update.fixed_bl or update.update_bl_management) and ratio > update.desired_bl:
        return float((max(1.0, -(-ratio // 1)) * x.clamp(max=1).sum(1) * d.clamp(max=1).sum(1)).sum())
    row_gain = torch.ones_like(length)
    if update.update_bl_management or update.update_management:
        largest_x, largest_d = x.amax(1), update.um_grad_scale * d.amax(1)
        asked = ratio * largest_x * largest_d  # pulses at the device that gets most
        if update.update_bl_management:
            length = torch.minimum(asked.ceil(), length)
        largest_d = torch.where(asked > update.desired_bl, largest_d * (update.desired_bl / asked), largest_d)
        row_gain = torch.where(asked > 0, (largest_d / largest_x).sqrt(), row_gain)
    gain = (ratio / length).sqrt()
    rows = (x * (gain * row_gain).unsqueeze(1)).clamp(max=1).sum(1)
    columns = (d * (gain / row_gain).unsqueeze(1)).clamp(max=1).sum(1)
    return float(torch.where(length > 0, length * rows * columns, 0).nan_to_num().sum())


class TileCounter:
    """Counts the pulses of one tile, step by step.

    Args:
        tile: a pulsed tile of aihwkit.
    """

    def __init__(self, tile: Any):
        from aihwkit.simulator.configs.compounds import (
            ChoppedTransferCompound,
            MixedPrecisionCompound,
            TransferCompound,
        )

        self.tile = tile
        self.device = tile.rpu_config.device
        self.update = tile.rpu_config.update
        counts = [
            (ChoppedTransferCompound, self._buffered),
            (TransferCompound, self._transferred),
            (MixedPrecisionCompound, self._mixed),
        ]
        self._count = next((count for kind, count in counts if isinstance(self.device, kind)), self._direct)
        self._pairs: list[tuple[Tensor, Tensor]] = []
        self._weights: Tensor | None = None
        self._slice = 0.0
        self._sum: tuple[float, Tensor] = (-1.0, torch.zeros(()))

    def before_step(self) -> None:
        """Keep what the step is about to use up."""
        context = self.tile.analog_ctx
        self._pairs = []
        if not context.has_gradient():
            return
        for x, d in zip(context.analog_input, context.analog_grad_output, strict=True):
            rows, columns = self.tile.in_trans, self.tile.out_trans
            x, d = self.tile.pre_update(x, 0 if rows else x.dim() - 1, d, 0 if columns else d.dim() - 1)
            self._pairs.append((_vectors(x, rows), _vectors(d, columns)))
        self._weights = self.tile.tile.get_weights().clone() if self._count == self._buffered else None
        self._slice = self._inner().get("current_slice_indices", 0.0)
        if self._count == self._mixed and self._inner()["current_update_index"] != self._sum[0]:
            self._sum = self._digital_sum()  # else it is as the last step left it

    def after_step(self) -> float:
        """Pulses of the step."""
        return self._count(self.tile.tile.get_learning_rate()) if self._pairs else 0.0

    def _direct(self, lr: float) -> float:
        return self._gradient(lr, self._inner()["weight_granularity"])

    def _mixed(self, lr: float) -> float:
        """What left the digital sum for the devices, row by row of the array."""
        before, self._sum = self._sum[1], self._digital_sum()
        added = sum((d.double().T @ x.double() for x, d in self._pairs), torch.zeros(())) * lr
        steps = ((before + added - self._sum[1]) / self._inner()["granularity"]).round().abs()
        longest = steps.amax(1).clamp(min=1)
        return float((steps * (self.update.desired_bl / longest).clamp(max=1).unsqueeze(1)).sum())

    def _transferred(self, lr: float) -> float:
        """The fast array's, and those of its columns that were read and written to the slow one."""
        device, inner = self.device, self._inner()
        fast_lr = lr if device.fast_lr <= 0 else device.fast_lr * (lr if device.scale_fast_lr else 1.0)
        total = self._gradient(fast_lr, inner["0.weight_granularity"])
        fast = self._hidden("hidden_weights_0")
        first, last, columns = int(self._slice), int(inner["current_slice_indices"]), fast.shape[1]
        if first == last:
            return total
        chosen = [column % columns for column in range(first, last if last > first else last + columns)]
        lr = device.transfer_lr * (lr if device.scale_transfer_lr else 1.0)
        one = torch.ones(len(chosen), 1)
        return total + expected_pulses(
            one, fast[:, chosen].T, lr, inner["1.weight_granularity"], device.transfer_update
        )

    def _buffered(self, lr: float) -> float:
        """The fast array's at the rate that the tile chose for it, and the devices of the slow one that moved."""
        inner = self._inner()
        assert self._weights is not None
        moved = (self.tile.tile.get_weights() - self._weights).abs() > _MOVED * inner["1.weight_granularity"]
        return self._gradient(inner["tmp_count_lr"], inner["0.weight_granularity"]) + float(moved.sum())

    def _gradient(self, lr: float, granularity: float) -> float:
        return sum(expected_pulses(x, d, lr, granularity, self.update) for x, d in self._pairs)

    def _digital_sum(self) -> tuple[float, Tensor]:
        """How many vectors were added to mixed precision's sum of gradients, and the sum."""
        return self._inner()["current_update_index"], self._hidden("hidden_weights_chi").double()

    def _inner(self) -> dict[str, float]:
        """First values of the device's inner state, by their names in aihwkit."""
        prefix = "rpu.rpu_device."
        extra = self.tile.tile.dump_extra()
        return {key.removeprefix(prefix): v[0] for key, v in extra.items() if key.startswith(prefix) and len(v)}

    def _hidden(self, name: str) -> Tensor:
        tile = self.tile.tile
        return tile.get_hidden_parameters()[tile.get_hidden_parameter_names().index(name)]


def _vectors(x: Tensor, transposed: bool) -> Tensor:
    """(vectors, values) of a tile's input or error."""
    x = x.detach()
    return (x.flatten(1).T if transposed else x.flatten(0, -2)).cpu()
