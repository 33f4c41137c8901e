"""The recurrent cells on crossbars: one step of an RNN, a GRU and an LSTM; `recurrent.py` runs them over sequences.

Each cell has two `AnalogLinear` layers, input to hidden and hidden to hidden (an LSTM with `proj_size` a third). Gates,
activations and the state stay digital.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hpml_sim.analog.effective_weights import EffectiveWeights
from hpml_sim.analog.input_ranges import one_calibration_step
from hpml_sim.analog.layers import crossbars
from hpml_sim.analog.linear import AnalogLinear
from hpml_sim.errors import HpmlError
from hpml_sim.targets import Analog

State = tuple[Tensor, ...]
"""(h,), or (h, c) of an LSTM; h (batch, outputs), c (batch, hidden)."""


class AnalogCell(nn.Module):
    """What the three cells share: the layers, and the call of torch's cells.

    Args:
        hidden_size: size of the state, of an LSTM of its cell state.
        source: from the input to the gates.
        hidden: from the state to the gates.
        projection: from the hidden state to the output, of an LSTM with `proj_size`; else None.
        relu: whether an RNN has a ReLU in place of tanh.
    """

    def __init__(
        self, hidden_size: int, source: AnalogLinear, hidden: AnalogLinear, projection: AnalogLinear | None, relu: bool
    ):
        super().__init__()
        self.input_size, self.hidden_size = source.in_features, hidden_size
        self.input, self.hidden, self.projection = source, hidden, projection
        self.relu = relu

    @classmethod
    def from_digital(cls, layer: Any, target: Analog) -> Any:
        """The same cell on crossbars. It holds the same parameters, so weights that were tied stay tied.

        Args:
            layer: the digital cell.
            target: the configuration.
        """
        new = cls._of(layer, layer.hidden_size, "", getattr(layer, "nonlinearity", "tanh") == "relu", target)
        return new.train(layer.training)

    @classmethod
    def _of(cls, layer: Any, hidden_size: int, suffix: str, relu: bool, target: Analog) -> Any:
        def part(name: str) -> AnalogLinear | None:
            weight = layer._parameters.get(f"weight_{name}{suffix}")
            if weight is None:
                return None
            # on "meta" nothing is drawn for weights that are replaced in the next line
            digital = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
            digital.weight, digital.bias = weight, layer._parameters.get(f"bias_{name}{suffix}")
            return AnalogLinear.from_digital(digital, target)

        source, hidden = part("ih"), part("hh")
        assert source is not None
        assert hidden is not None
        return cls(hidden_size, source, hidden, part("hr"), relu)

    def effective_weights(self) -> tuple[EffectiveWeights, EffectiveWeights | None]:
        """The matrices that act on the state, as all steps of one sequence see them."""
        return self.hidden.effective_weights(), None if self.projection is None else self.projection.effective_weights()

    def start(self, like: Tensor) -> State:
        """The state before the first step: zeros.

        Args:
            like: inputs, shape (batch, ...).
        """
        outputs = self.hidden.in_features
        return (like.new_zeros(len(like), outputs),)

    def advance(
        self, source: Tensor, state: State, effective_weights: tuple[EffectiveWeights, EffectiveWeights | None]
    ) -> State:
        """One step.

        Args:
            source: the input's product, shape (batch, gates * hidden).
            state: before the step.
            effective_weights: of the matrices that act on the state.

        Returns:
            The state after the step.
        """
        raise NotImplementedError

    def run(self, x: Tensor, state: State, *, backwards: bool, inside: Tensor | None = None) -> tuple[Tensor, State]:
        """All steps of a sequence.

        The devices are the same at every step, and the steps are one observation to the calibration.

        Args:
            x: the sequence, shape (batch, steps, input_size).
            state: before the first step.
            backwards: whether to begin with the last step.
            inside: which steps belong to the sequence of each sample, shape (batch, steps): at the others the state
                stays; None: all.

        Returns:
            Outputs, shape (batch, steps, outputs), in the order of the sequence, and the state after the last step run.
        """
        found = []
        with one_calibration_step(crossbars(self).values()):
            # drawn once: noise that is new at every step would average out over a sequence, as that of no chip does
            effective_weights, sources = self.effective_weights(), self.input(x).unbind(1)
            order = range(len(sources))
            for step in reversed(order) if backwards else order:
                new = self.advance(sources[step], state, effective_weights)
                if inside is not None:
                    runs = inside[:, step, None]
                    new = tuple(torch.where(runs, later, before) for later, before in zip(new, state, strict=True))
                state = new
                found.append(state[0])
        return torch.stack(found[::-1] if backwards else found, 1), state

    def forward(self, input: Tensor, hx: Any = None) -> Any:  # noqa: A002 - the name in torch
        """One step, called as torch's cell.

        Args:
            input: shape (batch, input_size).
            hx: the state before, h or of an LSTM (h, c), each (batch, hidden); None: zeros.

        Returns:
            The new state, h or of an LSTM (h, c).

        Raises:
            HpmlError: an input without a batch dimension.
        """
        if input.dim() != 2:
            raise HpmlError(f"analog recurrent cell: input must be (batch, features), got {tuple(input.shape)}")
        state = self.start(input) if hx is None else hx if isinstance(hx, tuple) else (hx,)
        new = self.advance(self.input(input), state, self.effective_weights())
        h, *more = new
        return new if more else h


class AnalogRNNCell(AnalogCell):
    """`nn.RNNCell` on crossbar tiles: h' = tanh(W x + b + U h + c), or with a ReLU."""

    def advance(
        self, source: Tensor, state: State, effective_weights: tuple[EffectiveWeights, EffectiveWeights | None]
    ) -> State:
        """One step of `AnalogCell.advance`.

        Args:
            source: the input's product, shape (batch, hidden).
            state: (h,) before the step.
            effective_weights: of the matrix that acts on the state.
        """
        total = source + self.hidden.multiply(state[0], effective_weights[0])
        return (total.relu() if self.relu else total.tanh(),)


