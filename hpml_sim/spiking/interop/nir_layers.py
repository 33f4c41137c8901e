"""One node of NIR as a layer of ours; `nir_nodes.py` has the equations, and a node that we cannot run is refused."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hpml_sim.errors import ConversionError
from hpml_sim.spiking.interop.nir_feedback import scaled
from hpml_sim.spiking.interop.nir_nodes import as_pair
from hpml_sim.spiking.interop.nir_package import nir
from hpml_sim.spiking.neurons.integrators import LeakyIntegrators
from hpml_sim.spiking.neurons.lif import LeakyNeurons
from hpml_sim.spiking.neurons.recurrent import RecurrentNeurons, RecurrentSynapticNeurons
from hpml_sim.spiking.neurons.synaptic import SynapticNeurons

_LOG = logging.getLogger(__name__)
_FEWEST = 0.01
"""Share of the threshold that an input of 1 adds in a step, below which dt is doubted: a hundred steps to a spike."""


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
        feedback: the connection through which the neurons' own spikes come back one step later; None: none.

    Returns:
        The layer; it takes (chips x steps x batch, ...).

    Raises:
        ConversionError: there is none.
    """
    n = nir()
    where = f"{where}: {type(node).__name__}"
    if isinstance(node, (n.LIF, n.IF, n.CubaLIF, n.LI, n.I)):
        return _neurons_of(where, node, dt, feedback)
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
    reset = np.asarray(getattr(node, "v_reset", 0.0), np.float64)
    resistance = np.asarray(node.r, np.float64)
    offset: Any = 0.0
    if isinstance(node, (n.I, n.IF)):
        beta, gain = np.ones(resistance.shape), resistance * dt
    else:
        share = dt / _time_constant(where, node.tau_mem if isinstance(node, n.CubaLIF) else node.tau, dt)
        # the membrane is counted from its reset
        beta, gain, offset = 1 - share, resistance * share, (np.asarray(node.v_leak, np.float64) - reset) * share
    decay = torch.as_tensor(beta.clip(0, 1)).float()
    if isinstance(node, (n.I, n.LI)):
        return _with_gain(gain, offset, LeakyIntegrators(decay))
    options: dict[str, Any] = {"beta": decay, "threshold": _threshold(node, reset), "reset": "zero"}
    _hint_at_dt(where, node, gain, dt)
    alpha = None
    if isinstance(node, n.CubaLIF):
        share = dt / _time_constant(where, node.tau_syn, dt)
        if np.any(offset != 0):
            raise ConversionError(f"{where}: a v_leak other than v_reset has no equal here")
        # the current is linear in what comes in, so both gains can stand before it
        gain, alpha = gain * np.asarray(node.w_in, np.float64) * share, torch.as_tensor((1 - share).clip(0, 1)).float()
    if np.any(reset != 0):
        options["initial"] = _start(where, node, reset, feedback is None and alpha is None)
    made: Any
    if feedback is None and alpha is None:
        made = LeakyNeurons(**options)
    else:
        options |= {"reset_delay": False} | ({} if alpha is None else {"alpha": alpha})
        if feedback is None:
            made = SynapticNeurons(**options)
        else:
            options["recurrent"] = scaled(where, feedback, gain)
            made = RecurrentNeurons(**options) if alpha is None else RecurrentSynapticNeurons(**options)
    return _with_gain(gain, offset, made)


def _with_gain(gain: Any, offset: Any, made: nn.Module) -> nn.Module:
    """Neurons behind the weight with which they take their current."""
    plain = np.allclose(gain, 1, rtol=1e-5) and np.all(np.asarray(offset) == 0)
    return made if plain else nn.Sequential(Gain(gain, offset), made)


def _threshold(node: Any, reset: np.ndarray) -> Tensor:
    return torch.as_tensor(np.asarray(np.asarray(node.v_threshold, np.float64) - reset)).float()


def _start(where: str, node: Any, reset: np.ndarray, can: bool) -> float:
    """Where a membrane that starts at 0 stands between reset and threshold, as a share."""
    shares = np.unique(-reset / (np.asarray(node.v_threshold, np.float64) - reset))
    if not can or len(shares) > 1 or not 0 <= shares[0] <= 1:
        raise ConversionError(
            f"{where}: a v_reset other than 0 is run for LIF and IF without feedback alone, at or below 0 and the same "
            "share of the threshold for all neurons"
        )
    return float(shares[0])


def _hint_at_dt(where: str, node: Any, gain: np.ndarray, dt: float) -> None:
    """Say where integrators would take very many steps to fire, as where r was written for steps of 1."""
    threshold = np.asarray(node.v_threshold, np.float64)
    if not isinstance(node, nir().IF) or not np.size(gain) or np.any(threshold <= 0):
        return
    weight = float(np.max(np.abs(gain) / threshold))
    if weight < _FEWEST:
        _LOG.warning(
            "%s: an input of 1 adds %.3g of the threshold in a step of %g s, so that it hardly ever fires; is dt "
            "right? Some tools write their graphs for dt=1",
            where, weight, dt,
        )  # fmt: skip


def _time_constant(where: str, tau: Any, dt: float) -> np.ndarray:
    tau = np.asarray(tau, np.float64)
    if np.any(tau < dt * (1 - 1e-6)) or not np.all(np.isfinite(tau)):
        raise ConversionError(
            f"{where}: a time constant must be finite and at least dt = {dt:g} s, or one Euler step overshoots"
        )
    return tau
