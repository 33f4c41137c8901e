"""The call of the rate encoder, and its operator for compiled networks."""

from __future__ import annotations

import torch
from torch import Tensor

from hpml_sim.errors import UnknownNameError
from hpml_sim.kernels.common.engines import choose_engine
from hpml_sim.kernels.rate_encoding import cpu, reference

ENGINES = ("auto", "torch", "numba")


def rate_spikes(x: Tensor, steps: int, seed: int, *, engine: str = "auto") -> Tensor:
    """Bernoulli spikes, drawn independently at each step.

    Args:
        x: probabilities of a spike, in [0, 1], shape (chips, batch, features).
        steps: time steps, >= 1.
        seed: any integer.
        engine: "numba" (CPU), "torch" (any device), or "auto": numba on the CPU, torch elsewhere.

    Returns:
        0 or 1 in x's dtype, shape (chips, steps, batch, features).

    Raises:
        UnknownNameError: no engine has this name.
        HpmlError: engine="numba" with a tensor that is not on the CPU.
    """
    if engine not in ENGINES:
        raise UnknownNameError("engine", engine, ENGINES)
    if engine == "auto" and torch.compiler.is_compiling():
        return _operator(x.detach(), steps, seed)
    values = x.detach().to(torch.float32).contiguous()
    if engine == "auto":
        engine = "numba" if values.device.type == "cpu" else "torch"
    run = cpu.spikes_of if choose_engine("rate_spikes", values, engine) == "numba" else reference.spikes_of
    return run(values, steps, seed).to(x.dtype)


@torch.library.custom_op("hpml_sim::rate_spikes", mutates_args=(), schema="(Tensor x, int steps, int seed) -> Tensor")
def _operator(x: Tensor, steps: int, seed: int) -> Tensor:
    """The draws as one operator: inductor cannot fold the constants of the torch reference."""
    return rate_spikes(x, steps, seed)


@_operator.register_fake
def _(x: Tensor, steps: int, seed: int) -> Tensor:
    return x.new_empty((x.shape[0], steps, *x.shape[1:]))
