"""Measured records in files of known names and columns, each row held against the estimate of it.

record.py     a row and its estimate; reading of the files
machines.py   which card a name stands for
products.py   gpu_products.csv
images.py     image_networks.csv
summary.py    what is left over: ratios, errors and shares within the bands, for each file and machine
"""

from hpml_sim.cost.validation.records.record import Record as Record
from hpml_sim.cost.validation.records.record import Skipped as Skipped
from hpml_sim.cost.validation.records.summary import READERS as READERS
from hpml_sim.cost.validation.records.summary import Summary as Summary
from hpml_sim.cost.validation.records.summary import held_against as held_against
