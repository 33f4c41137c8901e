"""Answers of the visible checks, hard-coded."""


# %% drifted
def drifted(g0_us, time_s, nu, t0_s=20.0):
    return 0.658


# %% compensation
def compensation(reference, now):
    return 2.0


# %% residual_spread
def residual_spread(nu_std, time_s, t0_s=20.0):
    return 0.067


# %% calibration_interval_s
def calibration_interval_s(error, calibrated_at_s, nu):
    return 819.6
