"""Spiking networks: snnTorch's neurons as fused multi-step ones, encoders, and the converter from ReLU networks.

    model.py       convert(network, Spiking(...)): ReLU network -> SpikingModel
    neurons.py     LeakyNeurons: snnTorch's Leaky over all steps at once; dropout with one mask for all steps
    encoders.py    values -> the input of every time step: rate, direct
    fuse.py        a snnTorch neuron or network -> its fused multi-step equal
    convention.py  does the installed snnTorch still reset as our neurons do?

Time is folded into the batch, (chips x steps x batch, ...), chips outermost; state lives inside one call.
"""

from hpml_sim.spiking.convention import snntorch_convention as snntorch_convention
from hpml_sim.spiking.encoders import DirectEncoder as DirectEncoder
from hpml_sim.spiking.encoders import RateEncoder as RateEncoder
from hpml_sim.spiking.fuse import FusedLeaky as FusedLeaky
from hpml_sim.spiking.fuse import FusedNetwork as FusedNetwork
from hpml_sim.spiking.fuse import fuse as fuse
from hpml_sim.spiking.model import SpikingModel as SpikingModel
from hpml_sim.spiking.model import firing_rates as firing_rates
from hpml_sim.spiking.neurons import DropoutInTime as DropoutInTime
from hpml_sim.spiking.neurons import InTime as InTime
from hpml_sim.spiking.neurons import LeakyNeurons as LeakyNeurons
