"""A card's schema: what a card of each kind holds, each number with its unit.

base.py           what all cards hold: name, scope, sources
digital.py        CPUs and GPUs
kernels.py        how a GPU runs matrix products
crossbar.py       analog in-memory machines
component.py      parts of which systems are built
curves.py         coefficients from a table
noise.py          the noise and drift model of a crossbar card
neuromorphic.py   spiking machines
"""

from typing import Annotated

from pydantic import ConfigDict, Field, TypeAdapter

from hpml_sim.cards.schema.base import WEAK as WEAK
from hpml_sim.cards.schema.base import BaseCard as BaseCard
from hpml_sim.cards.schema.base import Bounds as Bounds
from hpml_sim.cards.schema.base import Host as Host
from hpml_sim.cards.schema.base import SourcedCard as SourcedCard
from hpml_sim.cards.schema.component import ComponentCard as ComponentCard
from hpml_sim.cards.schema.crossbar import AdcModel as AdcModel
from hpml_sim.cards.schema.crossbar import Array as Array
from hpml_sim.cards.schema.crossbar import Component as Component
from hpml_sim.cards.schema.crossbar import CrossbarCard as CrossbarCard
from hpml_sim.cards.schema.crossbar import Digital as Digital
from hpml_sim.cards.schema.crossbar import InputOutput as InputOutput
from hpml_sim.cards.schema.crossbar import Part as Part
from hpml_sim.cards.schema.crossbar import Preset as Preset
from hpml_sim.cards.schema.crossbar import Programming as Programming
from hpml_sim.cards.schema.digital import DigitalCard as DigitalCard
from hpml_sim.cards.schema.digital import Precision as Precision
from hpml_sim.cards.schema.kernels import Kernels as Kernels
from hpml_sim.cards.schema.neuromorphic import Core as Core
from hpml_sim.cards.schema.neuromorphic import Events as Events
from hpml_sim.cards.schema.neuromorphic import NeuromorphicCard as NeuromorphicCard
from hpml_sim.cards.schema.noise import Noise as Noise

Card = DigitalCard | CrossbarCard | NeuromorphicCard
KINDS: dict[str, type[BaseCard]] = {"digital": DigitalCard, "crossbar": CrossbarCard, "neuromorphic": NeuromorphicCard}
ADAPTER: TypeAdapter[Card] = TypeAdapter(
    Annotated[Card, Field(discriminator="kind")], config=ConfigDict(defer_build=True)
)
