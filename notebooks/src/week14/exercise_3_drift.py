# %% [markdown]
# # Exercise 3: A device that forgets
#
# Week 14 · 40 minutes · 10 points · needs a GPU: no
#
# In homework 4 you rounded weights once and they stayed where they were. Weights in phase-change memory (PCM) keep moving
# after they are written. You will
#
# 1. predict how a conductance decays over a day and a year;
# 2. write the one-factor correction that every PCM chip uses, and say what it cannot correct;
# 3. decide how often a chip must be calibrated again.

# %%
import math

import matplotlib.pyplot as plt
import numpy as np
import torch

import hpml_sim as hs
from hpml_sim import course
from hpml_sim.analog.devices import DeviceModel
from hpml_sim.course import check

course.start()

# %% [markdown]
# ## The physics
#
# A PCM cell is a resistor of which a part has been melted and cooled so fast that it is glass (amorphous, badly
# conducting); the rest is crystal (conducting well). The size of the glass dome sets the conductance, and so the weight.
# Glass relaxes: its atoms settle for years, its resistance grows, and no time scale stands out. The conductance follows a
# power law,
#
# $$ g(t) = g_0 \left(\frac{t}{t_0}\right)^{-\nu}, \qquad t \ge t_0 , $$
#
# with $g_0$ the conductance when it was first read, $t_0$ = 20 s after programming, and an exponent $\nu$ that differs from
# device to device.

# %%
figure = course.drawings.phase_change_cell()

# %% [markdown]
# ## Task 1: Drift (2 points)


# %% nbgrader={"grade": false, "grade_id": "drifted", "locked": false, "schema_version": 3, "solution": true, "task": false}
def drifted(g0_us, time_s, nu, t0_s=20.0):
    """Conductance at a time after programming, in microsiemens.

    Args:
        g0_us: conductance at t0, microsiemens. time_s: seconds, >= t0_s. nu: drift exponent; a number or a tensor.
        t0_s: time of the first read, seconds.
    """
    ### BEGIN SOLUTION
    return g0_us * (time_s / t0_s) ** (-nu)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "drifted_check", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
DAY_S, YEAR_S = 86400.0, 365 * 86400.0
check(drifted, 1.0, DAY_S, 0.05).is_close(0.658, "uS", hints={2.310: "The exponent is negative: conductance falls."})
check(drifted, 1.0, DAY_S, torch.tensor([0.0, 0.05])).is_close([1.0, 0.658], "uS")
### BEGIN HIDDEN TESTS
check(drifted, 12.5, YEAR_S, 0.05).is_close(12.5 * (YEAR_S / 20) ** -0.05, "uS")
check(drifted, 7.0, 20.0, 0.08).is_close(7.0, "uS")
check(drifted, 2.0, 3600.0, 0.1, t0_s=1.0).is_close(2.0 * 3600**-0.1, "uS")
### END HIDDEN TESTS

# %% [markdown]
# ## Ten thousand devices
#
# The card `pcm` holds the statistics of a million devices (Nandakumar et al. 2019). We program ten thousand of them to half
# of the largest conductance and look at their exponents.

# %%
card = hs.load_card("pcm")
model = DeviceModel(card.noise)
devices = model.program(torch.full((1, 10_000), model.g_max_us / 2), seeds=[0])
g0_us, nu = devices.programmed(chip=0)[0], devices.exponents(chip=0)[0]
print(f"g_max {model.g_max_us:.0f} uS; drift exponent {nu.mean():.3f}, standard deviation {nu.std():.3f}")
assert abs(nu.mean() - 0.049) < 0.0005
assert abs(nu.std() - 0.008) < 0.0002

# %% [markdown]
# At this conductance the exponents are 0.049 on average, with a standard deviation of 0.008.
#
# ## Task 2: Global drift compensation (2 points)
#
# Drift shrinks all weights of a tile by nearly the same factor. So a chip remembers, from the moment of programming, what
# its columns answered to a fixed test input, asks again later, and multiplies all later results by one factor: the mean
# absolute answer then, over the mean absolute answer now.


# %% nbgrader={"grade": false, "grade_id": "compensation", "locked": false, "schema_version": 3, "solution": true, "task": false}
def compensation(reference, now):
    """The factor that undoes the mean decay of a tile.

    Args:
        reference: answers to the test input right after programming, a tensor of any shape and either sign.
        now: the answers to the same input today, same shape.

    Returns:
        One number, > 0.
    """
    ### BEGIN SOLUTION
    return reference.abs().mean() / now.abs().mean()
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "compensation_check", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
answers = torch.tensor([1.0, -2.0, 3.0])
check(compensation, answers, 0.5 * answers).is_close(
    2.0, hints={0.25: "It is then over now.", 0.5: "It is then over now."}
)
### BEGIN HIDDEN TESTS
check(compensation, answers, 0.8 * answers).is_close(1.25)
check(compensation, answers, torch.tensor([0.5, -1.0, 2.5])).is_close(1.5)
balanced = torch.tensor([1.0, -1.0, 2.0, -2.0])
check(compensation, balanced, 0.9 * balanced).is_close(1 / 0.9)
### END HIDDEN TESTS

