# %% [markdown]
# # Exercise 4: Where does sqrt(2) come from?
#
# Week 14 · 30 minutes · 10 points · needs a GPU: no
#
# You profiled kernels to find where time goes. A simulator needs the same suspicion: here is a number that looks wrong.
# Someone sets the noise of a crossbar to 0.06, measures it at a layer of 784 inputs, and reads 0.085. Is it a bug? You will
#
# 1. measure what you configured, instead of trusting it;
# 2. find the cause by experiment, with as few runs as possible;
# 3. write the law, and predict what a larger or smaller array would do.

# %%
import math

import matplotlib.pyplot as plt
import torch
from torch import nn

import hpml_sim as hs
from hpml_sim import course
from hpml_sim.course import check

course.start()

# %% [markdown]
# ## The machine
#
# Each column of an array ends in an analog-to-digital converter (ADC). The amplifier before it adds noise: `output_noise`
# is its standard deviation, in units of one full-scale input times one full-scale weight. The card `raella` describes a
# design with ideal memory cells, so that this noise is the only one, and converters of 16 bits keep rounding out of the way.


# %%
def on_crossbar(inputs, card="raella", bits=16, outputs=128):
    """A digital layer with weights of +1 and -1, and the same layer on one chip, with an output noise of 0.06."""
    torch.manual_seed(0)
    layer = nn.Linear(inputs, outputs, bias=False)
    layer.weight.data = torch.where(torch.rand(outputs, inputs) < 0.5, -1.0, 1.0)
    target = hs.Analog(card, output_noise=0.06, dac_bits=bits, adc_bits=bits, compensation="none", adc_bound=10)
    chip = hs.program(hs.convert(nn.Sequential(layer), target), chips=1, seed=0).at("1 s")
    return layer, lambda x: chip(x)[0]


def one_input_on(inputs, samples=500):
    """A batch of inputs of which only the first is not zero: nothing saturates."""
    x = torch.zeros(samples, inputs)
    x[:, 0] = 1.0
    return x


# %% [markdown]
# ## Task 1: Measure it (2 points)
#
# The noise is what the chip's answer has and the exact answer has not. Mind that the exact answers differ from each other.


# %% nbgrader={"grade": false, "grade_id": "measured_noise", "locked": false, "schema_version": 3, "solution": true, "task": false}
def measured_noise(exact, noisy):
    """Standard deviation of the noise, one number.

    Args:
        exact, noisy: outputs without and with noise, tensors of the same shape (samples, outputs).
    """
    ### BEGIN SOLUTION
    return (noisy - exact).std()
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "measured_noise_check", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
with torch.no_grad():
    layer, chip = on_crossbar(784)
    x = one_input_on(784)
    exact, noisy = layer(x), chip(x)
check(measured_noise, exact, noisy).is_close(0.0851, rel=0.01, hints={11.8: "Subtract the exact answer first."})
### BEGIN HIDDEN TESTS
signal = torch.linspace(-3, 3, 4000).reshape(500, 8)
check(measured_noise, signal, signal).is_close(0, abs=1e-6)
noise = torch.randn(500, 8, generator=torch.Generator().manual_seed(1))
check(measured_noise, signal, signal + 0.3 * noise).is_close(float((0.3 * noise).std()), rel=0.01)
### END HIDDEN TESTS

# %% [markdown]
# 0.085 it is: 1.42 times what was asked for.
#
# ## Task 2: Find where it changes (2 points)
#
# What does the factor depend on? Not the outputs, not the samples (try it). Vary the number of inputs: at 400 the noise is
# 0.060, at 784 it is 0.085. Somewhere between, it jumps. Find the smallest number of inputs at which it is larger than
# 0.07, and use bisection, as you would with `git bisect`: 384 candidates take nine measurements, not 384.


# %%
def noise_at(inputs, card="raella"):
    """The noise of a layer of `inputs` inputs on a card's arrays."""
    layer, chip = on_crossbar(inputs, card)
    x = one_input_on(inputs)
    with torch.no_grad():
        return float(measured_noise(layer(x), chip(x)))


assert round(noise_at(784) / 0.06, 2) == 1.42
assert round(noise_at(400), 3) == 0.06
assert math.ceil(math.log2(784 - 400)) == 9


