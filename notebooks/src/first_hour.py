# %% [markdown]
# # The first hour: one network on five machines
#
# What you will have at the end: a small network trained on handwritten digits; the same network on an analog
# phase-change-memory chip that forgets, on spiking neurons, and on both at once; and a table that says what each
# machine costs and loses. About one minute on a laptop's CPU; no GPU and no internet needed.

# %%
import hpml_sim as hs

net = hs.models.mlp(64, 128, 10)
hs.fit(net, data="digits", epochs=40, lr=5e-3)
digital = hs.evaluate(net, data="digits")
print("digital:", digital)
assert digital.mean > 0.96

# %% [markdown]
# ## An analog chip
# `convert` gives a new model and leaves `net` as it is. Its report says what became of each layer.

# %%
analog = hs.convert(net, "pcm-hermes")
print(analog.report)

# %% [markdown]
# Hardware-aware training: the layers inject the noise that the chip will have. Then 25 chips are programmed, each with
# its own errors, and evaluated at several times; evaluation never changes them.

# %%
hs.fit(analog, data="digits", epochs=20, lr=5e-3)
chips = hs.program(analog, chips=25, seed=0)
for moment in ("1 s", "1 h", "1 day", "1 year"):
    print(moment.rjust(6), hs.evaluate(chips.at(moment), data="digits"))

# %% [markdown]
# ## Spikes, and spikes on crossbars

# %%
snn = hs.convert(net, hs.Spiking("loihi", steps=25))
hs.fit(snn, data="digits", epochs=20, lr=5e-3)
print("spiking:", hs.evaluate(snn, data="digits"))

hybrid = hs.convert(net, hs.Spiking("loihi", steps=25, synapses=hs.Analog("pcm-hermes")))
hs.fit(hybrid, data="digits", epochs=20, lr=5e-3)
print("spikes on crossbars, after a day:", hs.evaluate(hs.program(hybrid, chips=5).at("1 day"), data="digits"))

# %% [markdown]
# ## All of it in one call
# Accuracy, estimate and measurement are separate passes; every figure says how it was obtained.

# %%
result = hs.compare(net, data="digits", targets=["cpu", "h200", "pcm-hermes", "reram-neurram", "loihi"], epochs=0)
columns = ["target", "time_s", "batch", "accuracy_mean", "energy_j_nominal", "latency_s_nominal", "scope"]
print(result.table()[columns].to_string())
twins = {"cpu, integer twin of loihi", "h200, integer twin of loihi"}  # the same network in integers that say as much
assert set(result.table()["target"]) == {"cpu", "h200", "pcm-hermes", "reram-neurram", "loihi", *twins}
result.plot()