# %% [markdown]
# After a day the devices have lost a third, and the factor brings the mean back:

# %%
after_a_day = drifted(g0_us, DAY_S, nu)
kept = after_a_day / g0_us
corrected = kept * compensation(g0_us, after_a_day)
print(f"kept after a day: {kept.mean():.3f}; corrected: {corrected.mean():.3f} +- {corrected.std():.3f}")
assert abs(kept.mean() - 0.665) < 0.002
assert abs(corrected.mean() - 1) < 0.005

# %% [markdown]
# ## Task 3: What no factor can remove (2 points)
#
# The mean is right again, but each device has its own exponent, and one factor cannot serve them all. For a small spread
# of the exponents, $\sigma_\nu$, what is the relative spread of the conductances after compensation? Write
# $(t/t_0)^{-\nu} = e^{-\nu \ln(t/t_0)}$ and keep the first order in $\nu - \bar\nu$.


# %% nbgrader={"grade": false, "grade_id": "residual_spread", "locked": false, "schema_version": 3, "solution": true, "task": false}
def residual_spread(nu_std, time_s, t0_s=20.0):
    """Relative standard deviation of conductances after perfect compensation of their mean, first order in `nu_std`.

    Args:
        nu_std: standard deviation of the drift exponent. time_s: seconds, >= t0_s. t0_s: time of the first read, seconds.
    """
    ### BEGIN SOLUTION
    return nu_std * math.log(time_s / t0_s)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "residual_spread_check", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
check(residual_spread, 0.008, DAY_S).is_close(0.0670, rel=2e-3, hints={0.4343: "The natural logarithm is meant."})
### BEGIN HIDDEN TESTS
check(residual_spread, 0.008, YEAR_S).is_close(0.1142, rel=2e-3)
check(residual_spread, 0.02, 20 * math.e).is_close(0.02)
check(residual_spread, 0.01, 1000.0, t0_s=10.0).is_close(0.01 * math.log(100))
### END HIDDEN TESTS

# %% [markdown]
# Compare with the simulated devices: 6.7 % after a day, from the exponents alone. A real read adds the 1/f noise of the
# cell, which grows with time as well and brings it to nearly 10 %.

# %%
print(f"predicted {residual_spread(0.008, DAY_S):.3f}, simulated {corrected.std():.3f}")
assert abs(corrected.std() - residual_spread(0.008, DAY_S)) < 0.02 * corrected.std()
read = next(devices.at(DAY_S, seed=lambda chip: 1)) / g0_us
print(f"with read noise {read.std() / read.mean():.3f}")
assert 0.095 < read.std() / read.mean() < 0.1

# %% [markdown]
# ## Task 4: How often must one calibrate? (2 points)
#
# A chip is calibrated at the time $t_c$ after programming. How long does it take until its mean conductance is off by a
# given share? Solve $\left((t_c + \Delta t)/t_c\right)^{-\nu} = 1 - \varepsilon$ for $\Delta t$.


# %% nbgrader={"grade": false, "grade_id": "calibration_interval_s", "locked": false, "schema_version": 3, "solution": true, "task": false}
def calibration_interval_s(error, calibrated_at_s, nu):
    """Seconds from a calibration until the mean has fallen by `error`.

    Args:
        error: share in (0, 1), as 0.01 for 1 %. calibrated_at_s: seconds after programming. nu: drift exponent, > 0.
    """
    ### BEGIN SOLUTION
    return calibrated_at_s * ((1 - error) ** (-1 / nu) - 1)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "calibration_interval_s_check", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
hints = {5.393: "Since the calibration, not since programming.", 0.8964: "First order is not enough: solve it exactly."}
check(calibration_interval_s, 0.01, 3600.0, 0.049).is_close(819.6, "s", rel=2e-3, hints=hints)
### BEGIN HIDDEN TESTS
check(calibration_interval_s, 0.01, DAY_S, 0.049).is_close(DAY_S * (0.99 ** (-1 / 0.049) - 1), "s")
check(calibration_interval_s, 0.1, 60.0, 0.1).is_close(60 * (0.9**-10 - 1), "s")
### END HIDDEN TESTS

