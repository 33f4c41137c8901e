"""Energy, latency, throughput and area from a workload and a target."""

from hpml_sim.cost.crossbar import followed_bits as followed_bits
from hpml_sim.cost.estimation import estimate as estimate
from hpml_sim.cost.ranking import energy_ratio as energy_ratio
from hpml_sim.cost.ranking import rank as rank
from hpml_sim.cost.result import Estimate as Estimate
from hpml_sim.cost.result import LayerWork as LayerWork
from hpml_sim.cost.result import Roof as Roof
from hpml_sim.cost.result import Term as Term
from hpml_sim.cost.system.duty import crossover_hz as crossover_hz
