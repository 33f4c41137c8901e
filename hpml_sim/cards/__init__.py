"""Device cards: one TOML file for each piece of hardware, every number with its unit, source and status.

A card is read once (`loading.py`), checked against the model that its `kind` chooses (`kinds.py`: `DigitalCard`,
`CrossbarCard` or `NeuromorphicCard`) and turned into SI floats (`quantity.py`); pint and pydantic stay at this edge.
"""

from hpml_sim.cards.kinds import AdcModel as AdcModel
from hpml_sim.cards.kinds import Array as Array
from hpml_sim.cards.kinds import BaseCard as BaseCard
from hpml_sim.cards.kinds import Card as Card
from hpml_sim.cards.kinds import Component as Component
from hpml_sim.cards.kinds import Core as Core
from hpml_sim.cards.kinds import CrossbarCard as CrossbarCard
from hpml_sim.cards.kinds import Digital as Digital
from hpml_sim.cards.kinds import DigitalCard as DigitalCard
from hpml_sim.cards.kinds import Events as Events
from hpml_sim.cards.kinds import InputOutput as InputOutput
from hpml_sim.cards.kinds import NeuromorphicCard as NeuromorphicCard
from hpml_sim.cards.kinds import Noise as Noise
from hpml_sim.cards.kinds import Part as Part
from hpml_sim.cards.kinds import Precision as Precision
from hpml_sim.cards.kinds import Preset as Preset
from hpml_sim.cards.kinds import Programming as Programming
from hpml_sim.cards.loading import list_cards as list_cards
from hpml_sim.cards.loading import load_card as load_card
from hpml_sim.cards.loading import parse_card as parse_card
from hpml_sim.cards.quantity import Quantity as Quantity
from hpml_sim.cards.quantity import Scope as Scope
from hpml_sim.cards.quantity import Source as Source
from hpml_sim.cards.quantity import Status as Status