# %%
for name, moment in (("1 hour", 3600.0), ("1 day", DAY_S), ("1 year", YEAR_S)):
    print(
        f"1 % off, calibrated {name:>6} after programming: after {calibration_interval_s(0.01, moment, 0.049) / 3600:9.2f} h"
    )

# %% [markdown]
# The interval grows in proportion to the age: always 23 % of it. Old chips need little care.

# %%
assert round(100 * calibration_interval_s(0.01, 1.0, 0.049)) == 23

# %% [markdown]
# ## The plot to discuss
#
# A network of four layers is trained on digits, without any regard to the hardware, and put on 25 simulated chips. Three
# ways of compensation: none, one factor for each tile ("global"), one factor for each column.

# %% summary="PCM weights lose half of their value in a year. One factor for each tile brings most of the accuracy back; the spread between devices stays."
torch.manual_seed(0)
network = hs.models.mlp(64, 32, 32, 32, 10)
hs.fit(network, data="digits", epochs=30, lr=5e-3)
digital = hs.evaluate(network, data="digits").mean

times = {"1 s": 1.0, "1 min": 60.0, "1 h": 3600.0, "1 day": DAY_S, "1 month": 30 * DAY_S, "1 year": YEAR_S}
images = hs.load_data("digits").train.tensors[0]
accuracy = {}
for way in ("none", "global", "column"):
    # fixed ranges: with a range for each vector the DAC of the next layer would make up for part of the drift by itself
    analog = hs.convert(network, hs.Analog("pcm", compensation=way, input_range="percentile", adc_bound=10))
    hs.calibrate(analog, images)
    chips = hs.program(analog, chips=25, seed=0)
    accuracy[way] = [hs.evaluate(chips.at(seconds), data="digits") for seconds in times.values()]

figure, ax = plt.subplots()
looks = {"none": ("o", "-"), "global": ("s", "--"), "column": ("^", ":")}
for way, results in accuracy.items():
    mark, dashes = looks[way]
    means = np.array([100 * result.mean for result in results])
    spread = np.array([100 * result.std for result in results])
    ax.errorbar(times.values(), means, spread, marker=mark, ls=dashes, capsize=3, label=f"compensation: {way}")
ax.axhline(100 * digital, color="black", lw=1, label="digital")
ax.set(xscale="log", xlabel="time since programming", ylabel="accuracy (%)", ylim=(30, 100))
ax.set_xticks(list(times.values()), list(times), minor=False)
ax.set_title("Four layers on PCM, 25 chips: mean and standard deviation between chips")
ax.legend(loc="lower left")
plt.show()

# %%
year = {way: results[-1].mean for way, results in accuracy.items()}
print({way: f"{100 * mean:.1f} %" for way, mean in year.items()}, f"digital {100 * digital:.1f} %")
assert abs(drifted(1.0, YEAR_S, nu).mean() - 0.5) < 0.01
assert year["none"] < 0.6
assert year["global"] > year["none"] + 0.3
assert abs(year["column"] - year["global"]) < 0.02
assert year["global"] < digital - 0.02

# %% [markdown] nbgrader={"grade": false, "grade_id": "open_question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## Open question (2 points)
#
# (a) Weights keep half of their value after a year. A ReLU network does not change its answer when all its outputs are
# halved; why does this one lose its accuracy without compensation? (Which numbers of the network do not lie on the chip?)
# (b) Why is a factor for each column no better than one for each tile? (c) What could still be done about the loss that
# compensation leaves, without new devices? Five to eight sentences.

# %% [markdown] nbgrader={"grade": true, "grade_id": "open_answer", "locked": false, "points": 2, "schema_version": 3, "solution": true, "task": false}
# (a) The biases are added in digital and do not drift. After a year each layer's weights count half, so after four layers
# the signal has shrunk to a sixteenth of what the last bias expects; inside the network the biases shift the ReLUs' corners
# relative to the signal. (With all biases at zero, drift of the mean would not change the answer at all.)
# (b) What remains is the spread from device to device, within every column; the columns' means differ little, as each
# averages many devices. (c) Hardware-aware training (exercise 5): the network learns weights that stand noise of this size;
# several devices for a weight; large conductances, whose exponents spread less; reprogramming.
#
# *Marking: 1 point for (a), 1 point for (b) and (c) together.*

# %% [markdown]
# ## Sources
#
# - S. R. Nandakumar et al., Phase-change memory models for deep learning training and inference, ICECS 2019: the statistics
#   of drift and noise, as coded in aihwkit (`PCMLikeNoiseModel`).
# - V. Joshi et al., Accurate deep neural network inference using computational phase-change memory, Nature Communications
#   11, 2473 (2020): global drift compensation on a network.
# - M. Le Gallo, A. Sebastian, An overview of phase-change memory device physics, Journal of Physics D 53, 213002 (2020).
