"""Spiking neurons as one step forward and one step back: each written once, run by all engines of `neurons`.

A step reads the states of slot t and writes those of slot t + 1; slot 0 is the initial state. H(u) = 1 for u > 0.
R = H(m - theta) of slot t is the spike of the step before: resets act one step late and are not differentiated, as in
snnTorch, unless said otherwise. Sums and products are rounded one by one in the order written, which is why a neuron is
written with `mul` and `add` in place of `*` and `+`: each engine brings its own, and the CUDA compiler would join plain
ones into fused multiply-adds, whose last bit differs.

    first_order.py  Lapicque                            adaptive.py    neurons whose threshold rises with each spike
    recurrent.py    RLeaky, one to one                  alpha.py       Alpha
    synaptic.py     Synaptic, with both resets          izhikevich.py  Izhikevich's
    immediate.py    Leaky with reset_delay=False        base.py        what they share

Source: snntorch 1.0.0, `_neurons/*.py`, unless a file names another.
"""

from hpml_sim.kernels.neurons.dynamics.adaptive import ADAPTIVE
from hpml_sim.kernels.neurons.dynamics.alpha import ALPHA_NEURON
from hpml_sim.kernels.neurons.dynamics.base import Dynamics as Dynamics
from hpml_sim.kernels.neurons.dynamics.first_order import FIRST_ORDER
from hpml_sim.kernels.neurons.dynamics.immediate import IMMEDIATE
from hpml_sim.kernels.neurons.dynamics.izhikevich import IZHIKEVICH
from hpml_sim.kernels.neurons.dynamics.recurrent import RECURRENT
from hpml_sim.kernels.neurons.dynamics.synaptic import SYNAPTIC, SYNAPTIC_IMMEDIATE

DYNAMICS: dict[str, Dynamics] = {
    "first_order": FIRST_ORDER,
    "recurrent": RECURRENT,
    "immediate": IMMEDIATE,
    "synaptic": SYNAPTIC,
    "synaptic_immediate": SYNAPTIC_IMMEDIATE,
    "alpha": ALPHA_NEURON,
    "adaptive": ADAPTIVE,
    "izhikevich": IZHIKEVICH,
}
"""The neurons by name."""
