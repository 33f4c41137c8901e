"""New modules in the place of old ones."""

from __future__ import annotations

from torch import nn

_HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
)
"""Where a module keeps hooks of the user, and how to call them."""


def keep_hooks(old: nn.Module, new: nn.Module) -> nn.Module:
    """Hooks of the user stay with the layer, whatever takes its place. They see all steps in one call.

    Args:
        old: the module that is replaced.
        new: what takes its place; changed in place.

    Returns:
        The new module.
    """
    for hooks in _HOOKS:
        getattr(new, hooks).update(getattr(old, hooks))
    if old._is_full_backward_hook is not None:
        new._is_full_backward_hook = old._is_full_backward_hook
    return new


def replace_modules(model: nn.Module, replaced: dict[int, nn.Module]) -> nn.Module:
    """Put new modules where old ones were, wherever they are used.

    Args:
        model: changed in place.
        replaced: the `id` of an old module -> the new one.

    Returns:
        The model, or what replaces it as a whole.
    """
    for module in list(model.modules()):
        if id(module) in replaced:
            keep_hooks(module, replaced[id(module)])
    for parent in list(model.modules()):
        for key, child in list(parent._modules.items()):
            if child is not None and id(child) in replaced:
                parent._modules[key] = replaced[id(child)].train(child.training)
    return replaced.get(id(model), model)
