"""A network of one time step run over all steps at once: what `fuse` and `from_nir` give."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_map

from hpml_sim.conversion.input_layout import StepsFirst
from hpml_sim.conversion.inputs import check_finite, in_type_of_weights, integers_explained
from hpml_sim.conversion.modules import check_network
from hpml_sim.conversion.torch_fast_path import one_attention_path, run_every_layer
from hpml_sim.errors import ConversionError, HpmlError, check_switch, shown
from hpml_sim.spiking.neurons.lif import LeakyNeurons
from hpml_sim.spiking.option_names import option_names_checked
from hpml_sim.spiking.state import StatefulSpikingNetwork
from hpml_sim.spiking.static_input import run_static_input
from hpml_sim.spiking.time_fold_proof import FoldProof
from hpml_sim.spiking.time_loop import CalledOnce, prepare_pass, run_step_by_step


class FusedNeurons(CalledOnce):
    """Neurons that take all steps at once and return what a snnTorch neuron returns: spikes, or with its states.

    Args:
        neurons: ours.
        with_states: return (spikes, states ...) as the snnTorch neuron does with `output=True` or `init_hidden=False`.

    Attributes:
        neurons: ours.
        with_states: whether it returns the states, too.
        called: whether it ran in this pass; twice is refused.

    Raises:
        HpmlError: `neurons` are none of ours, or `with_states` is no truth value.

    Example:
        >>> import torch, snntorch, hpml_sim as hs
        >>> net = hs.spiking.fuse(snntorch.Leaky(beta=0.9, init_hidden=True))
        >>> type(net.network).__name__, net.network.with_states
        ('FusedNeurons', False)
    """

    @option_names_checked
    def __init__(self, neurons: LeakyNeurons, with_states: bool):
        super().__init__()
        if not isinstance(neurons, LeakyNeurons):
            raise HpmlError(f"FusedNeurons: neurons={shown(neurons)}: must be hs.spiking.LeakyNeurons(...) or the like")
        self.neurons = neurons
        self.with_states = check_switch("FusedNeurons: with_states", with_states)

    def forward(self, x: Tensor, *, static_input: bool = False) -> Tensor | tuple[Tensor, ...]:
        """Spikes, or spikes and states in snnTorch's order, each (steps x batch, ...).

        Args:
            x: currents (steps x batch, ...); or, with `static_input`, (batch, ...).
            static_input: x is the current of every step.

        Raises:
            ConversionError: called twice in one pass, by a time loop in the network's forward() or a second use.
        """
        # A forward() with a loop over time would give each step all steps: caught here, since nothing else shows it.
        if self.called:
            raise ConversionError(
                "fused network: a neuron is called more than once in a pass. A forward() with its own time loop cannot "
                "be fused: take the loop out, so that forward() is one time step, and give all steps at once, (steps, "
                "batch, ...). A neuron used at two places needs a copy for each"
            )
        self.called = True
        return self.neurons(x, with_states=self.with_states, static_input=static_input)


class FusedNetwork(StatefulSpikingNetwork, StepsFirst):
    """A network of one time step, run over all steps at once: (steps, batch, ...) in and out.

    Layers without memory see all steps as one batch, neurons run over time. A network whose layers mix the rows of a
    batch (attention over the first dimension, statistics over the batch) runs step by step instead, as a loop would:
    the first call finds out, `why_step_by_step` and the log say why. Each call starts at rest; `run_with_state`
    passes states in and out, `keep_state` keeps them here. With chips side by side all of it is (chips x steps, batch,
    ...). Programmed chips (`hs.program`) do not lie there: each of them runs the network as it is.

    Args:
        network: a network whose neurons are ours; they take (chips x steps x batch, ...).

    Attributes:
        network: the network.
        chips: simulated chips side by side, outermost in the first dimension of input and output.
        keep_state: whether the next call goes on where the last one ended.
        state: where the last call ended, if `keep_state` is set; None: at rest.

    Raises:
        HpmlError: `network` is no network.

    Example:
        >>> import torch, hpml_sim as hs
        >>> net = hs.spiking.FusedNetwork(torch.nn.Sequential(torch.nn.Linear(7, 3), hs.spiking.LeakyNeurons(0.9)))
        >>> net(torch.rand(20, 4, 7)).shape  # (steps, batch, ...)
        torch.Size([20, 4, 3])
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = check_network("FusedNetwork: network", network)
        run_every_layer(self.network)
        self._proof = FoldProof()

    @property
    def why_step_by_step(self) -> str | None:
        """Why the steps run one after the other; None while all of them run at once."""
        return self._proof.why_not

    def forward(self, x: Tensor) -> Any:
        """What the network returns for one step, with steps in front.

        An input that is the same at every step, given as `image.expand(steps, *image.shape)`, goes through the layers
        before the first neurons once (in an `nn.Sequential`).

        Args:
            x: (steps, batch, ...); with chips (chips x steps, batch, ...).

        Raises:
            HpmlError: the input is no tensor, has no steps, not as many for every chip, fewer than two dimensions, or
                numbers that the network does not take.
            NotFiniteError: an input that holds NaN or infinity.
        """
        if not isinstance(x, Tensor):
            raise HpmlError(f"fused network: input={shown(x)}: must be a tensor (steps, batch, ...)")
        if x.dim() < 2 or x.shape[0] < 1 or x.shape[0] % self.chips:
            raise HpmlError(
                f"fused network: input of shape {tuple(x.shape)}; expected (steps, batch, ...), steps >= 1"
                + (f" for each of {self.chips} chips" if self.chips > 1 else "")
            )
        steps, batch = x.shape[0] // self.chips, x.shape[1]
        check_finite("fused network", (x[:1] if x.stride(0) == 0 else x).movedim(1, 0))
        x = in_type_of_weights(self, x)
        prepare_pass(self, steps)

        def run() -> Any:
            if not self._proof.holds(self.network, x.flatten(0, 1), steps, self.chips):
                return run_step_by_step(self.network, x.flatten(0, 1), steps, self.chips)
            # a stride of 0 says that all steps are the same memory, whatever its values
            if self.chips == 1 and steps > 1 and x.stride(0) == 0 and not x.requires_grad:
                return run_static_input(
                    self.network, x[0], lambda y: y.expand(steps, *y.shape).flatten(0, 1), FusedNeurons
                )
            return self.network(x.flatten(0, 1))

        def unfold(y: Any) -> Any:
            return (
                y.unflatten(0, (len(x), y.shape[0] // len(x) if y.numel() else batch)) if isinstance(y, Tensor) else y
            )

        with one_attention_path(self.network), integers_explained("fused network", x):
            return tree_map(unfold, self.run_from_kept_state(run))
