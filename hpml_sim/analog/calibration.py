"""Choose the input ranges of all analog layers from data, without training."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from hpml_sim.analog.crossbar import Crossbar, one_pass
from hpml_sim.analog.layers import crossbars
from hpml_sim.analog.pulsed.devices import pulsed_tiles
from hpml_sim.conversion.modes import eval_mode
from hpml_sim.data import Data, load_data
from hpml_sim.data.batches import in_order
from hpml_sim.errors import HpmlError

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
        model: a converted model.
        inputs: one batch (batch, ...), or several, as a `DataLoader` gives them (labels are left out); a network of
            several inputs takes batches as dicts of its arguments' names; or a data set, of which all training samples
            are taken.

    Returns:
        The range of each layer by name, in units of its input. 0.0: the layer saw no input but zeros (or none), and
        keeps scaling each input vector by its own largest value.

    Raises:
        HpmlError: a model without analog layers, or of programmed chips; no inputs.
        UnknownNameError: no data set has this name.
    """
    if isinstance(inputs, (str, Data)):
        inputs = (x for x, _ in in_order(load_data(inputs).train, _BATCH))
    layers = analog_layers(model)
    before = {name: copy.deepcopy(crossbar.state_dict()) for name, crossbar in layers.items()}
    for crossbar in layers.values():
        crossbar.reset_calibration()
        crossbar.observing = True
    batches: Iterable[Any] = [inputs] if isinstance(inputs, (Tensor, Mapping)) else inputs
    any_batch = False
    try:
        with eval_mode(model):
            for batch in batches:
                any_batch = True
                with one_pass(layers.values()):
                    if isinstance(batch, Mapping):
                        model(**batch)
                    else:
                        model(batch if isinstance(batch, Tensor) else batch[0])
        if not any_batch:
            raise HpmlError("calibrate: inputs= held no batch (an iterator that was used before?); give some inputs")
    except BaseException:  # an input that does not fit costs no earlier calibration
        for name, crossbar in layers.items():
            crossbar.load_state_dict(before[name])
        raise
    finally:
        for crossbar in layers.values():
            crossbar.observing = False
    return {name: float(c.full_range().detach()) for name, c in layers.items()}


def analog_layers(model: nn.Module) -> dict[str, Crossbar]:
    """All crossbars of a model that can still be changed.

    Raises:
        HpmlError: there are none, or the model is of programmed chips.
    """
    layers = crossbars(model)
    if pulsed_tiles(model):
        raise HpmlError(
            "the weights of this model are pulsed devices, trained in place: there is nothing to calibrate or program; "
            "hs.evaluate(model, data) runs it as it is"
        )
    if not layers:
        raise HpmlError(
            f"{type(model).__name__} has no analog layers; make them with hs.convert(model, 'pcm-hermes') "
            "or hs.Spiking(..., synapses=hs.Analog('pcm-hermes'))"
        )
    if any(crossbar.programmed is not None for crossbar in layers.values()):
        raise HpmlError("these are programmed chips; use the model that they were programmed from")
    return layers
