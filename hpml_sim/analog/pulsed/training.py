"""Training in memory: what `fit` does where the weights are pulsed devices.

A plain torch optimizer leaves such devices where they are and says nothing, momentum and Adam's scaling never reach
them, and each pair of device and training rule wants a learning rate of its own. So the optimizer is chosen here, the
wrong ones are refused, and a training that does not train is told.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from hpml_sim.analog.pulsed.devices import pulsed_tiles, refuse_wrong_optimizers
from hpml_sim.analog.pulsed.learning_rates import MEASURED_ON, learning_rate
from hpml_sim.analog.pulsed.write_pulses import TileCounter, WritePulses, pulse_energy
from hpml_sim.conversion import Converted
from hpml_sim.conversion.training_sessions import Optimizer, register_training_session
from hpml_sim.errors import HpmlError, check_real
from hpml_sim.targets import Analog, InMemory, PerLayer, Spiking, analog_part

_log = logging.getLogger(__name__)

IN_MEMORY_NOTE = "aihwkit's pulses cannot be seeded: another training of the same model ends at other weights"
"""Holds for every result of in-memory training."""

_JUDGED_AFTER = 3
"""Epochs after which a training is judged, or the last one if there are fewer."""
_JUDGED_SAMPLES = 1024
"""Samples on which the loss before the training is taken."""


def in_memory_optimizer(model: nn.Module, lr: float | None = None) -> torch.optim.Optimizer:
    """The optimizer for a model on pulsed devices, for a training loop of your own; `fit` takes it by itself.

    It is aihwkit's `AnalogSGD`, which sends the pulses; biases and other digital parameters take plain SGD steps.

    Args:
        model: converted for `InMemory(...)`, or with aihwkit's own pulsed layers.
        lr: learning rate, > 0; None takes the one that was measured for device and rule.

    Raises:
        HpmlError: a model without pulsed devices, `lr` out of range, or None for a model that `convert` did not make.
    """
    training = InMemoryTraining.of(model)
    if training is None:
        raise HpmlError(
            f"{type(model).__name__} has no pulsed devices; make them with "
            "hs.convert(model, hs.InMemory('pcm', device='ecram')), or take a torch optimizer"
        )
    return training.optimizer(None, training.learning_rate(lr))


class InMemoryTraining:
    """One training of a model on pulsed devices; a `TrainingSession`.

    Args:
        model: the model.
        tiles: its pulsed tiles by the dotted name of their layer, as `pulsed_tiles` gives them.
    """

    def __init__(self, model: nn.Module, tiles: dict[str, list[Any]]):
        self.model = model
        self.tiles = tiles
        self.targets = _targets(model)
        self._counters = {name: [TileCounter(tile) for tile in layer] for name, layer in tiles.items()}
        self._counted = dict.fromkeys(tiles, 0.0)
        self._pulses: dict[str, list[float]] = {name: [] for name in tiles}
        self._start: float | None = None
        self._chance: float | None = None
        self._judged = False

    @classmethod
    def of(cls, model: nn.Module) -> InMemoryTraining | None:
        """The training of a `model`; None where no weight lies on pulsed devices."""
        tiles = pulsed_tiles(model)
        return cls(model, tiles) if tiles else None

    def learning_rate(self, lr: float | None) -> float:
        """The learning rate that was given, or the smallest of those measured for the model's devices and rules.

        Args:
            lr: learning rate, > 0; None takes the measured one.

        Raises:
            HpmlError: not a finite number > 0, or None for devices that nothing was measured for.
        """
        if lr is not None:
            return check_real("lr", lr, above=0, hint="leave it out to take the measured one")
        if not self.targets:
            raise HpmlError("lr=None: no learning rate is known for devices that hs.convert did not make; give lr=0.1")
        return min(learning_rate(target.device, target.rule) for target in self.targets)

    def optimizer(self, given: Optimizer | None, lr: float, *, processes: int = 1) -> torch.optim.Optimizer:
        """aihwkit's SGD over all parameters, its groups in order; it counts the pulses of each step.

        Args:
            given: must be None: no other optimizer sends pulses.
            lr: first learning rate, > 0.
            processes: must be 1: pulses cannot be averaged as gradients can.

        Raises:
            HpmlError: another optimizer, or several processes.
        """
        if processes > 1:
            raise HpmlError(
                f"fit: pulsed devices train on one process, not on {processes}: pulses cannot be averaged as gradients "
                "can; start the script without torchrun"
            )
        if given is not None:
            raise HpmlError(
                f"fit: optimizer={given!r} cannot send pulses; leave it out, aihwkit's SGD trains pulsed devices"
            )
        from aihwkit.optim import AnalogSGD

        counters = [(name, counter) for name, layer in self._counters.items() for counter in layer]
        counted = self._counted

        class CountingSGD(AnalogSGD):
            def step(self, closure: Callable[[], Any] | None = None, **options: Any) -> Any:
                loss = None
                if closure is not None:  # now, so that its gradients can be seen before they are used up
                    with torch.enable_grad():
                        loss = closure()
                for _name, counter in counters:
                    counter.before_step()
                super().step(**options)
                for name, counter in counters:
                    counted[name] += counter.after_step()
                return loss

        refuse_wrong_optimizers()
        optimizer = CountingSGD(self.model.parameters(), lr=lr)
        optimizer.regroup_param_groups()
        return optimizer

    def writes(self) -> WritePulses:
        """The pulses of the epochs so far, and their energy."""
        pulses = {name: tuple(epochs) for name, epochs in self._pulses.items()}
        one, why = pulse_energy(self.targets)
        counted = WritePulses(pulses, None, why)
        return counted if one is None else WritePulses(pulses, one * counted.total)

    def state(self) -> dict[str, Any]:
        """The model's state dict without aihwkit's place-holders for the weights, which stand in the devices' state."""
        contexts = {id(tile.analog_ctx) for tiles in self.tiles.values() for tile in tiles}
        devices = {name for name, parameter in self.model.named_parameters() if id(parameter) in contexts}
        return {name: value for name, value in self.model.state_dict().items() if name not in devices}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Load a `state` of before, of the devices as well."""
        self.model.load_state_dict(state, strict=False)  # the place-holders are not in it

    def begin(self, before: Callable[[int], tuple[float, float | None]] | None) -> None:
        """Note what the untrained model makes of some samples, to judge later whether it trains at all.

        Args:
            before: gives, for the first samples, at most as many as asked for, the loss of the model as it is and that
                of the best guess without looking at the input. None with a teacher: nothing is judged then.
        """
        if before is not None:
            self._start, self._chance = before(_JUDGED_SAMPLES)

    def end_epoch(self, epoch: int, epochs: int, loss: float, lr: float) -> None:
        """Close the count of pulses of an epoch, and warn if the network is not training.

        Args:
            epoch: counts from 0.
            epochs: of the whole training.
            loss: mean of this epoch.
            lr: first learning rate of the training.
        """
        for name in self.tiles:
            self._pulses[name].append(self._counted[name])
            self._counted[name] = 0.0
        if self._judged or epoch + 1 < min(_JUDGED_AFTER, epochs) or self._start is None:
            return
        self._judged = True
        chance = self._chance
        if (chance is None or loss < 0.98 * chance) and loss < 1.2 * self._start:
            return
        guess = "" if chance is None else f", and {chance:.3f} by chance"
        rules = ", ".join(sorted({f"device={t.device!r}, rule={t.rule!r}" for t in self.targets})) or "these"
        _log.warning(
            "in-memory training (%s) is not training: the loss is %.3f after %d epochs, %.3f before the first%s. "
            "Try another learning rate (lr=%g or lr=%g; it is %g; the default was measured on %s), "
            "another rule (rule='mixed-precision' is the least demanding), or a network that was trained in digital",
            rules, loss, epoch + 1, self._start, guess, lr / 4, lr * 4, lr, MEASURED_ON,
        )  # fmt: skip


register_training_session(InMemoryTraining.of)


def _targets(model: nn.Module) -> list[InMemory]:
    """The targets with pulsed devices that a converted model was made for."""
    target = model.target if isinstance(model, Converted) else None
    if isinstance(target, PerLayer):
        parts = list(target.layers.values())
    else:
        parts = [analog_part(target)] if isinstance(target, (Analog, InMemory, Spiking)) else []
    return [part for part in parts if isinstance(part, InMemory)]
