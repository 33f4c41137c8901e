"""Training of compressed networks: zeros stay zero, and rounded weights are trained straight through the rounding.

While a batch runs forwards and backwards the weights are what the network will have: with its zeros, on its grid. The
optimizer's step then goes to values beside them that are not rounded, so that small steps add up. The gradient is taken
at the rounded weights and given to the others as it is.

Source: Y. Bengio et al., arXiv:1308.3432, 2013 (the straight-through estimator); M. Courbariaux et al.,
"BinaryConnect", arXiv:1511.00363, 2015, algorithm 1 (rounded for the passes, not for the updates).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from hpml_sim.compress.matrices import Matrix
from hpml_sim.compress.rounding import rounded
from hpml_sim.conversion.compression import Compression, compressed


class KeptWeights:
    """The weights of a network that are noted as pruned or quantized, during one training.

    Args:
        model: the network. The zeros are those that it has now.
    """

    def __init__(self, model: nn.Module):
        self._held = [_Held(one.module, one.parameter, one.note) for one in compressed(model)]

    def __bool__(self) -> bool:
        return bool(self._held)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within, weights have their zeros and their grid; afterwards the values that the optimizer changes."""
        free = [held.parameter.detach().clone() for held in self._held]
        self.settle()
        try:
            yield
        finally:
            for held, values in zip(self._held, free, strict=True):
                held.parameter.data.copy_(values)

    def settle(self) -> None:
        """Give the weights their zeros and their grid, for good."""
        for held in self._held:
            held.settle()


class _Held:
    """One weight."""

    def __init__(self, module: nn.Module, name: str, own: Compression):
        self._module, self._name, self._note = module, name, own
        self._mask: Tensor | None = (self.parameter.detach() != 0) if own.zeros else None

    @property
    def parameter(self) -> nn.Parameter:
        found = self._module._parameters[self._name]
        assert found is not None
        return found

    @torch.no_grad()
    def settle(self) -> None:
        if self._mask is not None:  # first, so that what is gone has no part in a scale; every grid has a zero
            self.parameter.data.mul_(self._mask)
        if self._note.numbers is not None:
            inputs_first = type(self._module).__name__ == "Conv1D"
            matrix = Matrix("", self._module, self._name, inputs_first=inputs_first)
            matrix.write(rounded(matrix.read(), self._note.numbers))
