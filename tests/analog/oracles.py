"""The formulas of the papers and of aihwkit's documentation in float64 numpy, and the numerics of one product.

Nothing here is imported from the package: coefficients are typed in again.
"""

import numpy as np
from scipy.stats import norm

# ---------------------------------------------------------------------------- what clamps do to a normal distribution


def rectified(mean, sd):
    """Mean and standard deviation of max(0, N(mean, sd))."""
    z = mean / sd
    first = mean * norm.cdf(z) + sd * norm.pdf(z)
    second = (mean**2 + sd**2) * norm.cdf(z) + mean * sd * norm.pdf(z)
    return first, np.sqrt(second - first**2)


def folded(mean, sd):
    """Mean and standard deviation of |N(mean, sd)|."""
    first = sd * np.sqrt(2 / np.pi) * np.exp(-(mean**2) / (2 * sd**2)) + mean * (1 - 2 * norm.cdf(-mean / sd))
    return first, np.sqrt(mean**2 + sd**2 - first**2)


# --------------------------------------------------------------------------------------------------- PCM, ICECS 2019


def pcm_programming_us(r):
    return 0.26348 + 1.9650 * r - 1.1731 * r**2


def pcm_nu(r):
    r = max(r, 1e-7)
    return (
        float(np.clip(-0.0155 * np.log(r) + 0.0244, 0.049, 0.1)),
        float(np.clip(-0.0125 * np.log(r) - 0.0059, 0.008, 0.045)),
    )


def pcm_q(r):
    return np.minimum(0.0088 / np.maximum(r**0.65, 1e-3), 0.2)


def read_factor(t, t_read):
    return np.sqrt(np.log((t + t_read) / (2 * t_read)))


# ------------------------------------------------------------------------------- HERMES (Nature Electronics 6, 2023)


def hermes_programming_us(r, devices):
    c = {
        1: (0.15781817, 2.32443916, -2.16310839, 0.68841818),
        2: (0.16603222, 4.71806468, -8.48101252, 4.68961419),
    }[devices]
    return c[0] + c[1] * r + c[2] * r**2 + c[3] * r**3


def hermes_nu(r, devices):
    r = max(r, 1e-7)
    mean = np.clip(-0.0387 * np.log(r) - 0.0182, 0.0720, 0.13) if r < 0.0945 else -0.0436 * r**2 - 0.0126 * r + 0.0736
    if devices == 1:
        low = np.clip(-0.0120 * np.log(r) - 0.0023, 0.0124, 0.04)
        sd = low if r < 0.3039 else -0.0165 * r**2 + 0.0116 * r + 0.0104
    else:
        low = np.clip(-0.0117 * np.log(r) - 0.0057, 0.0091, 0.04)
        sd = low if r < 0.3055 else -0.0118 * r**2 + 0.0093 * r + 0.0073
    return float(mean), float(sd)


def hermes_q(r, devices):
    with np.errstate(divide="ignore"):
        if devices == 1:
            low = np.clip(-0.0078 * np.log(r) + 0.0038, 0.0179, 0.04)
            return np.where(r < 0.1591, low, 0.0664 * r**3 - 0.1352 * r**2 + 0.0768 * r + 0.0088)
        low = np.clip(-0.0117 * np.log(r) - 0.0069, 0.015, 0.04)
        return np.where(r < 0.16, low, 0.0069 * r**3 - 0.0280 * r**2 + 0.0211 * r + 0.0123)


# ----------------------------------------------------------------------------------------- ReRAM (Nature 608, 2022)

WAN = {
    1.0: (0.348, 16.030, -43.853, 45.393, -16.815),
    86400.0: (0.701, 22.086, -50.773, 47.095, -16.458),
    172800.0: (0.782, 20.274, -43.507, 37.062, -11.934),
}


def wan_us(r, t):
    return sum(c * r**i for i, c in enumerate(WAN[t]))


def crosssim_joshi_us(g_us):
    """CrossSim's own fit of the PCM data of Joshi et al. 2020 (`PCM_Joshi.py`): a second source."""
    return -0.00178767 * g_us**2 + 0.07585724 * g_us + 0.28638599


def crosssim_wan_us(g_us):
    """CrossSim's own fit of the ReRAM data of Wan et al. 2022 (`RRAM_Wan.py`), a second after programming."""
    return 1.536e-4 * g_us**3 - 1.167e-2 * g_us**2 + 0.2374 * g_us + 1.053


# ---------------------------------------------------------------------------------------------------------- products


def product(x, weight, *, dac_bits, adc_bits, bound, rows, input_range):
    """y = x @ weight.T through converters: x (n, inputs), weight (outputs, inputs); tiles of equal height <= rows."""
    n, inputs = x.shape
    pieces = -(-inputs // rows)
    height = -(-inputs // pieces)
    dac, adc = 2 ** (dac_bits - 1) - 1, 2 ** (adc_bits - 1) - 1
    y = np.zeros((n, len(weight)))
    for v in range(n):
        a = input_range if input_range else (np.abs(x[v]).max() or 1.0)
        for piece in range(pieces):
            part = slice(piece * height, min(inputs, (piece + 1) * height))
            codes = np.clip(np.rint(x[v, part] / a * dac), -dac, dac) / dac
            full = np.abs(weight[:, part]).max(axis=1)
            full[full == 0] = 1.0
            net = (weight[:, part] / full[:, None]) @ codes
            extra = 1.0
            if not input_range:
                while np.abs(net / extra).max() > bound:
                    extra *= 2
            out = np.clip(np.rint(net / extra * adc / bound), -adc, adc) * bound / adc
            y[v] += out * extra * full * a
    return y
