r"""Spiking neurons as one step forward and one step back: written once, run by all engines of `multistep.py`.

A step reads the states of slot t and writes those of slot t + 1; slot 0 is the initial state. H(u) = 1 for u > 0.
R = H(m - theta) of slot t is the spike of the step before: resets act one step late and are not differentiated, as in
snnTorch, unless said otherwise. Sums and products are rounded one by one in the order written.

    first_order   v = beta m + x;  m' = v - v R (zero), v - R theta (subtract), v (none)      Lapicque
    recurrent     v = (beta m + x) + V S;  m' as above; S is differentiated                   RLeaky, one to one
    immediate     v = beta m + x;  S = H(v - theta);  m' = v - S v (zero), v - S theta (subtract)
                  Leaky with reset_delay=False. Differentiated. "subtract" is our own definition: every spike takes one
                  threshold at once. snnTorch's leaves a neuron that gets more than 2 theta in a step silent above its
                  threshold for ever.
    synaptic      i' = alpha i + x;  v = beta m + i';  m' as in first_order                       Synaptic
    synaptic_immediate  i' = alpha i + x;  v = beta m + i';  S and m' as in immediate    Synaptic with reset_delay=False
    alpha         e' = alpha e + x;  h' = beta h - x;  m' = tau (e' + h')                         Alpha
                  zero: e', h', m' all times (1 - R); subtract: e' - theta R, h' (1 - R), m' + h R
    adaptive      v' = beta v + x - S theta;  a' = rho a + S;  S' = H(v' - (theta + kappa a'))
    izhikevich    v' = v + dt (0.04 v^2 + 5 v + 140 - u + x);  u' = u + dt a (b v - u);  after a spike v = c, u = u + d

Sources: snntorch 1.0.0, `_neurons/*.py`; adaptive: G. Bellec et al., Nat. Commun. 11:3625 (2020), eqs. (6)-(9), the
spike's way into the adaptation differentiated; izhikevich: E. M. Izhikevich, IEEE Trans. Neural Netw. 14:1569 (2003),
eqs. (1)-(3), forward Euler.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

Pair = tuple[Callable[..., Any], Callable[..., Any]]


@dataclass(frozen=True)
class Dynamics:
    """A neuron.

    Attributes:
        states: names of its states. parameters: names of its parameters, one value a neuron, in the order of `p`.
        make: (mul, add, above, apply) -> (step, back), from an engine's arithmetic; `above(a, b)` is 1 where a > b,
            `apply(grad, slope)` the gradient that a spike passes on.
            step(x, states, c, t, n, p) -> spike writes slot t + 1.
            back(grad_spike, slope, states, c, t, n, p, later, grads) -> gradient of x. `later[k]` holds the gradient of
            state k after the step, `later[-1]` that of the spike from later steps; both become those before the step.
            `grads[j]` gathers the gradient of parameter j. What is read from `later` is read before it is written:
            for the torch engine it is a view.
        excess: (states, p) -> u, the argument of H at slots 1 ..., for tensors.
        attached: the spike is differentiated inside the dynamics, so its gradient is known only on the way.
    """

    states: tuple[str, ...]
    parameters: tuple[str, ...]
    make: Callable[..., Pair]
    excess: Callable[[Tensor, Tensor], Tensor]
    attached: bool = False


def _first_order(mul: Any, add: Any, above: Any, apply: Any) -> Pair:
    def step(x, states, c, t, n, p):
        m = states[0, c, t, n]
        fired = above(m, p[1, n])
        v = add(mul(p[0, n], m), x)
        m = add(add(v, -mul(mul(v, fired), p[3, n])), -mul(mul(fired, p[1, n]), p[2, n]))
        states[0, c, t + 1, n] = m
        return above(m, p[1, n])

    def back(grad, slope, states, c, t, n, p, later, grads):
        m = states[0, c, t, n]
        fired = above(m, p[1, n])
        lam = add(later[0, c, n], grad)
        through = add(lam, -mul(mul(lam, fired), p[3, n]))
        later[0, c, n] = mul(through, p[0, n])
        grads[0, c, n] += mul(through, m)
        grads[1, c, n] += -add(grad, mul(mul(lam, fired), p[2, n]))
        return through

    return step, back


def _recurrent(mul: Any, add: Any, above: Any, apply: Any) -> Pair:
    def step(x, states, c, t, n, p):
        m = states[0, c, t, n]
        fired = above(m, p[1, n])
        v = add(add(mul(p[0, n], m), x), mul(fired, p[4, n]))
        m = add(add(v, -mul(mul(v, fired), p[3, n])), -mul(mul(fired, p[1, n]), p[2, n]))
        states[0, c, t + 1, n] = m
        return above(m, p[1, n])

    def back(grad, slope, states, c, t, n, p, later, grads):
        m = states[0, c, t, n]
        fired = above(m, p[1, n])
        from_spike = apply(add(grad, later[1, c, n]), slope)
        lam = add(later[0, c, n], from_spike)
        through = add(lam, -mul(mul(lam, fired), p[3, n]))
        later[0, c, n] = mul(through, p[0, n])
        later[1, c, n] = mul(through, p[4, n])
        grads[0, c, n] += mul(through, m)
        grads[1, c, n] += -add(from_spike, mul(mul(lam, fired), p[2, n]))
        grads[4, c, n] += mul(through, fired)
        return through

    return step, back


def _immediate(mul: Any, add: Any, above: Any, apply: Any) -> Pair:
    def step(x, states, c, t, n, p):
        v = add(mul(p[0, n], states[0, c, t, n]), x)
        fired = above(v, p[1, n])
        states[0, c, t + 1, n] = add(add(v, -mul(mul(fired, v), p[3, n])), -mul(mul(fired, p[1, n]), p[2, n]))
        states[1, c, t + 1, n] = v
        return fired

    def back(grad, slope, states, c, t, n, p, later, grads):
        v = states[1, c, t + 1, n]
        fired = above(v, p[1, n])
        lam = later[0, c, n]
        taken = add(mul(v, p[3, n]), mul(p[1, n], p[2, n]))
        from_spike = apply(add(grad, -mul(lam, taken)), slope)
        through = add(add(lam, -mul(mul(lam, fired), p[3, n])), add(later[1, c, n], from_spike))
        grads[0, c, n] += mul(through, states[0, c, t, n])
        grads[1, c, n] += -add(from_spike, mul(mul(lam, fired), p[2, n]))
        later[0, c, n] = mul(through, p[0, n])
        later[1, c, n] = mul(through, above(p[1, n], p[1, n]))  # v is of this step alone: 0
        return through

    return step, back


def _synaptic(mul: Any, add: Any, above: Any, apply: Any) -> Pair:
    def step(x, states, c, t, n, p):
        m = states[0, c, t, n]
        fired = above(m, p[1, n])
        i = add(mul(p[4, n], states[1, c, t, n]), x)
        v = add(mul(p[0, n], m), i)
        m = add(add(v, -mul(mul(v, fired), p[3, n])), -mul(mul(fired, p[1, n]), p[2, n]))
        states[0, c, t + 1, n] = m
        states[1, c, t + 1, n] = i
        return above(m, p[1, n])

    def back(grad, slope, states, c, t, n, p, later, grads):
        m = states[0, c, t, n]
        fired = above(m, p[1, n])
        lam = add(later[0, c, n], grad)
        # snnTorch computes i' and v twice, once to take them away: gradients come from both, in autograd's order
        away = -mul(mul(lam, fired), p[3, n])
        kept = add(later[1, c, n], lam)
        through = add(away, lam)
        current = add(away, kept)
        later[0, c, n] = mul(through, p[0, n])
        later[1, c, n] = add(mul(away, p[4, n]), mul(kept, p[4, n]))
        grads[0, c, n] += mul(through, m)
        grads[1, c, n] += -add(grad, mul(mul(lam, fired), p[2, n]))
        grads[4, c, n] += mul(current, states[1, c, t, n])
        return current

    return step, back


def _synaptic_immediate(mul: Any, add: Any, above: Any, apply: Any) -> Pair:
    def step(x, states, c, t, n, p):
        i = add(mul(p[4, n], states[1, c, t, n]), x)
        v = add(mul(p[0, n], states[0, c, t, n]), i)
        fired = above(v, p[1, n])
        states[0, c, t + 1, n] = add(add(v, -mul(mul(fired, v), p[3, n])), -mul(mul(fired, p[1, n]), p[2, n]))
        states[1, c, t + 1, n] = i
        states[2, c, t + 1, n] = v
        return fired

    def back(grad, slope, states, c, t, n, p, later, grads):
        v = states[2, c, t + 1, n]
        fired = above(v, p[1, n])
        lam = later[0, c, n]
        taken = add(mul(v, p[3, n]), mul(p[1, n], p[2, n]))
        from_spike = apply(add(grad, -mul(lam, taken)), slope)
        through = add(add(lam, -mul(mul(lam, fired), p[3, n])), add(later[2, c, n], from_spike))
        current = add(later[1, c, n], through)
        grads[0, c, n] += mul(through, states[0, c, t, n])
        grads[1, c, n] += -add(from_spike, mul(mul(lam, fired), p[2, n]))
        grads[4, c, n] += mul(current, states[1, c, t, n])
        later[0, c, n] = mul(through, p[0, n])
        later[1, c, n] = mul(current, p[4, n])
        later[2, c, n] = mul(through, above(p[1, n], p[1, n]))  # v is of this step alone: 0
        return current

    return step, back


def _alpha(mul: Any, add: Any, above: Any, apply: Any) -> Pair:
    def step(x, states, c, t, n, p):
        h_before = states[2, c, t, n]
        fired = above(states[0, c, t, n], p[1, n])
        e = add(mul(p[4, n], states[1, c, t, n]), x)
        h = add(mul(p[0, n], h_before), -x)
        m = mul(p[5, n], add(e, h))
        zeroed = mul(fired, p[3, n])
        taken = mul(fired, p[2, n])
        states[1, c, t + 1, n] = add(add(e, -mul(e, zeroed)), -mul(p[1, n], taken))
        states[2, c, t + 1, n] = add(h, -mul(h, add(zeroed, taken)))
        m = add(add(m, -mul(m, zeroed)), mul(h_before, taken))
        states[0, c, t + 1, n] = m
        return above(m, p[1, n])

    def back(grad, slope, states, c, t, n, p, later, grads):
        e_before = states[1, c, t, n]
        h_before = states[2, c, t, n]
        fired = above(states[0, c, t, n], p[1, n])
        zeroed = mul(fired, p[3, n])
        taken = mul(fired, p[2, n])
        g_m = add(later[0, c, n], grad)
        g_e = later[1, c, n]
        g_h = later[2, c, n]
        through = add(g_m, -mul(g_m, zeroed))
        share = mul(p[5, n], through)
        into_e = add(add(g_e, -mul(g_e, zeroed)), share)
        into_h = add(add(g_h, -mul(g_h, add(zeroed, taken))), share)
        g_x = add(into_e, -into_h)
        grads[0, c, n] += mul(into_h, h_before)
        grads[1, c, n] += -add(grad, mul(g_e, taken))
        grads[4, c, n] += mul(into_e, e_before)
        grads[5, c, n] += mul(through, add(mul(p[4, n], e_before), mul(p[0, n], h_before)))  # x cancels in e + h
        later[0, c, n] = mul(g_m, above(p[1, n], p[1, n]))  # the next step takes nothing from m but its spike: 0
        later[1, c, n] = mul(into_e, p[4, n])
        later[2, c, n] = add(mul(into_h, p[0, n]), mul(g_m, taken))
        return g_x

    return step, back


def _adaptive(mul: Any, add: Any, above: Any, apply: Any) -> Pair:
    def step(x, states, c, t, n, p):
        v = states[0, c, t, n]
        a = states[1, c, t, n]
        fired = above(v, add(p[1, n], mul(p[3, n], a)))
        v = add(add(mul(p[0, n], v), x), -mul(fired, p[1, n]))
        a = add(mul(p[2, n], a), fired)
        states[0, c, t + 1, n] = v
        states[1, c, t + 1, n] = a
        return above(v, add(p[1, n], mul(p[3, n], a)))

    def back(grad, slope, states, c, t, n, p, later, grads):
        v = states[0, c, t, n]
        a = states[1, c, t, n]
        fired = above(v, add(p[1, n], mul(p[3, n], a)))
        from_spike = apply(add(grad, later[2, c, n]), slope)
        g_v = add(later[0, c, n], from_spike)
        g_a = add(later[1, c, n], -mul(from_spike, p[3, n]))
        later[0, c, n] = mul(g_v, p[0, n])
        later[1, c, n] = mul(g_a, p[2, n])
        later[2, c, n] = g_a
        grads[0, c, n] += mul(g_v, v)
        grads[1, c, n] += -add(from_spike, mul(g_v, fired))
        grads[2, c, n] += mul(g_a, a)
        grads[3, c, n] += -mul(from_spike, states[1, c, t + 1, n])
        return g_v

    return step, back


def _izhikevich(mul: Any, add: Any, above: Any, apply: Any) -> Pair:
    # p: 0 a, 1 b, 2 c, 3 d, 4 threshold, 5 dt, 6 0.04, 7 5, 8 140
    def step(x, states, c, t, n, p):
        v = states[0, c, t, n]
        u = states[1, c, t, n]
        fired = above(v, p[4, n])
        v = add(add(v, -mul(v, fired)), mul(p[2, n], fired))
        u = add(u, mul(p[3, n], fired))
        slope_v = add(add(add(mul(mul(p[6, n], v), v), mul(p[7, n], v)), add(p[8, n], -u)), x)
        slope_u = mul(p[0, n], add(mul(p[1, n], v), -u))
        v = add(v, mul(p[5, n], slope_v))
        states[0, c, t + 1, n] = v
        states[1, c, t + 1, n] = add(u, mul(p[5, n], slope_u))
        return above(v, p[4, n])

    def back(grad, slope, states, c, t, n, p, later, grads):
        v = states[0, c, t, n]
        u = states[1, c, t, n]
        fired = above(v, p[4, n])
        v = add(add(v, -mul(v, fired)), mul(p[2, n], fired))
        u = add(u, mul(p[3, n], fired))
        g_v = add(later[0, c, n], grad)
        g_u = later[1, c, n]
        g_x = mul(g_v, p[5, n])
        by_u = mul(g_u, p[5, n])
        curvature = add(add(mul(p[6, n], v), mul(p[6, n], v)), p[7, n])
        into_v = add(add(g_v, mul(g_x, curvature)), mul(mul(by_u, p[0, n]), p[1, n]))
        into_u = add(add(g_u, -mul(by_u, p[0, n])), -g_x)
        later[0, c, n] = add(into_v, -mul(into_v, fired))
        later[1, c, n] = into_u
        grads[0, c, n] += mul(by_u, add(mul(p[1, n], v), -u))
        grads[1, c, n] += mul(mul(by_u, p[0, n]), v)
        grads[2, c, n] += mul(into_v, fired)
        grads[3, c, n] += mul(into_u, fired)
        grads[4, c, n] += -grad
        return g_x

    return step, back


def _over_theta(states: Tensor, p: Tensor) -> Tensor:
    return states[0, :, 1:] - p[1]


_BASE = ("beta", "threshold", "subtracts", "clears")

DYNAMICS: dict[str, Dynamics] = {
    "first_order": Dynamics(("membrane",), _BASE, _first_order, _over_theta),
    "recurrent": Dynamics(("membrane",), (*_BASE, "V"), _recurrent, _over_theta, attached=True),
    "immediate": Dynamics(
        ("membrane", "before"), _BASE, _immediate, lambda states, p: states[1, :, 1:] - p[1], attached=True
    ),
    "synaptic": Dynamics(("membrane", "current"), (*_BASE, "alpha"), _synaptic, _over_theta),
    "synaptic_immediate": Dynamics(
        ("membrane", "current", "before"),
        (*_BASE, "alpha"),
        _synaptic_immediate,
        lambda states, p: states[2, :, 1:] - p[1],
        attached=True,
    ),
    "alpha": Dynamics(("membrane", "excitatory", "inhibitory"), (*_BASE, "alpha", "tau"), _alpha, _over_theta),
    "adaptive": Dynamics(
        ("membrane", "adaptation"),
        ("beta", "threshold", "rho", "kappa"),
        _adaptive,
        lambda states, p: states[0, :, 1:] - (p[1] + p[3] * states[1, :, 1:]),
        attached=True,
    ),
    "izhikevich": Dynamics(
        ("membrane", "recovery"),
        ("a", "b", "c", "d", "threshold", "dt", "quadratic", "linear", "constant"),
        _izhikevich,
        lambda states, p: states[0, :, 1:] - p[4],
    ),
}
