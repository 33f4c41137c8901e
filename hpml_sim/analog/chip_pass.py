"""For which chip a network runs: the layers ask here, and the network itself never sees it.

A network runs once under `torch.vmap` over the numbers of its chips, or for one chip at a time. In both cases its
layers compute as for one chip; the product in each of them learns by its rule for vmap that all chips are meant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hpml_sim.errors import HpmlError
from hpml_sim.kernels.common.vmapping import is_mapped

AllChips = Callable[..., Tensor]
"""(inputs (chips or 1, groups, vectors, rows), numbers of the chips) -> products (chips, groups, vectors, cols).

A layer whose vectors go to different matrices takes their numbers, (chips or 1, vectors), as a third argument."""


@dataclass
class ChipPass:
    """One run of a network on programmed chips.

    Attributes:
        chip: number of the chip that it runs for, or, under vmap, the numbers of all chips as one batched scalar.
        watch: is shown inputs and products of each layer, (chips or 1, groups, vectors, rows) and (chips, groups,
            vectors, cols); None: nobody.
        replay: gives the product of one chip in place of the layer, from its inputs; None: the layer computes it.
    """

    chip: int | Tensor
    watch: Callable[[Tensor, Tensor], None] | None = None
    replay: Callable[[Tensor], Tensor] | None = None


_CURRENT: ContextVar[ChipPass | None] = ContextVar("chip_pass", default=None)


@contextmanager
def running(chip_pass: ChipPass) -> Iterator[None]:
    """Within the block, layers on programmed chips run for the chips of this pass.

    Args:
        chip_pass: the pass.
    """
    token = _CURRENT.set(chip_pass)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def product_on_chips(x: Tensor, all_chips: AllChips, n_chips: int, *routes: Tensor) -> Tensor:
    """The product of a layer on programmed chips, for the chips that the network runs for.

    Args:
        x: inputs of one chip, shape (groups, vectors, rows).
        all_chips: computes the products of several chips.
        n_chips: how many chips are programmed.
        routes: where each vector goes, shape (vectors,), for layers with a choice; it may differ from chip to chip.

    Returns:
        Products of one chip, shape (groups, vectors, cols); under vmap each chip's own.

    Raises:
        HpmlError: a layer of several chips was called by itself.
    """
    current = _CURRENT.get()
    if current is None:
        if n_chips > 1:
            raise HpmlError(
                f"this layer holds {n_chips} programmed chips and was called by itself; call chips.at(time)(inputs), "
                "or program one chip, whose layers can be called"
            )
        current = ChipPass(0)
    if isinstance(current.chip, Tensor) or is_mapped(x):
        return _Product.apply(x, current.chip, all_chips, *routes)  # type: ignore[no-any-return]
    return _of_one(x, current.chip, all_chips, routes)


def _of_one(x: Tensor, chip: int, all_chips: AllChips, routes: Sequence[Tensor]) -> Tensor:
    """The product of one chip. x: (groups, vectors, rows)."""
    current, x = _CURRENT.get(), x.unsqueeze(0)
    if current is not None and current.replay is not None:
        return current.replay(x).squeeze(0)
    return all_chips(x, [chip], *(route.unsqueeze(0) for route in routes)).squeeze(0)


class _Product(torch.autograd.Function):
    """The product of one chip, with a rule for vmap that computes all chips at once."""

    @staticmethod
    def forward(x: Tensor, chip: Tensor | int, all_chips: AllChips, *routes: Tensor) -> Tensor:
        return _of_one(x, int(chip), all_chips, routes)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Nothing is kept: programmed chips have no gradient."""

    @staticmethod
    def vmap(  # pyright: ignore[reportIncompatibleMethodOverride]
        info: Any, in_dims: tuple[int | None, ...], x: Tensor, chip: Tensor | int, all_chips: AllChips, *routes: Tensor
    ) -> tuple[Tensor, int]:
        x_dim, chip_dim, _, *route_dims = in_dims
        if chip_dim is None:
            # a vmap of the network's own, inside that over the chips: more vectors for the same chips
            x = x.unsqueeze(1).expand(-1, info.batch_size, -1, -1) if x_dim is None else x.movedim(x_dim, 1)
            inside = (
                _first(route, dim, info.batch_size).flatten() for route, dim in zip(routes, route_dims, strict=True)
            )
            y = _Product.apply(x.flatten(1, 2), chip, all_chips, *inside)
            return y.unflatten(1, x.shape[1:3]), 1
        # what is the same for all chips, such as the input of the network, is not copied for each
        x = x.unsqueeze(0) if x_dim is None else x.movedim(x_dim, 0)
        paths = (
            route.unsqueeze(0) if dim is None else route.movedim(dim, 0)
            for route, dim in zip(routes, route_dims, strict=True)
        )
        y = all_chips(x, range(info.batch_size), *paths)
        current = _CURRENT.get()
        if current is not None and current.watch is not None:
            current.watch(x, y)
        return y, 0


def _first(x: Tensor, dim: int | None, length: int) -> Tensor:
    """A tensor with the axis of a vmap in front."""
    return x.unsqueeze(0).expand(length, *x.shape) if dim is None else x.movedim(dim, 0)
