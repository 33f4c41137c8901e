"""Analog crossbars: layers, the physics of their devices (aihwkit's), and the life of a chip."""

from hpml_sim.analog.attention import AnalogMultiheadAttention as AnalogMultiheadAttention
from hpml_sim.analog.calibration import calibrate as calibrate
from hpml_sim.analog.chips import Chips as Chips
from hpml_sim.analog.chips import ProgrammedModel as ProgrammedModel
from hpml_sim.analog.chips import load_chips as load_chips
from hpml_sim.analog.chips import program as program
from hpml_sim.analog.chips import save_chips as save_chips
from hpml_sim.analog.conversion import convert_analog as convert_analog
from hpml_sim.analog.conversion import replace_layers as replace_layers
from hpml_sim.analog.interop.aihwkit import to_aihwkit as to_aihwkit
from hpml_sim.analog.interop.lightning import from_lightning as from_lightning
from hpml_sim.analog.layers import AnalogConv1d as AnalogConv1d
from hpml_sim.analog.layers import AnalogConv2d as AnalogConv2d
from hpml_sim.analog.layers import AnalogConv3d as AnalogConv3d
from hpml_sim.analog.layers import AnalogLinear as AnalogLinear
from hpml_sim.analog.layers import has_analog_layers as has_analog_layers
from hpml_sim.analog.pulsed.training import in_memory_optimizer as in_memory_optimizer
from hpml_sim.analog.recurrent import AnalogGRU as AnalogGRU
from hpml_sim.analog.recurrent import AnalogLSTM as AnalogLSTM
from hpml_sim.analog.recurrent import AnalogRNN as AnalogRNN
