"""A neuron that gets its own spike back, times V: snnTorch's `RLeaky`, one to one.

    v = (beta m + x) + V S;  m' = v - v R (zero), v - R theta (subtract), v (none)

S and R are the same spike, that of the step before. It is differentiated where V feeds it back, and a constant where it
resets. So the spike's gradient comes from this step and from the next, and only `back` knows it.
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

V = 4
SPIKE = 1  # in `later`: the gradient that comes back through V


def _recurrent(mul: Any, add: Any, above: Any, apply: Any) -> Pair:
    def step(x, states, c, t, n, p):
        m = states[MEMBRANE, c, t, n]
        fired = above(m, p[THRESHOLD, n])
        v = add(add(mul(p[BETA, n], m), x), mul(fired, p[V, n]))
        m = add(add(v, -mul(mul(v, fired), p[CLEARS, n])), -mul(mul(fired, p[THRESHOLD, n]), p[SUBTRACTS, n]))
        states[MEMBRANE, c, t + 1, n] = m
        return above(m, p[THRESHOLD, n])

    def back(grad, slope, states, c, t, n, p, later, grads):
        m = states[MEMBRANE, c, t, n]
        fired = above(m, p[THRESHOLD, n])
        from_spike = apply(add(grad, later[SPIKE, c, n]), slope)
        lam = add(later[MEMBRANE, c, n], from_spike)
        through = add(lam, -mul(mul(lam, fired), p[CLEARS, n]))
        later[MEMBRANE, c, n] = mul(through, p[BETA, n])
        later[SPIKE, c, n] = mul(through, p[V, n])
        grads[BETA, c, n] += mul(through, m)
        grads[THRESHOLD, c, n] += -add(from_spike, mul(mul(lam, fired), p[SUBTRACTS, n]))
        grads[V, c, n] += mul(through, fired)
        return through

    return step, back


RECURRENT = Dynamics(("membrane",), (*LEAKY_PARAMETERS, "V"), _recurrent, membrane_over_threshold, attached=True)
