"""The two surrogates that compiled kernels compute themselves, in numba."""

from __future__ import annotations

import numpy as np
from numba import njit

from hpml_sim.kernels.surrogates.reference import ATAN


@njit(cache=True, nogil=True, fastmath=False, error_model="numpy")
def write_over(u, grad, slopes, kind, parameter):
    """Write the surrogate's gradient over u.

    Args:
        u: membrane potentials above the threshold, float32 or float64, shape (elements,); becomes the result:
            `Surrogate.gradient`, or `Surrogate.slopes` if `slopes`.
        grad: gradient of the spikes, as u; not read if `slopes`.
        slopes: leave the spikes' gradient out.
        kind: ATAN or FAST_SIGMOID.
        parameter: alpha or slope.
    """
    one = u.dtype.type(1)  # of the data's type, or numba would compute in float64
    half = u.dtype.type(parameter / 2)
    steep = u.dtype.type(np.pi / 2 * parameter if kind == ATAN else parameter)
    if kind == ATAN:
        for n in range(u.size):
            v = steep * u[n]
            u[n] = one / (one + v * v) * half
        if not slopes:
            for n in range(u.size):
                u[n] *= grad[n]
    else:
        for n in range(u.size):
            v = steep * abs(u[n]) + one
            u[n] = v * v
        if not slopes:
            for n in range(u.size):
                u[n] = grad[n] / u[n]
