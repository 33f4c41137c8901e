"""Analog in-memory machines: where matrices lie, one tile, what surrounds the tiles, and the network as a whole."""

from hpml_sim.cost.crossbar.converter_bits import Mode as Mode
from hpml_sim.cost.crossbar.converter_bits import followed_bits as followed_bits
from hpml_sim.cost.crossbar.mapping import Placement as Placement
from hpml_sim.cost.crossbar.mapping import place as place
from hpml_sim.cost.crossbar.mapping import replicate_greedily as replicate_greedily
from hpml_sim.cost.crossbar.network import estimate_crossbar as estimate_crossbar
