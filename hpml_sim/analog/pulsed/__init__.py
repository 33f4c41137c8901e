"""Devices that are trained in place by voltage pulses.

devices.py         the layers: which device, which rule, how weights are carried over
learning_rates.py  the measured learning rate of each device under each rule
training.py        what `fit` does with them, and the optimizer for a loop of one's own
write_pulses.py    how many pulses were written, and their energy
"""
