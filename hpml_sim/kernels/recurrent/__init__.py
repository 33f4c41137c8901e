"""Neurons that get back each other's spikes, over all time steps; the equations stand in `reference.py`."""

from hpml_sim.kernels.recurrent.reference import recurrent as recurrent
