"""Izhikevich's neuron, by forward Euler.

    v' = v + dt (0.04 v^2 + 5 v + 140 - u + x);  u' = u + dt a (b v - u);  after a spike v = c, u = u + d

0.04, 5 and 140 are parameters as well (`quadratic`, `linear`, `constant`): numbers written into a kernel are float64,
and would make it compute in double precision.

Source: E. M. Izhikevich, IEEE Trans. Neural Netw. 14:1569 (2003), eqs. (1)-(3).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from hpml_sim.kernels.neurons.dynamics.base import MEMBRANE, Dynamics, Pair

PARAMETERS = ("a", "b", "c", "d", "threshold", "dt", "quadratic", "linear", "constant")
A, B, C, D, THRESHOLD, DT, QUADRATIC, LINEAR, CONSTANT = range(9)  # the threshold is not where other neurons have it
RECOVERY = 1


def _izhikevich(mul: Any, add: Any, above: Any, apply: Any) -> Pair:
    def step(x, states, c, t, n, p):
        v = states[MEMBRANE, c, t, n]
        u = states[RECOVERY, c, t, n]
        fired = above(v, p[THRESHOLD, n])
        v = add(add(v, -mul(v, fired)), mul(p[C, n], fired))
        u = add(u, mul(p[D, n], fired))
        slope_v = add(add(add(mul(mul(p[QUADRATIC, n], v), v), mul(p[LINEAR, n], v)), add(p[CONSTANT, n], -u)), x)
        slope_u = mul(p[A, n], add(mul(p[B, n], v), -u))
        v = add(v, mul(p[DT, n], slope_v))
        states[MEMBRANE, c, t + 1, n] = v
        states[RECOVERY, c, t + 1, n] = add(u, mul(p[DT, n], slope_u))
        return above(v, p[THRESHOLD, n])

    def back(grad, slope, states, c, t, n, p, later, grads):
        v = states[MEMBRANE, c, t, n]
        u = states[RECOVERY, c, t, n]
        fired = above(v, p[THRESHOLD, n])
        v = add(add(v, -mul(v, fired)), mul(p[C, n], fired))
        u = add(u, mul(p[D, n], fired))
        g_v = add(later[MEMBRANE, c, n], grad)
        g_u = later[RECOVERY, c, n]
        g_x = mul(g_v, p[DT, n])
        by_u = mul(g_u, p[DT, n])
        curvature = add(add(mul(p[QUADRATIC, n], v), mul(p[QUADRATIC, n], v)), p[LINEAR, n])
        into_v = add(add(g_v, mul(g_x, curvature)), mul(mul(by_u, p[A, n]), p[B, n]))
        into_u = add(add(g_u, -mul(by_u, p[A, n])), -g_x)
        later[MEMBRANE, c, n] = add(into_v, -mul(into_v, fired))
        later[RECOVERY, c, n] = into_u
        grads[A, c, n] += mul(by_u, add(mul(p[B, n], v), -u))
        grads[B, c, n] += mul(mul(by_u, p[A, n]), v)
        grads[C, c, n] += mul(into_v, fired)
        grads[D, c, n] += mul(into_u, fired)
        grads[THRESHOLD, c, n] += -grad
        return g_x

    return step, back


def _excess(states: Tensor, p: Tensor) -> Tensor:
    return states[MEMBRANE, :, 1:] - p[THRESHOLD]


IZHIKEVICH = Dynamics(("membrane", "recovery"), PARAMETERS, _izhikevich, _excess)
