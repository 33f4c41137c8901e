"""The neurons of `dynamics/` on a CUDA device, or on numba's simulator: one thread a neuron, nothing fused.

Arithmetic intensity: for S states, forward moves 4 (2 + S) bytes a neuron and step (current in; spike and states out),
backward 4 (3 + S) (the spike's gradient and slope, the states; the current's gradient out), for 10 to 30 FLOP: 0.6 to
1.5 FLOP a byte. Limit: memory, as in `lif/cuda.py` (and its sources).

States, parameters and what gathers gradients live in registers: a step of `dynamics/` sees local arrays of two slots,
the one that it reads and the one that it writes, where the other engines hand it the whole tensors. So the parameters
are read once and not in every step, a state is written and never read back, and what comes from memory is read several
steps ahead, before the first store, which no load may overtake.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numba.cuda
import torch
from torch import Tensor

from hpml_sim.kernels.common.cuda_arithmetic import SIMULATED, unfused, unsigned
from hpml_sim.kernels.common.cuda_launch import launch_each
from hpml_sim.kernels.neurons.dynamics import DYNAMICS

cuda: Any = numba.cuda  # Any: the annotations there describe the host's side, not what kernels may write

_AHEAD, _AHEAD_BACK = 8, 4  # steps that a thread reads ahead; on the way back each brings 2 + S numbers


def _arithmetic(name: str, double: bool, divides: bool) -> tuple[Any, Any, Any, Any]:
    """The number type, its sum, and the neuron's step and its way back as device functions."""
    real, mul, add, div = unfused(double)
    zero, one = real(0), real(1)

    def jit(function: Any) -> Any:
        return function if SIMULATED else cuda.jit(device=True)(function)

    above = jit(lambda a, b: one if a > b else zero)
    step, back = (jit(f) for f in DYNAMICS[name].make(mul, add, above, div if divides else mul))
    return real, add, step, back


@lru_cache(maxsize=32)
def _forward_kernel(name: str, double: bool) -> Any:
    real, _, step, _ = _arithmetic(name, double, False)
    count, given = len(DYNAMICS[name].states), len(DYNAMICS[name].parameters)

    @cuda.jit
    def forward(x, states, p, chips, steps, neurons, spikes):
        # Flat: x, spikes (chips, steps, neurons), states (count, chips, steps + 1, neurons), p (given, neurons).
        drive = cuda.local.array(_AHEAD, real)
        now = cuda.local.array((count, 1, 2, 1), real)  # as a step of `dynamics/` indexes the states
        own = cuda.local.array((given, 1), real)
        chips, steps, neurons = unsigned(chips), unsigned(steps), unsigned(neurons)
        thread = unsigned(cuda.grid(1))
        c = thread // neurons
        n = thread - c * neurons
        if c >= chips:
            return
        apart = chips * (steps + unsigned(1)) * neurons  # from one state to the next
        place, slot = c * steps * neurons + n, c * (steps + unsigned(1)) * neurons + n
        for i in range(count):
            now[i, 0, 0, 0] = states[unsigned(i) * apart + slot]
        for i in range(given):
            own[i, 0] = p[unsigned(i) * neurons + n]
        left = steps
        while left > unsigned(0):
            for k in range(_AHEAD):  # no branch between the loads: beyond the end they read the last step
                drive[k] = x[place + min(unsigned(k), left - unsigned(1)) * neurons]
            for k in range(_AHEAD):
                if unsigned(k) < left:
                    spikes[place + unsigned(k) * neurons] = step(drive[k], now, 0, 0, 0, own)
                    slot += neurons
                    for i in range(count):
                        now[i, 0, 0, 0] = now[i, 0, 1, 0]
                        states[unsigned(i) * apart + slot] = now[i, 0, 1, 0]
            taken = min(left, unsigned(_AHEAD))
            place, left = place + taken * neurons, left - taken

    return forward


