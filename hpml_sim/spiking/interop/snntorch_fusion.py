"""`fuse`: a snnTorch neuron or network as its fused multi-step equal."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import torch
from torch import Tensor, nn

from hpml_sim.conversion.cloning import clone
from hpml_sim.conversion.modules import check_network
from hpml_sim.errors import ConversionError
from hpml_sim.kernels.surrogates import SURROGATES, Surrogate, surrogate
from hpml_sim.spiking.fused_network import FusedNetwork, FusedNeurons
from hpml_sim.spiking.module_replacement import keep_hooks
from hpml_sim.spiking.neurons.lapicque import LapicqueNeurons
from hpml_sim.spiking.neurons.lif import LeakyNeurons
from hpml_sim.spiking.neurons.recurrent import RecurrentNeurons, RecurrentSynapticNeurons
from hpml_sim.spiking.neurons.synaptic import AlphaNeurons, SynapticNeurons
from hpml_sim.spiking.snntorch_import import snntorch
from hpml_sim.spiking.snntorch_reset import warn_if_changed
from hpml_sim.spiking.time_folded_layers import TimeFoldedBatchNorm


def fuse(module: nn.Module) -> FusedNetwork:
    """The fused multi-step equal of a snnTorch neuron or network: one call for all steps.

    For the same currents, spikes, states and gradients are equal bit for bit. A layer with weights sees all steps as
    one batch, and a matrix product of another size may round its last bit otherwise. Layers that mix the rows of a
    batch, such as attention over the first dimension, make the network run step by step, which the log says and
    `FusedNetwork.why_step_by_step`. Forward and backward hooks stay with their layers and neurons. A batch norm keeps
    statistics of each step in training, as in a loop; dropout draws a mask for each step, as there.

    Source: snntorch 1.0.0 (E. O. Eshraghian et al., Proc. IEEE 111:1016, 2023).

    Args:
        module: a `snntorch.Leaky`, `Synaptic`, `Alpha`, `Lapicque`, `RLeaky` or `RSynaptic`, or a network whose forward
            is ONE time step, made of layers without memory and such neurons with `init_hidden=True` (such as
            `nn.Sequential`). It is not changed; weights are copied.

    Returns:
        A module (steps, batch, ...) -> (steps, batch, ...): spikes, or (spikes, states ...) as the neuron gives.

    Raises:
        ConversionError: no neuron in it, another kind of spiking neuron, or an option that has no fused equal; the
            message names the layer and the option.
        HpmlError: `module` is no network, or snnTorch is not installed.

    Example:
        >>> import torch, snntorch, hpml_sim as hs
        >>> net = torch.nn.Sequential(torch.nn.Linear(64, 10), snntorch.Leaky(beta=0.9, init_hidden=True))
        >>> fast = hs.spiking.fuse(net)
        >>> fast(torch.rand(20, 5, 64)).shape  # (steps, batch, ...)
        torch.Size([20, 5, 10])
    """
    check_network("fuse: module", module)
    snn = snntorch()
    warn_if_changed()
    memo: dict[int, Any] = {}
    fused = (snn.Leaky, snn.Synaptic, snn.Alpha, snn.Lapicque, snn.RLeaky, snn.RSynaptic)
    norms: dict[int, Any] = {}
    inside: list[str] = []
    for name, neuron in module.named_modules():
        if any(name.startswith(above) for above in inside):
            continue
        if type(neuron) in fused:
            made = _fused(neuron, f"layer {name!r}" if name else "neuron", inside=neuron is not module)
            memo[id(neuron)] = keep_hooks(neuron, made)
            inside.append(f"{name}." if name else "")
        elif isinstance(neuron, nn.modules.batchnorm._BatchNorm):
            norms[id(neuron)] = TimeFoldedBatchNorm(clone(neuron)).train(neuron.training)
        elif isinstance(neuron, (snn.SpikingNeuron, nn.RNNBase)):
            raise ConversionError(
                f"fuse: layer {name!r}: {type(neuron).__name__} has a memory and no fused equal; "
                f"only {', '.join(kind.__name__ for kind in fused)} have one"
            )
    if not memo:
        raise ConversionError(f"fuse: no snntorch.Leaky found in {type(module).__name__}, nor another of its neurons")
    return FusedNetwork(clone(module, memo | norms))


def _fused(neuron: Any, where: str, *, inside: bool) -> FusedNeurons:
    snn = snntorch()
    late = getattr(neuron, "reset_delay", True)
    unsupported = {
        "reset_delay=False with reset_mechanism='subtract' (there it leaves a neuron silent above its threshold)": (
            not late and neuron.reset_mechanism == "subtract"
        ),
        "inhibition=True": neuron.inhibition,
        "state_quant": bool(neuron.state_quant),
        "graded_spikes_factor other than 1": not bool((torch.as_tensor(neuron.graded_spikes_factor) == 1).all()),
        "learn_graded_spikes_factor=True": isinstance(neuron.graded_spikes_factor, nn.Parameter),
        "surrogate_disable=True": neuron.surrogate_disable,
        "init_hidden=False inside a network (its forward() passes the state by hand, mostly in its own time loop; "
        "write one time step, such as nn.Sequential(..., snn.Leaky(..., init_hidden=True)), and fuse that)": (
            inside and not neuron.init_hidden
        ),
    }
    for option, used in unsupported.items():
        if used:
            raise ConversionError(f"fuse: {where}: {option} has no fused equal")
    options: dict[str, Any] = {
        "threshold": neuron.threshold,
        "reset": neuron.reset_mechanism,
        "surrogate": _surrogate(neuron.spike_grad, where),
        "learn_threshold": isinstance(neuron.threshold, nn.Parameter),
    }
    if not isinstance(neuron, snn.Lapicque):
        options["beta"] = neuron.beta.detach().clamp(0, 1)
        options["learn_beta"] = isinstance(neuron.beta, nn.Parameter)
    if isinstance(neuron, snn.Leaky):
        made = LeakyNeurons(**options, reset_delay=late)
    elif isinstance(neuron, snn.RLeaky):
        made = RecurrentNeurons(
            _recurrent(neuron, where), learn_recurrent=neuron.learn_recurrent, reset_delay=late, **options
        )
    elif isinstance(neuron, (snn.Synaptic, snn.Alpha, snn.RSynaptic)):
        alpha: Any = neuron.alpha
        options |= {"alpha": alpha.detach().clamp(0, 1), "learn_alpha": isinstance(alpha, nn.Parameter)}
        if isinstance(neuron, snn.Alpha):
            made = AlphaNeurons(**options)
        elif isinstance(neuron, snn.Synaptic):
            made = SynapticNeurons(reset_delay=late, **options)
        else:
            options |= {"recurrent": _recurrent(neuron, where), "learn_recurrent": neuron.learn_recurrent}
            made = RecurrentSynapticNeurons(reset_delay=late, **options)
    else:
        if isinstance(neuron.beta, nn.Parameter):
            raise ConversionError(f"fuse: {where}: learn_beta=True: a Lapicque never uses its beta after it is built")
        made = LapicqueNeurons(neuron.R, neuron.C, neuron.time_step, **options)
    with torch.no_grad():
        # a learned decay may have left [0, 1]: the neuron clamps it in each call, and no gradient comes back
        for name in ("beta", "alpha"):
            learned = getattr(made, name, None)
            if isinstance(learned, nn.Parameter):
                learned.copy_(getattr(neuron, name))
    return FusedNeurons(made, neuron.output or not neuron.init_hidden).train(neuron.training)


def _recurrent(neuron: Any, where: str) -> Tensor | nn.Linear | nn.Conv2d:
    if not neuron.all_to_all:
        return neuron.V.detach()
    if not isinstance(neuron.recurrent, (nn.Linear, nn.Conv2d)):
        kind = type(neuron.recurrent).__name__
        raise ConversionError(f"fuse: {where}: a recurrent {kind} has no fused equal; a Linear, Conv2d or V has")
    return copy.deepcopy(neuron.recurrent)


def _surrogate(spike_grad: Any, where: str) -> Surrogate:
    """What `snntorch.surrogate` made, from what it keeps in a closure."""
    if inspect.isfunction(spike_grad) and spike_grad.__module__ == "snntorch.surrogate":
        maker = spike_grad.__qualname__.split(".")[0]
        kept = inspect.getclosurevars(spike_grad).nonlocals
        if maker == "custom_surrogate":
            return surrogate(kept["func"])
        if maker in SURROGATES:
            return Surrogate(maker, tuple(float(kept[name]) for name in SURROGATES[maker][1]))
    raise ConversionError(
        f"fuse: {where}: spike_grad={getattr(spike_grad, '__qualname__', spike_grad)!r} has no fused equal; "
        "take one that snntorch.surrogate makes, such as atan() or custom_surrogate(f)"
    )
