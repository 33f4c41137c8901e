"""An argument that must be a network."""

from __future__ import annotations

from torch import nn

from hpml_sim.errors import HpmlError, shown


def check_network(argument: str, model: object) -> nn.Module:
    """A network that a caller gave.

    Args:
        argument: its name, which begins the message, such as "fit: model".
        model: what was given.

    Raises:
        HpmlError: no `nn.Module`; the message says how to get one from what it is.
    """
    if isinstance(model, nn.Module):
        return model
    advice = "such as hs.models.mlp(64, 128, 10)"
    if isinstance(model, type) and issubclass(model, nn.Module):
        advice = f"this is its class: call it, {model.__name__}(...)"
    elif type(model).__name__ == "Chips":  # its class lies above this file
        advice = "give the chips at a time, chips.at('1 day')"
    elif isinstance(model, str):
        advice = f"such as hs.models.build({model!r}, input_shape, classes)"
    raise HpmlError(f"{argument}={shown(model)}: must be a network (torch.nn.Module); {advice}")
