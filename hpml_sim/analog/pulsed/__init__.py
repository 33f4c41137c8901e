"""Devices that are trained in place by voltage pulses."""
