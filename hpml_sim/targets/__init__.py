"""Targets: how a network runs. Frozen configurations that name a card and its options; impossible ones cannot be built.

checking.py   values out of range and unknown options become one line of ours
cards.py      the card that a target names must exist, and be of its kind
digital.py    Digital
analog.py     Analog (programmed), InMemory (trained in place), PerLayer
spiking.py    Spiking, and its neurons Leaky, Synaptic, Adaptive
recipes.py    published recipes of hardware-aware training
choosing.py   a target from a card's name; what holds the weights of a target
"""

from hpml_sim.targets.analog import Analog as Analog
from hpml_sim.targets.analog import InMemory as InMemory
from hpml_sim.targets.analog import PerLayer as PerLayer
from hpml_sim.targets.analog import PulsedDevice as PulsedDevice
from hpml_sim.targets.analog import TrainingRule as TrainingRule
from hpml_sim.targets.checking import checked as checked
from hpml_sim.targets.choosing import Target as Target
from hpml_sim.targets.choosing import analog_part as analog_part
from hpml_sim.targets.choosing import as_target as as_target
from hpml_sim.targets.choosing import cards_of as cards_of
from hpml_sim.targets.choosing import crossbar_targets as crossbar_targets
from hpml_sim.targets.choosing import in_memory as in_memory
from hpml_sim.targets.digital import Digital as Digital
from hpml_sim.targets.digital import Engine as Engine
from hpml_sim.targets.digital import EstimatedEngine as EstimatedEngine
from hpml_sim.targets.recipes import Recipe as Recipe
from hpml_sim.targets.recipes import load_recipe as load_recipe
from hpml_sim.targets.spiking import NEURONS as NEURONS
from hpml_sim.targets.spiking import Adaptive as Adaptive
from hpml_sim.targets.spiking import Leaky as Leaky
from hpml_sim.targets.spiking import Spiking as Spiking
from hpml_sim.targets.spiking import Synaptic as Synaptic
