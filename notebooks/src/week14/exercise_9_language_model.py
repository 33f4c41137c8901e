# %% [markdown]
# # Exercise 9: A language model on a crossbar
#
# Week 14 · 40 minutes · 10 points · needs a GPU: no
#
# In the week on large language models you quantized one, and met the channels that are thousands of times larger than all
# others at a few tokens. A crossbar's input converter meets them too. You will
#
# 1. put a language model on crossbars and watch it break, before any device makes an error;
# 2. find the layer that does it, by a measurement and not by a guess;
# 3. mend it in three ways: another range, a layer left digital, and low-rank adapters beside weights that stay as they are.

# %%
import warnings

import matplotlib.pyplot as plt
import torch
from torch.utils.data import Subset

import hpml_sim as hs
from hpml_sim import course
from hpml_sim.course import check

torch.set_num_threads(1)  # for layers this small, more threads only wait for each other
course.start()

# %% [markdown]
# ## The model
#
# Llama's layout, two blocks, one byte a token: small enough to be trained here. Large models grow a *massive activation* while
# they are trained: at a few tokens one channel of a feed-forward layer is huge. A small model trained for seconds grows none, so
# `course.massive_activation_model()` has one planted before the training: at the space, channel 0 of each feed-forward layer is
# driven hard (`course.massive_activation_model??` shows how).

# %%
data = hs.load_data("text-bytes")
test = Subset(data.test, range(16))
samples = torch.stack([data.train[k][0] for k in range(16)])

# %% [markdown]
# ## Task 1: Perplexity (2 points)
#
# A language model gives logits for the token after each one. Its perplexity is $\exp$ of the mean cross-entropy of a token: the
# number of tokens among which a die of as many sides would be as unsure.


# %% nbgrader={"grade": false, "grade_id": "perplexity", "locked": false, "schema_version": 3, "solution": true, "task": false}
def perplexity(logits, labels):
    """exp(mean of -log softmax(logits)[label]) over all tokens.

    Args:
        logits: tensor (batch, tokens, vocabulary). labels: whole numbers (batch, tokens).

    Returns:
        A float.
    """
    ### BEGIN SOLUTION
    shares = logits.double().log_softmax(-1).gather(-1, labels.unsqueeze(-1))
    return float(torch.exp(-shares.mean()))
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "perplexity_check", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
even = torch.zeros(2, 5, 10)
hints = {
    2.303: "This is the cross-entropy in nats times ten; take exp of the mean.",
    0.2303: "exp of the mean is missing.",
}
check(perplexity, even, torch.zeros(2, 5, dtype=torch.long)).is_close(10.0, hints=hints)
### BEGIN HIDDEN TESTS
drawn = torch.Generator().manual_seed(0)
some, right = torch.randn(3, 7, 11, generator=drawn), torch.randint(11, (3, 7), generator=drawn)
wanted = torch.nn.functional.cross_entropy(some.double().flatten(0, 1), right.flatten()).exp()
check(perplexity, some, right).is_close(float(wanted))
### END HIDDEN TESTS

# %% [markdown]
# ## Task 2: What a range costs (2 points)
#
# A converter of $b$ bits divides its full scale $r$ into steps of $r / (2^{b-1} - 1)$; what lies beyond $r$ is clipped. How good that
# is for some inputs says the ratio of the power of the signal to that of the error, in decibels:
#
# $$\mathrm{dB} = 10 \log_{10} \frac{\sum x^2}{\sum (x - \hat x)^2} .$$


# %% nbgrader={"grade": false, "grade_id": "converted", "locked": false, "schema_version": 3, "solution": true, "task": false}
def converted(x, full_scale, bits):
    """x as a converter passes it on: clipped to +-full_scale, rounded to whole steps.

    Args:
        x: any tensor. full_scale: a number > 0. bits: of the converter, with the sign.
    """
    ### BEGIN SOLUTION
    step = full_scale / (2 ** (bits - 1) - 1)
    return (x.clamp(-full_scale, full_scale) / step).round() * step
    ### END SOLUTION


def decibels(x, passed_on):
    """Signal to error, in dB, as a float."""
    ### BEGIN SOLUTION
    return float(10 * torch.log10(x.square().sum() / (x - passed_on).square().sum()))
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "converted_check", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
check(converted, torch.tensor([0.3, 0.5, -2.0]), 1.0, 2).is_close([0.0, 0.0, -1.0])
check(decibels, torch.tensor([3.0, 4.0]), torch.tensor([3.0, 3.5])).is_close(
    20.0, hints={0.5: "Powers: the logarithm times ten, of squares."}
)
### BEGIN HIDDEN TESTS
check(converted, torch.tensor([0.3, 0.5, -2.0, 1.9]), 2.0, 3).is_close([0.0, 2 / 3, -2.0, 2.0])
check(decibels, torch.ones(4), torch.full((4,), 0.9)).is_close(20.0, rel=1e-4)
### END HIDDEN TESTS

