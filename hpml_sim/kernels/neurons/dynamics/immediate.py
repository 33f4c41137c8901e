"""A leaky neuron whose reset acts in the step of the spike: snnTorch's `Leaky` with reset_delay=False.

    v = beta m + x;  S = H(v - theta);  m' = v - S v (zero), v - S theta (subtract)

The reset is differentiated. The membrane before it, v, is kept as a state of its own: S and its slope depend on v,
which cannot be had back from m'. "subtract" is our own definition: every spike takes one threshold at once. snnTorch's
leaves a neuron that gets more than 2 theta in a step silent above its threshold for ever.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from hpml_sim.kernels.neurons.dynamics.base import (
    BETA,
    CLEARS,
    LEAKY_PARAMETERS,
    MEMBRANE,
    SUBTRACTS,
    THRESHOLD,
    Dynamics,
    Pair,
)

BEFORE = 1


def _immediate(mul: Any, add: Any, above: Any, apply: Any) -> Pair:
    def step(x, states, c, t, n, p):
        v = add(mul(p[BETA, n], states[MEMBRANE, c, t, n]), x)
        fired = above(v, p[THRESHOLD, n])
        states[MEMBRANE, c, t + 1, n] = add(
            add(v, -mul(mul(fired, v), p[CLEARS, n])), -mul(mul(fired, p[THRESHOLD, n]), p[SUBTRACTS, n])
        )
        states[BEFORE, c, t + 1, n] = v
        return fired

    def back(grad, slope, states, c, t, n, p, later, grads):
        v = states[BEFORE, c, t + 1, n]
        fired = above(v, p[THRESHOLD, n])
        lam = later[MEMBRANE, c, n]
        # the spike takes so much of v: its slope counts for the loss and, negatively, for everything after this step
        taken = add(mul(v, p[CLEARS, n]), mul(p[THRESHOLD, n], p[SUBTRACTS, n]))
        from_spike = apply(add(grad, -mul(lam, taken)), slope)
        through = add(add(lam, -mul(mul(lam, fired), p[CLEARS, n])), add(later[BEFORE, c, n], from_spike))
        grads[BETA, c, n] += mul(through, states[MEMBRANE, c, t, n])
        grads[THRESHOLD, c, n] += -add(from_spike, mul(mul(lam, fired), p[SUBTRACTS, n]))
        later[MEMBRANE, c, n] = mul(through, p[BETA, n])
        # v is of this step alone: 0, written so that it has the data's type and passes NaN on in every engine
        later[BEFORE, c, n] = mul(through, above(p[THRESHOLD, n], p[THRESHOLD, n]))
        return through

    return step, back


def _before_over_threshold(states: Tensor, p: Tensor) -> Tensor:
    return states[BEFORE, :, 1:] - p[THRESHOLD]


IMMEDIATE = Dynamics(("membrane", "before"), LEAKY_PARAMETERS, _immediate, _before_over_threshold, attached=True)
