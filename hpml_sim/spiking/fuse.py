"""`fuse`: a snnTorch neuron or network as its fused multi-step equal."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import torch
from torch import Tensor, nn

from hpml_sim.errors import ConversionError, HpmlError
from hpml_sim.spiking._snntorch import snntorch
from hpml_sim.spiking.neurons import LeakyNeurons


class FusedLeaky(LeakyNeurons):
    """A `snntorch.Leaky` that takes all steps at once, and returns what the neuron returns: spikes, or with membranes.

    Args:
        with_membrane: return (spikes, membranes) as the neuron does with `output=True` or `init_hidden=False`.
        others: arguments of `LeakyNeurons`.
    """

    def __init__(self, *arguments: Any, with_membrane: bool = False, **others: Any):
        super().__init__(*arguments, **others)
        self.with_membrane = with_membrane

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:  # type: ignore[override]
        """(steps x batch, ...) -> spikes, or spikes and membrane potentials, of that shape."""
        if not self.with_membrane:
            return super().forward(x)
        spikes, membrane = self.run(self.unfold(x))
        return spikes.reshape(x.shape), membrane.reshape(x.shape)


class FusedNetwork(nn.Module):
    """A network of one time step, run over all steps at once: (steps, batch, ...) in and out.

    Layers without memory see all steps as one batch, neurons run over time. Each call starts from state 0.

    Attributes:
        network: the network, its neurons fused; they take (steps x batch, ...).
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Any:
        """(steps, batch, ...) -> what the network returns for one step, with steps in front.

        Raises:
            HpmlError: the input has no steps, or fewer than two dimensions.
        """
        if x.dim() < 2 or x.shape[0] < 1:
            raise HpmlError(f"fused network: input of shape {tuple(x.shape)}; expected (steps, batch, ...), steps >= 1")
        steps, batch = x.shape[:2]
        for module in self.modules():
            if isinstance(module, LeakyNeurons):
                module.steps = steps
        return _unfolded(self.network(x.flatten(0, 1)), steps, batch)


def _unfolded(y: Any, steps: int, batch: int) -> Any:
    if isinstance(y, (tuple, list)):
        return tuple(_unfolded(part, steps, batch) for part in y)
    return y.unflatten(0, (steps, batch))


def fuse(module: nn.Module) -> FusedNetwork:
    """The fused multi-step equal of a snnTorch neuron or network: one call for all steps, spikes equal bit for bit.

    Args:
        module: a `snntorch.Leaky`, or a network whose forward is ONE time step, made of stateless layers and `Leaky`
            neurons with `init_hidden=True` (such as `nn.Sequential`). It is not changed; weights are copied.

    Returns:
        A module (steps, batch, ...) -> (steps, batch, ...): spikes, or (spikes, membranes) where the neuron gives both.

    Example:
        fast = hs.spiking.fuse(nn.Sequential(nn.Linear(64, 10), snn.Leaky(beta=0.9, init_hidden=True)))
        spikes = fast(x)                                    # x: (steps, batch, 64)

    Raises:
        ConversionError: no `Leaky` in it, another kind of spiking neuron, or an option that has no fused equal; the
            message names the layer and the option.
    """
    snn = snntorch()
    memo: dict[int, Any] = {}
    for name, neuron in module.named_modules():
        if isinstance(neuron, snn.Leaky):
            memo[id(neuron)] = _fused(neuron, f"layer {name!r}" if name else "neuron", inside=neuron is not module)
        elif isinstance(neuron, (snn.SpikingNeuron, nn.RNNBase)):
            raise ConversionError(
                f"fuse: layer {name!r}: {type(neuron).__name__} has a memory and no fused equal; "
                "only snntorch.Leaky has one"
            )
    if not memo:
        raise ConversionError(f"fuse: no snntorch.Leaky found in {type(module).__name__}")
    # deepcopy takes the fused neuron wherever it meets the original, also where it is used twice.
    return FusedNetwork(copy.deepcopy(module, memo))


def _fused(neuron: Any, where: str, *, inside: bool) -> FusedLeaky:
    unsupported = {
        "reset_delay=False": not neuron.reset_delay,
        "inhibition=True": neuron.inhibition,
        "state_quant": bool(neuron.state_quant),
        "graded_spikes_factor other than 1": not bool((torch.as_tensor(neuron.graded_spikes_factor) == 1).all()),
        "learn_graded_spikes_factor=True": isinstance(neuron.graded_spikes_factor, nn.Parameter),
        "surrogate_disable=True": neuron.surrogate_disable,
        "init_hidden=False inside a network (its state is passed by hand)": inside and not neuron.init_hidden,
    }
    for option, used in unsupported.items():
        if used:
            raise ConversionError(f"fuse: {where}: {option} has no fused equal")
    surrogate, slope = _surrogate(neuron.spike_grad, where)
    fused = FusedLeaky(
        neuron.beta.detach().clamp(0, 1),
        neuron.threshold,
        reset=neuron.reset_mechanism,
        surrogate=surrogate,
        slope=slope,
        learn_beta=isinstance(neuron.beta, nn.Parameter),
        learn_threshold=isinstance(neuron.threshold, nn.Parameter),
        with_membrane=neuron.output or not neuron.init_hidden,
    )
    return fused.train(neuron.training)


def _surrogate(spike_grad: Any, where: str) -> tuple[Any, float]:
    """Name and parameter of a surrogate that `snntorch.surrogate` made: it keeps them in a closure."""
    if inspect.isfunction(spike_grad) and spike_grad.__module__ == "snntorch.surrogate":
        maker = spike_grad.__qualname__.split(".")[0]
        parameter = {"atan": "alpha", "fast_sigmoid": "slope"}.get(maker)
        if parameter is not None:
            return maker, float(inspect.getclosurevars(spike_grad).nonlocals[parameter])
    raise ConversionError(
        f"fuse: {where}: spike_grad={getattr(spike_grad, '__qualname__', spike_grad)!r} has no fused equal; "
        "take snntorch.surrogate.atan or fast_sigmoid"
    )
