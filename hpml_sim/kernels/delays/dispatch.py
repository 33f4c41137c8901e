"""The call of delays: what it takes, which implementation runs, and the way back through torch.autograd."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from hpml_sim.errors import HpmlError
from hpml_sim.kernels.common.engines import Engine, choose_engine
from hpml_sim.kernels.common.memory import BLOCKS
from hpml_sim.kernels.common.vmapping import with_mapped_axis
from hpml_sim.kernels.delays import cpu, reference


def _implementation(engine: str) -> Any:
    """The module with `forward` and `backward` of an engine."""
    if engine == "torch":
        return reference
    if engine == "numba":
        return cpu
    from hpml_sim.kernels.delays import cuda  # here, because not everyone has numba-cuda

    return cuda


def delayed(x: Tensor, delay: Tensor, *, time_dim: int = 0, engine: Engine = "auto") -> Tensor:
    """Values that arrive later by a number of steps, each neuron's by its own; the equations stand in `reference.py`.

    Args:
        x: values of each step, floating point; time at `time_dim`, all dimensions after it are neurons.
        delay: steps, >= 0, broadcastable to the dimensions after time; may require gradients. Between two whole
            numbers the value is divided among the two steps.
        time_dim: where time is, >= 0.
        engine: "numba" (CPU), "numba-cuda" (CUDA device or numba's simulator), "torch" (anything); "auto" picks the
            fastest for the tensor at hand.

    Returns:
        Of x's shape and type; what would arrive behind the last step is lost.

    Raises:
        HpmlError: x is not floating point or has no step.
        UnknownNameError: no engine has this name.
    """
    if not x.is_floating_point():
        raise HpmlError(f"delayed: x has dtype {x.dtype}; it must be floating point (x.float())")
    if x.dim() <= time_dim or x.shape[time_dim] < 1:
        raise HpmlError(f"delayed: x of shape {tuple(x.shape)} has no time step at dimension {time_dim}")
    engine = choose_engine("delayed", x, engine)
    before, after = x.shape[:time_dim], x.shape[time_dim + 1 :]
    flat = x.reshape(math.prod(before), x.shape[time_dim], math.prod(after))
    steps = delay.to(x).clamp(min=0).expand(after).reshape(flat.shape[2])

    def run(x: Tensor, delay: Tensor) -> tuple[Tensor]:
        return (_Delayed.apply(x, delay, engine),)

    (found,) = with_mapped_axis(run, (0, None), (0,), flat, steps, merge=True)
    return found.reshape(x.shape)


class _Delayed(torch.autograd.Function):
    """x (rows, steps, neurons), delay (neurons,) -> of x's shape."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, delay: Tensor, engine: str) -> Tensor:
        x = x.contiguous()
        floor = delay.detach().floor()
        # what never arrives needs no larger number, and NaN is no place in memory: its share makes it the result
        whole = floor.nan_to_num(0.0).clamp(max=x.shape[1]).long().contiguous()
        share = (delay.detach() - floor).contiguous()
        out = BLOCKS.empty(x.shape, x)
        if x.numel():
            _implementation(engine).forward(x, whole, share, out)
        ctx.save_for_backward(x, whole, share)
        ctx.engine = engine
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, whole, share = ctx.saved_tensors
        grad_x, grad_delay = BLOCKS.empty(x.shape, x), torch.zeros_like(share)
        if x.numel():
            grad = grad_outputs[0].contiguous()
            _implementation(ctx.engine).backward(grad, x, whole, share, grad_x, grad_delay)
        return grad_x, grad_delay, None
