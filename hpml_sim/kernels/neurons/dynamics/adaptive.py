"""A neuron whose threshold rises with each of its spikes and decays again (ALIF).

    v' = beta v + x - S theta;  a' = rho a + S;  S' = H(v' - (theta + kappa a'))

The spike's way into the adaptation is differentiated, its way into the reset is not.

Source: G. Bellec et al., Nat. Commun. 11:3625 (2020), eqs. (6)-(9).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from hpml_sim.kernels.neurons.dynamics.base import BETA, MEMBRANE, THRESHOLD, Dynamics, Pair

RHO, KAPPA = 2, 3
ADAPTATION = 1
SPIKE = 2  # in `later`: the gradient that comes back through the adaptation


def _adaptive(mul: Any, add: Any, above: Any, apply: Any) -> Pair:
    def step(x, states, c, t, n, p):
        v = states[MEMBRANE, c, t, n]
        a = states[ADAPTATION, c, t, n]
        fired = above(v, add(p[THRESHOLD, n], mul(p[KAPPA, n], a)))
        v = add(add(mul(p[BETA, n], v), x), -mul(fired, p[THRESHOLD, n]))
        a = add(mul(p[RHO, n], a), fired)
        states[MEMBRANE, c, t + 1, n] = v
        states[ADAPTATION, c, t + 1, n] = a
        return above(v, add(p[THRESHOLD, n], mul(p[KAPPA, n], a)))

    def back(grad, slope, states, c, t, n, p, later, grads):
        v = states[MEMBRANE, c, t, n]
        a = states[ADAPTATION, c, t, n]
        fired = above(v, add(p[THRESHOLD, n], mul(p[KAPPA, n], a)))
        from_spike = apply(add(grad, later[SPIKE, c, n]), slope)
        g_v = add(later[MEMBRANE, c, n], from_spike)
        g_a = add(later[ADAPTATION, c, n], -mul(from_spike, p[KAPPA, n]))
        later[MEMBRANE, c, n] = mul(g_v, p[BETA, n])
        later[ADAPTATION, c, n] = mul(g_a, p[RHO, n])
        later[SPIKE, c, n] = g_a
        grads[BETA, c, n] += mul(g_v, v)
        grads[THRESHOLD, c, n] += -add(from_spike, mul(g_v, fired))
        grads[RHO, c, n] += mul(g_a, a)
        grads[KAPPA, c, n] += -mul(from_spike, states[ADAPTATION, c, t + 1, n])
        return g_v

    return step, back


def _excess(states: Tensor, p: Tensor) -> Tensor:
    return states[MEMBRANE, :, 1:] - (p[THRESHOLD] + p[KAPPA] * states[ADAPTATION, :, 1:])


ADAPTIVE = Dynamics(
    ("membrane", "adaptation"), ("beta", "threshold", "rho", "kappa"), _adaptive, _excess, attached=True
)
