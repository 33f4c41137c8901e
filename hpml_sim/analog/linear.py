"""Linear layers on crossbars: drop-in replacements that hold ordinary trainable weights.

In training they inject weight noise, clip, and run through the converters; in evaluation they run through the
converters without noise. `program` makes chips of them and leaves these weights alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hpml_sim.analog.channel_scales import OnCrossbar, add_channel_scale
from hpml_sim.analog.crossbar import Crossbar
from hpml_sim.analog.effective_weights import EffectiveWeights
from hpml_sim.analog.layers import as_analog, check_input, torch_arguments
from hpml_sim.analog.low_rank_adapter import with_adapter
from hpml_sim.analog.weight_limits import forget_limit_of_loaded
from hpml_sim.targets import Analog


class AnalogLinear(OnCrossbar, nn.Linear):
    """`nn.Linear` on crossbar tiles: (batch, ..., in_features) -> (batch, ..., out_features).

    Args:
        in_features: size of an input vector.
        out_features: size of an output vector.
        bias: whether a bias is added, in digital.
        card: a crossbar card's name or path, or an `hs.Analog(...)` configuration.
        device: of weights and state, as of `nn.Linear`.
        dtype: of weights and state, as of `nn.Linear`.
        others: none are allowed; the message says what was meant.

    Raises:
        UnknownNameError: no card has this name.
        CardError: a broken card.
        HpmlError: a card or a target of another kind.

    Example:
        >>> import torch, hpml_sim as hs
        >>> layer = hs.nn.AnalogLinear(784, 256, card="pcm-hermes")
        >>> layer(torch.rand(8, 784)).shape
        torch.Size([8, 256])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        card: str | Analog = "pcm-hermes",
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
        **others: Any,
    ):
        given: Any = {"in_features": in_features, "out_features": out_features, "bias": bias, **others}
        with torch_arguments(self, (), (), given):
            nn.Linear.__init__(self, **given, device=device, dtype=dtype)
        self._add_crossbar(as_analog(card))

    @classmethod
    def from_digital(cls, layer: nn.Linear, target: Analog) -> AnalogLinear:
        """The same layer on crossbars. It holds the same parameters, so weights that were tied stay tied.

        Args:
            layer: the digital layer.
            target: the configuration.
        """
        new = cls.__new__(cls)
        nn.Module.__init__(new)
        new.in_features, new.out_features = layer.in_features, layer.out_features
        new.weight, new.bias = layer.weight, layer.bias
        new._add_crossbar(target)
        return new.train(layer.training)

    def _add_crossbar(self, target: Analog) -> None:
        weight = self.weight
        self.crossbar = Crossbar(
            self.in_features, self.out_features, 1, target, device=weight.device, dtype=weight.dtype
        )
        add_channel_scale(self.crossbar, self.in_features)
        self.register_load_state_dict_pre_hook(forget_limit_of_loaded)

    def plain_matrix(self) -> Tensor:
        """The layer's own weights, (out_features, in_features)."""
        return self.weight

    def from_plain_matrix(self, matrix: Tensor) -> Tensor:
        """A matrix as the layer's weight has it; the other way of `plain_matrix`.

        Args:
            matrix: shape (out_features, in_features).
        """
        return matrix

    def effective_weights(self) -> EffectiveWeights:
        """The devices of one forward pass, for several calls of `multiply`."""
        return self.crossbar.effective_weights(self.matrix())

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - nn.Linear's name
        """The product and the bias.

        Args:
            input: shape (batch, ..., in_features).

        Returns:
            shape (batch, ..., out_features).
        """
        return self.multiply(input, None)

    def multiply(self, input: Tensor, effective_weights: EffectiveWeights | None) -> Tensor:  # noqa: A002 - as in forward
        """The forward pass with devices that are given.

        Args:
            input: shape (batch, ..., in_features).
            effective_weights: what the method of this name gave; None: the devices of this call alone.

        Returns:
            shape (batch, ..., out_features).
        """
        check_input(self.crossbar, input, self.in_features, -1, self.weight)
        # weights that were drawn before have the scales that were there then
        x = self.by_channel(input, -1, begins=effective_weights is None)
        y = self.crossbar(x.reshape(1, -1, self.in_features), self.multiplied_matrix(), effective_weights)
        y = y.reshape(*input.shape[:-1], self.out_features)
        if self.bias is not None:
            # in place where nothing trains: a second tensor of all products takes as long as their ADC
            y = y + self.bias if torch.is_grad_enabled() else y.add_(self.bias)
        return with_adapter(self, y, input)


class AnalogConv1D(AnalogLinear):
    """The `Conv1D` of Hugging Face's GPT-2 on crossbar tiles: a linear layer whose weight is (inputs, outputs).

    Made by `convert`; the weight keeps its shape, so that checkpoints fit.
    """

    nf: int

    @classmethod
    def from_digital(cls, layer: Any, target: Analog) -> AnalogConv1D:
        """The same layer on crossbars. It holds the same parameters, so weights that were tied stay tied.

        Args:
            layer: the digital layer.
            target: the configuration.
        """
        new = cls.__new__(cls)
        nn.Module.__init__(new)
        new.weight, new.bias = layer.weight, layer._parameters.get("bias")
        new.in_features, new.out_features = layer.weight.shape
        new.nf = new.out_features
        new._add_crossbar(target)
        return new.train(layer.training)

    def plain_matrix(self) -> Tensor:
        """The layer's own weights, (out_features, in_features)."""
        return self.weight.T

    def from_plain_matrix(self, matrix: Tensor) -> Tensor:
        """A matrix as the layer's weight has it, (in_features, out_features); the other way of `plain_matrix`.

        Args:
            matrix: shape (out_features, in_features).
        """
        return matrix.T.contiguous()
