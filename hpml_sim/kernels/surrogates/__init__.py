"""Surrogate gradients: what stands in for the derivative of a spike on the way back."""

from hpml_sim.kernels.surrogates.dispatch import SURROGATES as SURROGATES
from hpml_sim.kernels.surrogates.dispatch import Gradient as Gradient
from hpml_sim.kernels.surrogates.dispatch import Surrogate as Surrogate
from hpml_sim.kernels.surrogates.dispatch import surrogate as surrogate
