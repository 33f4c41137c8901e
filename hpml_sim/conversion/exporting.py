"""What cannot leave Python says so before an exporter fails over it."""

from __future__ import annotations

import torch

from hpml_sim.errors import HpmlError


def check_not_exporting(what: str, instead: str) -> None:
    """Raise while `torch.export`, an ONNX exporter or `torch.jit.trace` records a network.

    Args:
        what: the layer or model.
        instead: what to do; it ends the message.

    Raises:
        HpmlError: something is recording.
    """
    if torch.compiler.is_exporting() or torch.jit.is_tracing():  # type: ignore[attr-defined]
        raise HpmlError(
            f"{what} cannot be exported (torch.export, ONNX, torch.jit.trace): it simulates hardware, with random "
            f"numbers and compiled passes of its own. {instead}"
        )
