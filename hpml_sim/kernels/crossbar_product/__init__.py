"""A product between two converters, as a crossbar tile makes it, of many chips in one pass.

dispatch.py    `crossbar_product`: inference with programmed chips; the equations stand in `reference.py`
training.py    the passes of training: tiles with noise, both converters, and their ways back (CPU)
readout.py     what the ADCs read of known inputs, which drift compensation needs (CPU)
"""

from hpml_sim.kernels.crossbar_product.dispatch import Normal as Normal
from hpml_sim.kernels.crossbar_product.dispatch import crossbar_product as crossbar_product
from hpml_sim.kernels.crossbar_product.readout import readout as readout
