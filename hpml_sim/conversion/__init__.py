"""`convert`: a network made ready for a target.

converting.py         convert, and which layers it takes
registry.py           register_target: the converter of each class of targets
converted.py          Converted, what became of its layers
report.py             the report as a table that shows all of its columns
cloning.py            private copies of networks
modes.py              looking at a network without changing it
exporting.py          what cannot leave Python says so
modules.py            an argument that must be a network
training_sessions.py  how weights that are no ordinary parameters are trained
"""

from hpml_sim.conversion.converted import Converted as Converted
from hpml_sim.conversion.converted import LayerReport as LayerReport
from hpml_sim.conversion.converting import convert as convert
from hpml_sim.conversion.registry import register_target as register_target
