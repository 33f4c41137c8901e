"""CPUs and GPUs: time and energy of a workload.

estimating.py   the estimate of a whole network
ceilings.py     rates, powers and launch costs of a card, at each corner of its bounds
products.py     matrix products on a GPU: tiles, waves, split sums, bandwidth
"""

from hpml_sim.cost.digital.estimating import SATURATED as SATURATED
from hpml_sim.cost.digital.estimating import estimate_digital as estimate_digital
