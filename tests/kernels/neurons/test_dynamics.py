"""The names of parameters and states stand where the equations look for them."""

from __future__ import annotations

import importlib

import pytest

from hpml_sim.kernels.neurons import DYNAMICS

FILES = {"synaptic_immediate": "synaptic"}


@pytest.mark.parametrize("name", sorted(DYNAMICS))
def test_places_are_those_of_the_names(name):
    """A constant of a neuron's module is the place of the parameter or state of its name."""
    module = importlib.import_module(f"hpml_sim.kernels.neurons.dynamics.{FILES.get(name, name)}")
    neuron = DYNAMICS[name]
    found = vars(module)
    assert [found[parameter.upper()] for parameter in neuron.parameters] == list(range(len(neuron.parameters)))
    assert [found[state.upper()] for state in neuron.states] == list(range(len(neuron.states)))
    if "SPIKE" in found:
        assert found["SPIKE"] == len(neuron.states)
