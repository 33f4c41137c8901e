"""Calibration data: what a network is run on so that its layers see their inputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hpml_sim.compress.matrices import Collector, Matrix, watch_inputs
from hpml_sim.conversion.modes import eval_mode
from hpml_sim.conversion.modules import running
from hpml_sim.conversion.network_call import call_network, tensors_in
from hpml_sim.data import Data, load_data
from hpml_sim.data.batches import Samples, first, in_order
from hpml_sim.errors import HpmlError, shown

CalibrationData = str | Data | Tensor | Mapping[str, Any] | Samples
"""A data set by name, a `Data`, a batch of inputs, or samples and batches as `hs.fit` takes them."""
SAMPLES = 128
"""Training samples of a data set that a network is run on."""
_BATCH = 32


def inputs_of(where: str, data: CalibrationData) -> Iterator[Any]:
    """Batches of inputs.

    Args:
        where: the function that the caller called, which begins a message.
        data: a batch of inputs, or what holds training samples, of which the first 128 are taken.

    Raises:
        HpmlError: no samples in it, or no data.
    """
    if isinstance(data, Tensor):
        yield from data.split(_BATCH) if data.dim() else ()
        return
    if isinstance(data, Mapping):
        yield data
        return
    if isinstance(data, str):
        data = load_data(data)
    samples: Any = data.train if isinstance(data, Data) else data
    if isinstance(samples, tuple) and all(isinstance(part, Tensor) for part in samples):
        yield samples
        return
    if not isinstance(samples, (Iterable, torch.utils.data.Dataset)):
        raise HpmlError(
            f"{where}: data={shown(data)}: must be a batch of inputs, a data set by name, such as 'digits', or samples "
            "as hs.fit takes them"
        )
    x, y = first(samples, SAMPLES)
    for part, _ in in_order([(x, y)], _BATCH):
        if isinstance(part, Tensor):
            yield from part.split(_BATCH)
        else:
            yield part


def collect(where: str, model: nn.Module, found: list[Matrix], data: CalibrationData, take: Collector) -> None:
    """Run a network on data and hand over what its layers are multiplied with.

    Args:
        where: the function that the caller called, which begins a message.
        model: the network; not changed.
        found: its matrices.
        data: what it is run on.
        take: gets a matrix and its input vectors, (vectors, inputs).

    Raises:
        HpmlError: no samples, or the network fails on them.
    """
    handles = watch_inputs(found, take)
    ran = False
    try:
        with eval_mode(model):
            for batch in inputs_of(where, data):
                with running(where, model, list(tensors_in(batch))):
                    call_network(model, batch)
                ran = True
    finally:
        for handle in handles:
            handle.remove()
    if not ran:
        raise HpmlError(f"{where}: data= holds no samples; give some inputs of the network")
