"""What this machine can measure: time by a clock, energy by NVML or RAPL; what it cannot is None, with a reason.

meters/energy.py    one class a power meter: NVML (NVIDIA GPUs), RAPL (Intel and AMD processors)
meters/measure.py   `measure`: repeated, warmed-up, synchronized timing of a model, with the meters running, idle apart
meters/own_process.py  `measure_in_own_process`: the same in a fresh process, as `compare` measures
meters/batches.py   `measure_batches`: the best batch, found by measuring
"""

from hpml_sim.measurement.best_batch import BatchSweep as BatchSweep
from hpml_sim.measurement.best_batch import measure_batches as measure_batches
from hpml_sim.measurement.clocks import Measurement as Measurement
from hpml_sim.measurement.clocks import Window as Window
from hpml_sim.measurement.clocks import measure as measure
from hpml_sim.measurement.own_process import measure_in_own_process as measure_in_own_process
