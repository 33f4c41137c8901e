# %% [markdown]
# # Exercise 0: What can this machine measure?
#
# Week 14 · 10 minutes · 5 points · needs a GPU: no
#
# Every comparison in this week rests on three kinds of figures: measured, estimated from a card, or not known. Before any
# of them, look at the machine in front of you. You will
#
# 1. read what of the software works here, and which meters this machine has;
# 2. measure a latency with its spread, not as one number;
# 3. handle a figure that was not measured, without inventing one.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch

import hpml_sim as hs
from hpml_sim import course
from hpml_sim.course import check

course.start()

# %% [markdown]
# ## The doctor
#
# `hs.doctor()` tries every library and every meter. A "no" is not a failure: this week needs no GPU. Look at the lines
# NVML (energy of an NVIDIA GPU) and RAPL (energy of the processor).

# %%
print(hs.doctor())

# %% [markdown]
# ## A measurement
#
# `hs.measure` times a network again and again, warm-up excluded, with a power meter running where there is one.

# %%
network = hs.models.mlp(64, 128, 10)
measured = hs.measure(network, torch.rand(1, 1, 8, 8), min_window_s=0.5)
latencies_us = 1e6 * np.array(measured.samples_s)
print(f"{measured.calls:,} calls on {measured.device}")
if measured.energy_j is None:
    print(f"energy not measured: {measured.energy_reason}")
else:
    print(f"energy of one inference: {1e6 * measured.energy_j:.1f} uJ ({measured.energy_provenance})")

# %% [markdown]
# ## Task 1: A result has a spread (2 points)
#
# Other programs interrupt yours, so a few calls take far longer than most. The mean follows them; the median does not.


# %% nbgrader={"grade": false, "grade_id": "spread", "locked": false, "schema_version": 3, "solution": true, "task": false}
def spread(values):
    """The 10th percentile, the median and the 90th percentile of some values: three numbers, as np.percentile has them."""
    ### BEGIN SOLUTION
    return tuple(np.percentile(values, (10, 50, 90)))
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "spread_check", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
check(spread, [3.0, 1.0, 2.0, 5.0, 4.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0]).is_close([2.0, 6.0, 10.0], "us")
### BEGIN HIDDEN TESTS
check(spread, np.arange(101.0)).is_close([10, 50, 90], "us")
check(spread, [1.0] * 99 + [1e6]).is_close([1, 1, 1], "us")
### END HIDDEN TESTS

# %% [markdown]
# ## Task 2: Not measured is not zero (2 points)
#
# A computer's energy is the sum of its parts. If one part has no meter, the sum is not known. Python's `None` says so; 0
# would be a lie that makes the machine without a meter look best.


# %% nbgrader={"grade": false, "grade_id": "total_energy_j", "locked": false, "schema_version": 3, "solution": true, "task": false}
def total_energy_j(parts):
    """Sum of the energies of some parts.

    Args:
        parts: a list of joules; None for a part that was not measured.

    Returns:
        Joules, or None if any part was not measured.
    """
    ### BEGIN SOLUTION
    if any(part is None for part in parts):
        return None
    return sum(parts)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "total_energy_j_check", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
check(total_energy_j, [1.5, 2.0]).is_close(3.5, "J")
### BEGIN HIDDEN TESTS
check(total_energy_j, [1.5, None, 2.0]).equals(None, hint="One part was not measured.")
check(total_energy_j, [0.0, 4.0]).is_close(4.0, "J")
check(total_energy_j, [None, 0.0]).equals(None, hint="One part was not measured.")
### END HIDDEN TESTS

# %% [markdown]
# ## The plot to discuss

# %%
low, median, high = spread(latencies_us)
figure, ax = plt.subplots(figsize=(7.2, 3.4))
bins = np.geomspace(latencies_us.min(), latencies_us.max() * 1.01, 60)
ax.hist(latencies_us, bins=bins, color=course.COLORS[0])
ax.axvspan(low, high, color=course.COLORS[5], alpha=0.25, label="10th to 90th percentile")
ax.axvline(median, color=course.COLORS[1], label=f"median {median:.1f} us")
ax.axvline(latencies_us.mean(), color="black", ls="--", label=f"mean {latencies_us.mean():.1f} us")
ax.set(xscale="log", yscale="log", xlabel="latency of one call (us)", ylabel="calls")
ax.set_title("One image through a network of 64-128-10, on this machine")
ax.legend()
plt.show()

# %%
assert abs(median / (1e6 * measured.latency_s) - 1) < 0.01

# %% [markdown] nbgrader={"grade": false, "grade_id": "open_question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## Open question (1 point)
#
# Which of its energies can your machine measure, and what does the doctor say about the others? Which of the three lines in
# the plot would you report, and to whom would the 99th percentile matter more? Three to five sentences.

# %% [markdown] nbgrader={"grade": true, "grade_id": "open_answer", "locked": false, "points": 1, "schema_version": 3, "solution": true, "task": false}
# Depends on the machine: on most laptops and virtual machines neither; with an NVIDIA GPU the board's energy through NVML,
# and on a Linux machine with readable counters the processor's through RAPL. The median with the 10th and 90th percentile
# describes the usual call and is not moved by interruptions. Whoever serves requests under a deadline cares about the tail.
#
# *Marking: 1 point if the doctor's lines are read right and the choice is reasoned.*

# %% [markdown]
# ## Sources
#
# - T. Hoefler, R. Belli, Scientific benchmarking of parallel computing systems, SC'15: medians, spreads, what to report.
# - Z. Yang, K. Adamek, W. Armour, Part-time power measurements: nvidia-smi's lack of attention, SC'24 (arXiv:2312.02741).
