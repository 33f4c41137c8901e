"""One layer as a node of NIR, and one node as a layer; what would compute otherwise elsewhere is refused.

NIR (J. E. Pedersen et al., Nat. Commun. 15:8122, 2024) describes neurons in continuous time; with one forward Euler
step of dt, as snnTorch's importer takes it, they are

    LIF      v' = v + dt / tau (v_leak - v + r x);  S = v' > v_threshold;  then v' = v_reset
             LeakyNeurons with reset "zero": tau = dt / (1 - beta), r = tau / dt
    IF       v' = v + dt r x, S and reset alike: LeakyNeurons with beta = 1
    CubaLIF  i' = i + dt / tau_syn (-i + w_in x);  v' = v + dt / tau_mem (v_leak - v + r i'), S and reset alike
             SynapticNeurons with reset "zero" and reset_delay=False
    LI, I    the same without spikes: LeakyIntegrators

A recurrent LIF or CubaLIF is a graph of its own, in which its spikes come back through a weight one step later. Reset
by subtraction, the time step and the surrogate have no place in NIR.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hpml_sim.errors import ConversionError, needs
from hpml_sim.spiking.fusion import FusedNeurons
from hpml_sim.spiking.multistep_neurons import RecurrentNeurons, RecurrentSynapticNeurons, SynapticNeurons
from hpml_sim.spiking.neurons import LeakyIntegrators, LeakyNeurons
from hpml_sim.spiking.time_folding import TimeFolded, TimeFoldedBatchNorm, TimeFoldedDropout

Shape = tuple[int, ...]
_TRANSPARENT = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, TimeFoldedDropout)


def nir() -> ModuleType:
    """The package nir.

    Raises:
        HpmlError: it is not installed, with the command that installs it.
    """
    with needs("NIR", "hpml_sim[snn]"):
        import nir
    return nir


# -------------------------------------------------------------------------------------------------------- layer -> node


def does_nothing(layer: nn.Module) -> bool:
    """Whether a layer passes on what it gets in evaluation mode."""
    inner = layer.norm if isinstance(layer, TimeFoldedBatchNorm) else layer
    return isinstance(inner, _TRANSPARENT)


def node_of(where: str, layer: nn.Module, before: Shape, after: Shape, dt: float) -> Any:
    """The node that computes what a layer does.

    Args:
        where: begins the error. layer: in evaluation mode. before, after: shapes of one sample. dt: seconds of a step.

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
    padding = padding if isinstance(padding, str) else _pair(padding)
    return nir().Conv2d(before[1:], weight, _pair(layer.stride), padding, _pair(layer.dilation), layer.groups, bias)


def _pool_node(where: str, layer: nn.AvgPool2d, before: Shape) -> Any:
    sums = layer.divisor_override == 1
    padded = _pair(layer.padding) != (0, 0)
    if layer.ceil_mode or (layer.divisor_override and not sums) or (padded and not layer.count_include_pad):
        raise ConversionError(
            f"{where}: ceil_mode, count_include_pad=False and a divisor_override other than 1 have no NIR equal"
        )
    sizes = (np.array(_pair(size)) for size in (layer.kernel_size, layer.stride, layer.padding))
    return (nir().SumPool2d if sums else nir().AvgPool2d)(*sizes)


def _flatten_node(where: str, layer: nn.Flatten, before: Shape) -> Any:
    if layer.start_dim < 1:
        raise ConversionError(f"{where} from dimension {layer.start_dim}: it would flatten time and batch")
    end = layer.end_dim if layer.end_dim < 0 else layer.end_dim - 1
    return nir().Flatten({"input": np.array(before)}, layer.start_dim - 1, end)


def _neuron_node(where: str, layer: Any, shape: Shape, dt: float) -> Any:
    where = f"{where}: {type(layer).__name__}"
    if isinstance(layer, LeakyIntegrators):
        beta = _below_one(where, layer.beta, shape, none_below=True)
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
    if layer.initial:
        raise ConversionError(f"{where} with initial={layer.initial}: NIR's neurons start at 0")
    if type(layer) is not LeakyNeurons and layer.reset_delay:
        raise ConversionError(
            f"{where} with reset_delay=True: the step after a spike loses its current, which NIR's neurons do not do; "
            "train with reset_delay=False"
        )
    cuba = isinstance(layer, (SynapticNeurons, RecurrentSynapticNeurons))
    recurrent = isinstance(layer, RecurrentNeurons)
    beta = _below_one(where, layer.beta, shape, none_below=not cuba and not recurrent)
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
    where: str, decay: Tensor, shape: Shape, name: str = "beta", *, none_below: bool = False
) -> np.ndarray | None:
    """The decay of each neuron in float64; None if it is 1 for all and the caller has a node for that."""
    values = _spread(decay.detach().double().clamp(0, 1), shape)
    if none_below and np.all(values == 1):
        return None
    if np.any(values == 1):
        raise ConversionError(f"{where}: {name} = 1 (for some neurons): its time constant would be infinite in NIR")
    return values


def _spread(value: Tensor, shape: Shape) -> np.ndarray:
    return np.array(np.broadcast_to(_array(value), shape))  # a copy: consumers write to it


def _array(value: Tensor) -> np.ndarray:
    value = value.detach().cpu()
    return np.array(value.numpy() if value.dtype in (torch.float32, torch.float64) else value.float().numpy())


def _pair(value: Any) -> tuple[int, int]:
    return (int(value), int(value)) if np.ndim(value) == 0 else (int(value[0]), int(value[1]))


# -------------------------------------------------------------------------------------------------------- node -> layer


