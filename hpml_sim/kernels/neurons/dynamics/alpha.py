"""A neuron whose membrane answers a spike with an alpha function: snnTorch's `Alpha`.

    e' = alpha e + x;  h' = beta h - x;  m' = tau (e' + h')
    zero: e', h', m' all times (1 - R); subtract: e' - theta R, h' (1 - R), m' + h R

e + h is the difference of two exponentials with unequal decays: 0 in the step of an input, then up, then down again.
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

ALPHA, TAU = 4, 5
EXCITATORY, INHIBITORY = 1, 2


def _alpha(mul: Any, add: Any, above: Any, apply: Any) -> Pair:
    def step(x, states, c, t, n, p):
        h_before = states[INHIBITORY, c, t, n]
        fired = above(states[MEMBRANE, c, t, n], p[THRESHOLD, n])
        e = add(mul(p[ALPHA, n], states[EXCITATORY, c, t, n]), x)
        h = add(mul(p[BETA, n], h_before), -x)
        m = mul(p[TAU, n], add(e, h))
        zeroed = mul(fired, p[CLEARS, n])
        taken = mul(fired, p[SUBTRACTS, n])
        states[EXCITATORY, c, t + 1, n] = add(add(e, -mul(e, zeroed)), -mul(p[THRESHOLD, n], taken))
        states[INHIBITORY, c, t + 1, n] = add(h, -mul(h, add(zeroed, taken)))
        m = add(add(m, -mul(m, zeroed)), mul(h_before, taken))
        states[MEMBRANE, c, t + 1, n] = m
        return above(m, p[THRESHOLD, n])

    def back(grad, slope, states, c, t, n, p, later, grads):
        e_before = states[EXCITATORY, c, t, n]
        h_before = states[INHIBITORY, c, t, n]
        fired = above(states[MEMBRANE, c, t, n], p[THRESHOLD, n])
        zeroed = mul(fired, p[CLEARS, n])
        taken = mul(fired, p[SUBTRACTS, n])
        g_m = add(later[MEMBRANE, c, n], grad)
        g_e = later[EXCITATORY, c, n]
        g_h = later[INHIBITORY, c, n]
        through = add(g_m, -mul(g_m, zeroed))
        share = mul(p[TAU, n], through)
        into_e = add(add(g_e, -mul(g_e, zeroed)), share)
        into_h = add(add(g_h, -mul(g_h, add(zeroed, taken))), share)
        g_x = add(into_e, -into_h)
        grads[BETA, c, n] += mul(into_h, h_before)
        grads[THRESHOLD, c, n] += -add(grad, mul(g_e, taken))
        grads[ALPHA, c, n] += mul(into_e, e_before)
        # e + h, in which x cancels
        grads[TAU, c, n] += mul(through, add(mul(p[ALPHA, n], e_before), mul(p[BETA, n], h_before)))
        # 0, as in `immediate.py`: the next step takes nothing from m but its spike, which is a constant there
        later[MEMBRANE, c, n] = mul(g_m, above(p[THRESHOLD, n], p[THRESHOLD, n]))
        later[EXCITATORY, c, n] = mul(into_e, p[ALPHA, n])
        later[INHIBITORY, c, n] = add(mul(into_h, p[BETA, n]), mul(g_m, taken))
        return g_x

    return step, back


ALPHA_NEURON = Dynamics(
    ("membrane", "excitatory", "inhibitory"),
    (*LEAKY_PARAMETERS, "alpha", "tau"),
    _alpha,
    membrane_over_threshold,
)
