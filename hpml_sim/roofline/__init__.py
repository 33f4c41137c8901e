"""What limits what: ceilings of processors, measured or from cards, with layers, kernels, tiles and cores under them.

roofline/ceilings.py   `measure_ceilings`: copy bandwidth, matrix rates, launch and call costs, power of this machine
roofline/card.py       `ceilings_card`: these as a device card, for estimates of this very machine
roofline/points.py     roofs, and what lies under them: layers, kernels, tiles, cores
roofline/plot.py       `plot_roofline`: all of it on one pair of axes
"""

from hpml_sim.roofline.card import ceilings_card as ceilings_card
from hpml_sim.roofline.ceilings import Ceilings as Ceilings
from hpml_sim.roofline.ceilings import measure_ceilings as measure_ceilings
from hpml_sim.roofline.plot import plot_roofline as plot_roofline
from hpml_sim.roofline.points import Point as Point
from hpml_sim.roofline.points import Roof as Roof
from hpml_sim.roofline.points import core_point as core_point
from hpml_sim.roofline.points import layer_points as layer_points
from hpml_sim.roofline.points import measured_points as measured_points
from hpml_sim.roofline.points import roof_of as roof_of
from hpml_sim.roofline.points import tile_point as tile_point
