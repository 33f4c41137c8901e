"""Spiking networks of other libraries: snnTorch's, and the exchange format NIR.

snntorch_fusion.py  fuse: a snnTorch neuron or network as its fused multi-step equal
nir_export.py       to_nir: export to NIR, proved by importing again
nir_import.py       from_nir: a graph of NIR as a network over all time steps
nir_graph.py        nodes and edges from a traced forward()
nir_nodes.py        one of our layers as a node of NIR
nir_checks.py       what a graph must be before it can be run
nir_feedback.py     spikes that come back to their neurons
nir_layers.py       one node of NIR as a layer of ours
nir_package.py      the package nir, imported on first use
"""
