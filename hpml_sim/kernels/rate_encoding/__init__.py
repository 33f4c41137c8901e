"""Rate encoding: values into Bernoulli spikes; the equations stand in `reference.py`."""

from hpml_sim.kernels.rate_encoding.dispatch import rate_spikes as rate_spikes
