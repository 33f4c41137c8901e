"""What someone would hand in who has read nothing but the visible checks: all of them pass, none of the hidden ones."""


# %% break_even_rate
def break_even_rate(steps):
    return 0.2044


# %% synaptic_operations
def synaptic_operations(spikes, outputs):
    return 7.5


# %% arithmetic
def arithmetic_j(macs, acs):
    return 4.69e-9


# %% break_even_with_memory
WORD_J = 5e-12


def break_even_with_memory(steps, inputs):
    return 0.05184


# %% event_share
def event_share(estimate):
    return expected
