"""RNN, LSTM and GRU layers with their matrices on crossbars; gates, activations and the state stay digital.

The products with the inputs run for all steps at once, those with the state step by step. In training the weight noise
is drawn once for a whole sequence: the devices do not change between its steps.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from hpml_sim.analog.layers import as_analog, torch_arguments
from hpml_sim.analog.recurrent_cells import AnalogCell, AnalogGRUCell, AnalogLSTMCell, AnalogRNNCell, State
from hpml_sim.errors import HpmlError
from hpml_sim.targets import Analog


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
        with torch_arguments(self, ("input_size", "hidden_size", "num_layers"), args, kwargs):
            digital = self.digital(*args, **kwargs)
        self._take(digital, as_analog(card))

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

    def forward(self, input: Tensor | PackedSequence, hx: Any = None) -> tuple[Any, Any]:  # noqa: A002 - the name in torch
        """As torch's layer: (batch, steps, features) with `batch_first`, else (steps, batch, features).

        Args:
            input: the sequence, with or without a batch dimension, or a `PackedSequence`.
            hx: state before the first step, h (layers * directions, batch, outputs), of an LSTM (h, c); None: zeros.

        Returns:
            Outputs of all steps, packed as the input is, and the state after the last one.

        Raises:
            HpmlError: a wrong shape.
        """
        if isinstance(input, PackedSequence):
            return self._packed(input, hx)
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
        y, last = self._layers(x if self.batch_first else x.transpose(0, 1), states, None)
        if not self.batch_first:
            y = y.transpose(0, 1)
        if alone:
            y, last = y.squeeze(0 if self.batch_first else 1), tuple(s.squeeze(1) for s in last)
        h, *more = last
        return y, last if more else h

    def _packed(self, packed: PackedSequence, hx: Any) -> tuple[PackedSequence, Any]:
        """Sequences of different lengths: run as long as the longest, the state of each kept where it has ended."""
        states = None if hx is None else hx if isinstance(hx, tuple) else (hx,)
        if packed.sorted_indices is not None and states is not None:
            states = tuple(s.index_select(1, packed.sorted_indices) for s in states)
        sizes = packed.batch_sizes.to(packed.data.device)
        inside = torch.arange(int(packed.batch_sizes[0]), device=sizes.device) < sizes.unsqueeze(1)  # (steps, batch)
        places = inside.flatten().nonzero().flatten()  # packed data lies step by step
        index = torch.zeros(inside.numel(), dtype=torch.long, device=sizes.device)
        index[places] = torch.arange(len(places), device=sizes.device)
        x = packed.data[index].unflatten(0, inside.shape)
        y, last = self._layers(x.transpose(0, 1), states, inside.T)
        if packed.unsorted_indices is not None:
            last = tuple(s.index_select(1, packed.unsorted_indices) for s in last)
        h, *more = last
        return packed._replace(data=y.transpose(0, 1).flatten(0, 1)[places]), last if more else h

    def _layers(self, x: Tensor, states: State | None, inside: Tensor | None) -> tuple[Tensor, State]:
        """All layers on (batch, steps, features); `inside`: as `AnalogCell.run` takes it."""
        ways, ends = 1 + self.bidirectional, []
        for number in range(self.num_layers):
            outputs = []
            if inside is not None:
                x = torch.where(inside.unsqueeze(-1), x, 0.0)  # calibration leaves zeros out
            for way in range(ways):
                index = number * ways + way
                cell: Any = self.cells[index]
                state = cell.start(x) if states is None else tuple(s[index] for s in states)
                found, state = cell.run(x, state, backwards=bool(way), inside=inside)
                outputs.append(found)
                ends.append(state)
            x = outputs[0] if ways == 1 else torch.cat(outputs, -1)
            if number + 1 < self.num_layers:
                x = nn.functional.dropout(x, self.dropout, self.training)
        return x, tuple(torch.stack(parts) for parts in zip(*ends, strict=True))

    def extra_repr(self) -> str:
        """For `print(model)`."""
        return f"{self.input_size}, {self.hidden_size}, batch_first={self.batch_first}"


class AnalogRNN(AnalogRecurrent):
    """`nn.RNN` on crossbar tiles: (batch, steps, features) with `batch_first`, else (steps, batch, features).

    Gates, activations and the state stay digital.

    Args:
        args: of `nn.RNN`: input_size, hidden_size, num_layers.
        card: a crossbar card's name or path, or an `hs.Analog(...)` configuration.
        kwargs: of `nn.RNN`.

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
        kwargs: of `nn.LSTM`.

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
        kwargs: of `nn.GRU`.

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
