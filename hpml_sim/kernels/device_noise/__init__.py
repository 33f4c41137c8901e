"""Programming, drift and read noise of memory devices; the equations stand in `reference.py`.

Only what describes devices stands here. `cpu.py` and `weights.py` compute; they import numba, so their callers import
them when they compute.
"""

from hpml_sim.kernels.device_noise.law import NO_FAULTS as NO_FAULTS
from hpml_sim.kernels.device_noise.law import STEPS as STEPS
from hpml_sim.kernels.device_noise.law import Aging as Aging
from hpml_sim.kernels.device_noise.law import DeviceLaw as DeviceLaw
from hpml_sim.kernels.device_noise.law import Faults as Faults
