"""Spiking networks: neurons over all time steps at once, encoders, conversion of ReLU networks, exchange by NIR.

relu_conversion/     ReLU-to-SNN conversion: `hs.convert(network, hs.Spiking(...))`, and `calibrated` without training
model.py             SpikingModel: what conversion gives; firing_rates
own_network.py       a network that spikes by itself, on a neuromorphic machine
neurons/             leaky integrate-and-fire (LIF) and other neurons as layers
encoders.py          values -> the input of every time step: rate, direct, latency, population, frames, delta
event_frames.py      recordings of events, such as tonic's data sets, as frames
state.py             a sequence in pieces: states passed in and out or kept by the model; reset
layer_state.py       what one layer starts a call from and ends it with
time_folding.py      how time is folded into the batch
time_loop.py         a network run step by step, as a loop would
time_fold_proof.py   does the fold give what the loop gives? tried out on the first call
row_wise.py          layers that are known to keep the rows of a batch apart
time_folded_layers.py  pooling, batch norm, dropout and attention that know time
delays.py            axonal and synaptic delays that are learned
static_input.py      an input that is the same at every step runs once through the first layers
fused_network.py     a network of one time step run over all steps at once
built_in.py          the spiking network of `hs.models.build("spiking", ...)`
batch_norm_folding.py  batch norms into the weights before them
fixed_point_arithmetic.py  a network in a chip's integers: weights of few bits, integer states
fixed_point_neurons.py  neurons that compute in integers
snntorch_integers.py  snnTorch's neurons, called step by step, in integers
interop/             snnTorch (fuse) and NIR (to_nir, from_nir)
snntorch_import.py   snnTorch, imported on first use
snntorch_reset.py    does the installed snnTorch still reset as our neurons do?
layer_kinds.py       which layers have weights, spike, pool
module_replacement.py  new modules in the place of old ones

Surrogate gradients lie in `hpml_sim/kernels/surrogates/`. Time is folded into the batch, (chips x steps x batch, ...),
chips outermost; state lives inside one call unless asked for.
"""

from hpml_sim.kernels.surrogates import SURROGATES, Surrogate, surrogate
from hpml_sim.spiking import built_in as _built_in  # noqa: F401 - registers the network
from hpml_sim.spiking.batch_norm_folding import fold_batch_norms
from hpml_sim.spiking.delays import AxonalDelays, DelayedLinear
from hpml_sim.spiking.encoders import (
    DeltaEncoder,
    DirectEncoder,
    FramesEncoder,
    LatencyEncoder,
    PopulationEncoder,
    RateEncoder,
)
from hpml_sim.spiking.event_frames import EventFrames
from hpml_sim.spiking.fixed_point_arithmetic import fixed_point
from hpml_sim.spiking.fixed_point_neurons import FixedPointNeurons
from hpml_sim.spiking.fused_network import FusedNetwork, FusedNeurons
from hpml_sim.spiking.interop.nir_export import NirReport, to_nir
from hpml_sim.spiking.interop.nir_import import from_nir
from hpml_sim.spiking.interop.snntorch_fusion import fuse
from hpml_sim.spiking.layer_state import State
from hpml_sim.spiking.model import SpikingModel, firing_rates
from hpml_sim.spiking.neurons.adaptive import AdaptiveNeurons
from hpml_sim.spiking.neurons.graded import GradedNeurons
from hpml_sim.spiking.neurons.integrators import LeakyIntegrators
from hpml_sim.spiking.neurons.izhikevich import IzhikevichNeurons
from hpml_sim.spiking.neurons.lapicque import LapicqueNeurons
from hpml_sim.spiking.neurons.lif import LeakyNeurons
from hpml_sim.spiking.neurons.recurrent import RecurrentNeurons, RecurrentSynapticNeurons
from hpml_sim.spiking.neurons.synaptic import AlphaNeurons, SynapticNeurons
from hpml_sim.spiking.own_network import OwnSpikingNetwork
from hpml_sim.spiking.relu_conversion import converter as _converter  # noqa: F401 - registers the converter
from hpml_sim.spiking.relu_conversion.calibration import calibrated
from hpml_sim.spiking.snntorch_reset import snntorch_convention
from hpml_sim.spiking.state import detached, reset, run_with_state
from hpml_sim.spiking.time_folded_layers import (
    TimeFoldedBatchNorm,
    TimeFoldedDropout,
    TimeFoldedMaxPool,
    TimeFoldedMean,
)
from hpml_sim.spiking.time_folding import TimeFolded
from hpml_sim.targets import Adaptive, Leaky, Synaptic

__all__ = [
    "SURROGATES",
    "Adaptive",
    "AdaptiveNeurons",
    "AlphaNeurons",
    "AxonalDelays",
    "DelayedLinear",
    "DeltaEncoder",
    "DirectEncoder",
    "EventFrames",
    "FixedPointNeurons",
    "FramesEncoder",
    "FusedNetwork",
    "FusedNeurons",
    "GradedNeurons",
    "IzhikevichNeurons",
    "LapicqueNeurons",
    "LatencyEncoder",
    "Leaky",
    "LeakyIntegrators",
    "LeakyNeurons",
    "NirReport",
    "OwnSpikingNetwork",
    "PopulationEncoder",
    "RateEncoder",
    "RecurrentNeurons",
    "RecurrentSynapticNeurons",
    "SpikingModel",
    "State",
    "Surrogate",
    "Synaptic",
    "SynapticNeurons",
    "TimeFolded",
    "TimeFoldedBatchNorm",
    "TimeFoldedDropout",
    "TimeFoldedMaxPool",
    "TimeFoldedMean",
    "calibrated",
    "detached",
    "firing_rates",
    "fixed_point",
    "fold_batch_norms",
    "from_nir",
    "fuse",
    "reset",
    "run_with_state",
    "snntorch_convention",
    "surrogate",
    "to_nir",
]


def __dir__() -> list[str]:
    """The public names, and nothing that was imported on the way to them."""
    return sorted([*__all__, *(name for name in globals() if name.startswith("__") and name.endswith("__"))])
