"""The weights that chips were programmed with, told from those that a layer is about to multiply with.

A network can give a layer another weight after it was programmed: `functional_call`, a hypernetwork, the fast weights
of meta-learning, `self.b.weight = other`; or change it in place: a max-norm, a teacher that follows a student. A chip
holds what was programmed, so its product would be that of another network.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hpml_sim.errors import HpmlError
from hpml_sim.kernels.common.vmapping import is_mapped

_ROWS = 4096
"""Rows of a weight that are looked at together: no second copy of a large one is made."""
_EQUAL = 1e-5
"""How far the projections of weights of float32 may move, relative to the norm of the weights: far less than any
converter resolves. (Not to that of the projections: positive weights nearly cancel there, their roundings do not.)"""


class WeightsDifferError(HpmlError):
    """A layer is about to use another weight than the one that lies on its chips."""


class ProgrammedWeights:
    """The weights of one layer when it was programmed.

    Of the values a random projection of every row is kept, so that any change shows. It is computed again only where
    the weight is another tensor than at the last call, or was written to.

    Args:
        layer: its name, as `skip=` of `hs.convert` takes it.
        weight: its parameter, of any shape.
    """

    def __init__(self, layer: str, weight: Tensor):
        self.layer = layer
        self._projection, self._coarsest = _projection(weight), torch.finfo(weight.dtype).eps
        self._norm = float(torch.linalg.vector_norm(weight.detach().float()))
        self._seen: Tensor | None = None
        self._version = 0

    def copied(self) -> ProgrammedWeights:
        """For one more network that holds these chips."""
        new: ProgrammedWeights = object.__new__(type(self))
        new.layer, new._projection, new._norm = self.layer, self._projection, self._norm
        new._coarsest = self._coarsest
        new._seen, new._version = None, 0
        return new

    def __deepcopy__(self, memo: dict[int, Any]) -> ProgrammedWeights:
        return self.copied()

    def check(self, weight: Tensor) -> None:
        """Refuse another weight than the one that was programmed.

        Args:
            weight: what the layer would use.

        Raises:
            WeightsDifferError: its values are others.
        """
        if weight.is_meta:
            return
        if is_mapped(weight):
            raise self._differs("forward() computes it, for each chip another")
        version = 0 if weight.is_inference() else weight._version
        seen = self._seen
        if (
            seen is not None
            and version == self._version
            and weight.data_ptr() == seen.data_ptr()  # `seen` is alive: no other tensor lies there
            and weight.stride() == seen.stride()
        ):
            return
        self.check_values(weight)
        self._seen, self._version = weight.detach(), version

    def check_values(self, weight: Tensor) -> None:
        """As `check`, whatever tensor it is: what is written past torch's count of writes (`.data`) shows here alone.

        Args:
            weight: as for `check`.

        Raises:
            WeightsDifferError: its values are others.
        """
        if weight.is_meta:
            return
        now = _projection(weight)
        self._coarsest = max(self._coarsest, torch.finfo(weight.dtype).eps)  # rounded once, it stays so
        before = self._projection.to(now.device)
        if now.shape != before.shape or not float((now - before).norm()) <= self._moves() * self._norm:
            raise self._differs("forward(), a hook or other code replaced it or changed it in place")

    def _moves(self) -> float:
        return max(_EQUAL, 2 * self._coarsest)

    def _differs(self, why: str) -> WeightsDifferError:
        return WeightsDifferError(
            f"layer {self.layer!r}: its chips were programmed with another weight than it has now: {why}. If it stays "
            "so, call the converted network once and program it again; if it changes from call to call, leave the "
            f"layer digital: hs.convert(..., skip={self.layer!r})"
        )


@torch.no_grad()
def _projection(weight: Tensor) -> Tensor:
    """One number a row that any change of the row changes, shape (rows,), float32."""
    weight = weight.detach().flatten(1)
    # torch's function modes watch products with weights: this one is none of the network's; nor is its type autocast's
    with torch._C.DisableTorchFunction(), torch.autocast(weight.device.type, enabled=False):
        length = weight.shape[1]
        direction = torch.arange(1, length + 1, device=weight.device, dtype=torch.float32).cos()
        direction += length**-0.5 - direction.mean()  # else little would show of what positive weights have in common
        parts = [part.float() @ direction for part in weight.split(_ROWS)]
        return torch.cat(parts) if len(parts) > 1 else parts[0]
