# %% [markdown]
# # Exercise 6: A spiking neuron by hand, then on the GPU
#
# Week 14 · 40 minutes · 10 points · needs a GPU: no (numba simulates one)
#
# In homework 3 you wrote CUDA kernels that read each value once and were done. A neuron has a memory: its next step needs
# its last one. You will
#
# 1. derive the leaky integrate-and-fire (LIF) neuron and predict when it fires first;
# 2. write it as a CUDA kernel, one time step for each launch, in numba;
# 3. fuse all steps into one launch, count the bytes, and say how much that can gain.

# %%
import math
import os

import matplotlib.pyplot as plt
import numpy as np
import torch

if not torch.cuda.is_available():
    os.environ["NUMBA_ENABLE_CUDASIM"] = "1"  # before numba.cuda is imported: it then simulates a GPU, in Python
from numba import config, cuda

import hpml_sim as hs
from hpml_sim import course
from hpml_sim.course import check

config.CUDA_LOW_OCCUPANCY_WARNINGS = 0  # our examples are small
course.start()

# %% [markdown]
# ## The neuron
#
# A cell membrane is a capacitor $C$ with a leak $R$. A current $I$ charges it:
#
# $$C \frac{dV}{dt} = -\frac{V}{R} + I .$$
#
# Over one time step $\Delta t$ with a constant current the solution is exact: with $\beta = e^{-\Delta t / RC}$, the
# potential keeps the share $\beta$ of itself and moves by $(1-\beta) R I$. We measure the input $x$ in units of that
# movement. When the potential $m$ exceeds the threshold $\theta$, the neuron sends a spike and loses $\theta$ in the next
# step:
#
# $$m_t = \beta\, m_{t-1} + x_t - \theta\, s_{t-1}, \qquad s_t = \begin{cases} 1 & m_t > \theta \\ 0 & \text{else.} \end{cases}$$
#
# This is the neuron `Leaky` of snnTorch with its defaults.

# %% [markdown]
# ## Task 1: The first spike (2 points)
#
# With a constant input $x$ and $m_0 = 0$ the potential after $k$ steps without a spike is a geometric series,
#
# $$m_k = x\,\frac{1-\beta^k}{1-\beta} .$$
#
# Solve $m_k > \theta$ for the smallest whole $k \ge 1$. Where does the series end, and what does that mean for a small
# input? Do not step through time: give a formula.


# %% nbgrader={"grade": false, "grade_id": "first_spike", "locked": false, "schema_version": 3, "solution": true, "task": false}
def first_spike(x, beta, threshold=1.0):
    """Step k >= 1 at which the neuron fires first under a constant input; None if it never does.

    Args:
        x: input in each step, > 0. beta: share kept in each step, in (0, 1). threshold: > 0.
    """
    ### BEGIN SOLUTION
    if x <= threshold * (1 - beta):
        return None
    return math.floor(math.log(1 - threshold * (1 - beta) / x) / math.log(beta)) + 1
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "first_spike_check", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
hints = {6 / 7: "The first step is k = 1, and the potential must exceed the threshold."}
check(first_spike, 0.2, 0.9).is_close(7, rel=0, hints=hints)
### BEGIN HIDDEN TESTS
check(first_spike, 0.11, 0.9).is_close(23, rel=0)
check(first_spike, 0.08, 0.95).is_close(20, rel=0)
check(first_spike, 1.5, 0.9).is_close(1, rel=0)
check(first_spike, 0.4, 0.9, threshold=2.0).is_close(7, rel=0)
check(first_spike, 0.04, 0.95).equals(None, hint="The potential never exceeds 0.8.")
### END HIDDEN TESTS

# %% [markdown]
# The library's neuron agrees. Its input holds all time steps, (steps x batch, neurons):

# %%
for x, beta in ((0.2, 0.9), (0.11, 0.9), (0.08, 0.95)):
    spikes = hs.spiking.LeakyNeurons(beta, steps=30)(torch.full((30, 1), x))
    k = int(spikes.argmax()) + 1
    print(f"input {x}, beta {beta}: first spike in step {k}")
    assert k == first_spike(x, beta)

# %% [markdown]
# ## Task 2: Many neurons through time (1 point)
#
# Write the neuron in numpy, for many neurons at once. It is the reference for your kernels. Keep to float32 and to the
# order of operations of the formula, from left to right: then even the last bit is right.


