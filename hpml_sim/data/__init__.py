"""Data sets by name or of your own, their files, and batches of them."""

from hpml_sim.data.datasets import Data as Data
from hpml_sim.data.datasets import Events as Events
from hpml_sim.data.datasets import load_data as load_data
from hpml_sim.data.datasets import moving_bars as moving_bars
from hpml_sim.data.datasets import read_nmnist as read_nmnist
from hpml_sim.data.datasets import read_shd as read_shd
from hpml_sim.data.datasets import samples_of as samples_of
