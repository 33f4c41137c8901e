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

import importlib.metadata as _metadata
import logging as _logging

from hpml_sim import baselines as baselines
from hpml_sim import nn as nn
from hpml_sim import spiking as spiking
from hpml_sim.analog import Chips as Chips
from hpml_sim.analog import calibrate as calibrate
from hpml_sim.analog import load_chips as load_chips
from hpml_sim.analog import program as program
from hpml_sim.analog import save_chips as save_chips
from hpml_sim.cards import list_cards as list_cards
from hpml_sim.cards import load_card as load_card
from hpml_sim.conversion import Converted as Converted
from hpml_sim.conversion import convert as convert
from hpml_sim.conversion import register_target as register_target
from hpml_sim.cost import Estimate as Estimate
from hpml_sim.cost import estimate as estimate
from hpml_sim.counting import Census as Census
from hpml_sim.counting import census as census
from hpml_sim.data import Data as Data
from hpml_sim.data import load_data as load_data
from hpml_sim.data.image_files import download_data as download_data
from hpml_sim.errors import HpmlError as HpmlError
from hpml_sim.experiments.comparison import Comparison as Comparison
from hpml_sim.experiments.comparison import compare as compare
from hpml_sim.experiments.config import Range as Range
from hpml_sim.experiments.preview import dry_run as dry_run
from hpml_sim.experiments.running import run as run
from hpml_sim.experiments.searching import search as search
from hpml_sim.experiments.sweeping import sweep as sweep
from hpml_sim.measurement import Measurement as Measurement
from hpml_sim.measurement import measure
from hpml_sim.measurement.diagnosis import doctor as doctor
from hpml_sim.networks import models as models
from hpml_sim.results import load_results as load_results
from hpml_sim.targets import Analog as Analog
from hpml_sim.targets import Digital as Digital
from hpml_sim.targets import Spiking as Spiking
from hpml_sim.training import fit as fit
from hpml_sim.training.evaluation import Accuracy as Accuracy
from hpml_sim.training.evaluation import evaluate as evaluate
from hpml_sim.units.bands import Band as Band

__version__ = _metadata.version("hpml_sim")
_logging.getLogger(__name__).addHandler(_logging.NullHandler())
