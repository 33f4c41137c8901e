"""Device cards: one TOML file for each piece of hardware, every number with its unit, source and status.

A card is read once (`loading.py`), checked against the model that its `kind` chooses (`schema/`: `DigitalCard`,
`CrossbarCard` or `NeuromorphicCard`) and turned into SI floats (`hpml_sim.units`); pint and pydantic stay at this edge.
"""

from hpml_sim.cards.loading import list_cards as list_cards
from hpml_sim.cards.loading import list_components as list_components
from hpml_sim.cards.loading import load_card as load_card
from hpml_sim.cards.loading import load_component as load_component
from hpml_sim.cards.loading import parse_card as parse_card
from hpml_sim.cards.loading import parse_component as parse_component
from hpml_sim.cards.schema import AdcModel as AdcModel
from hpml_sim.cards.schema import Array as Array
from hpml_sim.cards.schema import BaseCard as BaseCard
from hpml_sim.cards.schema import Bounds as Bounds
from hpml_sim.cards.schema import Card as Card
from hpml_sim.cards.schema import Component as Component
from hpml_sim.cards.schema import ComponentCard as ComponentCard
from hpml_sim.cards.schema import Core as Core
from hpml_sim.cards.schema import CrossbarCard as CrossbarCard
from hpml_sim.cards.schema import Digital as Digital
from hpml_sim.cards.schema import DigitalCard as DigitalCard
from hpml_sim.cards.schema import Events as Events
from hpml_sim.cards.schema import Host as Host
from hpml_sim.cards.schema import InputOutput as InputOutput
from hpml_sim.cards.schema import NeuromorphicCard as NeuromorphicCard
from hpml_sim.cards.schema import Noise as Noise
from hpml_sim.cards.schema import Part as Part
from hpml_sim.cards.schema import Precision as Precision
from hpml_sim.cards.schema import Preset as Preset
from hpml_sim.cards.schema import Programming as Programming
from hpml_sim.units.quantities import Quantity as Quantity
from hpml_sim.units.quantities import Scope as Scope
from hpml_sim.units.quantities import Source as Source
from hpml_sim.units.quantities import Status as Status
