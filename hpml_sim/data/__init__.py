"""Data sets by name or of your own, their files, and batches of them.

datasets.py     Data, load_data: data sets by name, and (train, test) pairs
image_files.py  MNIST, Fashion-MNIST, CIFAR-10: their files, and how to get them
events.py       event cameras: N-MNIST, SHD, a synthetic set
batches.py      batches of samples, wherever they are
"""

from hpml_sim.data.datasets import Data as Data
from hpml_sim.data.datasets import list_data as list_data
from hpml_sim.data.datasets import load_data as load_data
from hpml_sim.data.datasets import samples_of as samples_of
from hpml_sim.data.events import Events as Events
from hpml_sim.data.events import moving_bars as moving_bars
from hpml_sim.data.events import read_nmnist as read_nmnist
from hpml_sim.data.events import read_shd as read_shd
