"""Data sets by name or of your own, their files, and batches of them.

datasets.py     Data, load_data: data sets by name, and (train, test) pairs
entries.py      all data sets by name: what they are, how to get them
text.py         texts for language models; the texts lie in texts/
words.py        words and their phonemes
small_digits.py MNIST-5k, MNIST-1D
recordings.py   a human voice: speech or noise
spoken_digits.py  digits by many voices, those of the test unheard; human ones
cochlea.py      sound as spikes
synthesis.py    voices of espeak-ng, and its process: espeak_process.py
published.py    WikiText-2, SHD, SSC, N-MNIST, DVS Gesture from their authors' files
gesture_files.py  recordings of DVS Gesture
mackey_glass.py a chaotic series
splits.py       what their loaders give
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
