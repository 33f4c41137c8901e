"""Neurons other than the leaky one over all time steps in one pass; the equations stand in `dynamics/`."""

from hpml_sim.kernels.neurons.dispatch import multistep as multistep
from hpml_sim.kernels.neurons.dynamics import DYNAMICS as DYNAMICS
from hpml_sim.kernels.neurons.dynamics import Dynamics as Dynamics
