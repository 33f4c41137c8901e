"""Programming, drift and read noise of phase-change devices; the equations stand in `reference.py`."""

from hpml_sim.kernels.device_noise.cpu import age_devices as age_devices
from hpml_sim.kernels.device_noise.cpu import drift_exponents as drift_exponents
from hpml_sim.kernels.device_noise.cpu import program_devices as program_devices
