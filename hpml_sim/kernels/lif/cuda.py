"""Leaky neurons on a CUDA device, or on numba's simulator (NUMBA_ENABLE_CUDASIM=1).

The equations stand in `reference.py`.

One thread a neuron, time inside it: the threads of a warp read neighbors in memory at every step. Arithmetic
intensity: forward 7 FLOP on 12 bytes (current in, spike and membrane out), 0.6 FLOP a byte; backward 14 on 12, 1.2.
Limit: memory, where an H200 needs 14 (67 TFLOP/s over 4.8 TB/s).

What keeps memory busy is how much is asked for at once: a thread reads several steps into registers before it computes
the first of them, because no load may overtake the stores of the step before (for all that the compiler knows they may
overlap). What stands in the way next is the number of instructions: a multiprocessor issues four a cycle for 32 threads
each. So places are unsigned and go on by one addition a step, and bounds are looked at once for a group of steps.

The compiler would join products and sums into fused multiply-adds; libdevice's `_rn` operations round each on its own,
so that spikes and gradients equal those of the CPU bit for bit.

Source: roofline, S. Williams et al., CACM 52(4):65, 2009; Little's law, J. D. C. Little, Oper. Res. 9:383, 1961.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numba.cuda
import numpy as np
import torch
from torch import Tensor

from hpml_sim.kernels.common.cuda_arithmetic import unfused, unsigned
from hpml_sim.kernels.common.cuda_launch import launch_each
from hpml_sim.kernels.surrogates.reference import ATAN, FAST_SIGMOID

cuda: Any = numba.cuda  # Any: the annotations there describe the host's side, not what kernels may write


def _ahead(neurons: int, double: bool) -> int:
    """Steps that a thread reads ahead: few neurons leave multiprocessors idle when their threads need more registers.

    H200, share of a copy's bandwidth, forward: 4 million neurons 0.81 with 8 steps, 0.86 with 16; 131 thousand 0.78
    with 8, 0.72 with 16. Numbers of 8 bytes need half as many, and twice the registers.
    """
    return 16 if neurons >= 1 << 20 and not double else 8


@lru_cache(maxsize=4)
def _forward_kernel(double: bool, ahead: int) -> Any:
    real, mul, add, _ = unfused(double)
    zero, one = real(0), real(1)

    def steps_of(bounded: bool) -> Any:
        """`ahead` steps, or the `left` < `ahead` last ones."""

        @cuda.jit(device=True)
        def run(m, x, place, apart, left, decay, bound, subtracts, clears, spikes, membrane, target, neurons):
            drive = cuda.local.array(ahead, real)  # registers
            for k in range(ahead):
                drive[k] = x[place + (min(unsigned(k), left - unsigned(1)) if bounded else unsigned(k)) * apart]
            for k in range(ahead):
                if not bounded or unsigned(k) < left:
                    fired = one if m > bound else zero
                    kept = mul(add(one, -mul(fired, clears)), m)
                    m = add(add(mul(decay, kept), drive[k]), -mul(mul(fired, subtracts), bound))
                    membrane[target + unsigned(k) * neurons] = m
                    spikes[target + unsigned(k) * neurons] = one if m > bound else zero
            return m

        return run

    several, last = steps_of(False), steps_of(True)

    @cuda.jit
    def forward(x, beta, theta, subtracts, clears, chips, steps, given, neurons, spikes, membrane):
        # Everything flat: x (chips, given steps, neurons), spikes and membrane (chips, steps, neurons).
        neurons, left, at_once = unsigned(neurons), unsigned(steps), unsigned(ahead)
        thread = unsigned(cuda.grid(1))
        c = thread // neurons
        n = thread - c * neurons
        if c >= unsigned(chips):
            return
        place, target = c * unsigned(given) * neurons + n, c * left * neurons + n
        apart = neurons if given > 1 else unsigned(0)  # the same current at every step
        decay = beta[n if beta.size > 1 else unsigned(0)]
        bound = theta[n if theta.size > 1 else unsigned(0)]
        m = zero
        while left >= at_once:
            m = several(m, x, place, apart, left, decay, bound, subtracts, clears, spikes, membrane, target, neurons)
            place, target, left = place + at_once * apart, target + at_once * neurons, left - at_once
        if left > unsigned(0):
            last(m, x, place, apart, left, decay, bound, subtracts, clears, spikes, membrane, target, neurons)

    return forward


@lru_cache(maxsize=32)
def _backward_kernel(double: bool, ahead: int, kind: int, has_grad_m: bool) -> Any:
    real, mul, add, div = unfused(double)
    zero, one = real(0), real(1)

    def steps_of(bounded: bool) -> Any:
        """`ahead` steps back from the one that ends before `place`, or the `left` < `ahead` first ones."""

        @cuda.jit(device=True)
        def run(
            later,
            total,
            grad_s,
            grad_m,
            membrane,
            place,
            left,
            decay,
            bound,
            clears,
            half,
            steep,
            summed,
            grad_x,
            neurons,
        ):
            states = cuda.local.array(ahead, real)
            from_spikes = cuda.local.array(ahead, real)
            direct = cuda.local.array(ahead, real)
            for k in range(ahead):
                back = place - (min(unsigned(k + 1), left) if bounded else unsigned(k + 1)) * neurons
                states[k] = membrane[back]
                from_spikes[k] = grad_s[back]
                if has_grad_m:
                    direct[k] = grad_m[back]
            for k in range(ahead):
                if not bounded or unsigned(k) < left:
                    u = add(states[k], -bound)
                    fired = one if u > zero else zero
                    past = mul(mul(later, decay), add(one, -mul(fired, clears)))
                    if has_grad_m:
                        past = add(direct[k], past)
                    if kind == ATAN:
                        v = mul(steep, u)
                        spike = mul(mul(div(one, add(one, mul(v, v))), half), from_spikes[k])
                    elif kind == FAST_SIGMOID:
                        v = add(mul(steep, abs(u)), one)
                        spike = div(from_spikes[k], mul(v, v))
                    else:
                        spike = from_spikes[k]
                    later = add(past, spike)
                    if summed:
                        total = add(total, later)
                    else:
                        grad_x[place - unsigned(k + 1) * neurons] = later
            return later, total

        return run

    several, first = steps_of(False), steps_of(True)

    @cuda.jit
    def backward(grad_s, grad_m, membrane, beta, theta, clears, half, steep, chips, steps, summed, neurons, grad_x):
        # Everything flat: (chips, steps, neurons), grad_x (chips, 1, neurons) if summed: one current for all steps.
        neurons, left, at_once = unsigned(neurons), unsigned(steps), unsigned(ahead)
        thread = unsigned(cuda.grid(1))
        c = thread // neurons
        n = thread - c * neurons
        if c >= unsigned(chips):
            return
        place = (c + unsigned(1)) * left * neurons + n  # one step behind the last
        decay = beta[n if beta.size > 1 else unsigned(0)]
        bound = theta[n if theta.size > 1 else unsigned(0)]
        later, total = zero, zero
        while left >= at_once:
            later, total = several(
                later,
                total,
                grad_s,
                grad_m,
                membrane,
                place,
                left,
                decay,
                bound,
                clears,
                half,
                steep,
                summed,
                grad_x,
                neurons,
            )
            place, left = place - at_once * neurons, left - at_once
        if left > unsigned(0):
            later, total = first(
                later,
                total,
                grad_s,
                grad_m,
                membrane,
                place,
                left,
                decay,
                bound,
                clears,
                half,
                steep,
                summed,
                grad_x,
                neurons,
            )
        if summed:
            grad_x[c * neurons + n] = total

    return backward


def forward(x: Tensor, beta: Tensor, theta: Tensor, reset: str, spikes: Tensor, membrane: Tensor) -> None:
    """Fill spikes and membrane.

    Args:
        x: input currents, shape (chips, steps, neurons), or (chips, 1, neurons) for the same current at every step.
        beta: decay in one step, shape (neurons,) or (1,).
        theta: threshold, of beta's shape.
        reset: "subtract", "zero" or "none".
        spikes: result, 0 or 1, shape (chips, steps, neurons).
        membrane: result, potentials after each step, shape (chips, steps, neurons).
    """
    double = x.dtype == torch.float64
    real = np.float64 if double else np.float32
    subtracts, clears = real(reset == "subtract"), real(reset == "zero")
    chips, steps, neurons = spikes.shape
    threads = chips * neurons
    launch_each(
        _forward_kernel(double, _ahead(threads, double)),
        threads,
        x.view(-1),
        beta,
        theta,
        subtracts,
        clears,
        chips,
        steps,
        x.shape[1],
        neurons,
        spikes.view(-1),
        membrane.view(-1),
    )


def backward(
    grad_spikes: Tensor,
    grad_membrane: Tensor | None,
    membrane: Tensor,
    beta: Tensor,
    theta: Tensor,
    reset: str,
    kind: int,
    slope: float,
    grad_x: Tensor,
) -> None:
    """Fill grad_x.

    Args:
        grad_spikes: gradient of the spikes, shape (chips, steps, neurons); with kind OTHER it has been multiplied by
            the surrogate's slope already.
        grad_membrane: gradient of the membrane potentials, shape (chips, steps, neurons); None: there is none.
        membrane: potentials after each step, shape (chips, steps, neurons).
        beta: decay in one step, shape (neurons,) or (1,).
        theta: threshold, of beta's shape.
        reset: "subtract", "zero" or "none".
        kind: the surrogate: ATAN, FAST_SIGMOID or OTHER.
        slope: its parameter; not read if OTHER.
        grad_x: result, shape (chips, steps, neurons), or (chips, 1, neurons) for the sum over all steps.
    """
    double = membrane.dtype == torch.float64
    real = np.float64 if double else np.float32
    chips, steps, neurons = membrane.shape
    threads = chips * neurons
    launch_each(
        _backward_kernel(double, _ahead(threads, double), kind, grad_membrane is not None),
        threads,
        grad_spikes.view(-1),
        (grad_spikes if grad_membrane is None else grad_membrane).view(-1),
        membrane.view(-1),
        beta,
        theta,
        real(reset == "zero"),
        real(slope / 2),
        real(np.pi / 2 * slope if kind == ATAN else slope),
        chips,
        steps,
        grad_x.shape[1] < steps,
        neurons,
        grad_x.view(-1),
    )
