"""Drop-in layers: write them in a network where `nn.Linear` and `nn.Conv2d` stood.

net = nn.Sequential(hs.nn.AnalogLinear(784, 256, card="pcm-hermes"), nn.ReLU(), nn.Linear(256, 10))
"""

from hpml_sim.analog.layers import AnalogConv1d as AnalogConv1d
from hpml_sim.analog.layers import AnalogConv2d as AnalogConv2d
from hpml_sim.analog.layers import AnalogConv3d as AnalogConv3d
from hpml_sim.analog.layers import AnalogLinear as AnalogLinear
from hpml_sim.analog.recurrent import AnalogGRU as AnalogGRU
from hpml_sim.analog.recurrent import AnalogLSTM as AnalogLSTM
from hpml_sim.analog.recurrent import AnalogRNN as AnalogRNN
