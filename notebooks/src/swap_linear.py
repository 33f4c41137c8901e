# %% [markdown]
# # Swap `nn.Linear` in your network
#
# For researchers · 15 minutes · needs a GPU: no
#
# You have a PyTorch network and wonder what an analog in-memory chip would make of it. This notebook takes your model's
# file and gives a report: which layers went on crossbars and which could not, what accuracy is left after a second, a day
# and a year, what training for the hardware wins back, and which converter you need. Change the two lines marked **your
# own** and run it again.

# %%
import copy
import sys
import tempfile
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

import hpml_sim as hs
from hpml_sim import course

torch.set_num_threads(1)  # for layers this small, more threads only wait for each other
course.start()

# %% [markdown]
# ## Your model
#
# Any file with a function that returns an `nn.Module` will do. So that this notebook runs as it stands, it writes one: a
# small residual network with things that make converters stumble, namely a subclass of `nn.Linear`, a depthwise
# convolution and attention.

# %%
folder = Path(tempfile.mkdtemp())
(folder / "my_network.py").write_text('''
import torch
from torch import nn


class Projection(nn.Linear):
    """A subclass of nn.Linear, as many code bases have one."""


class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.pointwise = nn.Conv2d(channels, channels, 1)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x):
        return x + torch.relu(self.norm(self.pointwise(self.depthwise(x))))


class MyNetwork(nn.Module):
    def __init__(self, classes=10, channels=16):
        super().__init__()
        self.stem = nn.Conv2d(1, channels, 3, stride=2, padding=1)
        self.block = Block(channels)
        self.attention = nn.MultiheadAttention(channels, 4, batch_first=True)
        self.head = Projection(16 * channels, classes)

    def forward(self, x):
        x = self.block(torch.relu(self.stem(x)))
        tokens = x.flatten(2).transpose(1, 2)
        tokens = tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0]
        return self.head(tokens.flatten(1))


def make():
    return MyNetwork()
''')
sys.path.insert(0, str(folder))

# %%
from my_network import make  # your own: any function that returns an nn.Module

DATA = "digits"  # your own: a name, an hs.Data, or a (train, test) pair of datasets

torch.manual_seed(0)
network = make()
hs.fit(network, DATA, epochs=15, lr=5e-3)
digital = hs.evaluate(network, DATA)
print("as it is:", digital)
assert digital.mean > 0.93

# %% [markdown]
# ## One line
#
# `convert` returns a new model; yours is untouched. The report has a row for each layer: what it became, on how many
# tiles, and how much of them it uses, or why it stayed digital.

# %%
analog = hs.convert(network, "pcm-hermes")
analog.report

# %%
on_tiles = analog.report.dropna(subset="tiles")
print(f"{len(on_tiles)} layers on {int(on_tiles.tiles.sum())} tiles of 256 x 256 cells")
assert set(on_tiles.layer) == {"stem", "block.depthwise", "block.pointwise", "attention", "head"}

# %% [markdown]
# A depthwise convolution is one matrix of nine rows and one column for each channel. The sixteen lie corner to corner on
# one tile, since no two of them may share a row or a column: nearly all of it stays empty. That is the first thing to change
# in a network that is meant for crossbars, and a reason to leave such a layer digital (`skip=["block.depthwise"]`).

# %%
depthwise = on_tiles[on_tiles.layer == "block.depthwise"].utilization.item()
print(f"the depthwise convolution uses {100 * depthwise:.3f} % of the cells of its tile")
assert on_tiles[on_tiles.layer == "block.depthwise"].tiles.item() == 1

# %% [markdown]
# ## What it loses, and what training wins back
#
# Programmed as it is, without a single step of training, after calibration of the converters' ranges on a few samples; and
# after ten epochs of hardware-aware training. Each line is a mean over 10 chips; each chip has its own errors and drift.
# The plain network is trained on for the same ten epochs, so that the comparison is fair.

# %%
TIMES = ["1 s", "1 h", "1 day", "1 year"]
inputs = torch.stack([hs.load_data(DATA).train[i][0] for i in range(300)])


