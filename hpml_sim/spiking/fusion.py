"""`fuse`: a snnTorch neuron or network as its fused multi-step equal."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from hpml_sim.conversion.cloning import clone
from hpml_sim.errors import ConversionError, HpmlError
from hpml_sim.kernels.surrogates import SURROGATES, Surrogate, surrogate
from hpml_sim.spiking.multistep_neurons import (
    AlphaNeurons,
    LapicqueNeurons,
    RecurrentNeurons,
    RecurrentSynapticNeurons,
    SynapticNeurons,
)
from hpml_sim.spiking.neurons import LeakyNeurons
from hpml_sim.spiking.snntorch_import import snntorch
from hpml_sim.spiking.snntorch_reset import warn_if_changed
from hpml_sim.spiking.state import StatefulNetwork
from hpml_sim.spiking.static_input import run_static_input
from hpml_sim.spiking.time_folding import TimeFolded, TimeFoldedBatchNorm


class FusedNeurons(nn.Module):
    """Neurons that take all steps at once and return what the snnTorch neuron returns: spikes, or with its states.

    Attributes:
        neurons: ours. with_states: return (spikes, states ...) as the neuron does with `output=True` or
            `init_hidden=False`.
    """

    def __init__(self, neurons: LeakyNeurons, with_states: bool):
        super().__init__()
        self.neurons = neurons
        self.with_states = with_states
        self.called = False

    def forward(self, x: Tensor, *, constant: bool = False) -> Tensor | tuple[Tensor, ...]:
        """(steps x batch, ...) -> spikes, or spikes and states in snnTorch's order, of that shape.

        With `constant`, x is (batch, ...), the same at every step.

        Raises:
            ConversionError: called twice in one pass, by a time loop in the network's forward() or a second use.
        """
        if self.called:
            raise ConversionError(
                "fused network: a neuron is called more than once in a pass. A forward() with its own time loop cannot "
                "be fused: take the loop out, so that forward() is one time step, and give all steps at once, (steps, "
                "batch, ...). A neuron used at two places needs a copy for each"
            )
        self.called = True
        return self.neurons(x, with_states=self.with_states, constant=constant)


class FusedNetwork(StatefulNetwork):
    """A network of one time step, run over all steps at once: (steps, batch, ...) in and out.

    Layers without memory see all steps as one batch, neurons run over time. Each call starts at rest; `run_with_state`
    passes states in and out, `keep_state` keeps them here. With chips side by side all of it is (chips x steps, batch,
    ...); programmed chips (`hs.program`) see to that.

    Attributes:
        network: the network, its neurons fused; they take (chips x steps x batch, ...).
        chips, keep_state, state: as in `StatefulNetwork`.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Any:
        """(steps, batch, ...) -> what the network returns for one step, with steps in front.

        An input that is the same at every step, given as `image.expand(steps, *image.shape)`, goes through the layers
        before the first neurons once (in an `nn.Sequential`).

        Raises:
            HpmlError: the input has no steps, not as many for every chip, or fewer than two dimensions.
        """
        if x.dim() < 2 or x.shape[0] < 1 or x.shape[0] % self.chips:
            raise HpmlError(
                f"fused network: input of shape {tuple(x.shape)}; expected (steps, batch, ...), steps >= 1"
                + (f" for each of {self.chips} chips" if self.chips > 1 else "")
            )
        steps, batch = x.shape[0] // self.chips, x.shape[1]
        prepare(self, steps)

        def run() -> Any:
            if self.chips == 1 and steps > 1 and x.stride(0) == 0 and not x.requires_grad:
                return run_static_input(
                    self.network, x[0], lambda y: y.expand(steps, *y.shape).flatten(0, 1), FusedNeurons
                )
            return self.network(x.flatten(0, 1))

        def unfold(y: Any) -> Any:
            return y.unflatten(0, (len(x), batch)) if isinstance(y, Tensor) else y

        return tree_map(unfold, self.going_on(run))


def prepare(module: nn.Module, steps: int) -> None:
    """Make all neurons inside ready for one pass over so many steps."""
    for part in module.modules():
        if isinstance(part, TimeFolded):
            part.steps = steps
        elif isinstance(part, FusedNeurons):
            part.called = False


def fuse(module: nn.Module) -> FusedNetwork:
    """The fused multi-step equal of a snnTorch neuron or network: one call for all steps.

    For the same currents, spikes, states and gradients are equal bit for bit. A layer with weights sees all steps as
    one batch, and a matrix product of another size may round its last bit otherwise. A batch norm keeps statistics of
    each step in training, as in a loop; dropout draws a mask for each step, as there.

    Args:
        module: a `snntorch.Leaky`, `Synaptic`, `Alpha`, `Lapicque`, `RLeaky` or `RSynaptic`, or a network whose forward
            is ONE time step, made of layers without memory and such neurons with `init_hidden=True` (such as
            `nn.Sequential`). It is not changed; weights are copied.

    Returns:
        A module (steps, batch, ...) -> (steps, batch, ...): spikes, or (spikes, states ...) as the neuron gives.

    Example:
        fast = hs.spiking.fuse(nn.Sequential(nn.Linear(64, 10), snn.Leaky(beta=0.9, init_hidden=True)))
        spikes = fast(x)                                    # x: (steps, batch, 64)

    Raises:
        ConversionError: no neuron in it, another kind of spiking neuron, or an option that has no fused equal; the
            message names the layer and the option.
    """
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
            memo[id(neuron)] = _fused(neuron, f"layer {name!r}" if name else "neuron", inside=neuron is not module)
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
            return surrogate(maker, **{name: float(kept[name]) for name in SURROGATES[maker][1]})
    raise ConversionError(
        f"fuse: {where}: spike_grad={getattr(spike_grad, '__qualname__', spike_grad)!r} has no fused equal; "
        "take one that snntorch.surrogate makes, such as atan() or custom_surrogate(f)"
    )
