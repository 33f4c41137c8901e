"""`hs.calibrate`: range calibration, the ranges of all analog layers' converters from data, without training.

How a layer follows its inputs in training: `input_ranges.py`; how ranges are chosen: `range_choice.py`. The scaling of
a spiking network's weights on data is another thing: `spiking/relu_conversion/calibration.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from hpml_sim.analog.conversion_cost import OutputError, cost_of_weights, note_cost, repeatable
from hpml_sim.analog.crossbar import Crossbar
from hpml_sim.analog.input_ranges import one_calibration_step
from hpml_sim.analog.layers import crossbars, weight_matrix
from hpml_sim.analog.pulsed.devices import pulsed_tiles
from hpml_sim.analog.range_choice import RangeChoice
from hpml_sim.analog.range_samples import VectorSamples
from hpml_sim.conversion.idle_layers import IdleLayers
from hpml_sim.conversion.modes import eval_mode
from hpml_sim.conversion.modules import check_network
from hpml_sim.conversion.network_call import Inputs, call_network, tensors_in
from hpml_sim.conversion.training_sessions import register_after_training
from hpml_sim.data import Data, load_data
from hpml_sim.data.batches import in_order
from hpml_sim.errors import HpmlError, shown

_BATCH = 500
"""Samples of a data set in one batch."""
Batch = Tensor | Sequence[Tensor] | Mapping[str, Any]
"""What `calibrate` gives to a model: a tensor, the inputs of (inputs, labels), or keyword arguments."""


def calibrate(model: nn.Module, inputs: Batch | str | Data | Iterable[Batch]) -> dict[str, float | str]:
    """Set the ranges of every analog layer's converters from data; training does the same by itself.

    The model runs on the data with ideal converters, and each layer keeps some of its input vectors: some that stand
    for all, and the largest. Of the ranges that its `input_range` allows it finds those that lose least on them. The
    network then takes, on the last batch, what loses less of its own outputs: these, or in every layer ranges that hold
    all that was seen.
    "percentile" and "sigma" find their range on all data: the mean over the batches, and of the uses of a layer in one
    batch (such as the steps of an LSTM) the largest. `model.report` then says of each layer what its converters lose.

    Args:
        model: a converted model; its ranges are set, its weights stay.
        inputs: one batch (batch, ...), or several, as a `DataLoader` gives them (labels are left out); or a data set,
            of which all training samples are taken. A network of several inputs takes batches ((a, b), labels), or
            dicts of its arguments' names.

    Returns:
        The range of each layer by name, in units of its input, or "dynamic": each vector is scaled by its own largest
        value. So is a layer that saw no input but zeros (or none).

    Raises:
        HpmlError: a model without analog layers, or of programmed chips; no inputs, or inputs of another kind; a range
            asked for with which nothing is left of a layer's products.
        UnknownNameError: no data set has this name.

    Example:
        >>> import torch, hpml_sim as hs
        >>> analog = hs.convert(torch.nn.Linear(8, 4), hs.Analog("pcm-hermes", input_range="percentile"))
        >>> hs.calibrate(analog, torch.linspace(-3, 3, 800).view(100, 8))  # 99.5 % of the inputs
        {'network': 2.98...}
    """
    layers = programmable_crossbars(model, "calibrate")
    batches = _batches(inputs)
    before = {name: crossbar.ranges_now() for name, crossbar in layers.items()}
    errors = {name: crossbar.error for name, crossbar in layers.items()}
    for crossbar in layers.values():
        crossbar.reset_calibration()
    last, exact, idle = None, None, IdleLayers(model, "calibrate")
    try:
        with collecting(model) as collection:
            for batch in batches:
                if _is_empty(batch):
                    continue
                last = batch
                with one_calibration_step(layers.values()):
                    exact = repeatable(partial(_call, model, batch))
            if last is None:
                raise HpmlError(
                    "calibrate: inputs= held no samples (empty batches, or an iterator used before?); give some inputs"
                )
        with eval_mode(model):
            lost = collection.choose(exact, partial(repeatable, partial(_call, model, last)))
        for name, crossbar in layers.items():
            _check_kept(name, crossbar)
    except BaseException:  # an input that does not fit costs no earlier calibration
        for name, crossbar in layers.items():
            crossbar.put_back(before[name])
            crossbar.error = errors[name]
        raise
    idle.warn()
    again = partial(repeatable, partial(_call, model, last))
    note_cost(model, lost, "calibrate", cost_of_weights(model, again, in_training=False, held=exact))
    return {
        name: "dynamic" if crossbar.scales_vectors else float(crossbar.dac_range().detach())
        for name, crossbar in layers.items()
    }


def _call(model: nn.Module, batch: Any) -> Any:
    return call_network(model, batch if isinstance(batch, Mapping) else _first(batch))


def _check_kept(name: str, crossbar: Crossbar) -> None:
    """Refuse a range of the caller's that leaves nothing of any vector."""
    target = crossbar.target
    asked = [f"{key}={value!r}" for key in ("input_range", "adc_bound") if (value := getattr(target, key)) is not None]
    if asked and crossbar.error is not None and crossbar.error.loses_all:
        raise HpmlError(
            f"calibrate: layer {name!r}: with {' and '.join(asked)} the converters lose everything (full scale "
            f"{float(crossbar.dac_range().detach()):.3g}, ADC {crossbar.adc_bound():.3g}); take another range, or None"
        )


