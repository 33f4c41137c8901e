# %% [markdown]
# # Exercise 2: What does an ADC cost?
#
# Week 14 · 35 minutes · 10 points · needs a GPU: no
#
# In homework 4 you quantized weights and activations because it is cheaper. On a crossbar every sum is a current, and every
# current must become a number before anything else can happen to it: quantization is no option but the price of the
# machine. You will
#
# 1. write the quantizer of an analog-to-digital converter (ADC), and predict its error without running it;
# 2. find how many bits a network needs;
# 3. work out what those bits cost in energy, on a chip that was built.

# %%
import warnings

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
# A converter of $b$ bits has $2^b - 1$ levels, symmetric around zero: $L = 2^{b-1} - 1$ on either side. With its range
# $\pm x_{max}$ the step is $\Delta = x_{max} / L$. What lies beyond the range is clipped to the last level.

# %%
figure = course.drawings.converter(bits=3)

# %% [markdown]
# ## Task 1: The quantizer (3 points)


# %% nbgrader={"grade": false, "grade_id": "quantize", "locked": false, "schema_version": 3, "solution": true, "task": false}
def quantize(x, bits, x_max):
    """What a converter of `bits` bits and range +-x_max makes of x.

    Args:
        x: array of any shape. bits: >= 2. x_max: end of the range, in the unit of x, > 0.

    Returns:
        Array of the same shape and unit: the nearest of the 2^bits - 1 levels.
    """
    ### BEGIN SOLUTION
    top = 2 ** (bits - 1) - 1
    step = x_max / top
    return np.clip(np.round(x / step), -top, top) * step
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "quantize_check", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
few = np.array([-1.0, -0.6, 0.1, 0.3, 2.0])
check(quantize, few, bits=3, x_max=1.0).is_close([-1, -2 / 3, 0, 1 / 3, 1], abs=1e-9)
### BEGIN HIDDEN TESTS
ramp = np.linspace(-1.5, 1.5, 10_001)
levels = np.unique(quantize(ramp, 4, 1.0))
course.answer("the number of levels of 4 bits", len(levels)).equals(15, hint="Symmetric around zero: 2^4 - 1.")
course.answer("the levels of 4 bits", levels).is_close(np.arange(-7, 8) / 7, abs=1e-9)
square = np.array([[0.0, 5.0], [-9.0, 9.0]])
check(quantize, square, bits=8, x_max=8.0).is_close([[0.0, 8 * 79 / 127], [-8, 8]])
check(quantize, few, bits=2, x_max=0.5).is_close([-0.5, -0.5, 0, 0.5, 0.5], abs=1e-9)
### END HIDDEN TESTS

# %% [markdown]
# ## Task 2: Its error (1 point)
#
# Inside the range the error is spread evenly between $-\Delta/2$ and $\Delta/2$, so its mean square is
#
# $$\frac{1}{\Delta} \int_{-\Delta/2}^{\Delta/2} e^2\, \mathrm{d}e = \frac{\Delta^2}{12} .$$


# %% nbgrader={"grade": false, "grade_id": "predicted_mse", "locked": false, "schema_version": 3, "solution": true, "task": false}
def predicted_mse(bits, x_max):
    """Mean square error of a converter for inputs inside its range, in the unit of x_max squared."""
    ### BEGIN SOLUTION
    step = x_max / (2 ** (bits - 1) - 1)
    return step**2 / 12
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "predicted_mse_check", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
step_hint = "The step is x_max / L, with L = 2^(b-1) - 1."
hints = {
    49 / 56.25: step_hint,
    49 / 64: step_hint,
    4.0: step_hint,
    24.25: "The mean square, not its root, is asked for.",
}
check(predicted_mse, bits=4, x_max=1.0).is_close(1.7007e-3, "V^2", hints=hints)
### BEGIN HIDDEN TESTS
check(predicted_mse, bits=8, x_max=2.0).is_close((2 / 127) ** 2 / 12, "V^2")
check(predicted_mse, bits=2, x_max=0.6).is_close(0.03, "V^2")
### END HIDDEN TESTS

# %% [markdown]
# The prediction holds to 1 %:

# %%
x = np.random.default_rng(0).uniform(-1, 1, 200_000)
for bits in (4, 6, 8):
    ratio = np.mean((quantize(x, bits, 1.0) - x) ** 2) / predicted_mse(bits, 1.0)
    print(f"{bits} bits: measured / predicted mean square error {ratio:.3f}")
    assert abs(ratio - 1) < 0.01

# %% [markdown]
# ## How many bits does a network need?
#
# NeuRRAM is a chip of resistive memory whose converters can be set to any number of bits. A network of 64-128-10, trained on
# digits without any regard to hardware, is put on ten simulated chips with 2 to 10 bits.

