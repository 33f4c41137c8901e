"""Sequences that arrive later, each neuron's by a delay of its own; the equations stand in `reference.py`."""

from hpml_sim.kernels.delays.dispatch import delayed as delayed
