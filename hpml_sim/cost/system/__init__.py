"""Whole systems: what a card's own scope excludes is added from components, each figure with its source.

scaling.py    energy of digital logic and SRAM at any node
lent.py       figures of components as they enter a cost breakdown
whole.py      host, input and output, memory, power conversion and cooling: from any estimate to system scope
duty.py       a machine that waits between inferences: average power, and the rate at which two machines change places
"""
