"""One of our layers as a node of NIR; what would compute otherwise elsewhere is refused.

NIR (J. E. Pedersen et al., Nat. Commun. 15:8122, 2024) describes neurons in continuous time; with one forward Euler
step of dt, as snnTorch's importer takes it, they are

    LIF      v' = v + dt / tau (v_leak - v + r x);  S = v' > v_threshold;  then v' = v_reset
             LeakyNeurons with reset "zero": tau = dt / (1 - beta), r = tau / dt
    IF       v' = v + dt r x, S and reset as for LIF: LeakyNeurons with beta = 1
    CubaLIF  i' = i + dt / tau_syn (-i + w_in x);  v' = v + dt / tau_mem (v_leak - v + r i'), S and reset as for LIF
             SynapticNeurons with reset "zero" and reset_delay=False
    LI, I    the same without spikes: LeakyIntegrators

A recurrent LIF or CubaLIF is a graph of its own, in which its spikes come back through a weight one step later. Reset
by subtraction, the time step and the surrogate have no place in NIR.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hpml_sim.errors import ConversionError
from hpml_sim.spiking.fused_network import FusedNeurons
from hpml_sim.spiking.interop.nir_package import nir
from hpml_sim.spiking.neurons.integrators import LeakyIntegrators
from hpml_sim.spiking.neurons.lif import LeakyNeurons
from hpml_sim.spiking.neurons.parameters import text_of
from hpml_sim.spiking.neurons.recurrent import RecurrentNeurons, RecurrentSynapticNeurons
from hpml_sim.spiking.neurons.synaptic import SynapticNeurons
from hpml_sim.spiking.time_folded_layers import TimeFoldedBatchNorm, TimeFoldedDropout
from hpml_sim.spiking.time_folding import TimeFolded

Shape = tuple[int, ...]
_TRANSPARENT = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, TimeFoldedDropout)


def does_nothing(layer: nn.Module) -> bool:
    """Whether a `layer` passes on what it gets in evaluation mode."""
    inner = layer.norm if isinstance(layer, TimeFoldedBatchNorm) else layer
    return isinstance(inner, _TRANSPARENT)


def node_of(where: str, layer: nn.Module, before: Shape, after: Shape, dt: float) -> Any:
    """The node that computes what a layer does.

    Args:
        where: begins the error message.
        layer: a layer or neurons in evaluation mode.
        before: shape of one sample at its input.
        after: shape of one sample at its output.
        dt: seconds of a step, > 0.

    Returns:
        The node; a `nir.NIRGraph` for recurrent neurons.

    Raises:
        ConversionError: there is none.
    """
    if isinstance(layer, FusedNeurons):
        layer = layer.neurons
    if isinstance(layer, TimeFolded):
        return _neuron_node(where, layer, after, dt)
    kind: Any = type(layer)
    make: Any = {
        nn.Linear: _linear_node,
        nn.Conv1d: _conv_node,
        nn.Conv2d: _conv_node,
        nn.AvgPool2d: _pool_node,
        nn.Flatten: _flatten_node,
    }.get(kind)
    if make is None:
        fuse = "; give hs.spiking.fuse(network)" if kind.__module__.startswith("snntorch") else ""
        raise ConversionError(f"{where}: {kind.__name__} has no NIR node that computes the same{fuse}")
    return make(f"{where}: {kind.__name__}", layer, before)


def _linear_node(where: str, layer: nn.Linear, before: Shape) -> Any:
    if len(before) != 1:
        raise ConversionError(f"{where} on inputs of shape {before}: NIR's Affine takes one dimension")
    weight = _array(layer.weight)
    return nir().Linear(weight) if layer.bias is None else nir().Affine(weight, _array(layer.bias))


def _conv_node(where: str, layer: nn.Conv1d | nn.Conv2d, before: Shape) -> Any:
    if layer.padding_mode != "zeros":
        raise ConversionError(f"{where} with padding_mode={layer.padding_mode!r}: NIR pads with zeros")
    bias = np.zeros(layer.out_channels, np.float32) if layer.bias is None else _array(layer.bias)
    weight, padding = _array(layer.weight), layer.padding
    if isinstance(layer, nn.Conv1d):
        sizes = [
            value if isinstance(value, str) else int(value[0]) for value in (layer.stride, padding, layer.dilation)
        ]
        return nir().Conv1d(before[1], weight, *sizes, layer.groups, bias)
    padding = padding if isinstance(padding, str) else as_pair(padding)
    return nir().Conv2d(before[1:], weight, as_pair(layer.stride), padding, as_pair(layer.dilation), layer.groups, bias)


def _pool_node(where: str, layer: nn.AvgPool2d, before: Shape) -> Any:
    sums = layer.divisor_override == 1
    padded = as_pair(layer.padding) != (0, 0)
    if layer.ceil_mode or (layer.divisor_override and not sums) or (padded and not layer.count_include_pad):
        raise ConversionError(
            f"{where}: ceil_mode, count_include_pad=False and a divisor_override other than 1 have no NIR equal"
        )
    sizes = (np.array(as_pair(size)) for size in (layer.kernel_size, layer.stride, layer.padding))
    return (nir().SumPool2d if sums else nir().AvgPool2d)(*sizes)


def _flatten_node(where: str, layer: nn.Flatten, before: Shape) -> Any:
    if layer.start_dim < 1:
        raise ConversionError(f"{where} from dimension {layer.start_dim}: it would flatten time and batch")
    end = layer.end_dim if layer.end_dim < 0 else layer.end_dim - 1
    return nir().Flatten({"input": np.array(before)}, layer.start_dim - 1, end)


def _neuron_node(where: str, layer: Any, shape: Shape, dt: float) -> Any:
    where = f"{where}: {type(layer).__name__}"
    if isinstance(layer, LeakyIntegrators):
        beta = _below_one(where, layer.beta, shape, none_if_all_one=True)
        if beta is None:
            return nir().I(r=np.full(shape, 1 / dt))
        return nir().LI(tau=dt / (1 - beta), r=1 / (1 - beta), v_leak=np.zeros(shape))
    kinds = (LeakyNeurons, SynapticNeurons, RecurrentNeurons, RecurrentSynapticNeurons)
    if type(layer) not in kinds:
        raise ConversionError(
            f"{where}: no NIR neuron spikes as these do; LeakyNeurons, SynapticNeurons, recurrent ones and "
            "LeakyIntegrators have one"
        )
    if layer.reset != "zero":
        raise ConversionError(
            f"{where} with reset={layer.reset!r}: NIR resets to a value, so other systems would give other spikes "
            "(about a third of them for 'subtract'); train with reset='zero'"
        )
    if bool(torch.as_tensor(layer.initial).any()):
        raise ConversionError(f"{where} with initial={text_of(layer.initial)}: NIR's neurons start at 0")
    if type(layer) is not LeakyNeurons and layer.reset_delay:
        raise ConversionError(
            f"{where} with reset_delay=True: the step after a spike loses its current, which NIR's neurons do not do; "
            "train with reset_delay=False"
        )
    cuba = isinstance(layer, (SynapticNeurons, RecurrentSynapticNeurons))
    recurrent = isinstance(layer, RecurrentNeurons)
    # a neuron without leak is an IF, and has no place behind a synaptic current or in a recurrent graph
    beta = _below_one(where, layer.beta, shape, none_if_all_one=not cuba and not recurrent)
    ends = {"v_threshold": _spread(layer.threshold, shape), "v_reset": np.zeros(shape)}
    if beta is None:
        return nir().IF(r=np.full(shape, 1 / dt), **ends)
    ends["v_leak"] = np.zeros(shape)
    if cuba:
        alpha = _below_one(where, layer.alpha, shape, "alpha")
        assert alpha is not None
        neurons = nir().CubaLIF(
            tau_syn=dt / (1 - alpha), tau_mem=dt / (1 - beta), r=1 / (1 - beta), w_in=1 / (1 - alpha), **ends
        )
    else:
        neurons = nir().LIF(tau=dt / (1 - beta), r=1 / (1 - beta), **ends)
    return _with_feedback(where, layer, neurons, shape) if recurrent else neurons


def _with_feedback(where: str, layer: RecurrentNeurons, neurons: Any, shape: Shape) -> Any:
    if layer.recurrent is not None:
        feedback = node_of(f"{where}.recurrent", layer.recurrent, shape, shape, 1.0)
    elif len(shape) == 1:
        feedback = nir().Linear(np.diag(_spread(layer.V, shape)).astype(np.float32))
    else:
        raise ConversionError(f"{where} one to one on neurons of shape {shape}: NIR needs a matrix; flatten before it")
    ends = {"input": nir().Input({"input": np.array(shape)}), "output": nir().Output({"output": np.array(shape)})}
    edges = [("input", "lif"), ("lif", "w_rec"), ("w_rec", "lif"), ("lif", "output")]
    return nir().NIRGraph({"input": ends["input"], "lif": neurons, "w_rec": feedback, "output": ends["output"]}, edges)


def _below_one(
    where: str, decay: Tensor, shape: Shape, name: str = "beta", *, none_if_all_one: bool = False
) -> np.ndarray | None:
    """The decay of each neuron in float64; None if it is 1 for all and the caller has a node for that."""
    values = _spread(decay.detach().double().clamp(0, 1), shape)
    if none_if_all_one and np.all(values == 1):
        return None
    if np.any(values == 1):
        raise ConversionError(f"{where}: {name} = 1 (for some neurons): its time constant would be infinite in NIR")
    return values


def _spread(value: Tensor, shape: Shape) -> np.ndarray:
    return np.array(np.broadcast_to(_array(value), shape))  # a copy: consumers write to it


def _array(value: Tensor) -> np.ndarray:
    value = value.detach().cpu()
    return np.array(value.numpy() if value.dtype in (torch.float32, torch.float64) else value.float().numpy())


def as_pair(value: Any) -> tuple[int, int]:
    """Two whole numbers of one number `value` or of two, as sizes of convolutions and pools are given."""
    return (int(value), int(value)) if np.ndim(value) == 0 else (int(value[0]), int(value[1]))
