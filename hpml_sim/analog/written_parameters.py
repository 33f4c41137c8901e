"""Parameters that a network writes into while it runs, such as a following teacher: once a call, not once a chip."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hpml_sim.analog.layers import crossbars
from hpml_sim.conversion.inputs import numeric_parameters
from hpml_sim.errors import HpmlError


class WrittenParameters:
    """The parameters outside of crossbars before a network ran, which a run of another chip has to find.

    Args:
        network: the network; those of its weights that lie on chips are compared elsewhere.
    """

    def __init__(self, network: nn.Module):
        # one that is computed (pruning, a norm of torch.nn.utils) is no parameter, but what it comes from is
        analog = {id(network.get_submodule(name)._parameters.get("weight")) for name in crossbars(network)}
        self._own = {
            name: parameter
            for name, parameter in numeric_parameters(network).items()
            if id(parameter) not in analog and parameter.layout is torch.strided and not parameter.is_meta
        }
        self._before = {name: parameter.detach().clone() for name, parameter in self._own.items()}
        self._after: dict[str, Tensor] = {}

    @torch.no_grad()
    def undo(self) -> bool:
        """Put all values back, and note what was written in their place; whether anything was."""
        changed = [name for name, before in self._before.items() if not torch.equal(self._own[name], before)]
        for name in changed:
            own = self._own[name]
            if name in self._after and not torch.equal(self._after[name], own):
                raise HpmlError(
                    f"forward() writes into the parameter {name!r} what differs from chip to chip; keep it in a "
                    "buffer (self.register_buffer), of which each chip has its own"
                )
            self._after[name] = own.detach().clone()
            own.data.copy_(self._before[name])
        return bool(changed)

    @torch.no_grad()
    def restore(self) -> None:
        """Put all values back."""
        for name, before in self._before.items():
            self._own[name].data.copy_(before)

    @torch.no_grad()
    def redo(self) -> None:
        """Write what was written, as one call would; from now on into memory of the network's own."""
        for name, after in self._after.items():
            self._own[name].data = after  # chips at other times share the memory of the values before
