"""Recurrent layers with their matrices on crossbars; gates, activations and the state stay digital.

Each layer and direction has two `AnalogLinear` layers, input to hidden and hidden to hidden (an LSTM with `proj_size` a
third). The products with the inputs run for all steps at once, those with the state step by step. In training the
weight noise is drawn once for a whole sequence: the devices do not change between its steps.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from hpml_sim.analog.effective_weights import EffectiveWeights
from hpml_sim.analog.input_ranges import one_calibration_step
from hpml_sim.analog.layers import as_analog, crossbars
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

    def run(self, x: Tensor, state: State, *, backwards: bool) -> tuple[Tensor, State]:
        """All steps of a sequence.

        The devices are the same at every step, and the steps are one observation to the calibration.

        Args:
            x: the sequence, shape (batch, steps, input_size).
            state: before the first step.
            backwards: whether to begin with the last step.

        Returns:
            Outputs, shape (batch, steps, outputs), in the order of the sequence, and the state after the last step run.
        """
        found = []
        with one_calibration_step(crossbars(self).values()):
            # drawn once: noise that is new at every step would average out over a sequence, as that of no chip does
            effective_weights, steps = self.effective_weights(), self.input(x).unbind(1)
            for source in reversed(steps) if backwards else steps:
                state = self.advance(source, state, effective_weights)
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


class AnalogRecurrent(nn.Module):
    """What `AnalogRNN`, `AnalogLSTM` and `AnalogGRU` share.

    Args:
        args: of torch's layer.
        card: a crossbar card's name or path, or an `hs.Analog(...)` configuration.
        kwargs: of torch's layer.

    Attributes:
        cell: class of the cells.
        digital: class of torch's layer.
    """

    cell: type[AnalogCell]
    digital: type[nn.RNNBase]

    def __init__(self, *args: Any, card: str | Analog = "pcm-hermes", **kwargs: Any):
        super().__init__()
        self._take(self.digital(*args, **kwargs), as_analog(card))

    @classmethod
    def from_digital(cls, layer: nn.RNNBase, target: Analog) -> Any:
        """The same layer on crossbars. It holds the same parameters, so weights that were tied stay tied.

        Args:
            layer: the digital layer.
            target: the configuration.
        """
        new = cls.__new__(cls)
        nn.Module.__init__(new)
        new._take(layer, target)
        return new.train(layer.training)

    def _take(self, layer: nn.RNNBase, target: Analog) -> None:
        self.mode, self.bias = layer.mode, layer.bias
        self.input_size, self.hidden_size, self.proj_size = layer.input_size, layer.hidden_size, layer.proj_size
        self.num_layers, self.bidirectional = layer.num_layers, layer.bidirectional
        self.batch_first, self.dropout = layer.batch_first, layer.dropout
        self.cells = nn.ModuleList(
            self.cell._of(layer, layer.hidden_size, f"_l{number}{way}", layer.mode == "RNN_RELU", target)
            for number in range(layer.num_layers)
            for way in ("", "_reverse")[: 1 + layer.bidirectional]
        )

    def flatten_parameters(self) -> None:
        """Nothing to do: networks call it for cuDNN."""

    def forward(self, input: Tensor, hx: Any = None) -> tuple[Tensor, Any]:  # noqa: A002 - the name in torch
        """As torch's layer: (batch, steps, features) with `batch_first`, else (steps, batch, features).

        Args:
            input: the sequence; without a batch dimension only where no chips are programmed.
            hx: state before the first step, h (layers * directions, batch, outputs), of an LSTM (h, c); None: zeros.

        Returns:
            Outputs of all steps, and the state after the last one.

        Raises:
            HpmlError: a packed sequence, a wrong shape, or programmed chips whose place in the batch is not certain.
        """
        if isinstance(input, PackedSequence):
            raise HpmlError(
                f"{type(self).__name__}: packed sequences are not mapped; give the padded tensor and mask the outputs"
            )
        x, alone = input, input.dim() == 2
        states = None if hx is None else hx if isinstance(hx, tuple) else (hx,)
        if alone:
            x = x.unsqueeze(0 if self.batch_first else 1)
            states = None if states is None else tuple(s.unsqueeze(1) for s in states)
        if x.dim() != 3 or x.shape[-1] != self.input_size:
            raise HpmlError(
                f"{type(self).__name__}: input must be (batch, steps, {self.input_size}) or (steps, batch, "
                f"{self.input_size}), here with batch_first={self.batch_first}; got {tuple(input.shape)}"
            )
        self._check_batch(x, alone)
        if not self.batch_first:
            x = x.transpose(0, 1)
        ways, ends = 1 + self.bidirectional, []
        for number in range(self.num_layers):
            outputs = []
            for way in range(ways):
                index = number * ways + way
                cell: Any = self.cells[index]
                state = cell.start(x) if states is None else tuple(s[index] for s in states)
                found, state = cell.run(x, state, backwards=bool(way))
                outputs.append(found)
                ends.append(state)
            x = outputs[0] if ways == 1 else torch.cat(outputs, -1)
            if number + 1 < self.num_layers:
                x = nn.functional.dropout(x, self.dropout, self.training)
        y = x if self.batch_first else x.transpose(0, 1)
        last: State = tuple(torch.stack(parts) for parts in zip(*ends, strict=True))
        if alone:
            y, last = y.squeeze(0 if self.batch_first else 1), tuple(s.squeeze(1) for s in last)
        h, *more = last
        return y, last if more else h

    def _check_batch(self, x: Tensor, alone: bool) -> None:
        """Chips lie in the batch: refuse a first dimension that may hold them where this layer takes it for steps."""
        cell: Any = self.cells[0]
        programmed = cell.input.crossbar.programmed
        if programmed is None:
            return
        if alone:
            raise HpmlError(f"{type(self).__name__}: programmed chips need a batch dimension, got {tuple(x.shape)}")
        n_chips = programmed.n_chips
        if not self.batch_first and n_chips > 1 and x.shape[0] == n_chips * programmed.batch:
            raise HpmlError(
                f"{type(self).__name__} with batch_first=False: in an input of shape {tuple(x.shape)} the first "
                f"dimension is taken for steps, but is as long as {n_chips} chips x {programmed.batch} samples, which "
                "lie in the batch. Networks on chips take the batch first: build the layer with batch_first=True (or "
                "transpose inside the network; if it does so already, give another number of samples at a time)"
            )

    def extra_repr(self) -> str:
        """For `print(model)`."""
        return f"{self.input_size}, {self.hidden_size}, batch_first={self.batch_first}"


class AnalogRNN(AnalogRecurrent):
    """`nn.RNN` on crossbar tiles: (batch, steps, features) with `batch_first`, else (steps, batch, features).

    Gates, activations and the state stay digital.

    Args:
        args: of `nn.RNN`: input_size, hidden_size, num_layers.
        card: a crossbar card's name or path, or an `hs.Analog(...)` configuration.
        kwargs: of `nn.RNN`; with programmed chips, batch_first=True.

    Raises:
        UnknownNameError: no card has this name.
        CardError: a broken card.
        HpmlError: a card or a target of another kind.

    Example:
        >>> import torch, hpml_sim as hs
        >>> layer = hs.nn.AnalogRNN(5, 7, batch_first=True, card="pcm-hermes")
        >>> output, h = layer(torch.rand(3, 6, 5))
        >>> output.shape, h.shape
        (torch.Size([3, 6, 7]), torch.Size([1, 3, 7]))
    """

    cell, digital = AnalogRNNCell, nn.RNN


class AnalogLSTM(AnalogRecurrent):
    """`nn.LSTM` on crossbar tiles: (batch, steps, features) with `batch_first`, else (steps, batch, features).

    Gates, activations and the state stay digital.

    Args:
        args: of `nn.LSTM`: input_size, hidden_size, num_layers.
        card: a crossbar card's name or path, or an `hs.Analog(...)` configuration.
        kwargs: of `nn.LSTM`; with programmed chips, batch_first=True.

    Raises:
        UnknownNameError: no card has this name.
        CardError: a broken card.
        HpmlError: a card or a target of another kind.

    Example:
        >>> import torch, hpml_sim as hs
        >>> layer = hs.nn.AnalogLSTM(5, 7, batch_first=True, card="pcm-hermes")
        >>> output, (h, c) = layer(torch.rand(3, 6, 5))
        >>> output.shape, h.shape
        (torch.Size([3, 6, 7]), torch.Size([1, 3, 7]))
    """

    cell, digital = AnalogLSTMCell, nn.LSTM


class AnalogGRU(AnalogRecurrent):
    """`nn.GRU` on crossbar tiles: (batch, steps, features) with `batch_first`, else (steps, batch, features).

    Gates, activations and the state stay digital.

    Args:
        args: of `nn.GRU`: input_size, hidden_size, num_layers.
        card: a crossbar card's name or path, or an `hs.Analog(...)` configuration.
        kwargs: of `nn.GRU`; with programmed chips, batch_first=True.

    Raises:
        UnknownNameError: no card has this name.
        CardError: a broken card.
        HpmlError: a card or a target of another kind.

    Example:
        >>> import torch, hpml_sim as hs
        >>> layer = hs.nn.AnalogGRU(5, 7, batch_first=True, card="pcm-hermes")
        >>> output, h = layer(torch.rand(3, 6, 5))
        >>> output.shape, h.shape
        (torch.Size([3, 6, 7]), torch.Size([1, 3, 7]))
    """

    cell, digital = AnalogGRUCell, nn.GRU