class AnalogGRUCell(AnalogCell):
    """`nn.GRUCell` on crossbar tiles: r, z, n stacked in this order; h' = (1 - z) n + z h."""

    def advance(
        self, source: Tensor, state: State, effective_weights: tuple[EffectiveWeights, EffectiveWeights | None]
    ) -> State:
        """One step of `AnalogCell.advance`.

        Args:
            source: the input's product, shape (batch, 3 * hidden).
            state: (h,) before the step.
            effective_weights: of the matrix that acts on the state.
        """
        own = self.hidden.multiply(state[0], effective_weights[0])
        reset, update, new = source.chunk(3, -1)
        own_reset, own_update, own_new = own.chunk(3, -1)
        z = (update + own_update).sigmoid()
        n = (new + (reset + own_reset).sigmoid() * own_new).tanh()
        return (n + z * (state[0] - n),)


class AnalogLSTMCell(AnalogCell):
    """`nn.LSTMCell` on crossbar tiles: i, f, g, o stacked in this order; c' = f c + i g, h' = o tanh(c')."""

    def start(self, like: Tensor) -> State:
        """The state before the first step: zeros.

        Args:
            like: inputs, shape (batch, ...).
        """
        return (*super().start(like), like.new_zeros(len(like), self.hidden_size))

    def advance(
        self, source: Tensor, state: State, effective_weights: tuple[EffectiveWeights, EffectiveWeights | None]
    ) -> State:
        """One step of `AnalogCell.advance`.

        Args:
            source: the input's product, shape (batch, 4 * hidden).
            state: (h, c) before the step.
            effective_weights: of the matrix that acts on the state, and of the projection.
        """
        i, f, g, o = (source + self.hidden.multiply(state[0], effective_weights[0])).chunk(4, -1)
        c = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        return (h if self.projection is None else self.projection.multiply(h, effective_weights[1]), c)
