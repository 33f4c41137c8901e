"""hpml_sim: one PyTorch network on every kind of machine, compared on accuracy, energy, latency and throughput.

Example:
    >>> import torch, hpml_sim as hs
    >>> net = hs.models.mlp(64, 128, 10)
    >>> analog = hs.convert(net, "pcm-hermes")
    >>> _ = hs.fit(analog, data="digits", epochs=1)
    >>> chips = hs.program(analog, chips=2, seed=0)
    >>> chips.at("1 day")(torch.rand(5, 1, 8, 8)).shape
    torch.Size([2, 5, 10])
"""

import importlib as _importlib
import importlib.metadata as _metadata
import logging as _logging
from typing import TYPE_CHECKING as _TYPE_CHECKING

# what is needed to convert and program: these register how they convert networks
from hpml_sim import baselines, compress, spiking
from hpml_sim.analog import Chips, calibrate, load_chips, lora, nn, program, save_chips, to_digital
from hpml_sim.cards import list_cards, load_card
from hpml_sim.compress import prune, quantize
from hpml_sim.conversion import Converted, convert, register_target
from hpml_sim.conversion.network_call import Shared
from hpml_sim.counting import Workload, workload
from hpml_sim.errors import HpmlError
from hpml_sim.networks import models
from hpml_sim.networks.loading import list_networks, load_network
from hpml_sim.networks.pretrained.entries import download_network
from hpml_sim.targets import Analog, Digital, InMemory, Spiking, load_recipe
from hpml_sim.units.bands import Band

if _TYPE_CHECKING:  # imported when they are first asked for
    from hpml_sim import tasks
    from hpml_sim.cost import Estimate, crossover_hz, energy_ratio, estimate, rank
    from hpml_sim.data import Data, list_data, load_data
    from hpml_sim.data.entries import download_data
    from hpml_sim.data.own_samples import sample_text
    from hpml_sim.experiments.assigning import assign
    from hpml_sim.experiments.assignment import Assignment
    from hpml_sim.experiments.comparison import compare
    from hpml_sim.experiments.result import Comparison, load_results
    from hpml_sim.experiments.running import dry_run, run
    from hpml_sim.experiments.search_space import Range
    from hpml_sim.experiments.searching import search
    from hpml_sim.experiments.sweeping import sweep
    from hpml_sim.measurement import Measurement, measure
    from hpml_sim.measurement.diagnosis import doctor
    from hpml_sim.tasks.score import Score
    from hpml_sim.tasks.task import Task
    from hpml_sim.training import evaluate, fit

_LATER = {
    "cost": ("Estimate", "crossover_hz", "energy_ratio", "estimate", "rank"),
    "data": ("Data", "list_data", "load_data"),
    "data.entries": ("download_data",),
    "data.own_samples": ("sample_text",),
    "experiments.assigning": ("assign",),
    "experiments.assignment": ("Assignment",),
    "experiments.comparison": ("compare",),
    "experiments.result": ("Comparison", "load_results"),
    "experiments.running": ("dry_run", "run"),
    "experiments.search_space": ("Range",),
    "experiments.searching": ("search",),
    "experiments.sweeping": ("sweep",),
    "measurement": ("Measurement", "measure"),
    "measurement.diagnosis": ("doctor",),
    "tasks": (),
    "tasks.score": ("Score",),
    "tasks.task": ("Task",),
    "training": ("evaluate", "fit"),
}
"""By module, the public names that are imported when they are first asked for."""

__all__ = [
    "Analog",
    "Assignment",
    "Band",
    "Chips",
    "Comparison",
    "Converted",
    "Data",
    "Digital",
    "Estimate",
    "HpmlError",
    "InMemory",
    "Measurement",
    "Range",
    "Score",
    "Shared",
    "Spiking",
    "Task",
    "Workload",
    "assign",
    "baselines",
    "calibrate",
    "compare",
    "compress",
    "convert",
    "crossover_hz",
    "doctor",
    "download_data",
    "download_network",
    "dry_run",
    "energy_ratio",
    "estimate",
    "evaluate",
    "fit",
    "list_cards",
    "list_data",
    "list_networks",
    "load_card",
    "load_chips",
    "load_data",
    "load_network",
    "load_recipe",
    "load_results",
    "lora",
    "measure",
    "models",
    "nn",
    "program",
    "prune",
    "quantize",
    "rank",
    "register_target",
    "run",
    "sample_text",
    "save_chips",
    "search",
    "spiking",
    "sweep",
    "tasks",
    "to_digital",
    "workload",
]

__version__ = _metadata.version("hpml_sim")
_logging.getLogger(__name__).addHandler(_logging.NullHandler())


if not _TYPE_CHECKING:  # which would take it for a name of any spelling

    def __getattr__(name: str) -> object:
        """A public name of a module that is not imported yet, to keep `import hpml_sim` short."""
        for module, names in _LATER.items():
            if name == module:
                return _importlib.import_module(f"{__name__}.{module}")
            if name in names:
                globals()[name] = value = getattr(_importlib.import_module(f"{__name__}.{module}"), name)
                return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names, and nothing that was imported on the way to them."""
    return sorted([*__all__, *(name for name in globals() if name.startswith("__") and name.endswith("__"))])
