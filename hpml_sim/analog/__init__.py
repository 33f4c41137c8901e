"""Analog crossbars: layers, the physics of their devices, and the life of a chip.

- `linear.py`, `convolution.py`, `transposed_convolution.py`, `recurrent.py`, `attention.py`: layers on crossbars, in
  place of torch's
- `recurrent_cells.py`: one step of an RNN, a GRU and an LSTM
- `layers.py`: what these layers share
- `conversion.py`: which layers of a network go onto crossbars, and why the others stay digital
- `activation_products.py`: finds products of two activations, which stay digital
- `crossbar.py`: one weight matrix on tiles, and its product with vectors
- `converters.py`: DAC and ADC, and the equations of the product
- `nonlinear_adc.py`: an ADC whose steps are not equally wide
- `array_physics.py`: IR drop along the columns, and read noise
- `effective_weights.py`: the weights as one forward pass sees them: clipped, with noise
- `weight_limits.py`: how large a mapped weight may be
- `training_passes.py`: the compiled passes of a training step
- `crossbar_training.py`: how a crossbar multiplies in one
- `row_tiles.py`: which channels each row tile of a convolution sees
- `crossbar_convolution.py`: a convolution of whole images on the tiles, in training, on chips and operator by operator
- `convolution_passes.py`: its compiled passes in training
- `input_ranges.py`: the ranges of a layer's converters, and how they follow what passes through
- `channel_scales.py`: a range for each input channel, folded into the weights
- `range_samples.py`: input vectors that calibration collects
- `range_choice.py`: which ranges lose least, tried on these vectors
- `converter_error.py`, `conversion_cost.py`: what converters lose of a layer and of a network, and the warning
- `calibration.py`: `calibrate`: ranges from data, without training
- `devices.py`: weights as conductances, and back
- `noise_models.py`: the noise models that a card can name
- `foundation_model_noise.py`: that on which Analog Foundation Models are evaluated
- `programming_noise.py`: programming noise, drift and read noise of every single device
- `bit_slicing.py`: a weight in several cells
- `faults.py`: devices that are stuck
- `drift_compensation.py`: digital factors against drift
- `device_laws.py`: the known noise models as numbers that compiled passes read
- `programmed_layer.py`: one layer on all chips: what its devices are drawn from
- `programmed_tiles.py`: the tiles of one layer as programmed chips hold them
- `programmed_weights.py`: which weights chips hold, and that a layer uses no others
- `given_weights.py`: finds layers that are given other weights, before they are programmed
- `written_parameters.py`: digital parameters that a network writes into while it runs
- `layer_names.py`: names of layers in the caller's network
- `programming_defaults.py`: chips are made on the CPU in float32
- `chips.py`: `program`, and `Chips`
- `chip_contents.py`: conductances and weights of chips, to be looked at
- `back_to_digital.py`: `to_digital`: trained weights or those of a chip in the digital network
- `fused_backend.py`: chips of our own layers
- `programmed_model.py`: the network that `chips.at(time)` gives
- `sample_noise.py`: which rows belong to which sample, so that an evaluation draws its noise by sample
- `chip_axis.py`: how a network runs for all chips, once under vmap or chip by chip, and the check of the first call
- `chip_pass.py`: for which chip the network runs, and the product of a layer for all chips
- `kept_tensors.py`: what a network and its hooks keep from call to call
- `vmap_rules.py`: operations that vmap cannot carry as networks call them
- `chip_files.py`: `save_chips`, `load_chips`
- `random_states.py`: generators of Python, numpy and the network's own: all chips draw alike
- `seeds.py`: one seed for every draw
- `outside_weights.py`: finds weights that a network uses and torch does not know to be its own
- `unmapped_matmul.py`: finds products that pass the crossbars by
- `weight_products.py`: puts products with the weights of layers onto the layers' crossbars
- `weight_uses.py`: which weights chips use on their crossbars, and which as they were before programming
- `experts.py`: the weights of a mixture of experts on crossbars
- `expert_reading.py`, `expert_products.py`: finds such weights in the code, and reads products with them
- `carrying_over.py`: what a user put onto a layer stays with it
- `aihwkit_import.py`: whether the installed aihwkit works
- `adapting.py`: `lora`; `low_rank_adapter.py`: what it puts beside a layer
- `interop/`: networks to aihwkit, and from aihwkit-lightning
- `pulsed/`: devices that are trained in place
"""

from hpml_sim.analog.adapting import lora as lora
from hpml_sim.analog.attention import AnalogMultiheadAttention as AnalogMultiheadAttention
from hpml_sim.analog.back_to_digital import to_digital as to_digital
from hpml_sim.analog.calibration import calibrate as calibrate
from hpml_sim.analog.chip_files import load_chips as load_chips
from hpml_sim.analog.chip_files import save_chips as save_chips
from hpml_sim.analog.chips import Chips as Chips
from hpml_sim.analog.chips import program as program
from hpml_sim.analog.conversion import convert_analog as convert_analog
from hpml_sim.analog.conversion import replace_layers as replace_layers
from hpml_sim.analog.convolution import AnalogConv1d as AnalogConv1d
from hpml_sim.analog.convolution import AnalogConv2d as AnalogConv2d
from hpml_sim.analog.convolution import AnalogConv3d as AnalogConv3d
from hpml_sim.analog.interop.aihwkit import to_aihwkit as to_aihwkit
from hpml_sim.analog.interop.lightning import from_lightning as from_lightning
from hpml_sim.analog.layers import has_analog_layers as has_analog_layers
from hpml_sim.analog.linear import AnalogLinear as AnalogLinear
from hpml_sim.analog.programmed_model import ProgrammedModel as ProgrammedModel
from hpml_sim.analog.pulsed.training import in_memory_optimizer as in_memory_optimizer
from hpml_sim.analog.recurrent import AnalogGRU as AnalogGRU
from hpml_sim.analog.recurrent import AnalogLSTM as AnalogLSTM
from hpml_sim.analog.recurrent import AnalogRNN as AnalogRNN
from hpml_sim.analog.transposed_convolution import AnalogConvTranspose1d as AnalogConvTranspose1d
from hpml_sim.analog.transposed_convolution import AnalogConvTranspose2d as AnalogConvTranspose2d
from hpml_sim.analog.transposed_convolution import AnalogConvTranspose3d as AnalogConvTranspose3d
