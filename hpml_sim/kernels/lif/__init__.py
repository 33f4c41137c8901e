"""Leaky integrate-and-fire neurons over all time steps in one pass; the equations stand in `reference.py`."""

from hpml_sim.kernels.lif.dispatch import RESETS as RESETS
from hpml_sim.kernels.lif.dispatch import Reset as Reset
from hpml_sim.kernels.lif.dispatch import leaky as leaky