# %% nbgrader={"grade": false, "grade_id": "first_jump", "locked": false, "schema_version": 3, "solution": true, "task": false}
def first_jump(noise_at, low, high, limit=0.07):
    """Smallest number of inputs with a noise above `limit`, by bisection.

    Args:
        noise_at: a function, number of inputs -> noise; it never falls.
        low: a number of inputs whose noise is below the limit. high: one whose noise is above it.
    """
    ### BEGIN SOLUTION
    while high - low > 1:
        middle = (low + high) // 2
        if noise_at(middle) > limit:
            high = middle
        else:
            low = middle
    return high
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "first_jump_check", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
check(first_jump, noise_at, 400, 784).is_close(513, rel=0, hints={512 / 513: "At 512 it is still small."})
### BEGIN HIDDEN TESTS
calls = []


def counted(inputs):
    """A made-up machine that counts how often it is asked."""
    calls.append(inputs)
    return 0.06 if inputs < 7001 else 0.085


check(first_jump, counted, 1, 10_000).is_close(7001, rel=0)
course.answer("the number of measurements among 10,000 candidates", len(calls)).is_between(1, 20, hint="Bisect.")
### END HIDDEN TESTS

# %% [markdown]
# ## The cause
#
# 512 is no accident. It is the number of rows of the array, and the card knows it. A layer of more inputs is cut into
# tiles; each has its own converters and its own noise; the partial sums are added in digital.

# %%
print(f"rows of an array of {hs.load_card('raella').title}: {hs.load_card('raella').array.rows}")
assert int(hs.load_card("raella").array.rows) == 512
figure = course.drawings.two_tiles()

# %% [markdown]
# ## Task 3: The law (2 points)
#
# Variances of independent noises add up. What is the noise of a layer on arrays of a given number of rows?


# %% nbgrader={"grade": false, "grade_id": "predicted_noise", "locked": false, "schema_version": 3, "solution": true, "task": false}
def predicted_noise(sigma, inputs, rows):
    """Standard deviation at the output of a layer.

    Args:
        sigma: of one column's noise. inputs: of the layer. rows: of one array.
    """
    ### BEGIN SOLUTION
    return sigma * math.sqrt(math.ceil(inputs / rows))
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "predicted_noise_check", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
check(predicted_noise, 0.06, 784, 512).is_close(
    0.0849, rel=2e-3, hints={1.414: "Variances add, not deviations.", 0.875: "The second tile counts as a whole."}
)
### BEGIN HIDDEN TESTS
check(predicted_noise, 0.06, 400, 512).is_close(0.06)
check(predicted_noise, 0.06, 1600, 512).is_close(0.12)
check(predicted_noise, 0.06, 784, 1024).is_close(0.06)
check(predicted_noise, 0.5, 512, 512).is_close(0.5)
check(predicted_noise, 0.01, 2000, 128).is_close(0.04)
### END HIDDEN TESTS

# %% [markdown]
# ## Task 4: Add the converter's rounding (2 points)
#
# An ADC of $b$ bits rounds to steps of $\Delta = r / (2^{b-1} - 1)$, with $r$ the end of its range (10 in the units of the
# noise, the library's default). Rounding is a second, independent noise of variance $\Delta^2/12$, in each tile (exercise 2
# shows why 12). What is the noise now?


# %% nbgrader={"grade": false, "grade_id": "noise_with_rounding", "locked": false, "schema_version": 3, "solution": true, "task": false}
def noise_with_rounding(sigma, inputs, rows, bits, adc_range=10.0):
    """Standard deviation at the output of a layer, rounding by an ADC of `bits` bits in each tile included."""
    ### BEGIN SOLUTION
    step = adc_range / (2 ** (bits - 1) - 1)
    return predicted_noise(math.sqrt(sigma**2 + step**2 / 12), inputs, rows)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "noise_with_rounding_check", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
check(noise_with_rounding, 0.06, 784, 512, 8).is_close(0.0907, rel=2e-3)
### BEGIN HIDDEN TESTS
check(noise_with_rounding, 0.0, 100, 512, 8).is_close(10 / 127 / math.sqrt(12))
check(noise_with_rounding, 0.06, 1600, 512, 16).is_close(0.12)
check(noise_with_rounding, 0.1, 300, 128, 6, adc_range=2.0).is_close(math.sqrt(3 * (0.01 + (2 / 31) ** 2 / 12)))
### END HIDDEN TESTS

