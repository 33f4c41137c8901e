"""The weights of a mixture of experts on crossbars: one matrix an expert, and each vector goes to one of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hpml_sim.analog.channel_scales import OnCrossbar
from hpml_sim.analog.chip_pass import product_on_chips
from hpml_sim.analog.crossbar import Crossbar
from hpml_sim.analog.layers import check_input
from hpml_sim.analog.linear import AnalogConv1D, AnalogLinear
from hpml_sim.analog.weight_limits import forget_limit_of_loaded
from hpml_sim.errors import HpmlError
from hpml_sim.targets import Analog


class AnalogExperts(OnCrossbar):
    """A stack of expert weights on crossbar tiles: vectors (n, inputs) and their experts (n,) -> (n, outputs).

    Made by `convert` beside a parameter of a module that multiplies with it by itself. The parameter stays where it is,
    and whatever the module multiplies with it, an expert's matrix or those of all experts, is computed here.

    Args:
        weight: the parameter, shape (experts, outputs, inputs), or (experts, inputs, outputs).
        inputs_first: whether it is the latter.
        target: the configuration.

    Attributes:
        inputs_first: whether the parameter has the inputs before the outputs.
        crossbar: the tiles, a group an expert.
    """

    def __init__(self, weight: nn.Parameter, inputs_first: bool, target: Analog):
        if target.input_range_by == "channel":
            raise HpmlError(
                "input_range_by='channel': the vectors of a mixture of experts meet a matrix each, and one scale would "
                "be that of all; take 'layer' for these layers, or leave them digital with skip="
            )
        super().__init__()
        self.weight = weight
        self.inputs_first = inputs_first
        experts, *sizes = weight.shape
        rows, cols = sizes if inputs_first else sizes[::-1]
        self.crossbar = Crossbar(rows, cols, experts, target, device=weight.device, dtype=weight.dtype)
        self.register_load_state_dict_pre_hook(forget_limit_of_loaded)

    def plain_matrix(self) -> Tensor:
        """The weights as the crossbar takes them, (experts * outputs, inputs)."""
        return (self.weight.mT if self.inputs_first else self.weight).flatten(0, 1)

    def from_plain_matrix(self, matrix: Tensor) -> Tensor:
        """Weights as the parameter holds them, from a matrix as the crossbar takes it.

        Args:
            matrix: shape (experts * outputs, inputs).
        """
        weight = matrix.unflatten(0, (len(self.weight), -1))
        return weight.mT.contiguous() if self.inputs_first else weight

    def forward(self, input: Tensor, experts: Tensor) -> Tensor:  # noqa: A002 - as of torch's layers
        """The product of each vector with the matrix of its expert.

        Args:
            input: shape (n, inputs).
            experts: numbers from 0, shape (n,); the product of a number that no expert has is 0.

        Returns:
            shape (n, outputs).
        """
        crossbar = self.crossbar
        check_input(crossbar, input, crossbar.tiling.rows, -1, self.weight)
        if crossbar.programmed is not None and not input.is_meta:
            x = input.unsqueeze(0)
            crossbar.work.multiplied = True
            return product_on_chips(x, self._on_chips, crossbar.n_chips, experts).squeeze(0)
        if input.is_meta:
            crossbar.work.multiplied = True
            return input.new_empty(len(input), crossbar.tiling.cols)
        routes = _Routes.of(experts, crossbar.tiling.groups)
        return routes.back(crossbar(routes.sort(input), self.matrix()))

    def _on_chips(self, x: Tensor, chips: Sequence[int], experts: Tensor) -> Tensor:
        """Products of programmed chips, each with routes of its own.

        Args:
            x: shape (chips or 1, 1, n, inputs).
            chips: their numbers.
            experts: shape (chips or 1, n).

        Returns:
            shape (chips, 1, n, outputs).
        """
        found = []
        for k, chip in enumerate(chips):
            own = experts[min(k, len(experts) - 1)]
            routes = _Routes.of(own, self.crossbar.tiling.groups)
            y = self.crossbar.on_chips(routes.sort(x[min(k, len(x) - 1), 0]).unsqueeze(0), [chip])
            found.append(routes.back(y.squeeze(0)))
        return torch.stack(found).unsqueeze(1)


BESIDE = "_on_tiles"
"""Ends the name of a layer beside a parameter, experts or one matrix, which begins with that of the parameter."""


def matrix_on_tiles(weight: nn.Parameter, inputs_first: bool, target: Analog) -> AnalogLinear:
    """A layer beside a bare matrix of a module: what the module multiplies with it is computed there.

    Args:
        weight: the parameter, shape (outputs, inputs), or (inputs, outputs).
        inputs_first: whether it is the latter.
        target: the configuration.
    """
    kind = AnalogConv1D if inputs_first else AnalogLinear
    plain: Any = nn.Linear(*(weight.shape if inputs_first else reversed(weight.shape)), bias=False, device="meta")
    plain.weight = weight
    return kind.from_digital(plain, target)


def is_beside(name: str) -> bool:
    """Whether a layer of this name stands beside the parameter that it computes with.

    Args:
        name: dotted name of a layer on crossbars.
    """
    return name.endswith(BESIDE)


def without_experts(network: nn.Module) -> None:
    """Take the layers beside parameters out of a network again, and leave their weights to the parameters.

    Args:
        network: changed in place.
    """
    for owner in list(network.modules()):
        for name, layer in list(owner.named_children()):
            if is_beside(name) and isinstance(layer, (AnalogExperts, AnalogLinear)):
                owner._parameters[name.removesuffix(BESIDE)] = layer.weight  # pyright: ignore[reportArgumentType] - a parameter, as it came
                del owner._modules[name]


@dataclass(frozen=True)
class _Routes:
    """Where each vector lies among those of its expert.

    Attributes:
        experts: shape (n,).
        places: shape (n,).
        inside: which vectors have an expert; None: all of them.
        sizes: how many experts, and how many vectors the busiest of them has.
    """

    experts: Tensor
    places: Tensor
    inside: Tensor | None
    sizes: tuple[int, int]

    @classmethod
    def of(cls, experts: Tensor, n_experts: int) -> _Routes:
        """The routes to numbered experts."""
        experts = experts.long()
        inside = (experts >= 0) & (experts < n_experts)
        everyone = bool(inside.all())
        own = experts if everyone else torch.where(inside, experts, 0)
        order = own.argsort(stable=True)
        counts = torch.bincount(own, minlength=n_experts)
        first = counts.cumsum(0) - counts
        places = torch.empty_like(own)
        places[order] = torch.arange(len(own), device=own.device) - first[own[order]]
        return cls(own, places, None if everyone else inside, (n_experts, int(counts.max()) if len(own) else 0))

    def sort(self, x: Tensor) -> Tensor:
        """Vectors (n, rows) by their experts, (experts, most vectors of one, rows), filled up with zeros."""
        if self.inside is not None:
            x = torch.where(self.inside.unsqueeze(-1), x, 0)
        return x.new_zeros(*self.sizes, x.shape[-1]).index_put((self.experts, self.places), x)

    def back(self, y: Tensor) -> Tensor:
        """Products (experts, most vectors of one, cols) in the order of the vectors, (n, cols)."""
        y = y[self.experts, self.places]
        return y if self.inside is None else torch.where(self.inside.unsqueeze(-1), y, 0)
