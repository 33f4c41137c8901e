"""CPUs and GPUs: time and energy of a workload.

estimating.py   the estimate of a whole network
work.py         what a batch asks for, and what an engine fuses
gpu.py          seconds of each layer on a GPU
products.py     matrix products on a GPU: tiles, waves, split sums, bandwidth
ceilings.py     rates, powers and launch costs of a card, at each corner of its bounds
bands.py        how wide the bands are
"""

from hpml_sim.cost.digital.estimating import SATURATED as SATURATED
from hpml_sim.cost.digital.estimating import Weights as Weights
from hpml_sim.cost.digital.estimating import estimate_digital as estimate_digital
