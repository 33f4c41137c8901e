"""Analog in-memory machines: where matrices lie, one tile, what surrounds the tiles, and the network as a whole."""

from hpml_sim.cost.crossbar.converter_bits import Mode as Mode
from hpml_sim.cost.crossbar.converter_bits import followed_bits as followed_bits
from hpml_sim.cost.crossbar.layout import Layout as Layout
from hpml_sim.cost.crossbar.layout import as_counted as as_counted
from hpml_sim.cost.crossbar.layout import as_mapped as as_mapped
from hpml_sim.cost.crossbar.mapping import Placement as Placement
from hpml_sim.cost.crossbar.mapping import place as place
from hpml_sim.cost.crossbar.mapping import replicate_greedily as replicate_greedily
from hpml_sim.cost.crossbar.network import estimate_crossbar as estimate_crossbar