class Collection:
    """What a pass with ideal converters collects of each layer.

    Args:
        model: a network with analog layers.
    """

    def __init__(self, model: nn.Module):
        self._model = model
        self.samples = {name: VectorSamples() for name in crossbars(model)}

    def choose(self, exact: Any, call: Callable[[], Any]) -> float | None:
        """Set the ranges of all layers to those with which the network loses least.

        Args:
            exact: outputs of the network on one batch, with ideal converters.
            call: gives them through the converters.

        Returns:
            What the converters cost those outputs, as `OutputError.cost` has it.
        """
        choices = [
            RangeChoice(crossbar, weight_matrix(self._model, name), self.samples[name])
            for name, crossbar in crossbars(self._model).items()
        ]

        def take(*, least: bool) -> None:
            for choice in choices:
                choice.take(least=least)

        take(least=True)
        least = OutputError(exact, call)
        if all(choice.is_one for choice in choices):
            return least.cost()
        take(least=False)
        holding = OutputError(exact, call)
        if holding.lost <= least.lost and (cost := holding.cost()) is not None:
            return cost
        take(least=True)  # where the outputs tell nothing, what each layer loses is all there is to go by
        return least.cost()


@contextmanager
def collecting(model: nn.Module) -> Iterator[Collection]:
    """Within the block the model runs in evaluation mode with ideal converters, and its layers collect their inputs.

    Args:
        model: a network with analog layers, none of them programmed.
    """
    collection, layers = Collection(model), crossbars(model)
    try:
        with eval_mode(model):
            for name, crossbar in layers.items():
                crossbar.calibrating = collection.samples[name]
            yield collection
    finally:
        for crossbar in layers.values():
            crossbar.calibrating = None


@register_after_training
def settle_ranges(model: nn.Module, call: Callable[[], Any]) -> None:
    """Choose the ranges of all layers on one more batch, after training has moved weights and inputs.

    A range that the rule found in training stays ("percentile", "sigma", "learned"); what is chosen is chosen anew, and
    what the converters lose is noted.

    Args:
        model: any network.
        call: runs the model on the batch.
    """
    if not any(crossbar.programmed is None for crossbar in crossbars(model).values()):
        return
    before = {name: crossbar.ranges_now() for name, crossbar in crossbars(model).items()}
    with collecting(model) as collection:
        with one_calibration_step(crossbars(model).values()):
            exact = repeatable(call)
        for name, crossbar in crossbars(model).items():
            crossbar.put_back(before[name])  # the batch was seen in training
    with eval_mode(model):
        note_cost(model, collection.choose(exact, partial(repeatable, call)), "fit")


def _batches(inputs: Any) -> Iterable[Any]:
    if isinstance(inputs, (str, Data)):
        return in_order(load_data(inputs).train, _BATCH)
    if isinstance(inputs, (Tensor, Mapping)):
        return [inputs]
    if not isinstance(inputs, Iterable):
        raise HpmlError(f"calibrate: inputs={shown(inputs)}: {_ALLOWED}")
    return inputs


def _is_empty(batch: Any) -> bool:
    """Whether a batch holds no value at all: ranges cannot come from it."""
    first = next(tensors_in(batch), None)
    return first is not None and first.numel() == 0


def _first(batch: Any) -> Inputs:
    """What a network is called with: the batch, or of (inputs, labels) the inputs, one or several."""
    first = batch[0] if isinstance(batch, Sequence) and not isinstance(batch, str) and len(batch) else batch
    found = list(tensors_in(first))
    if not found:
        raise HpmlError(f"calibrate: inputs= holds a batch {shown(batch)}: {_ALLOWED}")
    if not all(bool(torch.isfinite(tensor).all()) for tensor in found):
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