def over_time(model):
    chips = hs.program(model, chips=10, seed=0)
    return [hs.evaluate(chips.at(time), DATA) for time in TIMES]


longer = copy.deepcopy(network)
hs.fit(longer, DATA, epochs=10)
plain = hs.convert(longer, "pcm-hermes")
hs.calibrate(plain, inputs)
hs.fit(analog, DATA, epochs=10)
curves = {"programmed as it is": over_time(plain), "trained for the hardware": over_time(analog)}
for name, values in curves.items():
    print(
        f"{name:>25}: "
        + ", ".join(f"{time} {100 * a.mean:.1f} ± {100 * a.std:.1f} %" for time, a in zip(TIMES, values, strict=True))
    )

# %%
figure, ax = plt.subplots()
for k, (name, values) in enumerate(curves.items()):
    mean, low, high = (
        np.array([100 * v for v in column]) for column in zip(*((a.mean, *a.ci95) for a in values), strict=True)
    )
    ax.errorbar(
        np.arange(4) + 0.05 * k,
        mean,
        (mean - low, high - mean),
        marker="os"[k],
        ls=("-", "--")[k],
        capsize=3,
        label=name,
    )
ax.axhline(100 * digital.mean, color=course.COLORS[2], ls=":", label="digital")
ax.set(xticks=range(4), xticklabels=TIMES, xlabel="time since programming", ylabel="accuracy (%)")
ax.set_title("pcm-hermes with global drift compensation: mean and 95 % interval, 10 chips")
ax.legend(loc="lower left")
plt.show()

# %% [markdown]
# ## How many bits?
#
# The converters take most of a tile's energy. Which resolution does this network need? `calibrate` warns where the converters
# alone cost more than a tenth of the outputs' spread, and names the layers; here the accuracies say it, so that the
# warnings are collected and only their first words printed.

# %%
BITS = (3, 4, 5, 6, 8)
by_bits = []
for bits in BITS:
    model = hs.convert(longer, hs.Analog("pcm-hermes", dac_bits=bits, adc_bits=bits))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        hs.calibrate(model, inputs)
    for warning in caught:
        print(f"{bits} bits:", str(warning.message).split(". Layers")[0])
    by_bits.append(hs.evaluate(hs.program(model, chips=5, seed=0).at("1 day"), DATA))
for bits, accuracy in zip(BITS, by_bits, strict=True):
    print(f"{bits} bits in and out: {100 * accuracy.mean:.1f} ± {100 * accuracy.std:.1f} %")
assert by_bits[-1].mean > by_bits[0].mean

# %% [markdown]
# ## What it costs
#
# The estimate is for the card's own converters (8 bits); its band says how well its figures are known, its scope what they
# include: here the core alone.

# %%
cost = hs.estimate(hs.workload(analog, data=inputs[:50]), "pcm-hermes")
energy, latency = cost.energy_j, cost.latency_s
print(f"energy {1e6 * energy.nominal:.2f} uJ ({1e6 * energy.low:.2f} to {1e6 * energy.high:.2f}), scope {cost.scope}")
print(f"latency {1e6 * latency.nominal:.1f} us ({1e6 * latency.low:.1f} to {1e6 * latency.high:.1f})")
for sentence in cost.excluded:
    print("excluded:", sentence)

# %% [markdown]
# ## The report
#
# `compare` does all of this for several machines and writes one page that works offline, with every figure's source. It
# can be started from the command line too:
# `hpml-sim compare --model my_network:make --data digits --targets cpu pcm-hermes reram-neurram --out runs/mine`.

# %%
result = hs.compare(
    longer, DATA, ["cpu", "pcm-hermes", "reram-neurram"], epochs=0, finetune_epochs=5, chips=5, times=["1 s", "1 day"]
)
page = result.report(folder / "report.html")
print(f"{page.name}: {page.stat().st_size / 1024:.0f} KiB")
assert page.stat().st_size < 2**20
result.plot()
