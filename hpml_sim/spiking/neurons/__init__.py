"""Neurons as layers over all time steps; the kernels compute them, the classes here give their parameters names.

lif.py          LeakyNeurons: leaky integrate-and-fire (LIF), snnTorch's `Leaky`
synaptic.py     SynapticNeurons, AlphaNeurons: a synaptic current before the membrane
lapicque.py     LapicqueNeurons: given by resistance, capacitance and time step
recurrent.py    RecurrentNeurons, RecurrentSynapticNeurons: their spikes come back one step later
adaptive.py     AdaptiveNeurons: the threshold rises with each spike
izhikevich.py   IzhikevichNeurons: membrane in mV, time in ms
graded.py       GradedNeurons: leaky ones whose spikes have a height
integrators.py  LeakyIntegrators: membranes that never fire
multistep.py    what all but the leaky ones share
parameters.py   numbers and tensors that callers give, checked
"""
