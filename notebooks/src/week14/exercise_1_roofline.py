# %% [markdown]
# # Exercise 1: Roofline of a crossbar
#
# Week 14 · 30 minutes · 10 points · needs a GPU: no
#
# In homework 1 you drew the roofline of a CPU and saw a dot product stuck on its slope. Here is the machine that leaves
# the slope: an array of memory cells that multiplies where the weights are stored. You will
#
# 1. compute the arithmetic intensity of a layer, and see what batching buys;
# 2. read the ridge point off a machine's card, and tell which layers are memory-bound on it;
# 3. explain why a crossbar has no memory wall, and what limits it instead.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch

import hpml_sim as hs
from hpml_sim import course
from hpml_sim.course import check

course.start()

# %% [markdown]
# ## The machine
#
# A layer with $n$ inputs and $m$ outputs computes $y = W x$. A processor fetches the $n\,m$ weights from memory for every
# call. A crossbar holds each weight as a conductance $G_{ij}$ at the crossing of two wires. Put voltages $V_i$ on the
# rows: by Ohm's law each cell passes the current $G_{ij} V_i$, and by Kirchhoff's law a column's wire adds them up,
#
# $$I_j = \sum_i G_{ij}\, V_i .$$
#
# The whole product takes one read of the array, and no weight moves. Only $x$ (through digital-to-analog converters) and
# $y$ (through analog-to-digital converters) do.

# %%
figure = course.drawings.memory_and_crossbar()

# %% [markdown]
# ## Task 1: Arithmetic intensity (2 points)
#
# The arithmetic intensity is the number of operations for each byte that is moved between memory and processor. Take a
# layer applied to a batch of $B$ inputs at once, and count
#
# - two operations (a multiplication and an addition) for each multiply-accumulate;
# - each weight, each input and each output moved exactly once.


# %% nbgrader={"grade": false, "grade_id": "arithmetic_intensity", "locked": false, "schema_version": 3, "solution": true, "task": false}
def arithmetic_intensity(inputs, outputs, batch=1, bytes_per_value=4):
    """Operations for each byte moved, of one layer applied to a batch.

    Args:
        inputs: n. outputs: m. batch: B. bytes_per_value: of weights, inputs and outputs alike (fp32: 4).

    Returns:
        FLOP/byte.
    """
    ### BEGIN SOLUTION
    operations = 2 * inputs * outputs * batch
    values = inputs * outputs + batch * (inputs + outputs)
    return operations / (bytes_per_value * values)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "arithmetic_intensity_check", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
hints = {
    0.5: "A multiply-accumulate is two operations.",
    4.0: "How many bytes has a value in fp32?",
    1.0091: "Inputs and outputs are moved as well.",
}
check(arithmetic_intensity, 784, 128).is_close(0.4955, "FLOP/byte", hints=hints)
### BEGIN HIDDEN TESTS
check(arithmetic_intensity, 784, 128, batch=32).is_close(12.395, "FLOP/byte", hints=hints)
check(arithmetic_intensity, 784, 128, batch=1024).is_close(49.68, "FLOP/byte", hints=hints)
check(arithmetic_intensity, 300, 40, batch=3, bytes_per_value=1).is_close(72000 / 13020, "FLOP/byte")
### END HIDDEN TESTS

# %% [markdown]
# One image at a time does half an operation for each byte. Batching shares the weights among the images:

# %%
for batch in (1, 32, 1024, 10**6):
    print(f"batch {batch:>7,}: {arithmetic_intensity(784, 128, batch):6.2f} FLOP/byte")

# %% [markdown]
# It ends at 55 FLOP/byte, where only inputs and outputs are left to move: $2nm / 4(n+m)$.

# %%
assert round(arithmetic_intensity(784, 128, 10**9)) == 55

