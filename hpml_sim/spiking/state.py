"""State that goes on from call to call: passed in and out, or kept by the model; otherwise each call starts at rest.

Neurons themselves keep nothing, so that two calls can never mix up their states. For the length of one call that has
states, every neuron of the network holds a `LayerState`, which tells it where it starts and notes where it ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from torch import Tensor, nn

from hpml_sim.conversion.chips_in_batch import ChipsInBatch
from hpml_sim.conversion.exporting import check_not_exporting
from hpml_sim.conversion.modes import Stateful
from hpml_sim.conversion.modules import check_network
from hpml_sim.errors import HpmlError, UnknownNameError, shown
from hpml_sim.spiking.layer_state import LayerState, State
from hpml_sim.spiking.time_folding import TimeFolded

Result = TypeVar("Result")


def run_with_state(model: nn.Module, x: Any, state: State | None = None) -> tuple[Any, State]:
    """Run a model from a state, and give the state it ends in; nothing is kept in the model.

    A sequence in pieces gives what it gives whole. Gradients flow through the state; `detached(state)` cuts them
    (truncated backpropagation through time). A rate, latency or population encoder presents its input anew in each
    call; dropout draws a new mask.

    Args:
        model: a `SpikingModel`, a `FusedNetwork`, or any module with our neurons in it.
        x: its input.
        state: what an earlier call of the same model gave, for the same batch; None: all neurons at rest.

    Returns:
        The model's output, and the state after it.

    Raises:
        HpmlError: `model` is no network, `state` is no state or one of another batch, type or device, or the model
            keeps its own state. Nothing has changed then.
        UnknownNameError: a state of another model.

    Example:
        >>> import torch, hpml_sim as hs
        >>> model = hs.spiking.FusedNetwork(hs.spiking.LeakyNeurons(0.9))
        >>> x = torch.rand(20, 4, 7, generator=torch.Generator().manual_seed(0))  # (steps, batch, values)
        >>> first, state = hs.spiking.run_with_state(model, x[:10])
        >>> second, state = hs.spiking.run_with_state(model, x[10:], state)
        >>> torch.equal(torch.cat([first, second]), model(x))
        True
    """
    check_network("run_with_state: model", model)
    if any(isinstance(module, StatefulSpikingNetwork) and module.keep_state for module in model.modules()):
        raise HpmlError(
            "run_with_state: the model keeps its own state (keep_state=True); set it to False to pass states"
        )
    return _call(model, lambda: model(x), None if state is None else _checked(state, "run_with_state"))


def detached(state: State) -> State:
    """The same state, through which no gradient flows.

    Args:
        state: what `run_with_state` gave.

    Raises:
        HpmlError: something else.

    Example:
        >>> import torch, hpml_sim as hs
        >>> model = hs.spiking.FusedNetwork(hs.spiking.LeakyNeurons(0.9))
        >>> _, state = hs.spiking.run_with_state(model, torch.rand(5, 2, 3, requires_grad=True))
        >>> state["network"][0].requires_grad, hs.spiking.detached(state)["network"][0].requires_grad
        (True, False)
    """
    return {name: tuple(tensor.detach() for tensor in states) for name, states in _checked(state, "detached").items()}


def reset(model: nn.Module) -> None:
    """Put every neuron inside a model at rest; no other model is touched.

    Args:
        model: any network. What lies in it and keeps a state (`keep_state=True`) forgets it, whatever containers it
            lies in.

    Raises:
        HpmlError: `model` is no network.

    Example:
        >>> import torch, hpml_sim as hs
        >>> model = hs.spiking.FusedNetwork(hs.spiking.LeakyNeurons(0.9))
        >>> model.keep_state = True
        >>> _ = model(torch.rand(5, 2, 3))
        >>> hs.spiking.reset(model)
        >>> model.state is None
        True
    """
    for module in check_network("reset: model", model).modules():
        if isinstance(module, StatefulSpikingNetwork):
            module.state = None


class StatefulSpikingNetwork(Stateful, ChipsInBatch):
    """A spiking network that can keep its state from call to call; `SpikingModel` and `FusedNetwork` are such.

    Whatever only looks at it (`hs.evaluate`, `hs.workload`, `hs.estimate`, `hs.measure`, the profiler) starts each of
    its calls at rest and leaves the state as it was found. So does `hs.fit`, whose batches have nothing to do with each
    other; to train through time in pieces, call `run_with_state` in a loop of your own.

    Attributes:
        chips: simulated chips side by side, outermost in the first dimension of input and output, 1 by default.
        keep_state: whether the next call goes on where the last one ended. False by default: each call starts at rest.
        state: where the last call ended, without gradients; None: at rest. It goes with copies, pickles and
            `torch.save(model)`. It is no part of the `state_dict`, which another batch may load.
    """

    def __init__(self) -> None:
        super().__init__()
        self.state: State | None = None

    def run_from_kept_state(self, function: Callable[[], Result]) -> Result:
        """Call a function that runs the network: from the kept state, where the network keeps one, else from rest.

        Args:
            function: runs the network.

        Returns:
            What the function gives.

        Raises:
            HpmlError: an exporter is recording.
        """
        check_not_exporting(
            type(self).__name__, "Spiking networks travel as NIR graphs: hs.spiking.to_nir(network, example)"
        )
        if not self.keep_state:
            return function()
        out, state = _call(self, function, self.state)
        self.state = detached(state)
        return out


@contextmanager
def _layer_states(model: nn.Module, state: State | None) -> Iterator[list[LayerState]]:
    """A `LayerState` for every layer that has a memory, for the length of the block."""
    layers = {name: module for name, module in model.named_modules() if isinstance(module, TimeFolded)}
    before = {name: module.layer_state for name, module in layers.items()}
    during = {name: LayerState(name, state) for name in layers}
    try:
        for name, module in layers.items():
            module.layer_state = during[name]
        yield list(during.values())
    finally:
        # not None: a call inside a call, such as of a network within a network, gives back what it found
        for name, module in layers.items():
            module.layer_state = before[name]


def _call(model: nn.Module, function: Callable[[], Result], state: State | None) -> tuple[Result, State]:
    with _layer_states(model, state) as layers:
        out = function()
    final = {key: states for layer in layers for key, states in layer.final.items()}
    unused = set(state or {}) - set(final)
    if unused:
        raise UnknownNameError("layer in the state", min(unused), final)
    return out, final


def _checked(state: object, who: str) -> State:
    """A state that a caller gave."""
    if isinstance(state, Mapping) and all(
        isinstance(name, str) and isinstance(states, tuple) and all(isinstance(tensor, Tensor) for tensor in states)
        for name, states in state.items()
    ):
        return dict(state)
    raise HpmlError(f"{who}: state={shown(state)}: must be the state that an earlier run_with_state gave")
