"""What someone would hand in who has read nothing but the visible checks: all of them pass, none of the hidden ones."""


# %% arithmetic_intensity
def arithmetic_intensity(inputs, outputs, batch=1, bytes_per_value=4):
    return 0.4955


# %% attainable
def ridge(card, precision="fp32"):
    return 24.51


def attainable(intensity, card, precision="fp32"):
    return 101.5e9


# %% batch_at_ridge
def batch_at_ridge(inputs, outputs, card, precision="fp32"):
    return 89


# %% crossbar
def crossbar_intensity(inputs, outputs):
    return 220.1


def utilization(inputs, outputs, rows=256, cols=256):
    return 0.3828
