"""Spiking networks: snnTorch's neurons as fused multi-step ones, encoders, and the converter from ReLU networks.

    model.py       convert(network, Spiking(...)): ReLU network -> SpikingModel
    in_time.py     how time is folded into the batch; pooling and dropout in time
    neurons.py     leaky neurons over all steps at once, and membranes that never fire
    multistep_neurons.py  snnTorch's other neurons, adaptive and Izhikevich's
    state.py       a sequence in pieces: states passed in and out or kept by the model, one scoped, recursive reset
    encoders.py    values -> the input of every time step: rate, direct, latency, population, frames, delta
    event_frames.py  recordings of events, such as tonic's data sets, as frames
    calibrate.py   ReLU network -> SpikingModel without training, scaled on data
    folding.py     batch norms into the weights before them
    fuse.py        a snnTorch neuron or network -> its fused multi-step equal
    fixed_point.py a chip's integers: 8-bit weights, 12-bit decay, integer membrane
    nir_export.py  export to NIR that proves itself; nir_import.py reads, refusing what it would change; nir_nodes.py
    convention.py  does the installed snnTorch still reset as our neurons do?

Time is folded into the batch, (chips x steps x batch, ...), chips outermost; state lives inside one call unless asked.
"""

from hpml_sim.kernels.surrogates import SURROGATES as SURROGATES
from hpml_sim.kernels.surrogates import Surrogate as Surrogate
from hpml_sim.kernels.surrogates import surrogate as surrogate
from hpml_sim.spiking.encoders import DeltaEncoder as DeltaEncoder
from hpml_sim.spiking.encoders import DirectEncoder as DirectEncoder
from hpml_sim.spiking.encoders import FramesEncoder as FramesEncoder
from hpml_sim.spiking.encoders import LatencyEncoder as LatencyEncoder
from hpml_sim.spiking.encoders import PopulationEncoder as PopulationEncoder
from hpml_sim.spiking.encoders import RateEncoder as RateEncoder
from hpml_sim.spiking.event_frames import EventFrames as EventFrames
from hpml_sim.spiking.fixed_point import FixedPointNeurons as FixedPointNeurons
from hpml_sim.spiking.fixed_point import fixed_point as fixed_point
from hpml_sim.spiking.folding import fold_batch_norms as fold_batch_norms
from hpml_sim.spiking.fusion import FusedNetwork as FusedNetwork
from hpml_sim.spiking.fusion import FusedNeurons as FusedNeurons
from hpml_sim.spiking.fusion import fuse as fuse
from hpml_sim.spiking.interop.nir_export import NirReport as NirReport
from hpml_sim.spiking.interop.nir_export import to_nir as to_nir
from hpml_sim.spiking.interop.nir_import import from_nir as from_nir
from hpml_sim.spiking.snntorch_reset import snntorch_convention as snntorch_convention
from hpml_sim.spiking.model import SpikingModel as SpikingModel
from hpml_sim.spiking.model import firing_rates as firing_rates
from hpml_sim.spiking.multistep_neurons import AdaptiveNeurons as AdaptiveNeurons
from hpml_sim.spiking.multistep_neurons import AlphaNeurons as AlphaNeurons
from hpml_sim.spiking.multistep_neurons import IzhikevichNeurons as IzhikevichNeurons
from hpml_sim.spiking.multistep_neurons import LapicqueNeurons as LapicqueNeurons
from hpml_sim.spiking.multistep_neurons import RecurrentNeurons as RecurrentNeurons
from hpml_sim.spiking.multistep_neurons import RecurrentSynapticNeurons as RecurrentSynapticNeurons
from hpml_sim.spiking.multistep_neurons import SynapticNeurons as SynapticNeurons
from hpml_sim.spiking.neurons import LeakyIntegrators as LeakyIntegrators
from hpml_sim.spiking.neurons import LeakyNeurons as LeakyNeurons
from hpml_sim.spiking.relu_conversion import calibrated as calibrated
from hpml_sim.spiking.state import State as State
from hpml_sim.spiking.state import detached as detached
from hpml_sim.spiking.state import reset as reset
from hpml_sim.spiking.state import run_with_state as run_with_state
from hpml_sim.spiking.time_folding import TimeFolded as TimeFolded
from hpml_sim.spiking.time_folding import TimeFoldedBatchNorm as TimeFoldedBatchNorm
from hpml_sim.spiking.time_folding import TimeFoldedDropout as TimeFoldedDropout
from hpml_sim.spiking.time_folding import TimeFoldedMaxPool as TimeFoldedMaxPool
from hpml_sim.targets import Adaptive as Adaptive
from hpml_sim.targets import Leaky as Leaky
from hpml_sim.targets import Synaptic as Synaptic