# %%
torch.manual_seed(0)
network = hs.models.mlp(64, 128, 10)
hs.fit(network, data="digits", epochs=30, lr=5e-3)
digital = hs.evaluate(network, data="digits").mean
images = hs.load_data("digits").train.tensors[0]

all_bits = list(range(2, 11))
results = []
for bits in all_bits:
    analog = hs.convert(network, hs.Analog("reram-neurram", adc_bits=bits, input_range="percentile", adc_bound=10))
    with warnings.catch_warnings(action="ignore"):  # that few bits cost accuracy is what is measured here
        hs.calibrate(analog, images)
    results.append(hs.evaluate(hs.program(analog, chips=10, seed=0).at("1 s"), data="digits"))
    print(f"{bits:>2} bits: {results[-1]}")

# %% [markdown]
# ## Task 3: The knee (2 points)
#
# "How many bits do I need?" has an answer only with a tolerance: the fewest bits from which on, for all larger numbers of
# bits too, the accuracy is at most so much below the best.


# %% nbgrader={"grade": false, "grade_id": "knee", "locked": false, "schema_version": 3, "solution": true, "task": false}
def knee(bits, accuracy, tolerance):
    """The fewest bits that are enough.

    Args:
        bits: numbers of bits, rising. accuracy: shares in [0, 1], one for each. tolerance: what may be lost, a share.

    Returns:
        The smallest b in `bits` such that for it and all larger ones accuracy >= best - tolerance.
    """
    ### BEGIN SOLUTION
    enough = None
    for b, a in zip(reversed(bits), reversed(accuracy), strict=True):
        if a < max(accuracy) - tolerance:
            break
        enough = b
    return enough
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "knee_check", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
enough = "The first number of bits from which on none falls short of the best by more than the tolerance."
check(knee, [2, 3, 4, 5], [0.1, 0.8, 0.95, 0.96], 0.02).is_close(4, rel=0, hint=enough)
### BEGIN HIDDEN TESTS
check(knee, [2, 3, 4, 5], [0.1, 0.8, 0.95, 0.96], 0.005).is_close(5, rel=0)
check(knee, [2, 3, 4, 5], [0.1, 0.8, 0.95, 0.96], 0.2).is_close(3, rel=0)
check(knee, [3, 5, 7, 9], [0.95, 0.90, 0.955, 0.96], 0.02).is_close(7, rel=0)
check(knee, [4, 6, 8], [0.45, 0.485, 0.5], 0.02).is_close(6, rel=0)
### END HIDDEN TESTS

# %% [markdown]
# Three percentage points below the best, 4 bits are enough; half a point below takes one to three more, and at 2 bits the
# network guesses.

# %%
accuracy = [result.mean for result in results]
knees = {tolerance: knee(all_bits, accuracy, tolerance) for tolerance in (0.03, 0.005)}
for tolerance, bits in knees.items():
    print(f"at most {100 * tolerance:g} points below the best: {bits} bits")
assert knees[0.03] == 4
assert 5 <= knees[0.005] <= 7
assert accuracy[0] < 0.2

# %% [markdown]
# ## Task 4: What they cost (2 points)
#
# NeuRRAM's converter finds a result by adding small charges one by one: each *step* costs 0.4 pJ. It reads inputs of 6 bits
# (5 and a sign) in two phases, first 3 bits, then 2, and converts each column after each phase; the second conversion can
# leave out the 3 bits that the first one has already settled. A result of $b$ bits so takes $b + (b - 3)$ steps a column.

# %%
neurram = hs.load_card("reram-neurram")
print(f"one step: {neurram.component.step_energy}, first phase: {neurram.component.bits_per_phase}")
assert round(neurram.component.step_energy.si * 1e15) == 400
assert int(neurram.component.bits_per_phase) == 3
assert int(neurram.component.input_bits) == 6


# %% nbgrader={"grade": false, "grade_id": "adc_energy_j", "locked": false, "schema_version": 3, "solution": true, "task": false}
def adc_energy_j(columns, bits, step_j=0.4e-12):
    """Energy of the converters for one product on NeuRRAM, in joules.

    Args:
        columns: how many results. bits: of each result, >= 3. step_j: energy of one step, joules.
    """
    ### BEGIN SOLUTION
    return columns * (bits + bits - 3) * step_j
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "adc_energy_j_check", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
check(adc_energy_j, 138, 8).is_close(717.6e-12, "J", hints={8 / 13: "There are two conversions."})
### BEGIN HIDDEN TESTS
check(adc_energy_j, 138, 5).is_close(386.4e-12, "J")
check(adc_energy_j, 1, 3).is_close(1.2e-12, "J")
check(adc_energy_j, 10, 4, step_j=1e-12).is_close(50e-12, "J")
### END HIDDEN TESTS

# %% [markdown]
# The network has 128 + 10 = 138 columns. The library's estimate, which adds up all parts of the chip, has the same figure
# for the converters:

