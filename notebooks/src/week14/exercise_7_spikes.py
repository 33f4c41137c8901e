# %% [markdown]
# # Exercise 7: When is a spike cheaper?
#
# Week 14 · 40 minutes · 10 points · needs a GPU: no
#
# "A spiking network needs no multiplications, so it saves energy." You have the tools to check such a sentence: counting
# operations, bytes and joules. You will
#
# 1. count the synaptic operations of a spiking network, by hand and with the library;
# 2. find the spike rate below which additions are cheaper than multiply-accumulates, and see one network win, draw and
#    lose by the convention of counting alone;
# 3. add the memory traffic, then the whole machine, and say what is left of the saving.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch

import hpml_sim as hs
from hpml_sim import course
from hpml_sim.course import check

course.start()

# %% [markdown]
# ## The argument
#
# A layer with $n$ inputs and $m$ outputs of an ordinary network takes $n\,m$ multiply-accumulates (MACs). In a spiking
# network the inputs are 0 or 1, in each of $T$ time steps. A spike meets $m$ weights, and for each there is an addition
# and no product: an accumulate (AC), also called synaptic operation (SOP). With a share $r$ of the inputs spiking in a
# step, the layer takes $T\,r\,n\,m$ of them. In 45 nm and 32-bit floating point, an addition costs 0.9 pJ and a
# multiplication 3.7 pJ (Horowitz 2014):

# %%
AC_J = 0.9e-12
MAC_J = 3.7e-12 + AC_J
print(f"MAC {MAC_J * 1e12:.1f} pJ, AC {AC_J * 1e12:.1f} pJ, ratio {MAC_J / AC_J:.1f}")
assert round(MAC_J * 1e12, 1) == 4.6

# %% [markdown]
# ## Task 1: Break even (1 point)
#
# At which rate $r$ does a layer cost as much with spikes as without? Only the arithmetic counts here.


# %% nbgrader={"grade": false, "grade_id": "break_even_rate", "locked": false, "schema_version": 3, "solution": true, "task": false}
def break_even_rate(steps):
    """Spikes of an input in a step (a share) at which ACs in `steps` steps cost what MACs cost once."""
    ### BEGIN SOLUTION
    return MAC_J / (steps * AC_J)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "break_even_rate_check", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
check(break_even_rate, 25).is_close(0.2044, hints={25.0: "The accumulates are paid in every step."})
### BEGIN HIDDEN TESTS
check(break_even_rate, 4).is_close(1.2778)
### END HIDDEN TESTS

# %% [markdown]
# ## Task 2: Count the operations (2 points)
#
# Given all spikes that arrive at a fully connected layer, count its synaptic operations for one sample, as a mean over
# the batch.


# %% nbgrader={"grade": false, "grade_id": "synaptic_operations", "locked": false, "schema_version": 3, "solution": true, "task": false}
def synaptic_operations(spikes, outputs):
    """Accumulates of one inference.

    Args:
        spikes: 0 or 1, tensor of shape (steps, batch, inputs). outputs: of the layer.
    """
    ### BEGIN SOLUTION
    return float(spikes.sum()) * outputs / spikes.shape[1]
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "synaptic_operations_check", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
toy = torch.zeros(3, 2, 4)  # 3 steps, 2 samples, 4 inputs
toy[0, 0, 1] = toy[2, 0, 3] = toy[1, 1, 0] = 1
check(synaptic_operations, toy, 5).is_close(7.5, hints={2.0: "For one sample: divide by the size of the batch."})
### BEGIN HIDDEN TESTS
more = (torch.rand(6, 8, 20, generator=torch.Generator().manual_seed(0)) < 0.3).float()
check(synaptic_operations, more, 7).is_close(int(more.sum()) * 7 / 8)
check(synaptic_operations, torch.zeros(3, 2, 4), 5).is_close(0)
### END HIDDEN TESTS

# %% [markdown]
# ## The network
#
# The same 64-128-10 network three times: with ReLU, with spiking neurons whose input is the pixel value itself at every
# step (*direct*), and with an input of random spikes, as likely as the pixel is bright (*rate*). The library's workload
# counts what they do on the test set.

