"""int8 arithmetic in linear layers, by torchao: products of 8-bit integers, added up in 32 bits.

    y = scale_x scale_w (q_x q_w^T) + b,   q = round(value / scale) in -128 .. 127

with a scale an output channel for the weights, found once, and a scale a sample for the activations, found in every
call ("dynamic"), so that no calibration data is needed.

Source: torchao, `Int8DynamicActivationInt8WeightConfig`; B. Jacob et al., arXiv:1712.05877, 2017.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from hpml_sim.conversion import LayerReport
from hpml_sim.errors import ConversionError, needs


def quantize(model: nn.Module, chosen: Callable[[str, nn.Module], bool]) -> tuple[LayerReport, ...]:
    """Quantize the chosen linear layers of a float32 model in place; no parameter requires gradients afterwards.

    Args:
        model: a copy that nobody else uses.
        chosen: (name, layer) -> whether the caller wants this layer quantized.

    Returns:
        What became of each layer.

    Raises:
        ConversionError: no chosen layer is linear.
        HpmlError: torchao is missing.
    """
    leaves = [(name, layer) for name, layer in model.named_modules() if not any(layer.children())]
    linear = {name for name, layer in leaves if type(layer) is nn.Linear and chosen(name, layer)}
    if not linear:
        raise ConversionError(
            "Digital(precision='int8'): torchao quantizes nn.Linear, and the network has none that only= and skip= "
            "leave; take precision='bf16'"
        )
    with _quiet_torchao():
        with needs("Digital(precision='int8')", "hpml_sim[quant]"):
            from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_
        quantize_(model, Int8DynamicActivationInt8WeightConfig(), filter_fn=lambda _, name: name in linear)
    for layer in model.modules():
        vars(layer).pop("extra_repr", None)  # torchao's, which cannot be pickled
    for parameter in model.parameters():
        parameter.requires_grad_(False)

    def row(name: str, layer: nn.Module) -> LayerReport:
        kind = type(layer).__name__
        if name in linear:
            return LayerReport(name, kind, f"{kind} (int8, torchao)")
        why = "torchao's int8 is for linear layers" if chosen(name, layer) else "left out by only= or skip="
        return LayerReport(name, kind, f"{kind} (fp32)", why=why)

    return tuple(row(name, layer) for name, layer in leaves)


@contextmanager
def _quiet_torchao() -> Iterator[None]:
    """torchao logs an error for each compiled library of other hardware that it cannot load."""
    loggers: list[Any] = [logging.getLogger("torchao"), logging.getLogger("torch.utils._pytree")]
    levels = [log.level for log in loggers]
    for log in loggers:
        log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for log, level in zip(loggers, levels, strict=True):
            log.setLevel(level)
