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

AllChips = Callable[[Tensor, Sequence[int]], Tensor]
"""(inputs (chips or 1, groups, vectors, rows), numbers of the chips) -> products (chips, groups, vectors, cols)."""


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


def product_on_chips(x: Tensor, all_chips: AllChips, n_chips: int) -> Tensor:
    """The product of a layer on programmed chips, for the chips that the network runs for.

    Args:
        x: inputs of one chip, shape (groups, vectors, rows).
        all_chips: computes the products of several chips.
        n_chips: how many chips are programmed.

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
        return _Product.apply(x, current.chip, all_chips)  # type: ignore[no-any-return]
    return _of_one(x, current.chip, all_chips)


def _of_one(x: Tensor, chip: int, all_chips: AllChips) -> Tensor:
    """The product of one chip. x: (groups, vectors, rows)."""
    current, x = _CURRENT.get(), x.unsqueeze(0)
    if current is not None and current.replay is not None:
        return current.replay(x).squeeze(0)
    return all_chips(x, [chip]).squeeze(0)


class _Product(torch.autograd.Function):
    """The product of one chip, with a rule for vmap that computes all chips at once."""

    @staticmethod
    def forward(x: Tensor, chip: Tensor | int, all_chips: AllChips) -> Tensor:
        return _of_one(x, int(chip), all_chips)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Nothing is kept: programmed chips have no gradient."""

    @staticmethod
    def vmap(  # pyright: ignore[reportIncompatibleMethodOverride]
        info: Any, in_dims: tuple[int | None, ...], x: Tensor, chip: Tensor | int, all_chips: AllChips
    ) -> tuple[Tensor, int]:
        x_dim, chip_dim, _ = in_dims
        if chip_dim is None:
            # a vmap of the network's own, inside that over the chips: more vectors for the same chips
            assert x_dim is not None
            x = x.movedim(x_dim, 1)
            y = _Product.apply(x.flatten(1, 2), chip, all_chips)
            return y.unflatten(1, x.shape[1:3]), 1
        # what is the same for all chips, such as the input of the network, is not copied for each
        x = x.unsqueeze(0) if x_dim is None else x.movedim(x_dim, 0)
        y = all_chips(x, range(info.batch_size))
        current = _CURRENT.get()
        if current is not None and current.watch is not None:
            current.watch(x, y)
        return y, 0