# %%
counts = hs.workload(network, input_shape=(1, 8, 8))
estimates = {b: hs.estimate(counts, neurram, mode="component", output_bits=b) for b in all_bits if b >= 3}
for b, estimate in estimates.items():
    assert abs(estimate.by_component()["adc"].nominal / adc_energy_j(138, b) - 1) < 1e-6

# %% [markdown]
# ## The plot to discuss
#
# Left what bits buy, right what they cost: the energy of one inference on NeuRRAM, by component.

# %% summary="With 4 bits a small network is within 3 points of its best. From 8 to 5 bits NeuRRAM's converters save 46 %, the whole inference 9 %."
figure, (left, right) = plt.subplots(1, 2, figsize=(9.4, 4.0))
means = [100 * result.mean for result in results]
spread = [100 * result.std for result in results]
left.errorbar(all_bits, means, spread, marker="o", capsize=3, label="10 chips: mean, standard deviation")
left.axhline(100 * digital, color="black", lw=1, label="digital")
left.axvline(knees[0.03], color=course.COLORS[1], ls="--", label="knee at 3 points")
left.set(xlabel="bits of the ADC", ylabel="accuracy (%)", ylim=(0, 102), title="What bits buy")
left.legend(loc="lower right")

names = {"adc": "ADC", "wordline": "word lines", "sample": "sampling", "array": "array", "column": "integrators"}
hatches = ("//", "", "..", "", "xx")
below = np.zeros(len(estimates))
for (component, name), hatch, color in zip(names.items(), hatches, course.COLORS, strict=False):
    heights = np.array([e.by_component()[component].nominal * 1e9 for e in estimates.values()])
    right.bar(list(estimates), heights, bottom=below, color=color, hatch=hatch, ec="white", width=0.75, label=name)
    below += heights
right.set(
    xlabel="bits of the ADC", ylabel="energy of one inference (nJ)", title="What they cost on NeuRRAM (estimated)"
)
right.set_ylim(0, 1.45 * below.max())
right.legend(ncols=2, loc="upper left")
plt.show()

# %% [markdown]
# From 8 to 5 bits the converters save 46 %, but the inference only 9 %, because the switching of the word lines costs more
# than the converters; the latency falls by 25 %. On RAELLA, a design on paper at 32 nm, the converters take 81 % of the
# energy of the same network.

# %%
saved_adc = 1 - adc_energy_j(138, 5) / adc_energy_j(138, 8)
saved = 1 - estimates[5].energy_j.nominal / estimates[8].energy_j.nominal
faster = 1 - estimates[5].latency_s.nominal / estimates[8].latency_s.nominal
raella = hs.estimate(counts, "raella", mode="component")
share = raella.by_component()["adc"].nominal / raella.energy_j.nominal
print(f"converters {saved_adc:.0%}, inference {saved:.0%}, latency {faster:.0%}; RAELLA: {share:.0%} for the ADC")
assert [round(100 * value) for value in (saved_adc, saved, faster, share)] == [46, 9, 25, 81]

# %% [markdown] nbgrader={"grade": false, "grade_id": "open_question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## Open question (2 points)
#
# (a) Each bit halves the step. Why does the accuracy nevertheless stop improving at about 6 bits? Name two other errors of
# this chip. (b) You may change NeuRRAM to save energy for this network. Would you start with the converters? And on RAELLA?
# (c) A converter whose thermal noise must halve for one more bit needs four times the energy. What would the right plot look
# like with such converters at 10 bits? Five to eight sentences.

# %% [markdown] nbgrader={"grade": true, "grade_id": "open_answer", "locked": false, "points": 2, "schema_version": 3, "solution": true, "task": false}
# (a) Below some step the rounding error is smaller than the others, which do not shrink with bits: the noise of the
# amplifiers (`output_noise`), the programming error and relaxation of the devices, and the 6-bit inputs. Variances add, so
# the largest one rules. (b) Not on NeuRRAM: the word lines take most, so fewer or shorter switchings (larger input phases,
# smaller arrays) help more; the gain of fewer bits there is time. On RAELLA the converters are the place to start. (c) Each
# bit would multiply the ADC's part by four: from 8 to 10 bits by 16, so it would hide everything else. The knee is where one
# stops paying.
#
# *Marking: 1 point for (a), 1 point for (b) and (c).*

# %% [markdown]
# ## Sources
#
# - W. Wan et al., A compute-in-memory chip based on resistive random-access memory, Nature 608, 504 (2022): NeuRRAM; its
#   components as modeled in T. Andrulis, J. Emer, V. Sze, CiMLoop, ISPASS 2024.
# - T. Andrulis, J. Emer, V. Sze, RAELLA, ISCA 2023.
# - W. R. Bennett, Spectra of quantized signals, Bell System Technical Journal 27, 446 (1948): the error of a quantizer.
# - Every number of a card with its own source: `hpml-sim cards show reram-neurram`.