# %%
data = hs.load_data("digits")
images = torch.stack([image for image, _ in data.test])
STEPS = 25
print(f"break-even for {STEPS} steps: {break_even_rate(STEPS):.3f} spikes an input and step")

torch.manual_seed(0)
relu = hs.models.mlp(64, 128, 10)
hs.fit(relu, data, epochs=30, lr=5e-3)
networks = {"ReLU": relu}
for encoder in ("direct", "rate"):
    networks[encoder] = hs.convert(relu, hs.Spiking("loihi", steps=STEPS, encoder=encoder))
    hs.fit(networks[encoder], data, epochs=15, lr=5e-3)
accuracy = {name: hs.evaluate(network, data).mean for name, network in networks.items()}
counts = {name: hs.workload(network, data=images) for name, network in networks.items()}
for name in networks:
    print(
        f"{name:>6}: accuracy {100 * accuracy[name]:.1f} %, {counts[name].total('macs'):,.0f} products if none is skipped"
    )
assert min(accuracy.values()) > 0.94

# %% [markdown]
# Your counter and the library's agree on the second layer of the rate-coded network. (`network[0:3]` ends with the hidden
# neurons; time is folded into the batch.)

# %%
snn = networks["rate"]
hidden = next(layer for layer in counts["rate"].layers if layer.op == "neuron" and layer.neurons == 128)
second = next(layer for layer in counts["rate"].layers if layer.cols == 10)
print(f"hidden neurons fire {hidden.spikes:.0f} times an image; the layer behind them takes {second.sops:.0f} SOPs")
print(f"rate {hidden.spikes / (128 * STEPS):.3f} spikes a neuron and step; break-even {break_even_rate(STEPS):.3f}")
assert abs(second.sops - hidden.spikes * 10) < 1e-6 * second.sops

# %% [markdown]
# ## Task 3: One network, three verdicts (1 point)
#
# The literature counts the first layer of a direct-coded network in two ways. Its input does not change, so a machine
# needs its products only once; or they are counted in every step, as NeuroBench does. Compute the energy of the
# arithmetic from the number of MACs and ACs.


# %% nbgrader={"grade": false, "grade_id": "arithmetic", "locked": false, "schema_version": 3, "solution": true, "task": false}
def arithmetic_j(macs, acs):
    """Joules of the arithmetic alone."""
    ### BEGIN SOLUTION
    return macs * MAC_J + acs * AC_J
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "arithmetic_check", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
check(arithmetic_j, 1000, 100).is_close(4.69e-9, "J")
### BEGIN HIDDEN TESTS
check(arithmetic_j, 0, 1e6).is_close(0.9e-6, "J")
### END HIDDEN TESTS

# %%
relu_macs = counts["ReLU"].total("macs")
first_macs = 64 * 128
direct, rate = (counts[name].synaptic_operations() for name in ("direct", "rate"))
verdicts = {
    "ReLU, every product": arithmetic_j(relu_macs, 0),
    "ReLU, zeros skipped": arithmetic_j(counts["ReLU"].total("sops"), 0),
    "direct, first layer once": arithmetic_j(first_macs, direct.effective_acs),
    "direct, first layer in every step": arithmetic_j(STEPS * first_macs, direct.effective_acs),
    "rate": arithmetic_j(0, rate.effective_acs),
}
reference = verdicts["ReLU, every product"]
for name, joules in verdicts.items():
    print(f"{name:>34}: {1e9 * joules:6.1f} nJ, {joules / reference:5.2f} x the ReLU network")
assert verdicts["direct, first layer in every step"] > 20 * reference
assert 0.8 < verdicts["direct, first layer once"] / reference < 1.3
assert verdicts["rate"] > reference

# %% [markdown]
# More than twenty times worse, or a draw: the same network, the same spikes. A figure without its convention says
# nothing. And the rate-coded network, which multiplies nothing at all, loses on arithmetic: its pixels spike far above
# the break-even rate.

# %%
pixel_rate = rate.effective_acs - second.sops
pixel_rate /= STEPS * first_macs
print(f"input spikes: {pixel_rate:.3f} a pixel and step")
assert pixel_rate > break_even_rate(STEPS)

