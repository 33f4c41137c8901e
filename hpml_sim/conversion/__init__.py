"""`convert`: a network made ready for a target.

converting.py         convert, and which layers it takes
registry.py           register_target: the converter of each class of targets
converted.py          Converted: the network that convert gives
mapping.py            the mapping: where each product lies, on which tiles, or why it stays digital
tiling.py             how one matrix is cut into tiles
seen_input.py         the shapes of the last input
layer_report.py       what became of one layer
report.py             the report on all layers, a table that shows all of its columns
cloning.py            private copies of networks
references.py         other objects in place of some, wherever a network keeps them
modes.py              looking at a network without changing it
idle_layers.py        layers that are said to run on some hardware and never do
chips_in_batch.py     modules that must know how many chips lie in their batch
chips_in_front.py     networks of several chips, whose outputs have the chips in front
network_call.py       what a network is called with: a tensor, several, or some by name
output_structure.py   what a network returns, taken apart and put together
exporting.py          what cannot leave Python says so
input_layout.py       where the samples lie in an input, where the network knows it
inputs.py             inputs in the type of the weights, and finite
modules.py            an argument that must be a network
torch_fast_path.py    torch's fused transformer kernels, which would run past what replaced a layer
training_sessions.py  how weights that are no ordinary parameters are trained
"""

from hpml_sim.conversion.converted import Converted as Converted
from hpml_sim.conversion.converting import convert as convert
from hpml_sim.conversion.layer_report import LayerReport as LayerReport
from hpml_sim.conversion.mapping import MappedLayer as MappedLayer
from hpml_sim.conversion.mapping import MappedProduct as MappedProduct
from hpml_sim.conversion.mapping import Mapping as Mapping
from hpml_sim.conversion.registry import register_target as register_target