# %% nbgrader={"grade": false, "grade_id": "leaky", "locked": false, "schema_version": 3, "solution": true, "task": false}
def leaky(x, beta=0.9, threshold=1.0):
    """Spikes and membrane potentials of LIF neurons.

    Args:
        x: inputs, float32 array of shape (steps, neurons).

    Returns:
        spikes (0 or 1) and potentials, both float32 arrays of shape (steps, neurons).
    """
    spikes, potentials = np.zeros_like(x), np.zeros_like(x)
    ### BEGIN SOLUTION
    m, s = np.zeros_like(x[0]), np.zeros_like(x[0])
    for t in range(len(x)):
        m = beta * m + x[t] - threshold * s
        s = (m > threshold).astype(np.float32)
        spikes[t], potentials[t] = s, m
    ### END SOLUTION
    return spikes, potentials


# %% nbgrader={"grade": true, "grade_id": "leaky_check", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
inputs = np.random.default_rng(0).uniform(-0.1, 0.5, (20, 64)).astype(np.float32)
in_torch = torch.from_numpy(inputs)
expected, expected_potentials = hs.spiking.LeakyNeurons(0.9, steps=20)(in_torch, with_states=True)
reset = "A spike takes the threshold away once, in the step after it; the potential that decays still holds it."
found = check(leaky, inputs)
found.has_length(2)
course.answer("the spikes of leaky(inputs)", found.value[0]).is_close(expected, rel=0, hint=reset)
### BEGIN HIDDEN TESTS
course.answer("the potentials of leaky(inputs)", found.value[1]).is_close(expected_potentials, rel=1e-6, abs=1e-6)
course.answer("the spikes of leaky(2 * inputs)", check(leaky, 2 * inputs, threshold=0.7).value[0]).is_close(
    hs.spiking.LeakyNeurons(0.9, 0.7, steps=20)(2 * in_torch), rel=0
)
### END HIDDEN TESTS

# %%
figure, (above, below) = plt.subplots(2, 1, figsize=(7.2, 4.2), sharex=True, height_ratios=(3, 1))
constant = np.full((40, 1), 0.2, np.float32)
s, m = leaky(constant)
above.plot(np.arange(1, 41), m[:, 0], ".-", label="potential $m$")
above.axhline(1, color=course.COLORS[1], ls="--", label="threshold")
above.set(ylabel="potential (1)", title="A constant input of 0.2, beta = 0.9: the first spike comes in step 7")
above.set_ylim(0, 1.45)
above.legend(loc="upper right", ncols=2)
below.vlines(np.flatnonzero(s) + 1, 0, 1)
below.set(xlabel="time step", ylabel="spike", yticks=[])
assert np.flatnonzero(s)[0] + 1 == 7
plt.show()

# %% [markdown]
# ## Task 3: One step for each launch (2 points)
#
# Now as a CUDA kernel: one thread for each neuron, one launch for each time step. The potential lives in global memory
# between the launches. The spike of the last step need not be stored: it is $m_{t-1} > \theta$, and $m_{t-1}$ is at hand.
#
# Mind the threads beyond the last neuron: the grid is a whole number of blocks.


# %% nbgrader={"grade": false, "grade_id": "leaky_step", "locked": false, "schema_version": 3, "solution": true, "task": false}
@cuda.jit
def leaky_step(x, potential, spikes, beta, threshold):
    """One step of one neuron a thread: x, potential (in and out) and spikes (out) have shape (neurons,)."""
    ### BEGIN SOLUTION
    n = cuda.grid(1)
    if n < x.shape[0]:
        m = potential[n]
        reset = threshold if m > threshold else np.float32(0)
        m = beta * m + x[n] - reset
        potential[n] = m
        spikes[n] = np.float32(1) if m > threshold else np.float32(0)
    ### END SOLUTION


# %%
THREADS = 32