# %%
layer, chip = on_crossbar(784, bits=8)
with torch.no_grad():
    with_8_bits = float(measured_noise(layer(x), chip(x)))
print(f"8 bits: measured {with_8_bits:.4f}, predicted {noise_with_rounding(0.06, 784, 512, 8):.4f}")
assert abs(with_8_bits / noise_with_rounding(0.06, 784, 512, 8) - 1) < 0.02

# %% [markdown]
# ## A second opinion
#
# Is it our simulator alone? The same layer on IBM's aihwkit, which has this number from its own code:

# %%
target = hs.Analog(
    "raella",
    output_noise=0.06,
    dac_bits=16,
    adc_bits=16,
    compensation="none",
    input_range="percentile",
    adc_bound=10,
    engine="aihwkit",
)
layer, _ = on_crossbar(784)
model = hs.convert(nn.Sequential(layer), target)
hs.calibrate(model, one_input_on(784))
with torch.no_grad():
    theirs = float(measured_noise(layer(x), hs.program(model, chips=1, seed=0).at("1 s")(x)[0]))
print(f"aihwkit: {theirs:.4f}")
assert abs(theirs / predicted_noise(0.06, 784, 512) - 1) < 0.02

# %% [markdown]
# ## The plot to discuss
#
# Lines are your law, marks are measurements, for three designs whose arrays differ in height.

# %% summary="Noise adds up over the tiles of a layer, with the square root of their number. Measure what you configured."
sizes = (64, 128, 129, 256, 400, 512, 513, 784, 1024, 1025, 1600, 2304, 2305)
figure, ax = plt.subplots()
looks = {"isaac-8bit": ("o", "-"), "raella": ("s", "--"), "sram-jia": ("^", ":")}
for (card, (mark, dashes)), color in zip(looks.items(), course.COLORS, strict=False):
    rows = int(hs.load_card(card).array.rows)
    law = [predicted_noise(0.06, n, rows) for n in range(1, 2401)]
    ax.plot(range(1, 2401), law, ls=dashes, color=color, label=f"{rows} rows ({card})")
    measured = [noise_at(n, card) for n in sizes]
    ax.plot(sizes, measured, mark, color=color, ms=6)
    for n, value in zip(sizes, measured, strict=True):
        assert abs(value / predicted_noise(0.06, n, rows) - 1) < 0.02
ax.set(xlabel="inputs of the layer", ylim=(0, 0.3))
ax.set_ylabel("standard deviation of the output\n(full-scale input x weight)")
ax.set_title("Noise 0.06 at each converter: what a layer sees")
ax.legend()
plt.show()

# %% [markdown] nbgrader={"grade": false, "grade_id": "open_question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## Open question (2 points)
#
# (a) Was it a bug? What should a simulator print so that nobody stumbles over it? (b) The plot says: one tall array is
# better than many short ones. Name two reasons why nobody builds arrays of 10,000 rows. (c) The noise of two tiles comes
# from a common supply voltage, so that it is the same in both at every moment. What changes in the law? Five to eight
# sentences.

# %% [markdown] nbgrader={"grade": true, "grade_id": "open_answer", "locked": false, "points": 2, "schema_version": 3, "solution": true, "task": false}
# (a) No: two converters make more noise than one. The report of the conversion should name the tiles of each layer (`report`
# does), and a documentation of `output_noise` should say "at each converter". (b) The voltage drops along long wires (IR
# drop), so far cells contribute less; the sum grows with the rows, so the ADC needs a larger range and, for the same step,
# more bits; a long line is slow to charge; and small layers would leave most of the array empty (exercise 1). (c) Fully
# correlated deviations add up, not variances: sigma times the number of tiles, 0.12 in place of 0.085.
#
# *Marking: 1 point for (a) and (b), 1 point for (c).*

# %% [markdown]
# ## Sources
#
# - M. J. Rasch et al., A flexible and fast PyTorch toolkit for simulating training and inference on analog crossbar arrays,
#   AICAS 2021: aihwkit; its `out_noise` is this `output_noise`.
# - T. Andrulis, J. Emer, V. Sze, RAELLA, ISCA 2023 (512 rows); A. Shafiee et al., ISAAC, ISCA 2016 (128 rows); H. Jia et
#   al., IEEE J. Solid-State Circuits 55(9), 2609 (2020) (2,304 rows of SRAM): the three arrays. `hpml-sim cards show raella` and so on for the details.
