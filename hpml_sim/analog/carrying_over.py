"""What a user put onto a layer stays with it on the crossbar: hooks, attributes, parameters, a forward of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_is_full_backward_hook")


@dataclass(frozen=True)
class Origin:
    """What a layer was before it was put onto a crossbar; `hs.to_digital` makes it anew.

    Attributes:
        kind: its class.
        attributes: names of what it held.
    """

    kind: type[nn.Module]
    attributes: frozenset[str]


def carry_over(layer: nn.Module, new: Any) -> None:
    """Give a layer on crossbars what its digital one holds beside the weights.

    Args:
        layer: the digital layer.
        new: the one that takes its place.
    """
    own = vars(layer)
    new.__dict__["digital_origin"] = Origin(type(layer), frozenset(own))
    new.__dict__.update({key: value for key, value in own.items() if key.startswith(HOOKS)})
    plain = isinstance(layer, (nn.Linear, nn.modules.conv._ConvNd))
    for key, value in own.items():
        # what torch keeps for its own recurrent and attention layers has no meaning in ours
        if key not in vars(new) and (plain or not key.startswith("_")):
            new.__dict__[key] = value
    if not plain:
        return
    for kind in ("_parameters", "_buffers", "_modules"):
        for key, value in own[kind].items():
            if key not in new._parameters and key not in new._buffers and key not in new._modules:
                getattr(new, kind)[key] = value
    new._non_persistent_buffers_set |= {key for key in layer._non_persistent_buffers_set if key in new._buffers}
