"""A product between two converters, as a crossbar tile makes it, of many chips in one pass.

The equations stand in `reference.py`. Beside its implementations:

    dispatch.py       `crossbar_product`: inference with programmed chips
    convolution.py    the passes around a library's convolution, in training and with programmed chips (CPU)
    noise.py          the output noise, numbered by sample
    training.py       the passes of training: tiles with noise, both converters, and their ways back (CPU)
    drift_readout.py  what the ADCs read of known inputs, which drift compensation needs (CPU)
"""

from hpml_sim.kernels.crossbar_product.dispatch import Normal as Normal
from hpml_sim.kernels.crossbar_product.dispatch import crossbar_product as crossbar_product
from hpml_sim.kernels.crossbar_product.drift_readout import readout as readout
