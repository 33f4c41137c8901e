"""Rows of results: what they hold, their files, and tables of them.

rows.py        `Row`: scores, estimates and measurements of one (target, seed, time)
row_files.py   `ResultFile`: rows on disk, safe against crashes and several writers
table.py       `to_frame`: rows as a pandas DataFrame
"""

from hpml_sim.results.row_files import ResultFile as ResultFile
from hpml_sim.results.row_files import cut_torn_end as cut_torn_end
from hpml_sim.results.row_files import line_of as line_of
from hpml_sim.results.rows import SCHEMA as SCHEMA
from hpml_sim.results.rows import CardInfo as CardInfo
from hpml_sim.results.rows import Key as Key
from hpml_sim.results.rows import Row as Row
from hpml_sim.results.rows import Training as Training
from hpml_sim.results.rows import config_hash as config_hash
from hpml_sim.results.rows import first_fault as first_fault
from hpml_sim.results.rows import floating_point as floating_point
from hpml_sim.results.table import to_frame as to_frame
