"""What this machine can measure: time by a clock, energy by a power meter; where it cannot, None with a reason.

measuring.py      `measure`: repeated, warmed-up, synchronized timing of a model, idle power apart
result.py         `Measurement`: what it gives
clocks.py         the timing itself; own_process.py the same in a fresh process
power.py          one class a power meter: NVML (NVIDIA GPUs), RAPL (Intel and AMD processors)
best_batch.py     `measure_batches`: the best batch, found by measuring
ceilings.py       what a processor reaches at most; ceilings_card.py a device card of it
profiling.py      where a forward pass spends its time
machine.py        what this machine is; diagnosis.py what of hpml_sim works on it
"""

from hpml_sim.measurement.best_batch import BatchSweep as BatchSweep
from hpml_sim.measurement.best_batch import measure_batches as measure_batches
from hpml_sim.measurement.measuring import measure as measure
from hpml_sim.measurement.own_process import measure_in_own_process as measure_in_own_process
from hpml_sim.measurement.result import Measurement as Measurement
from hpml_sim.measurement.result import Window as Window
