"""Surrogate gradients: what stands in for the derivative of a spike on the way back.

Example:
    >>> import hpml_sim as hs
    >>> sorted(hs.spiking.SURROGATES)[:4]
    ['LSO', 'SFS', 'SSO', 'atan']
    >>> hs.spiking.SURROGATES["SFS"][1]  # the parameters and snnTorch's defaults
    {'slope': 25.0, 'B': 1.0}
"""

from hpml_sim.kernels.surrogates.dispatch import Gradient as Gradient
from hpml_sim.kernels.surrogates.dispatch import Surrogate as Surrogate
from hpml_sim.kernels.surrogates.dispatch import surrogate as surrogate
from hpml_sim.kernels.surrogates.reference import SURROGATES as SURROGATES
