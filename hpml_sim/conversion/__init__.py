"""`convert`: a network made ready for a target; and clones, modes and exports of networks."""

from hpml_sim.conversion.converting import Converted as Converted
from hpml_sim.conversion.converting import LayerReport as LayerReport
from hpml_sim.conversion.converting import convert as convert
from hpml_sim.conversion.converting import register_target as register_target