# %% [markdown]
# ## Task 2: Where is the ridge? (2 points)
#
# A machine with a peak rate $P$ (FLOP/s) and a memory bandwidth $b$ (byte/s) does at most
# $\min(P,\; I\, b)$ operations a second at the intensity $I$. The two limits meet at the *ridge point* $P / b$: to the left
# of it a layer is memory-bound, to the right compute-bound.
#
# Machines are described by cards. Each number on a card has a value, a unit and a source; `.si` gives it in SI units.

# %%
cpu, h200, hermes = (hs.load_card(name) for name in ("cpu", "h200", "pcm-hermes"))
for card in (cpu, h200):
    print(f"{card.title}: peak {card.peak['fp32']} in fp32, {card.memory_bandwidth} from memory")


# %% nbgrader={"grade": false, "grade_id": "attainable", "locked": false, "schema_version": 3, "solution": true, "task": false}
def ridge(card, precision="fp32"):
    """Arithmetic intensity in FLOP/byte at which the machine changes from memory-bound to compute-bound."""
    ### BEGIN SOLUTION
    return card.peak[precision].si / card.memory_bandwidth.si
    ### END SOLUTION


def attainable(intensity, card, precision="fp32"):
    """The roofline: most operations a second (FLOP/s) at an intensity in FLOP/byte."""
    ### BEGIN SOLUTION
    return min(card.peak[precision].si, intensity * card.memory_bandwidth.si)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "attainable_check", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
check(ridge, cpu).is_close(24.51, "FLOP/byte")
check(attainable, 0.4955, cpu).is_close(101.5e9, "FLOP/s")
### BEGIN HIDDEN TESTS
check(ridge, h200).is_close(13.96, "FLOP/byte")
check(ridge, h200, "int8").is_close(412.3, "FLOP/byte")
check(attainable, 0.4955, h200).is_close(2.378e12, "FLOP/s")
check(attainable, 1000.0, h200).is_close(67e12, "FLOP/s")
### END HIDDEN TESTS

# %% [markdown]
# ## Task 3: How large a batch? (2 points)
#
# From which batch on does a layer keep the arithmetic units busy? Solve $I(B) \ge P/b$ for the smallest whole $B$. Mind
# that for some layers no batch is large enough.


# %% nbgrader={"grade": false, "grade_id": "batch_at_ridge", "locked": false, "schema_version": 3, "solution": true, "task": false}
def batch_at_ridge(inputs, outputs, card, precision="fp32"):
    """Smallest batch (a whole number) at which the layer, stored in fp32, is compute-bound; None if there is none."""
    ### BEGIN SOLUTION
    if ridge(card, precision) >= 2 * inputs * outputs / (4 * (inputs + outputs)):
        return None
    batch = 1
    while arithmetic_intensity(inputs, outputs, batch) < ridge(card, precision):
        batch += 1
    return batch
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "batch_at_ridge_check", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
check(batch_at_ridge, 784, 128, cpu).is_close(89, rel=0)
### BEGIN HIDDEN TESTS
check(batch_at_ridge, 784, 128, h200).is_close(38, rel=0)
check(batch_at_ridge, 4096, 4096, h200).is_close(29, rel=0)
check(batch_at_ridge, 784, 128, h200, "tf32").equals(None, hint="Compare the ridge with the intensity at any batch.")
### END HIDDEN TESTS

# %% [markdown]
# ## Task 4: The crossbar (2 points)
#
# HERMES is a chip of 64 arrays of 256 x 256 phase-change cells. A larger layer is cut into tiles; all tiles of a layer
# work at once, and one product takes 521 ns, however many cells are in use.

# %%
rows, cols = int(hermes.array.rows), int(hermes.array.cols)
time_per_product = hermes.preset.time_per_mvm.si
print(f"{hermes.title}: {rows} x {cols} cells, {hermes.preset.time_per_mvm} a product")
assert (rows, cols, int(hermes.array.tiles_per_chip)) == (256, 256, 64)
assert round(time_per_product * 1e9) == 521


