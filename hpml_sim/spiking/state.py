"""State that goes on from call to call: passed in and out, or kept by the model; at rest at each call otherwise.

Neurons themselves keep nothing. A call is one pass: for its length every neuron has a `Carry`, from which it takes what
it starts from and in which it leaves what it ended with, so that a module that a network uses twice has two states.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from torch import Tensor, nn

from hpml_sim.conversion.chips_in_batch import ChipsInBatch
from hpml_sim.conversion.exporting import check_not_exporting
from hpml_sim.conversion.modes import Stateful
from hpml_sim.errors import HpmlError, UnknownNameError
from hpml_sim.spiking.time_folding import TimeFolded

State = dict[str, tuple[Tensor, ...]]
"""States of a network by the names of its layers ("act"; "act[1]" for its second use in one call), each tensor
(chips, batch, ...)."""
Result = TypeVar("Result")


class Carry:
    """What one layer starts from and ends with, use by use, in one call of the network."""

    def __init__(self, name: str, given: State | None):
        self.name = name
        self.given = given
        self.ended: State = {}

    def start(self, like: Tensor) -> tuple[Tensor, ...] | None:
        """The states for the next use; `like`: an input of one step, whose shape and type they must have."""
        key = self._key()
        if self.given is None:
            return None
        if key not in self.given:
            raise UnknownNameError("layer in the state", key, self.given)
        for state in self.given[key]:
            if state.shape != like.shape or state.dtype != like.dtype or state.device != like.device:
                raise HpmlError(
                    f"state of layer {key!r}: {tuple(state.shape)} {state.dtype} on {state.device}, but its input is "
                    f"{tuple(like.shape)} {like.dtype} on {like.device} (chips, batch, ...); a state belongs to the "
                    "batch it came from: start anew (hs.spiking.reset(model), or state=None)"
                )
        return self.given[key]

    def keep(self, states: tuple[Tensor, ...]) -> None:
        """What this use ended with."""
        self.ended[self._key()] = states

    def _key(self) -> str:
        uses = len(self.ended)
        return f"{self.name}[{uses}]" if uses else self.name


@contextmanager
def _carried(model: nn.Module, state: State | None) -> Iterator[dict[str, Carry]]:
    layers = {name: module for name, module in model.named_modules() if isinstance(module, TimeFolded)}
    before = {name: module.carry for name, module in layers.items()}
    carries = {name: Carry(name, state) for name in layers}
    try:
        for name, module in layers.items():
            module.carry = carries[name]
        yield carries
    finally:
        for name, module in layers.items():
            module.carry = before[name]


def _call(model: nn.Module, function: Callable[[], Result], state: State | None) -> tuple[Result, State]:
    with _carried(model, state) as carries:
        out = function()
    ended = {key: states for carry in carries.values() for key, states in carry.ended.items()}
    unused = set(state or {}) - set(ended)
    if unused:
        raise UnknownNameError("layer in the state", min(unused), ended)
    return out, ended


def run_with_state(model: nn.Module, x: Any, state: State | None = None) -> tuple[Any, State]:
    """Run a model from a state, and give the state it ends in; nothing is kept in the model.

    A sequence in pieces gives what it gives whole. With a model that takes frames::

        first, state = continued(model, x[:10])
        second, state = continued(model, x[10:], state)

    Gradients flow through the state; `detached(state)` cuts them (truncated backpropagation through time). A rate,
    latency or population encoder presents its input anew in each call; dropout draws a new mask.

    Args:
        model: a `SpikingModel`, a `FusedNetwork`, or any module with our neurons in it. x: its input.
        state: what an earlier call of the same model gave, for the same batch; None: all neurons at rest.

    Returns:
        The model's output, and the state after it.

    Raises:
        HpmlError: a state of another batch, type or device, or a model that keeps its own state. UnknownNameError: a
            state of another model. Nothing has changed then.
    """
    if any(isinstance(module, StatefulNetwork) and module.keep_state for module in model.modules()):
        raise HpmlError("continued: the model keeps its own state (keep_state=True); set it to False to pass states")
    return _call(model, lambda: model(x), state)


def detached(state: State) -> State:
    """The same state, through which no gradient flows."""
    return {name: tuple(tensor.detach() for tensor in states) for name, states in state.items()}


def reset(model: nn.Module) -> None:
    """Put every neuron inside a model at rest, whatever containers it lies in; no other model is touched."""
    for module in model.modules():
        if isinstance(module, StatefulNetwork):
            module.state = None


class StatefulNetwork(Stateful, ChipsInBatch):
    """A model over time that can keep its state from call to call.

    Whatever only looks at it (`hs.evaluate`, `hs.workload`, `hs.estimate`, `hs.measure`, `hpml_sim.profile`) starts each
    of its calls at rest and leaves the state as it was found. So does `hs.fit`, whose batches have nothing to do with
    each other; to train through time in pieces, call `run_with_state` in a loop of your own.

    Attributes:
        chips: simulated chips side by side, outermost in the first dimension of input and output; set by whoever puts
            them there. 1.
        keep_state: the next call goes on where the last one ended. False (the default): each call starts at rest.
        state: where the last call ended, without gradients; None: at rest. It goes with copies, pickles and
            `torch.save(model)`, and is no part of the `state_dict`, which loads whatever batch came last.
    """

    def __init__(self) -> None:
        super().__init__()
        self.state: State | None = None

    def going_on(self, function: Callable[[], Result]) -> Result:
        """Call the function, from the kept state if there is one to keep.

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
