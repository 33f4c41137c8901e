"""Rows of results: their models, their files, and tables of them."""

from hpml_sim.results.rows import SCHEMA as SCHEMA
from hpml_sim.results.rows import AccuracyRow as AccuracyRow
from hpml_sim.results.rows import BandRow as BandRow
from hpml_sim.results.rows import CardInfo as CardInfo
from hpml_sim.results.rows import EstimateRow as EstimateRow
from hpml_sim.results.rows import Key as Key
from hpml_sim.results.rows import LayerWorkRow as LayerWorkRow
from hpml_sim.results.rows import MeasurementRow as MeasurementRow
from hpml_sim.results.rows import ResultFile as ResultFile
from hpml_sim.results.rows import RoofRow as RoofRow
from hpml_sim.results.rows import Row as Row
from hpml_sim.results.rows import TermRow as TermRow
from hpml_sim.results.rows import config_hash as config_hash
from hpml_sim.results.rows import cut_torn_end as cut_torn_end
from hpml_sim.results.rows import load_results as load_results
from hpml_sim.results.rows import to_frame as to_frame
