"""The hot loops, one file an operation: torch reference, numba CPU and numba-CUDA side by side.

These modules import numba; the rest of the package imports them only when it first needs them.
"""
