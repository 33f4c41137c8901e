"""New modules in the place of old ones."""

from __future__ import annotations

from torch import nn


def replace_modules(model: nn.Module, replaced: dict[int, nn.Module]) -> nn.Module:
    """Put new modules where old ones were, wherever they are used.

    Args:
        model: changed in place.
        replaced: the `id` of an old module -> the new one.

    Returns:
        The model, or what replaces it as a whole.
    """
    for parent in list(model.modules()):
        for key, child in list(parent._modules.items()):
            if child is not None and id(child) in replaced:
                parent._modules[key] = replaced[id(child)].train(child.training)
    return replaced.get(id(model), model)
