"""Names of layers: as the caller's network and the report have them, and as the converted network has them."""

from __future__ import annotations

from torch import nn

from hpml_sim.analog.experts import BESIDE
from hpml_sim.conversion import Converted


def layer_to_skip(network: nn.Module, name: str) -> str:
    """The name under which the report and `skip=` of `hs.convert` know what holds a crossbar.

    Args:
        network: a converted network.
        name: dotted name of the holder in it.
    """
    owner, found = network, []
    for part in name.split(".") if name else ():
        if "digital_origin" in vars(owner):
            break  # a layer of several matrices: its parts have no names of their own in the digital network
        if not isinstance(owner, Converted):
            found.append(part.removesuffix(BESIDE))
        owner = owner.get_submodule(part)
    return ".".join(found)
