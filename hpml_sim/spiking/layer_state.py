"""What one layer starts a call from and what it ends with: below both the layers and the networks that keep states."""

from __future__ import annotations

from torch import Tensor

from hpml_sim.errors import HpmlError, UnknownNameError

State = dict[str, tuple[Tensor, ...]]
"""States of a network by the names of its layers ("act"; "act[1]" for its second use in one call), each tensor
(chips, batch, ...)."""


class LayerState:
    """The states of one layer in one call of the network: where each use of it starts, and where it ended.

    A network may use one module twice in a call. The two uses are two layers of neurons that share their parameters,
    so each has states of its own: the key of the second use is "name[1]".

    Args:
        name: of the layer in the network.
        initial: the states of the whole network to start from; None: all neurons at rest.

    Attributes:
        name: of the layer in the network.
        final: the states that each use of the layer ended with, so far.
    """

    def __init__(self, name: str, initial: State | None):
        self.name = name
        self._initial = initial
        self.final: State = {}

    def initial(self, like: Tensor) -> tuple[Tensor, ...] | None:
        """The states that the next use starts from; None: rest.

        Args:
            like: input of one step, (chips, batch, ...), whose shape, type and device the states must have.

        Raises:
            UnknownNameError: the states belong to another network.
            HpmlError: the states belong to another batch, type or device.
        """
        key = self._key()
        if self._initial is None:
            return None
        if key not in self._initial:
            raise UnknownNameError("layer in the state", key, self._initial)
        for state in self._initial[key]:
            if state.shape != like.shape or state.dtype != like.dtype or state.device != like.device:
                raise HpmlError(
                    f"state of layer {key!r}: {tuple(state.shape)} {state.dtype} on {state.device}, but its input is "
                    f"{tuple(like.shape)} {like.dtype} on {like.device} (chips, batch, ...); a state belongs to the "
                    "batch it came from: start anew (hs.spiking.reset(model), or state=None)"
                )
        return self._initial[key]

    def store(self, states: tuple[Tensor, ...]) -> None:
        """Note what this use ended with; the next use is another one.

        Args:
            states: each (chips, batch, ...).
        """
        self.final[self._key()] = states

    def _key(self) -> str:
        uses = len(self.final)
        return f"{self.name}[{uses}]" if uses else self.name


class StepState(LayerState):
    """The states of one layer in one step of a loop over the steps of a call.

    Args:
        name: of the layer in the network.
        initial: the states to start from; None: rest.

    Attributes:
        start: the states that the step starts from; no entries where it starts at rest.
    """

    def __init__(self, name: str, initial: State | None):
        super().__init__(name, initial)
        self.start: State = {} if initial is None else initial

    @classmethod
    def first(cls, name: str, outer: LayerState | None) -> StepState:
        """The first step of a call.

        Args:
            name: of the layer, where the call has no states.
            outer: the layer's states of the whole call; None: it starts at rest.
        """
        return cls(name, None) if outer is None else cls(outer.name, outer._initial)

    def next_step(self) -> StepState:
        """The step after this one, which starts where this one ended; of a layer without a memory, anew."""
        return StepState(self.name, self.final or None)
