"""A membrane that decays and is reset one step late: snnTorch's `Lapicque`.

    v = beta m + x;  m' = v - v R (zero), v - R theta (subtract), v (none)

R, the spike of the step before, is a constant on the way back, as in snnTorch.
"""

from __future__ import annotations

from typing import Any

from hpml_sim.kernels.neurons.dynamics.base import (
    BETA,
    CLEARS,
    LEAKY_PARAMETERS,
    MEMBRANE,
    SUBTRACTS,
    THRESHOLD,
    Dynamics,
    Pair,
    membrane_over_threshold,
)


def _first_order(mul: Any, add: Any, above: Any, apply: Any) -> Pair:
    def step(x, states, c, t, n, p):
        m = states[MEMBRANE, c, t, n]
        fired = above(m, p[THRESHOLD, n])
        v = add(mul(p[BETA, n], m), x)
        m = add(add(v, -mul(mul(v, fired), p[CLEARS, n])), -mul(mul(fired, p[THRESHOLD, n]), p[SUBTRACTS, n]))
        states[MEMBRANE, c, t + 1, n] = m
        return above(m, p[THRESHOLD, n])

    def back(grad, slope, states, c, t, n, p, later, grads):
        m = states[MEMBRANE, c, t, n]
        fired = above(m, p[THRESHOLD, n])
        lam = add(later[MEMBRANE, c, n], grad)  # of m', which decides the spike and the next step
        # what passes the reset, to v; theta is in the subtraction and in the excess, each with a minus
        through = add(lam, -mul(mul(lam, fired), p[CLEARS, n]))
        later[MEMBRANE, c, n] = mul(through, p[BETA, n])
        grads[BETA, c, n] += mul(through, m)
        grads[THRESHOLD, c, n] += -add(grad, mul(mul(lam, fired), p[SUBTRACTS, n]))
        return through

    return step, back


FIRST_ORDER = Dynamics(("membrane",), LEAKY_PARAMETERS, _first_order, membrane_over_threshold)
