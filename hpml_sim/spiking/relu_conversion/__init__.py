"""ReLU-to-SNN conversion: a spiking network from a network of rectifiers.

converter.py             hs.convert(network, hs.Spiking(...)): neurons in place of rectifiers, to be trained further
calibration.py           calibrated(network, data): firing rates that equal activations, without training
channel_scales.py        what 1 spike a step stands for, for each channel, chosen on data
scale_folding.py         those scales in the weights before and behind the neurons
weight_scaling.py        weights scaled so that currents suit the threshold, without data
functions_as_modules.py  rectifiers, dropout and pools that forward() calls as functions
"""
