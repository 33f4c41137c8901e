"""Operation counts of a network on data: the workload. Nothing here knows any hardware.

count_network.py      workload: one pass over a network and data
operation_counts.py   Workload and LayerCount: what was counted
tracing.py            a forward pass, watched: hooks on layers, and every tensor operation outside known layers
layer_rules.py        all rules: which class of layer is counted how; register_counter adds one
rule.py               what a rule is
layer_counters.py     torch's layers
neuron_counters.py    spiking neurons
operation_counters.py products that happen outside known layers
fan_out.py            how many products an input takes part in, and what that makes of sparse inputs
torch_operations.py   which of torch's operations hold products
tensor_origins.py     which tensors depend on the input, and which were made of weights
tally.py              sums over calls and samples
"""

from hpml_sim.counting.count_network import workload as workload
from hpml_sim.counting.fan_out import product as product
from hpml_sim.counting.layer_rules import register_counter as register_counter
from hpml_sim.counting.operation_counts import CONVENTIONS as CONVENTIONS
from hpml_sim.counting.operation_counts import LayerCount as LayerCount
from hpml_sim.counting.operation_counts import SynapticOperations as SynapticOperations
from hpml_sim.counting.operation_counts import Workload as Workload
from hpml_sim.counting.rule import Counter as Counter
