"""The settings classes check files and build the command line; the functions that people call must say the same."""

import inspect
from dataclasses import MISSING, fields

import docstring_parser
import pytest

import hpml_sim as hs
from hpml_sim.experiments.config import ExecutionConfig, ExperimentConfig, SearchConfig, SweepConfig

CALLS = {
    "compare": (hs.compare, (ExperimentConfig, ExecutionConfig)),
    "sweep": (hs.sweep, (ExperimentConfig, SweepConfig, ExecutionConfig)),
    "search": (hs.search, (ExperimentConfig, SearchConfig, ExecutionConfig)),
}


@pytest.mark.parametrize("name", CALLS)
def test_arguments_and_defaults_are_the_settings(name):
    call, classes = CALLS[name]
    settings = {f.name: f.default for kind in classes for f in fields(kind)}
    arguments = {p.name: p.default for p in inspect.signature(call).parameters.values()}
    assert arguments.keys() == settings.keys()
    for argument, default in arguments.items():
        if argument in ("model", "data", "targets", "search_space"):
            assert default is inspect.Parameter.empty, f"a call must say {argument}"
        else:
            assert default is not MISSING
            assert default == settings[argument], argument


@pytest.mark.parametrize("name", CALLS)
def test_every_argument_is_described(name):
    call, classes = CALLS[name]
    described = inspect.getdoc(call) or ""
    for argument in inspect.signature(call).parameters:
        assert f"{argument}: " in described, argument
    for kind in classes:
        meanings = docstring_parser.parse(kind.__doc__ or "").params
        assert {meaning.arg_name for meaning in meanings} == {f.name for f in fields(kind)}
