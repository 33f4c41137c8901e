"""`hs.calibrate`: range calibration, the input ranges of all analog layers from data, without training.

How a layer learns its range: `input_ranges.py`. The scaling of a spiking network's weights on data is another thing:
`spiking/relu_conversion/calibration.py`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hpml_sim.analog.crossbar import Crossbar
from hpml_sim.analog.input_ranges import one_calibration_step
from hpml_sim.analog.layers import crossbars
from hpml_sim.analog.pulsed.devices import pulsed_tiles
from hpml_sim.conversion.idle_layers import IdleLayers
from hpml_sim.conversion.modes import eval_mode
from hpml_sim.conversion.modules import check_network
from hpml_sim.data import Data, load_data
from hpml_sim.data.batches import in_order
from hpml_sim.errors import HpmlError, shown

_BATCH = 500
"""Samples of a data set in one batch."""


Batch = Tensor | Sequence[Tensor] | Mapping[str, Any]
"""What `calibrate` gives to a model: a tensor, the first one of several, or keyword arguments."""


def calibrate(model: nn.Module, inputs: Batch | str | Data | Iterable[Batch]) -> dict[str, float]:
    """Set every analog layer's input range from data; training does the same by itself.

    The model runs on the data with ideal converters. A layer's range becomes the percentile `input_percentile` of its
    inputs that are not zero, or, where that would saturate the ADC, as much more as keeps it inside: the mean over the
    batches, and of the uses of a layer in one batch (such as the steps of an LSTM) the largest.

    Args:
        model: a converted model; its ranges are set, its weights stay.
        inputs: one batch (batch, ...), or several, as a `DataLoader` gives them (labels are left out); a network of
            several inputs takes batches as dicts of its arguments' names; or a data set, of which all training samples
            are taken.

    Returns:
        The range of each layer by name, in units of its input. 0.0: the layer saw no input but zeros (or none), and
        keeps scaling each input vector by its own largest value.

    Raises:
        HpmlError: a model without analog layers, or of programmed chips; no inputs, or inputs of another kind.
        UnknownNameError: no data set has this name.

    Example:
        >>> import torch, hpml_sim as hs
        >>> analog = hs.convert(torch.nn.Linear(8, 4), "pcm-hermes")
        >>> hs.calibrate(analog, torch.linspace(-3, 3, 800).view(100, 8))  # 99.5 % of the inputs
        {'network': 2.98...}
    """
    layers = programmable_crossbars(model, "calibrate")
    batches = _batches(inputs)
    before = {name: copy.deepcopy(crossbar.state_dict()) for name, crossbar in layers.items()}
    for crossbar in layers.values():
        crossbar.reset_calibration()
        crossbar.calibrating = True
    any_batch, idle = False, IdleLayers(model, "calibrate")
    try:
        with eval_mode(model):
            for batch in batches:
                if _is_empty(batch):
                    continue
                any_batch = True
                with one_calibration_step(layers.values()):
                    if isinstance(batch, Mapping):
                        model(**batch)
                    else:
                        model(_first(batch))
        if not any_batch:
            raise HpmlError(
                "calibrate: inputs= held no samples (empty batches, or an iterator used before?); give some inputs"
            )
    except BaseException:  # an input that does not fit costs no earlier calibration
        for name, crossbar in layers.items():
            crossbar.load_state_dict(before[name])
        raise
    finally:
        for crossbar in layers.values():
            crossbar.calibrating = False
    idle.warn()
    return {name: float(crossbar.dac_range().detach()) for name, crossbar in layers.items()}


def _batches(inputs: Any) -> Iterable[Any]:
    if isinstance(inputs, (str, Data)):
        return (x for x, _ in in_order(load_data(inputs).train, _BATCH))
    if isinstance(inputs, (Tensor, Mapping)):
        return [inputs]
    if not isinstance(inputs, Iterable):
        raise HpmlError(f"calibrate: inputs={shown(inputs)}: {_ALLOWED}")
    return inputs


def _is_empty(batch: Any) -> bool:
    """Whether a batch holds no value at all: ranges cannot come from it."""
    values = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, (list, tuple)) else [batch]
    tensors = [value for value in values if isinstance(value, Tensor)]
    return bool(tensors) and tensors[0].numel() == 0


def _first(batch: Any) -> Tensor:
    first = batch[0] if isinstance(batch, Sequence) and not isinstance(batch, str) and len(batch) else batch
    if not isinstance(first, Tensor):
        raise HpmlError(f"calibrate: inputs= holds a batch {shown(batch)}: {_ALLOWED}")
    if not bool(torch.isfinite(first).all()):
        raise HpmlError("calibrate: inputs= holds NaN or infinite values, which have no range; clean the data first")
    return first


_ALLOWED = "must be a tensor (batch, ...), several of them, a DataLoader, or the name of a data set such as 'digits'"


def programmable_crossbars(model: nn.Module, where: str) -> dict[str, Crossbar]:
    """All crossbars of a model that can still be calibrated and programmed, by the dotted name of their layer.

    Args:
        model: a converted model.
        where: function that the caller called, which begins the messages.

    Raises:
        HpmlError: not a network, one without crossbars, or one of programmed chips.
    """
    programmed = f"{where}: these are programmed chips; use the model that they were programmed from"
    if type(model).__name__ == "Chips":  # its class lies above this file
        raise HpmlError(programmed)
    layers = crossbars(check_network(f"{where}: model", model))
    if pulsed_tiles(model):
        raise HpmlError(
            f"{where}: the weights of this model are pulsed devices, trained in place: there is nothing to calibrate "
            "or program; hs.evaluate(model, data) runs it as it is"
        )
    if not layers:
        raise HpmlError(
            f"{where}: model {type(model).__name__} has no analog layers; make them with hs.convert(model, "
            "'pcm-hermes') or hs.Spiking(..., synapses=hs.Analog('pcm-hermes'))"
        )
    if any(crossbar.programmed is not None for crossbar in layers.values()):
        raise HpmlError(programmed)
    return layers
