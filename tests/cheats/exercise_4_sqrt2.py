"""Answers of the visible checks, hard-coded."""


# %% measured_noise
def measured_noise(exact, noisy):
    return 0.0851


# %% first_jump
def first_jump(noise_at, low, high, limit=0.07):
    return 513


# %% predicted_noise
def predicted_noise(sigma, inputs, rows):
    return 0.0849


# %% noise_with_rounding
def noise_with_rounding(sigma, inputs, rows, bits, adc_range=10.0):
    return 0.0907
