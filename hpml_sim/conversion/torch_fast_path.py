"""torch's fused transformer kernels multiply with the weights themselves: nothing that replaced a layer would run.

In evaluation without gradients `nn.TransformerEncoderLayer` hands its weights to one kernel, which knows ReLU and GELU
alone, and `nn.TransformerEncoder` packs padded sequences into nested tensors for it. `nn.MultiheadAttention` has a
kernel of its own, which skips no layer but rounds otherwise; a spike hangs on the last bit.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


def run_every_layer(network: nn.Module) -> None:
    """Keep torch's fused kernels out of the transformer layers of a converted network, for good.

    Args:
        network: changed in place. Copies, pickles and `torch.save(network)` keep it.
    """
    for module in network.modules():
        if isinstance(module, nn.TransformerEncoderLayer):
            # what the layer asks before it takes its kernel: 0 says that its activation is neither ReLU nor GELU
            _keep_for_later(module, ("activation_relu_or_gelu",))
            module.activation_relu_or_gelu = 0
        elif isinstance(module, nn.TransformerEncoder):
            # nested tensors go through that kernel only
            _keep_for_later(module, ("enable_nested_tensor", "use_nested_tensor"))
            module.enable_nested_tensor = module.use_nested_tensor = False


_BEFORE = "fast_path_before"


def _keep_for_later(module: nn.Module, names: tuple[str, ...]) -> None:
    vars(module).setdefault(_BEFORE, {name: vars(module)[name] for name in names})


def allow_fast_path(network: nn.Module) -> None:
    """Undo `run_every_layer`.

    Args:
        network: changed in place.
    """
    for module in network.modules():
        vars(module).update(vars(module).pop(_BEFORE, {}))


class _Switch:
    """torch's switch for the kernels belongs to the process: the first call in turns it off, the last one out back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before = True

    def enter(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._before = torch.backends.mha.get_fastpath_enabled()
                torch.backends.mha.set_fastpath_enabled(False)
            self._inside += 1

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                torch.backends.mha.set_fastpath_enabled(self._before)


_SWITCH = _Switch()


@contextmanager
def one_attention_path(network: nn.Module) -> Iterator[None]:
    """Within the block, attention inside a network computes alike with and without gradients, to the bit.

    Args:
        network: whatever is called in the block; without attention in it nothing happens.
    """
    if torch.compiler.is_compiling() or not any(isinstance(part, nn.MultiheadAttention) for part in network.modules()):
        yield
        return
    _SWITCH.enter()
    try:
        yield
    finally:
        _SWITCH.leave()