# %% nbgrader={"grade": false, "grade_id": "crossbar", "locked": false, "schema_version": 3, "solution": true, "task": false}
def crossbar_intensity(inputs, outputs):
    """Operations for each byte moved, of one product on a crossbar: 8-bit inputs and outputs, weights stay."""
    ### BEGIN SOLUTION
    return 2 * inputs * outputs / (inputs + outputs)
    ### END SOLUTION


def utilization(inputs, outputs, rows=256, cols=256):
    """Share of the cells in use, in (0, 1], on as many tiles of `rows` x `cols` cells as the layer needs."""
    ### BEGIN SOLUTION
    tiles = -(-inputs // rows) * -(-outputs // cols)
    return inputs * outputs / (tiles * rows * cols)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "crossbar_check", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
check(crossbar_intensity, 784, 128).is_close(220.1, "FLOP/byte", hints={0.25: "An 8-bit value is one byte."})
check(utilization, 784, 128).is_close(0.3828, hints={4.0: "Count every tile, the partly filled ones too."})
### BEGIN HIDDEN TESTS
check(crossbar_intensity, 256, 256).is_close(256, "FLOP/byte")
check(utilization, 256, 256).is_close(1)
check(utilization, 257, 256).is_close(257 / 512)
check(utilization, 300, 700, rows=128, cols=512).is_close(300 * 700 / (3 * 2 * 128 * 512))
### END HIDDEN TESTS

# %% [markdown]
# The library's estimate of the same layer agrees on how it lies on the tiles:

# %%
layer = hs.models.mlp(784, 128)
counts = hs.workload(layer, input_shape=(784,))
on_hermes = hs.estimate(counts, hermes)
print(f"{on_hermes.mapping['tiles']:.0f} tiles, {100 * on_hermes.mapping['utilization']:.1f} % of their cells in use")
assert on_hermes.mapping["tiles"] == 4
assert abs(on_hermes.mapping["utilization"] - utilization(784, 128)) < 1e-9

# %% [markdown]
# So a crossbar does at batch 1 what batching can only approach. The layer does $2nm$ operations in 521 ns, and for that
# only $n + m$ bytes must reach the tiles. A processor that wants to be as fast at batch 1 needs 444 times the bandwidth:

# %%
rate = 2 * 784 * 128 / time_per_product
needs_crossbar = rate / crossbar_intensity(784, 128)
needs_processor = rate / arithmetic_intensity(784, 128)
print(f"{rate / 1e9:.0f} Gop/s take {needs_crossbar / 1e9:.2f} GB/s into the crossbar,")
print(f"or {needs_processor / 1e9:.0f} GB/s, mostly weights, into a processor")
assert round(needs_processor / needs_crossbar) == 444

# %% [markdown]
# ## The plot to discuss
#
# Lines are roofs, filled marks the layer on its roof. Open marks are `hs.estimate`, which adds what a roofline leaves
# out: the launch of a kernel, and the share of a peak that real kernels reach. Crosses are measured here, on your
# machine's processor, with `hs.measure`.

# %% summary="In a crossbar no weight moves: 220 operations for each byte at batch 1, against 0.5 in fp32 on a processor. What limits it is how much of the array a layer fills, here 38 %."
batches = (1, 32, 1024)
intensities = {batch: arithmetic_intensity(784, 128, batch) for batch in batches}


def layer_rate(seconds, batch):
    """Operations a second, in Gop/s, of a call that takes `seconds`."""
    return 2 * 784 * 128 * batch / seconds / 1e9


figure, ax = plt.subplots(figsize=(9.4, 4.6))
along = np.geomspace(0.1, 1000, 200)
for card, name, mark, color in ((cpu, "server CPU", "o", 0), (h200, "H200", "s", 1)):
    look = {"marker": mark, "ls": "none", "color": course.COLORS[color], "ms": 7}
    roof = [attainable(i, card) / 1e9 for i in along]
    ax.plot(along, roof, color=course.COLORS[color], label=f"{name}, fp32: roof")
    on_roof = [attainable(i, card) / 1e9 for i in intensities.values()]
    ax.plot(intensities.values(), on_roof, **look)
    estimated = [hs.estimate(counts, card, batch=b).latency_s.nominal for b in batches]
    rates = [layer_rate(s, b) for s, b in zip(estimated, batches, strict=True)]
    ax.plot(intensities.values(), rates, mfc="none", label=f"{name}, with launches (estimated)", **look)

measured = [hs.measure(layer, torch.rand(b, 784), min_window_s=0.2).latency_s for b in batches]
rates = [layer_rate(s, b) for s, b in zip(measured, batches, strict=True)]
ax.plot(intensities.values(), rates, "x", color="black", ms=8, mew=2, label="this CPU (measured)")

green = course.COLORS[2]
all_cells = 4 * 2 * rows * cols / time_per_product / 1e9
ax.axhline(all_cells, color=green, ls="--", label="HERMES, 4 tiles, all cells in use")
ax.plot(crossbar_intensity(784, 128), rate / 1e9, "D", color=green, ms=8, label="HERMES, this layer, any batch")

for batch, intensity in intensities.items():
    ax.annotate(f"B = {batch}", (intensity, 1.3e5), ha="center", fontsize=9)
ax.set(xscale="log", yscale="log", xlim=(0.1, 1000), ylim=(0.5, 3e5))
ax.set(xlabel="arithmetic intensity (operations / byte)", ylabel="rate (Gop/s)")
ax.set_title("A layer of 784 inputs and 128 outputs on three machines")
figure.legend(loc="outside right upper", fontsize=8.5)
plt.show()

# %% [markdown] nbgrader={"grade": false, "grade_id": "open_question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## Open question (2 points)
#
# "A crossbar has no memory wall, so it is always faster than a GPU." Use the plot to say what is right in this sentence
# and what is wrong. Say in particular (a) what keeps this layer below the crossbar's own ceiling and which layer shape
# would reach it, (b) why the open marks lie so far below the roof at batch 1, and (c) what happens to the argument when the
# weights change with every input, as in attention or in training. Five to eight sentences.

# %% [markdown] nbgrader={"grade": true, "grade_id": "open_answer", "locked": false, "points": 2, "schema_version": 3, "solution": true, "task": false}
# Right: the weights never move, so the crossbar's intensity is high and does not depend on the batch; at batch 1 it needs
# a few GB/s where a processor needs hundreds. Wrong: intensity is not speed. The H200's roof lies above this layer's point
# on the crossbar already at batch 1 (2.4 Top/s against 0.39), and far above it at batch 1,024; it is the launch of a call
# that puts the GPU below the crossbar at batch 1. What the crossbar saves is data movement: energy, and latency at batch 1.
#
# (a) Utilization: 784 inputs need four tiles of which 38 % of the cells work, and the time of a product does not shrink with
# them. Multiples of 256 in both directions reach the ceiling. (b) At batch 1 a call takes microseconds of launch and
# framework whatever the layer; the roofline knows rates, not latencies. (c) Then the weights must be written, which takes
# many pulses a cell; the crossbar loses its advantage, as the matrix is no longer stationary.
#
# *Marking: 1 point for right and wrong with a number from the plot, 1 point for (a) to (c).*

# %% [markdown]
# ## Sources
#
# - S. Williams, A. Waterman, D. Patterson, Roofline: an insightful visual performance model for multicore architectures,
#   Communications of the ACM 52(4), 65 (2009).
# - M. Le Gallo et al., A 64-core mixed-signal in-memory compute chip based on phase-change memory for deep neural network
#   inference, Nature Electronics 6, 680 (2023): HERMES.
# - Every number of a card with its own source: `hpml-sim cards show pcm-hermes`, `cpu`, `h200`.