def run_step_by_step(x, beta=0.9, threshold=1.0):
    """Spikes (steps, neurons) with one launch for each step."""
    steps, neurons = x.shape
    on_device, spikes = cuda.to_device(x), cuda.to_device(np.zeros_like(x))
    potential = cuda.to_device(np.zeros(neurons, np.float32))
    for t in range(steps):
        leaky_step[-(-neurons // THREADS), THREADS](
            on_device[t], potential, spikes[t], np.float32(beta), np.float32(threshold)
        )
    return spikes.copy_to_host()


# %% nbgrader={"grade": true, "grade_id": "leaky_step_check", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
few = np.ascontiguousarray(inputs[:, :33])  # not a whole number of blocks
check(run_step_by_step, few).is_close(expected[:, :33], rel=0)
### BEGIN HIDDEN TESTS
check(run_step_by_step, inputs).is_close(expected, rel=0)
check(run_step_by_step, inputs, 0.5).is_close(hs.spiking.LeakyNeurons(0.5, steps=20)(in_torch), rel=0)
### END HIDDEN TESTS

# %% [markdown]
# ## Task 4: All steps in one launch (2 points)
#
# Put the loop over time into the kernel. The potential then stays in a register and never touches memory. Which index
# must neighboring threads share so that a warp reads neighboring addresses?


# %% nbgrader={"grade": false, "grade_id": "leaky_fused", "locked": false, "schema_version": 3, "solution": true, "task": false}
@cuda.jit
def leaky_fused(x, spikes, beta, threshold):
    """All steps of one neuron a thread: x and spikes (out) have shape (steps, neurons)."""
    ### BEGIN SOLUTION
    n = cuda.grid(1)
    if n < x.shape[1]:
        m = np.float32(0)
        for t in range(x.shape[0]):
            reset = threshold if m > threshold else np.float32(0)
            m = beta * m + x[t, n] - reset
            spikes[t, n] = np.float32(1) if m > threshold else np.float32(0)
    ### END SOLUTION


# %%
def run_fused(x, beta=0.9, threshold=1.0):
    """Spikes (steps, neurons) with a single launch."""
    on_device, spikes = cuda.to_device(x), cuda.to_device(np.zeros_like(x))
    leaky_fused[-(-x.shape[1] // THREADS), THREADS](on_device, spikes, np.float32(beta), np.float32(threshold))
    return spikes.copy_to_host()


# %% nbgrader={"grade": true, "grade_id": "leaky_fused_check", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
check(run_fused, few).is_close(expected[:, :33], rel=0)
### BEGIN HIDDEN TESTS
check(run_fused, inputs).is_close(expected, rel=0)
check(run_fused, inputs, 0.5).is_close(hs.spiking.LeakyNeurons(0.5, steps=20)(in_torch), rel=0)
### END HIDDEN TESTS

# %% [markdown]
# Two roundings or one? A GPU's compiler turns $\beta m + x$ into one fused multiply-add, which rounds once where numpy
# rounds twice. A potential that lies on the threshold to the last bit can then fire on one machine and not on the other,
# and from there on the trains differ. The library's own kernels forbid the fusion, so that they give the same bits
# everywhere; yours may not, and on these inputs no spike differs.

# %% [markdown]
# ## Task 5: What can fusing gain? (1 point)
#
# Count the bytes to and from global memory for one neuron and one step, all values in float32 and none in a cache:
# what does the step kernel read and write, and what does the fused one? Then model the time on a machine of memory
# bandwidth $b$: every launch takes $t_L$, and the bytes take their share of $b$.


# %% nbgrader={"grade": false, "grade_id": "kernel_time", "locked": false, "schema_version": 3, "solution": true, "task": false}
def bytes_per_neuron_and_step(fused):
    """Bytes read and written."""
    ### BEGIN SOLUTION
    return 8 if fused else 16
    ### END SOLUTION


def kernel_time(neurons, steps, fused, bandwidth, launch_time):
    """Seconds for all steps: launches, and bytes at `bandwidth` (byte/s)."""
    ### BEGIN SOLUTION
    launches = 1 if fused else steps
    return launches * launch_time + neurons * steps * bytes_per_neuron_and_step(fused) / bandwidth
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "kernel_time_check", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
check(bytes_per_neuron_and_step, True).is_close(8, "byte", rel=0)
check(bytes_per_neuron_and_step, False).is_close(
    16, "byte", rel=0, hints={0.75: "The potential is read and written.", 0.5: "The potential is read and written."}
)
### BEGIN HIDDEN TESTS
check(kernel_time, 10**6, 100, True, 1e12, 5e-6).is_close(805e-6, "s")
check(kernel_time, 10**6, 100, False, 1e12, 5e-6).is_close(2100e-6, "s")
### END HIDDEN TESTS

# %% [markdown]
# For many neurons the bytes decide, and the gain ends at 2; for few the launches decide, and it ends at the number of
# steps:

# %%
h200 = hs.load_card("h200")
bandwidth = h200.memory_bandwidth.si * h200.memory_efficiency.si
machine = {"bandwidth": bandwidth, "launch_time": h200.launch_time.si}


def gain(neurons, steps=100):
    return kernel_time(neurons, steps, False, **machine) / kernel_time(neurons, steps, True, **machine)


print(f"H200, 100 steps: {gain(1000):.0f} x for a thousand neurons, {gain(10**9):.2f} x for a billion")
assert gain(1000) > 90
assert abs(gain(10**9) - 2) < 0.01

# %% [markdown]
# ## The plot to discuss
#
# Left: your model of both kernels on an H200, whose launches and bandwidth stand on its card. Right: the same idea
# measured on your processor: snnTorch's neuron called once for each step, and the library's fused neuron, which gives the
# same spikes bit for bit.

# %% summary="One launch for all time steps keeps the membrane out of memory: at most half of the bytes, but far fewer launches while the network is small."
import time

import snntorch

STEPS = 100
sizes = np.array([2**k for k in range(8, 17, 2)])


def seconds(run, repeats=5):
    """Shortest of some repeats, after one that does not count."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def loop(x, neuron):
    """snnTorch as its tutorials use it."""
    membrane, spikes = neuron.init_leaky(), []
    for step in x:
        spike, membrane = neuron(step, membrane)
        spikes.append(spike)
    return torch.stack(spikes)


stepwise, fused = [], []
theirs, ours = snntorch.Leaky(0.9), hs.spiking.LeakyNeurons(0.9, steps=STEPS)
with torch.no_grad():
    for n in map(int, sizes):
        x = torch.rand(STEPS, n, generator=torch.Generator().manual_seed(n)) * 0.4
        assert torch.equal(loop(x, theirs), ours(x))
        stepwise.append(seconds(lambda x=x: loop(x, theirs)))
        fused.append(seconds(lambda x=x: ours(x)))

figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 4.0), sharey=False)
neurons = np.geomspace(1e3, 1e8, 60)
for is_fused, label, style in ((False, "one launch for each step", "-"), (True, "one launch for all", "--")):
    color = course.COLORS[int(is_fused)]
    left.plot(
        neurons, [1e6 * kernel_time(n, STEPS, is_fused, **machine) for n in neurons], style, color=color, label=label
    )
    right.plot(
        sizes,
        1e6 * np.array(fused if is_fused else stepwise),
        "o" + style,
        color=color,
        label="fused" if is_fused else "snnTorch, step by step",
    )
left.set(title="H200, modeled from its card", ylabel=f"time for {STEPS} steps (us)")
right.set(title="this processor, measured", ylabel=f"time for {STEPS} steps (us)")
for ax in (left, right):
    ax.set(xscale="log", yscale="log", xlabel="neurons")
    ax.legend(loc="upper left")
plt.show()

# %% [markdown] nbgrader={"grade": false, "grade_id": "open_question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## Open question (2 points)
#
# (a) Where in the left plot does the step kernel change from launch-bound to memory-bound, and why is the gain so
# different on the two sides? (b) The fused kernel saves no arithmetic at all. What would you have to move less of to get
# beyond a factor of 2 for many neurons? Name two ways and what each costs. (c) In training, the backward pass needs the
# potentials. What does that do to the bytes of the fused kernel?

# %% [markdown] nbgrader={"grade": true, "grade_id": "open_answer", "locked": false, "points": 2, "schema_version": 3, "solution": true, "task": false}
# (a) Where the bytes of one step take as long as a launch: $16 n / b = t_L$, about a million neurons. To the left the step
# kernel pays a launch for every step and the fused one a single launch; to the right both move their bytes, 16 against 8.
#
# (b) Spikes are one bit: packed or as int8 they halve the traffic nearly (5 bytes, or 4.1), at the price of packing and
# of a product that understands it. Inputs in bfloat16 halve the other part and lose precision near the threshold. Fusing
# the matrix product before the neuron with it removes the traffic of x altogether, but couples two kernels.
#
# (c) They must be written once and read in the backward pass: 12 bytes a step forward. The spikes need not be kept, as
# they follow from the potentials. Storing every few steps and computing the rest again trades bytes for arithmetic.
#
# *Marking: 1 point for (a), 1 point for (b) and (c).*

# %% [markdown]
# ## Sources
#
# - J. K. Eshraghian et al., Training spiking neural networks using lessons from deep learning, Proceedings of the IEEE
#   111(9), 1016 (2023): the neuron, and snnTorch.
# - L. Lapicque, Recherches quantitatives sur l'excitation électrique des nerfs traitée comme une polarisation, Journal de
#   Physiologie et de Pathologie Générale 9, 620 (1907).
# - The library's own kernels, for reading: `hpml_sim/kernels/lif/cpu.py` and `cuda.py` beside it.