# %% [markdown]
# Ordinary inputs fill the range. With one value that is a thousand times larger, a range that holds it rounds all others
# away, and a range that does not clips it:

# %%
ordinary = torch.randn(4096, generator=torch.Generator().manual_seed(1))
massive = ordinary.clone()
massive[0] = 1000 * float(ordinary.abs().max())
rest = massive[1:]
for name, x in (("ordinary", ordinary), ("with one massive value", massive)):
    full = float(x.abs().max())
    print(
        f"{name}: the others at {decibels(x[1:], converted(x, full, 8)[1:]):.1f} dB, all at {decibels(x, converted(x, full, 8)):.1f} dB"
    )
assert decibels(ordinary, converted(ordinary, float(ordinary.abs().max()), 8)) > 30
assert decibels(rest, converted(massive, float(massive.abs().max()), 8)[1:]) < 1

# %% [markdown]
# ## Watch it break
#
# 10 seconds of training, then three conversions that differ in how the range of the inputs is found, all without any noise: 8 bits
# and nothing else.

# %%
perplexity(torch.zeros(1, 1, 2), torch.zeros(1, 1, dtype=torch.long))  # solve task 1 first: training takes ten seconds
llm = course.massive_activation_model()
hs.fit(llm, data, epochs=2, lr=5e-3, batch_size=16, show_progress=False)
llm.eval()


def measure(model):
    """Perplexity of the test text; of chips the mean over them."""
    return hs.evaluate(model, test, task="language_model").mean


def on_crossbars(target, **choice):
    """The model on crossbars with its ranges found; warnings are read below."""
    analog = hs.convert(llm, target, skip=["head", *choice.get("digital", ())])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        hs.calibrate(analog, samples)
    return analog.eval()


QUIET = {"output_noise": 0.0}
RANGES = {"widest": {"name": "percentile", "share": 1.0}, "99.5 %": "percentile", "each vector": "dynamic"}
found = {"digital": measure(llm)}
models = {name: on_crossbars(hs.Analog("pcm-hermes", input_range=rule, **QUIET)) for name, rule in RANGES.items()}
found |= {name: measure(model) for name, model in models.items()}
for name, value in found.items():
    print(f"{name:>12}: perplexity {value:.1f}")
assert found["widest"] > 1.3 * found["digital"]
assert found["99.5 %"] > 1.3 * found["digital"]
assert found["each vector"] < 1.1 * found["digital"]

# %% [markdown]
# ## Task 3: Find the layer (2 points)
#
# The report of a converted model has a row for each layer; its column `converter_db` says what the converters lose of the layer's
# outputs (task 2), and is empty for layers that stayed digital.

# %%
models["99.5 %"].report[["layer", "input_range", "converter_db"]].dropna().head(4)


# %% nbgrader={"grade": false, "grade_id": "worst", "locked": false, "schema_version": 3, "solution": true, "task": false}
def worst(report, n):
    """Names of the n layers whose converters lose most, worst first.

    Args:
        report: a DataFrame with the columns "layer" and "converter_db" (None or NaN where a layer is digital).
    """
    ### BEGIN SOLUTION
    known = report[report["converter_db"].notna()].sort_values("converter_db", kind="stable")
    return list(known["layer"])[:n]
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "worst_check", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
check(worst, models["99.5 %"].report, 1).equals(["blocks.0.down"])
### BEGIN HIDDEN TESTS
import pandas as pd

made = pd.DataFrame({"layer": ["a", "b", "c", "d"], "converter_db": [12.0, None, -3.0, 30.0]})
check(worst, made, 2).equals(["c", "a"])
check(worst, made, 9).equals(["c", "a", "d"])
### END HIDDEN TESTS

# %% [markdown]
# That layer alone stays digital, and the range of all others stays as it was:

# %%
(name,) = worst(models["99.5 %"].report, 1)
one_digital = on_crossbars(hs.Analog("pcm-hermes", input_range="percentile", **QUIET), digital=[name])
found[f"99.5 %, {name} digital"] = measure(one_digital)
print(f"perplexity {found['99.5 %']:.1f} -> {found[f'99.5 %, {name} digital']:.1f} with {name} digital")
assert found[f"99.5 %, {name} digital"] < found["99.5 %"]

# %% [markdown]
# ## Task 4: Adapters (2 points)
#
# Now the devices come in. To train the weights and write them again would wear them; an adapter leaves them as they are, and adds the
# product of two thin digital matrices, $y = W x + B (A x)$, with $A$ of `rank` rows and $B$ of `rank` columns.


# %% nbgrader={"grade": false, "grade_id": "adapter", "locked": false, "schema_version": 3, "solution": true, "task": false}
def adapted(x, weight, down, up):
    """The layer with its adapter: x (batch, inputs) -> (batch, outputs), in two thin products.

    Args:
        weight: (outputs, inputs). down: (rank, inputs). up: (outputs, rank).
    """
    ### BEGIN SOLUTION
    return x @ weight.T + (x @ down.T) @ up.T
    ### END SOLUTION