# %% [markdown]
# ## Task 4: The memory (2 points)
#
# An operation needs its weight, and a neuron its potential. Let both lie in small memories beside the arithmetic: a
# 32-bit word from an 8 KB SRAM costs 5 pJ, half of the 10 pJ for 64 bits (Horowitz 2014, 45 nm). Count
#
# - one word read for each MAC and each AC (the weight);
# - two words for each of the $m$ neurons in each step (the potential, read and written); the ReLU network keeps none.
#
# Solve for the break-even rate again. It now depends on $n$. For some layers it is below zero: then no rate is low enough.

# %% nbgrader={"grade": false, "grade_id": "break_even_with_memory", "locked": false, "schema_version": 3, "solution": true, "task": false}
WORD_J = 5e-12


def break_even_with_memory(steps, inputs):
    """The rate at which a spiking layer with `inputs` inputs costs what its ReLU twin costs, memory included."""
    ### BEGIN SOLUTION
    return (MAC_J + WORD_J - 2 * steps * WORD_J / inputs) / (steps * (AC_J + WORD_J))
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "break_even_with_memory_check", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
check(break_even_with_memory, 25, 128).is_close(0.05184, rel=2e-3)
### BEGIN HIDDEN TESTS
check(break_even_with_memory, 25, 10**9).is_close(0.06508, rel=2e-3)
check(break_even_with_memory, 5, 128).is_close(0.3122, rel=2e-3)
check(break_even_with_memory, 100, 64).is_close(-0.01021, rel=5e-3)
### END HIDDEN TESTS

# %% [markdown]
# The bar falls from 20 % to 5 %: the weight's fetch costs more than the arithmetic that it feeds, and sparing the product
# spares the smaller part. Our hidden neurons do not pass it:

# %%
hidden_rate = hidden.spikes / (128 * STEPS)
print(
    f"hidden rate {hidden_rate:.3f}: arithmetic allows {break_even_rate(STEPS):.3f}, memory {break_even_with_memory(STEPS, 128):.3f}"
)
assert hidden_rate > break_even_with_memory(STEPS, 128)
assert round(break_even_with_memory(STEPS, 128), 2) == 0.05

# %% [markdown]
# ## Task 5: The machine (2 points)
#
# Now the whole chip. The card of Loihi has measured energies for events (synaptic operations, neuron updates, spikes,
# hops between cores) and for what flows all the time. Which share of an inference's energy is spent by events?


# %% nbgrader={"grade": false, "grade_id": "event_share", "locked": false, "schema_version": 3, "solution": true, "task": false}
def event_share(estimate):
    """Share of the nominal energy that goes to events: the components "sop", "update", "spike" and "hop".

    Args:
        estimate: what `hs.estimate` returned; `.by_component()` gives a band (low, nominal, high) in joules for each.
    """
    ### BEGIN SOLUTION
    parts = estimate.by_component()
    events = sum(parts[name].nominal for name in ("sop", "update", "spike", "hop") if name in parts)
    return events / sum(part.nominal for part in parts.values())
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "event_share_check", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
on_loihi = hs.estimate(counts["rate"], "loihi")
expected = (
    1 - sum(on_loihi.by_component()[name].nominal for name in ("static", "host", "reset")) / on_loihi.energy_j.nominal
)
check(event_share, on_loihi).is_close(expected, rel=0.02)
### BEGIN HIDDEN TESTS
on_speck = hs.estimate(counts["direct"], "speck")
check(event_share, on_speck).is_close(on_speck.by_component()["sop"].nominal / on_speck.energy_j.nominal)
### END HIDDEN TESTS

# %%
print(f"events: {100 * event_share(on_loihi):.1f} % of {on_loihi.energy_j.nominal * 1e6:.0f} uJ an inference on Loihi")
on_cpu = {batch: hs.estimate(counts["ReLU"], "cpu", batch=batch) for batch in (1, "best")}
assert {e.scope for e in (on_loihi, *on_cpu.values())} == {"chip"}  # figures of other scopes must not be compared
for e in on_cpu.values():
    print(f"ReLU network on a server CPU, batch {e.batch:>6,}: {e.energy_j.nominal * 1e6:8.1f} uJ an inference")
assert event_share(on_loihi) < 0.1
assert on_cpu[1].energy_j.nominal > on_loihi.energy_j.nominal > on_cpu["best"].energy_j.nominal

