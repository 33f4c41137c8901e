"""Programming, drift and read noise of memory devices; the equations stand in `reference.py`."""

from hpml_sim.kernels.device_noise.cpu import conductances as conductances
from hpml_sim.kernels.device_noise.cpu import drift_exponents as drift_exponents
from hpml_sim.kernels.device_noise.law import NO_FAULTS as NO_FAULTS
from hpml_sim.kernels.device_noise.law import STEPS as STEPS
from hpml_sim.kernels.device_noise.law import Aging as Aging
from hpml_sim.kernels.device_noise.law import DeviceLaw as DeviceLaw
from hpml_sim.kernels.device_noise.law import Faults as Faults
from hpml_sim.kernels.device_noise.weights import Cells as Cells
from hpml_sim.kernels.device_noise.weights import chip_weights as chip_weights