def share(inputs, outputs, rank):
    """Parameters of the adapter, in units of those of the weight."""
    ### BEGIN SOLUTION
    return rank * (inputs + outputs) / (inputs * outputs)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "adapter_check", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
check(share, 1000, 1000, 4).is_close(0.008, hints={0.5: "Two matrices, not one."})
x = torch.eye(3)
check(adapted, x, torch.zeros(2, 3), torch.ones(1, 3), torch.tensor([[1.0], [2.0]])).is_close(
    [[1.0, 2.0], [1.0, 2.0], [1.0, 2.0]]
)
### BEGIN HIDDEN TESTS
drawn = torch.Generator().manual_seed(3)
x, weight, down, up = (torch.randn(*size, generator=drawn) for size in ((5, 6), (4, 6), (2, 6), (4, 2)))
check(adapted, x, weight, down, up).is_close(x @ (weight + up @ down).T, rel=1e-4, abs=1e-5)
check(share, 576, 1536, 4).is_close(4 * (576 + 1536) / (576 * 1536))
### END HIDDEN TESTS

# %% [markdown]
# The library's way: `hs.lora` freezes the model and puts an adapter beside each analog layer; `hs.fit` trains them under the noise of
# the weights, taught by the digital model. The chips are those of phase-change memory, a year after they were written.

# %%
adapted(torch.zeros(1, 1), torch.zeros(1, 1), torch.zeros(1, 1), torch.zeros(1, 1))  # solve task 4 first
noisy = on_crossbars(hs.Analog("pcm-hermes", training_noise=0.1))
CHIPS, YEAR = 6, "1 year"
found["chips, 1 s"] = measure(hs.program(noisy, CHIPS, seed=1).at("1 s"))
found["chips, a year"] = measure(hs.program(noisy, CHIPS, seed=1).at(YEAR))
with_adapters = hs.lora(noisy, rank=4)
hs.fit(
    with_adapters, data, epochs=2, lr=5e-3, batch_size=16, teacher=llm, alpha=1.0, temperature=1.0, show_progress=False
)
found["with adapters, a year"] = measure(hs.program(with_adapters, CHIPS, seed=1).at(YEAR))
learned = sum(p.numel() for p in with_adapters.parameters() if p.requires_grad)
total = sum(p.numel() for p in llm.parameters())
print(
    f"a year: {found['chips, a year']:.2f} -> {found['with adapters, a year']:.2f} with adapters ({100 * learned / total:.1f} % of the parameters)"
)
assert found["chips, a year"] > found["chips, 1 s"] > 0.99 * found["digital"]
assert found["with adapters, a year"] < found["chips, a year"]

# %% [markdown]
# What they cost is digital work beside the tiles, counted and charged as such:

# %%
before, after = (hs.workload(model, data=samples[:1]).total("macs") for model in (noisy, with_adapters))
print(f"multiply-accumulates: {100 * (after / before - 1):.1f} % more, all of them digital")
assert after > before

# %% [markdown]
# ## The plot to discuss

# %% summary="One range a layer breaks a language model on a crossbar before any device makes an error; a range for each vector, or one layer left digital, mends it."
figure, ax = plt.subplots(figsize=(7.2, 4.2))
names = list(found)
ax.barh(names, [found[name] for name in names], color=course.COLORS[0])
ax.axvline(found["digital"], color="0.4", linestyle=":")
for k, name in enumerate(names):
    ax.text(found[name], k, f" {found[name]:.1f}", va="center")
ax.set(xlabel="perplexity of a byte", title="A small language model on pcm-hermes")
ax.invert_yaxis()
plt.show()

# %% [markdown] nbgrader={"grade": false, "grade_id": "open_question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## Open question (2 points)
#
# (a) A range for each vector mends the model here. What does it cost a machine, and why would it not help if the huge channel
# were huge at *every* token? (b) Adapters were trained under noise and taught by the digital model. Name the two trainings
# that you would put beside them before you say that they repair the noise.

# %% [markdown] nbgrader={"grade": true, "grade_id": "open_answer", "locked": false, "points": 2, "schema_version": 3, "solution": true, "task": false}
# (a) Each vector's largest magnitude must be found and all be scaled by it in digital logic in front of the converters, before the first
# row can be driven, and the products be scaled back. A channel that is huge at every token sets the range of every vector: then the
# others always lose their bits, and only scaling that channel down (and its weights up) or leaving the layer digital helps.
#
# (b) Adapters trained as long without the noise (what training alone is worth on this text), and the digital model with the same
# training (which, taught by itself, cannot move; taught by the text it adapts to it). A text of another kind as test as well.
#
# *Marking: 1 point for (a), 1 point for (b).*

# %% [markdown]
# ## Sources
#
# - M. Sun et al., Massive Activations in Large Language Models, arXiv:2402.17762 (2024).
# - J. Büchel et al., Analog Foundation Models, arXiv:2505.09663 (2025).
# - E. J. Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, arXiv:2106.09685 (2021).
# - C. Lammie et al., AHWA-LoRA, arXiv:2411.17367 (2024): adapters beside analog weights.