class Gain(nn.Module):
    """A factor and an offset for each input: where a neuron of NIR takes its current with another weight than 1."""

    factor: Tensor
    offset: Tensor

    def __init__(self, factor: np.ndarray, offset: np.ndarray | float = 0.0):
        super().__init__()
        self.register_buffer("factor", torch.as_tensor(factor).float())
        self.register_buffer("offset", torch.as_tensor(offset).float())

    def forward(self, x: Tensor) -> Tensor:
        """(batch, ...) -> the same shape."""
        return x * self.factor + self.offset


def layer_of(where: str, node: Any, dt: float, feedback: Any = None) -> nn.Module:
    """The layer that computes what a node means in steps of dt seconds.

    Args:
        where: begins the error. node: of NIR. dt: seconds of a step. feedback: the weight (a node) through which the
            neurons' own spikes come back one step later; None: none.

    Raises:
        ConversionError: there is none.
    """
    n = nir()
    where = f"{where}: {type(node).__name__}"
    if isinstance(node, (n.LIF, n.IF, n.CubaLIF, n.LI, n.I)):
        return _neurons_of(where, node, dt, None if feedback is None else layer_of(where, feedback, dt))
    if isinstance(node, (n.Affine, n.Linear)):
        if node.weight.ndim != 2:
            raise ConversionError(f"{where} with a weight of shape {node.weight.shape}: only matrices can be run")
        rows, columns = node.weight.shape
        return _weighted(nn.Linear(columns, rows, bias=isinstance(node, n.Affine)), node)
    if isinstance(node, (n.Conv1d, n.Conv2d)):
        out, per_group, *kernel = node.weight.shape
        kind: Any = nn.Conv1d if isinstance(node, n.Conv1d) else nn.Conv2d
        size: Any = int if isinstance(node, n.Conv1d) else _pair
        padding = node.padding if isinstance(node.padding, str) else size(node.padding)
        stride, dilation = size(node.stride), size(node.dilation)
        made = kind(per_group * node.groups, out, tuple(kernel), stride, padding, dilation, node.groups)
        return _weighted(made, node)
    if isinstance(node, (n.AvgPool2d, n.SumPool2d)):
        kernel, stride, padding = (_pair(np.asarray(size)) for size in (node.kernel_size, node.stride, node.padding))
        return nn.AvgPool2d(kernel, stride, padding, divisor_override=1 if isinstance(node, n.SumPool2d) else None)
    if isinstance(node, n.Flatten):
        return nn.Flatten(node.start_dim + 1, node.end_dim if node.end_dim < 0 else node.end_dim + 1)
    if isinstance(node, n.Scale):
        return Gain(node.scale)
    if isinstance(node, n.Threshold):
        return LeakyNeurons(0.0, torch.as_tensor(node.threshold).float(), reset="none")
    raise ConversionError(f"{where} cannot be run here as it is meant")


def _weighted(layer: Any, node: Any) -> nn.Module:
    with torch.no_grad():
        layer.weight.copy_(torch.as_tensor(node.weight))
        if layer.bias is not None:
            layer.bias.copy_(torch.as_tensor(node.bias))
    return layer


def _neurons_of(where: str, node: Any, dt: float, feedback: Any) -> nn.Module:
    n = nir()
    if np.any(np.asarray(getattr(node, "v_reset", 0.0)) != 0):
        raise ConversionError(f"{where}: a v_reset other than 0 has no equal here")
    resistance = np.asarray(node.r, np.float64)
    offset: Any = 0.0
    if isinstance(node, (n.I, n.IF)):
        beta, gain = np.ones(resistance.shape), resistance * dt
    else:
        share = dt / _time_constant(where, node.tau_mem if isinstance(node, n.CubaLIF) else node.tau, dt)
        beta, gain, offset = 1 - share, resistance * share, np.asarray(node.v_leak, np.float64) * share
    beta = torch.as_tensor(beta.clip(0, 1)).float()
    made: Any
    if isinstance(node, (n.I, n.LI)):
        made = LeakyIntegrators(beta)
    else:
        threshold = torch.as_tensor(np.asarray(node.v_threshold)).float()
        options: dict[str, Any] = {"beta": beta, "threshold": threshold, "reset": "zero", "reset_delay": False}
        if feedback is not None:
            options["recurrent"] = feedback
        if isinstance(node, n.CubaLIF):
            share = dt / _time_constant(where, node.tau_syn, dt)
            if np.any(offset != 0):
                raise ConversionError(f"{where}: a v_leak other than 0 has no equal here")
            # the current is linear in what comes in, so both gains can stand before it
            gain, offset = gain * np.asarray(node.w_in, np.float64) * share, 0.0
            options["alpha"] = torch.as_tensor((1 - share).clip(0, 1)).float()
            made = SynapticNeurons(**options) if feedback is None else RecurrentSynapticNeurons(**options)
        else:
            made = LeakyNeurons(**{**options, "reset_delay": True}) if feedback is None else RecurrentNeurons(**options)
    plain = np.allclose(gain, 1, rtol=1e-5) and np.all(np.asarray(offset) == 0)
    if plain:
        return made
    if feedback is not None:
        raise ConversionError(
            f"{where}: its input has another weight than 1 in a step of {dt:g} s (is dt right?), and so have the "
            "spikes that come back, which has no equal here"
        )
    return nn.Sequential(Gain(gain, offset), made)


def _time_constant(where: str, tau: Any, dt: float) -> np.ndarray:
    tau = np.asarray(tau, np.float64)
    if np.any(tau < dt * (1 - 1e-6)) or not np.all(np.isfinite(tau)):
        raise ConversionError(
            f"{where}: a time constant must be finite and at least dt = {dt:g} s, or one Euler step overshoots"
        )
    return tau