# %% [markdown]
# On such a small network the chip's idle power decides, not the spikes. Against a CPU that wakes for a single image the
# neuromorphic chip wins clearly; against the same CPU with a full batch it loses.

# %% [markdown]
# ## The plot to discuss

# %% summary="Spikes are cheaper only below a rate. Memory traffic moves that rate, and the machine around the arithmetic decides."
rates = np.linspace(0.002, 0.5, 200)
n, m = 128, 10
figure, ax = plt.subplots(figsize=(7.4, 4.6))
for level, color, spiking, ordinary in (
    ("arithmetic", 0, STEPS * rates * n * m * AC_J, n * m * MAC_J),
    ("with memory", 1, STEPS * (rates * n * m * (AC_J + WORD_J) + m * 2 * WORD_J), n * m * (MAC_J + WORD_J)),
):
    ax.plot(rates, 1e9 * spiking, color=course.COLORS[color], label=f"spiking, {level}")
    ax.axhline(1e9 * ordinary, color=course.COLORS[color], ls="--", label=f"ReLU, {level}")
    crossing = (break_even_rate(STEPS), break_even_with_memory(STEPS, n))[color]
    ax.plot(crossing, 1e9 * ordinary, "o", color=course.COLORS[color], ms=8)
ax.axvline(hidden_rate, color=course.COLORS[2], ls=":", label="the trained network's rate")
ax.set(xscale="log", yscale="log", xlabel="spikes a neuron and step", ylabel="energy of the layer (nJ)")
ax.set(title=f"A layer of {n} x {m}, {STEPS} steps, 45 nm: where spikes are cheaper")
ax.legend(fontsize=9)
plt.show()

# %% [markdown]
# A last question of fairness: 25 steps of spikes carry a number from 0 to 25, so the equal of this network is not one in
# 32-bit floating point but an integer network of $\lceil \log_2 (T+1) \rceil$ bits:

# %%
from hpml_sim.cost.arithmetic import equal_bits

print(f"{equal_bits(STEPS)} bits")
assert equal_bits(STEPS) == 5

# %% [markdown] nbgrader={"grade": false, "grade_id": "open_question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## Open question (2 points)
#
# A paper reports: "Our SNN with 5 time steps needs 8 times less energy than the ANN, at equal accuracy", from counts of
# operations with 4.6 and 0.9 pJ. List the three questions that you would ask its authors first, and say for each in which
# direction the answer is likely to move the factor of 8. Then describe one workload for which you would choose the
# neuromorphic chip all the same, and why.

# %% [markdown] nbgrader={"grade": true, "grade_id": "open_answer", "locked": false, "points": 2, "schema_version": 3, "solution": true, "task": false}
# (1) What do weights and potentials cost to fetch? Memory makes both networks dearer and their ratio smaller, since the
# saved product is the smaller part. (2) How is the first layer counted, and are zeros of the ANN skipped? Counted in every
# step, and against a zero-skipping ANN, the factor shrinks. (3) Is the ANN a 3-bit integer network, as 5 steps deserve? An
# integer MAC costs a fraction of 4.6 pJ, and most of the factor may be gone; Yan et al. find that the spike rate must then
# stay below about 5.7 %. Also: which scope, idle power, which machine, what batch?
#
# A sensor that is silent most of the time (an event camera at a door, a keyword on a microphone): inputs arrive one by
# one, nothing happens most of the time, batch 1 is forced, and the answer must come at once. There idle power and batch 1
# decide, where the chip was seen to win.
#
# *Marking: 1 point for the three questions with directions, 1 point for a workload with a reason from this notebook.*

# %% [markdown]
# ## Sources
#
# - M. Horowitz, Computing's energy problem (and what we can do about it), ISSCC 2014: energies of operations and memories.
# - Z. Yan, Z. Bai, T. Tang, W.-F. Wong, Reconsidering the energy efficiency of spiking neural networks,
#   arXiv:2409.08290 (version 4): the fair baseline, and the bound of 5.7 % at 5 steps.
# - J. Yik et al., The NeuroBench framework, Nature Communications 16, 1545 (2025): how operations are counted.
# - M. Davies et al., Loihi, IEEE Micro 38(1), 82 (2018): the chip; every number of its card: `hpml-sim cards show loihi`.
