"""One node of NIR as a layer of ours; `nir_nodes.py` has the equations, and a node that we cannot run is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hpml_sim.errors import ConversionError
from hpml_sim.spiking.interop.nir_nodes import as_pair
from hpml_sim.spiking.interop.nir_package import nir
from hpml_sim.spiking.neurons.integrators import LeakyIntegrators
from hpml_sim.spiking.neurons.lif import LeakyNeurons
from hpml_sim.spiking.neurons.recurrent import RecurrentNeurons, RecurrentSynapticNeurons
from hpml_sim.spiking.neurons.synaptic import SynapticNeurons


class Gain(nn.Module):
    """A factor and an offset for each input: where a neuron of NIR takes its current with another weight than 1.

    Args:
        factor: broadcasts to one sample.
        offset: broadcasts to one sample.
    """

    factor: Tensor
    offset: Tensor

    def __init__(self, factor: np.ndarray, offset: np.ndarray | float = 0.0):
        super().__init__()
        self.register_buffer("factor", torch.as_tensor(factor).float())
        self.register_buffer("offset", torch.as_tensor(offset).float())

    def forward(self, x: Tensor) -> Tensor:
        """The values times the factor plus the offset, of the shape of `x`, (batch, ...)."""
        return x * self.factor + self.offset


def layer_of(where: str, node: Any, dt: float, feedback: Any = None) -> nn.Module:
    """The layer that computes what a node means in steps of dt seconds.

    Args:
        where: begins the error message.
        node: of NIR.
        dt: seconds of a step, > 0.
        feedback: the weight (a node) through which the neurons' own spikes come back one step later; None: none.

    Returns:
        The layer; it takes (chips x steps x batch, ...).

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
        size: Any = int if isinstance(node, n.Conv1d) else as_pair
        padding = node.padding if isinstance(node.padding, str) else size(node.padding)
        stride, dilation = size(node.stride), size(node.dilation)
        made = kind(per_group * node.groups, out, tuple(kernel), stride, padding, dilation, node.groups)
        return _weighted(made, node)
    if isinstance(node, (n.AvgPool2d, n.SumPool2d)):
        kernel, stride, padding = (as_pair(np.asarray(size)) for size in (node.kernel_size, node.stride, node.padding))
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