@lru_cache(maxsize=64)
def _backward_kernel(name: str, double: bool, divides: bool, has_direct: bool) -> Any:
    real, add, _, back = _arithmetic(name, double, divides)
    count, given = len(DYNAMICS[name].states), len(DYNAMICS[name].parameters)
    gathered = count + 1  # constants all three: shapes of local arrays must be known when the kernel is compiled

    @cuda.jit
    def backward(grad, slope, direct, states, p, chips, steps, neurons, later, grads, grad_x):
        # Flat: grad, slope, grad_x (chips, steps, neurons), direct (count, chips, steps, neurons), states with a step
        # more, p (given, neurons), later (count + 1, chips, neurons), grads (given, chips, neurons).
        upstream = cuda.local.array(_AHEAD_BACK, real)
        slopes = cuda.local.array(_AHEAD_BACK, real)
        before = cuda.local.array((count, _AHEAD_BACK), real)
        on_states = cuda.local.array((count, _AHEAD_BACK), real)
        around = cuda.local.array((count, 1, 2, 1), real)  # the states before and after a step
        own = cuda.local.array((given, 1), real)
        behind = cuda.local.array((gathered, 1, 1), real)
        summed = cuda.local.array((given, 1, 1), real)
        chips, steps, neurons = unsigned(chips), unsigned(steps), unsigned(neurons)
        thread = unsigned(cuda.grid(1))
        c = thread // neurons
        n = thread - c * neurons
        if c >= chips:
            return
        apart, direct_apart = chips * (steps + unsigned(1)) * neurons, chips * steps * neurons
        place = (c + unsigned(1)) * steps * neurons + n  # one step behind the last
        slot = (c + unsigned(1)) * (steps + unsigned(1)) * neurons - neurons + n  # the last
        for i in range(count):
            around[i, 0, 1, 0] = states[unsigned(i) * apart + slot]
        for i in range(gathered):
            behind[i, 0, 0] = later[(unsigned(i) * chips + c) * neurons + n]
        for i in range(given):
            own[i, 0] = p[unsigned(i) * neurons + n]
            summed[i, 0, 0] = grads[(unsigned(i) * chips + c) * neurons + n]
        left = steps
        while left > unsigned(0):
            for k in range(_AHEAD_BACK):  # no branch between the loads: before the start they read the first step
                down = min(unsigned(k + 1), left) * neurons
                upstream[k] = grad[place - down]
                slopes[k] = slope[place - down]
                for i in range(count):
                    before[i, k] = states[unsigned(i) * apart + slot - down]
                    if has_direct:
                        on_states[i, k] = direct[unsigned(i) * direct_apart + place - down]
            for k in range(_AHEAD_BACK):
                if unsigned(k) < left:
                    for i in range(count):
                        around[i, 0, 0, 0] = before[i, k]
                        if has_direct:
                            behind[i, 0, 0] = add(on_states[i, k], behind[i, 0, 0])
                    through = back(upstream[k], slopes[k], around, 0, 0, 0, own, behind, summed)
                    grad_x[place - unsigned(k + 1) * neurons] = through
                    for i in range(count):
                        around[i, 0, 1, 0] = around[i, 0, 0, 0]
            taken = min(left, unsigned(_AHEAD_BACK)) * neurons
            place, slot, left = place - taken, slot - taken, left - min(left, unsigned(_AHEAD_BACK))
        for i in range(gathered):
            later[(unsigned(i) * chips + c) * neurons + n] = behind[i, 0, 0]
        for i in range(given):
            grads[(unsigned(i) * chips + c) * neurons + n] = summed[i, 0, 0]

    return backward


def forward(name: str, x: Tensor, states: Tensor, p: Tensor, spikes: Tensor) -> None:
    """Fill spikes and states.

    Args:
        name: a neuron in `DYNAMICS`.
        x: input currents, shape (chips, steps, neurons).
        states: slot 0 is given, the others are results, shape (states, chips, steps + 1, neurons).
        p: the neuron's parameters, shape (parameters, neurons).
        spikes: result, 0 or 1, shape (chips, steps, neurons).
    """
    chips, steps, neurons = x.shape
    flat = (x.view(-1), states.view(-1), p.view(-1))
    kernel = _forward_kernel(name, x.dtype == torch.float64)
    launch_each(kernel, chips * neurons, *flat, chips, steps, neurons, spikes.view(-1))


def backward(
    name: str,
    divides: bool,
    grad: Tensor,
    slope: Tensor,
    direct: Tensor | None,
    states: Tensor,
    p: Tensor,
    later: Tensor,
    grads: Tensor,
    grad_x: Tensor,
) -> None:
    """Fill grad_x, and what the gradients of parameters and initial states are made of.

    Args:
        name: a neuron in `DYNAMICS`.
        divides: whether `slope` is a divisor.
        grad: gradient of the spikes, shape (chips, steps, neurons); times the surrogate's slope already, unless the
            spike is differentiated inside the neuron (`attached`).
        slope: the surrogate's slope, of grad's shape; read by neurons that are `attached` alone.
        direct: gradient of the states, shape (states, chips, steps, neurons); None: there is none.
        states: from `forward`, shape (states, chips, steps + 1, neurons).
        p: the neuron's parameters, shape (parameters, neurons).
        later: zeros, shape (states + 1, chips, neurons); becomes the gradients of the initial states, and behind them
            that of the spike before the first step.
        grads: zeros, shape (parameters, chips, neurons); becomes the gradients of the parameters, chip by chip.
        grad_x: result, shape (chips, steps, neurons).
    """
    chips, steps, neurons = grad.shape
    kernel = _backward_kernel(name, grad.dtype == torch.float64, divides, direct is not None)
    inputs = (grad, slope, grad if direct is None else direct, states, p)
    flat = tuple(t.view(-1) for t in inputs)
    results = (later.view(-1), grads.view(-1), grad_x.view(-1))
    launch_each(kernel, chips * neurons, *flat, chips, steps, neurons, *results)
