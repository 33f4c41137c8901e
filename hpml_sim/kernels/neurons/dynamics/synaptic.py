"""A leaky neuron behind a synaptic current that decays, too: snnTorch's `Synaptic`.

    synaptic            i' = alpha i + x;  v = beta m + i';  m' = v - v R (zero), v - R theta (subtract), v (none)
    synaptic_immediate  i' = alpha i + x;  v = beta m + i';  S = H(v - theta);  m' = v - S v (zero), v - S theta
                        (subtract); the reset is differentiated, as in `immediate.py`: Synaptic with reset_delay=False

No reset touches the current.
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
    membrane_over_threshold,
)

PARAMETERS = (*LEAKY_PARAMETERS, "alpha")
ALPHA = 4
CURRENT, BEFORE = 1, 2


def _synaptic(mul: Any, add: Any, above: Any, apply: Any) -> Pair:
    def step(x, states, c, t, n, p):
        m = states[MEMBRANE, c, t, n]
        fired = above(m, p[THRESHOLD, n])
        i = add(mul(p[ALPHA, n], states[CURRENT, c, t, n]), x)
        v = add(mul(p[BETA, n], m), i)
        m = add(add(v, -mul(mul(v, fired), p[CLEARS, n])), -mul(mul(fired, p[THRESHOLD, n]), p[SUBTRACTS, n]))
        states[MEMBRANE, c, t + 1, n] = m
        states[CURRENT, c, t + 1, n] = i
        return above(m, p[THRESHOLD, n])

    def back(grad, slope, states, c, t, n, p, later, grads):
        m = states[MEMBRANE, c, t, n]
        fired = above(m, p[THRESHOLD, n])
        lam = add(later[MEMBRANE, c, n], grad)
        # snnTorch computes i' and v twice, once to take them away: gradients come from both, in autograd's order
        away = -mul(mul(lam, fired), p[CLEARS, n])
        kept = add(later[CURRENT, c, n], lam)
        through = add(away, lam)
        current = add(away, kept)
        later[MEMBRANE, c, n] = mul(through, p[BETA, n])
        later[CURRENT, c, n] = add(mul(away, p[ALPHA, n]), mul(kept, p[ALPHA, n]))
        grads[BETA, c, n] += mul(through, m)
        grads[THRESHOLD, c, n] += -add(grad, mul(mul(lam, fired), p[SUBTRACTS, n]))
        grads[ALPHA, c, n] += mul(current, states[CURRENT, c, t, n])
        return current

    return step, back


def _synaptic_immediate(mul: Any, add: Any, above: Any, apply: Any) -> Pair:
    def step(x, states, c, t, n, p):
        i = add(mul(p[ALPHA, n], states[CURRENT, c, t, n]), x)
        v = add(mul(p[BETA, n], states[MEMBRANE, c, t, n]), i)
        fired = above(v, p[THRESHOLD, n])
        states[MEMBRANE, c, t + 1, n] = add(
            add(v, -mul(mul(fired, v), p[CLEARS, n])), -mul(mul(fired, p[THRESHOLD, n]), p[SUBTRACTS, n])
        )
        states[CURRENT, c, t + 1, n] = i
        states[BEFORE, c, t + 1, n] = v
        return fired

    def back(grad, slope, states, c, t, n, p, later, grads):
        v = states[BEFORE, c, t + 1, n]
        fired = above(v, p[THRESHOLD, n])
        lam = later[MEMBRANE, c, n]
        taken = add(mul(v, p[CLEARS, n]), mul(p[THRESHOLD, n], p[SUBTRACTS, n]))
        from_spike = apply(add(grad, -mul(lam, taken)), slope)
        through = add(add(lam, -mul(mul(lam, fired), p[CLEARS, n])), add(later[BEFORE, c, n], from_spike))
        current = add(later[CURRENT, c, n], through)
        grads[BETA, c, n] += mul(through, states[MEMBRANE, c, t, n])
        grads[THRESHOLD, c, n] += -add(from_spike, mul(mul(lam, fired), p[SUBTRACTS, n]))
        grads[ALPHA, c, n] += mul(current, states[CURRENT, c, t, n])
        later[MEMBRANE, c, n] = mul(through, p[BETA, n])
        later[CURRENT, c, n] = mul(current, p[ALPHA, n])
        later[BEFORE, c, n] = mul(through, above(p[THRESHOLD, n], p[THRESHOLD, n]))  # 0: see `immediate.py`
        return current

    return step, back


def _before_over_threshold(states: Tensor, p: Tensor) -> Tensor:
    return states[BEFORE, :, 1:] - p[THRESHOLD]


SYNAPTIC = Dynamics(("membrane", "current"), PARAMETERS, _synaptic, membrane_over_threshold)
SYNAPTIC_IMMEDIATE = Dynamics(
    ("membrane", "current", "before"), PARAMETERS, _synaptic_immediate, _before_over_threshold, attached=True
)
