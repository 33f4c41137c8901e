"""A layer of which whole rows, columns or tiles of the matrix are gone: what is left are smaller layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class PartialLayer(nn.Module):
    """Smaller layers in the place of one, each on some of its inputs; where no input is left, the bias alone.

    Every machine sees the smaller layers, so that tiles, products and weights that are gone cost nothing anywhere.

    Args:
        layers: the smaller layers, linear ones or convolutions.
        inputs: features or channels that each of them takes.
        order: for each output of the whole layer, its place in the outputs of the smaller layers, one behind another;
            from their number on: in `constants`.
        constants: outputs that depend on no input any more, in order.
        whole: inputs of the whole layer.

    Attributes:
        layers: the smaller layers.
        order: where each output of the whole layer stands among theirs.
    """

    order: Tensor

    def __init__(
        self, layers: Sequence[nn.Module], inputs: Sequence[Tensor], order: Tensor, constants: Tensor, whole: int
    ):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.constants = nn.Parameter(constants, requires_grad=bool(constants.numel()))
        for number, own in enumerate(inputs):
            self.register_buffer(f"inputs_{number}", own)
        self.register_buffer("order", order)
        counts = [layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels for layer in layers]
        self._all_inputs = [count == whole for count in counts]
        self._dim = -1 if isinstance(layers[0], nn.Linear) else 1
        self._is_whole = bool((order == torch.arange(len(order))).all())

    def forward(self, x: Tensor) -> Tensor:
        """What the whole layer would give with zeros for the weights that are gone.

        Args:
            x: (batch, ..., features), or (batch, channels, ...) of a convolution.
        """
        parts = [
            layer(x if self._all_inputs[k] else x.index_select(self._dim, self.get_buffer(f"inputs_{k}")))
            for k, layer in enumerate(self.layers)
        ]
        y = parts[0] if len(parts) == 1 else torch.cat(parts, self._dim)
        if self._is_whole:
            return y
        if self.constants.numel():
            sizes = list(y.shape)
            sizes[self._dim] = len(self.constants)
            shape = [1] * y.dim()
            shape[self._dim] = -1
            y = torch.cat([y, self.constants.view(shape).expand(sizes)], self._dim)
        return y.index_select(self._dim, self.order)


def part_of(layer: nn.Module, inputs: Tensor, outputs: Tensor) -> nn.Module:
    """A smaller layer: some inputs and outputs of a linear layer or a convolution, with their weights.

    Args:
        layer: the whole one, without groups.
        inputs: features or channels that stay.
        outputs: features or channels that stay.
    """
    weight, bias = layer._parameters["weight"], layer._parameters["bias"]
    assert weight is not None
    own = weight.detach()[outputs][:, inputs].clone()
    new = layer.__class__.__new__(layer.__class__)
    nn.Module.__init__(new)
    new.__dict__.update({key: value for key, value in vars(layer).items() if key not in vars(new)})
    sizes = ("in_features", "out_features") if isinstance(layer, nn.Linear) else ("in_channels", "out_channels")
    for name, chosen in zip(sizes, (inputs, outputs), strict=True):
        setattr(new, name, len(chosen))
    new.weight = nn.Parameter(own, requires_grad=weight.requires_grad)
    own_bias = None if bias is None else nn.Parameter(bias.detach()[outputs].clone(), requires_grad=bias.requires_grad)
    new.register_parameter("bias", own_bias)
    return new.train(layer.training)


def partial_layer(layer: nn.Module, blocks: Sequence[tuple[Tensor, Tensor]]) -> PartialLayer:
    """A layer cut down to some blocks of its matrix.

    Args:
        layer: a linear layer or a convolution without groups.
        blocks: (inputs, outputs) that stay; no output stands in two of them.
    """
    weight, bias = layer._parameters["weight"], layer._parameters["bias"]
    assert weight is not None
    kept = [(inputs, outputs) for inputs, outputs in blocks if len(inputs) and len(outputs)]
    places = torch.cat([outputs for _, outputs in kept])
    count = weight.shape[0]
    gone = torch.ones(count, dtype=torch.bool)
    gone[places] = False
    missing = gone.nonzero().flatten()
    order = torch.empty(count, dtype=torch.long)
    order[torch.cat([places, missing])] = torch.arange(count)
    constants = weight.new_zeros(len(missing)) if bias is None else bias.detach()[missing].clone()
    return PartialLayer(
        [part_of(layer, inputs, outputs) for inputs, outputs in kept],
        [inputs for inputs, _ in kept],
        order,
        constants,
        weight.shape[1],
    )
