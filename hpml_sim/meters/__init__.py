"""What this machine can measure: time by a clock, energy by NVML or RAPL; what it cannot is None, with a reason.

meters/energy.py    one class a power meter: NVML (NVIDIA GPUs), RAPL (Intel and AMD processors)
meters/measure.py   `measure`: repeated, warmed-up, synchronised timing of a model, with the meters running
"""

from hpml_sim.meters.measure import Measurement as Measurement
from hpml_sim.meters.measure import measure as measure
