"""Operation counts of a network on data: the workload. Nothing here knows any hardware."""

from hpml_sim.counting.counting import workload as workload
from hpml_sim.counting.counts import CONVENTIONS as CONVENTIONS
from hpml_sim.counting.counts import LayerCount as LayerCount
from hpml_sim.counting.counts import SynapticOperations as SynapticOperations
from hpml_sim.counting.counts import Workload as Workload
from hpml_sim.counting.fan_out import product as product
from hpml_sim.counting.rules import Counter as Counter
from hpml_sim.counting.rules import register_counter as register_counter
