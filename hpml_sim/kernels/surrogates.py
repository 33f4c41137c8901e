"""Surrogate gradients: what stands in for the derivative of the step H(u) on the way back.

Every one of snnTorch 1.0's, by its name there and with its operations in its order, so that gradients are equal bit for
bit. Two are mended: `sigmoid` is NaN in snnTorch for slope * u below about -88 and 0 here; `LSO` raises there and has
here the gradient that its documentation gives, 1 above the threshold and `slope` below.

Source: snntorch 1.0.0, `surrogate.py` (E. O. Eshraghian et al., Proc. IEEE 111:1016, 2023).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hpml_sim.errors import HpmlError, UnknownNameError

Gradient = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(u, gradient of the spikes, spikes) -> gradient of u; linear in the second."""


def _straight_through(u: Tensor, grad: Tensor, spikes: Tensor) -> Tensor:
    return grad


def _triangular(u: Tensor, grad: Tensor, spikes: Tensor, threshold: float) -> Tensor:
    scaled = grad * threshold
    return torch.where(u >= 0, -scaled, scaled)


def _fast_sigmoid(u: Tensor, grad: Tensor, spikes: Tensor, slope: float) -> Tensor:
    return grad / (slope * u.abs() + 1.0) ** 2


def _atan(u: Tensor, grad: Tensor, spikes: Tensor, alpha: float) -> Tensor:
    return alpha / 2 / (1 + (torch.pi / 2 * alpha * u) ** 2) * grad


def _heaviside(u: Tensor, grad: Tensor, spikes: Tensor) -> Tensor:
    return grad * spikes


def _sigmoid(u: Tensor, grad: Tensor, spikes: Tensor, slope: float) -> Tensor:
    e = torch.exp(-slope * u)
    return torch.where(torch.isinf(e), torch.zeros_like(e), grad * slope * e / ((e + 1) ** 2))


def _spike_rate_escape(u: Tensor, grad: Tensor, spikes: Tensor, beta: float, slope: float) -> Tensor:
    return grad * slope * torch.exp(-beta * torch.abs(u - 1))


def _stochastic(u: Tensor, grad: Tensor, spikes: Tensor, mean: float, variance: float) -> Tensor:
    below = (torch.rand_like(u) - 0.5 + mean) * variance
    return grad * spikes + (grad * (1 - spikes)) * below


def _leaky(u: Tensor, grad: Tensor, spikes: Tensor, slope: float) -> Tensor:
    return grad * spikes + (1 - spikes) * slope * grad


def _sparse_fast_sigmoid(u: Tensor, grad: Tensor, spikes: Tensor, slope: float, B: float) -> Tensor:
    return grad / (slope * u.abs() + 1.0) ** 2 * (u > B).to(u.dtype)


SURROGATES: dict[str, tuple[Callable[..., Tensor], dict[str, float]]] = {
    "atan": (_atan, {"alpha": 2.0}),
    "fast_sigmoid": (_fast_sigmoid, {"slope": 25.0}),
    "straight_through_estimator": (_straight_through, {}),
    "triangular": (_triangular, {"threshold": 1.0}),
    "heaviside": (_heaviside, {}),
    "sigmoid": (_sigmoid, {"slope": 25.0}),
    "spike_rate_escape": (_spike_rate_escape, {"beta": 1.0, "slope": 25.0}),
    "SSO": (_stochastic, {"mean": 0.0, "variance": 0.2}),
    "LSO": (_leaky, {"slope": 0.1}),
    "SFS": (_sparse_fast_sigmoid, {"slope": 25.0, "B": 1.0}),
}
"""Name in snnTorch -> (gradient, its parameters with snnTorch's defaults, in the order of its arguments)."""

_COMPILED = {"atan": 0, "fast_sigmoid": 1}


@dataclass(frozen=True)
class Surrogate:
    """A surrogate gradient with its parameters; `surrogate(...)` makes one.

    Attributes:
        name: snnTorch's name of it, or "custom". parameters: in the order of its arguments.
        function: a custom one: (u, gradient of the spikes, spikes) -> gradient of u, linear in the gradient.
    """

    name: str
    parameters: tuple[float, ...] = ()
    function: Gradient | None = None

    def gradient(self, u: Tensor, grad: Tensor, spikes: Tensor) -> Tensor:
        """Gradient of u = membrane - threshold, for that of the spikes; all of one shape, time in dimension 1."""
        if self.name == "SSO":
            # step by step from the last one, as the loop's backward draws them, so that one seed gives the same numbers
            drawn = [
                _stochastic(u[:, t], grad[:, t], spikes[:, t], *self.parameters) for t in range(u.shape[1] - 1, -1, -1)
            ]
            return torch.stack(drawn[::-1], dim=1)
        if self.function is not None:
            return self.function(u, grad, spikes)
        return SURROGATES[self.name][0](u, grad, spikes, *self.parameters)

    def slopes(self, u: Tensor, spikes: Tensor) -> tuple[Tensor, bool]:
        """dS/du of each element, and whether to divide by it (its reciprocal is given, for equal rounding)."""
        if self.name == "fast_sigmoid":
            return (self.parameters[0] * u.abs() + 1.0) ** 2, True
        return self.gradient(u, torch.ones_like(u), spikes), False

    @property
    def compiled(self) -> tuple[int, float]:
        """(number, parameter) of those that the kernels compute themselves; (2, 0.0) for all others."""
        kind = _COMPILED.get(self.name, 2)
        return kind, self.parameters[0] if kind < 2 else 0.0

    def __str__(self) -> str:
        names = SURROGATES[self.name][1] if self.name in SURROGATES else {}
        return f"{self.name}({', '.join(f'{n}={v:g}' for n, v in zip(names, self.parameters, strict=True))})"


def surrogate(kind: str | Surrogate | Gradient = "atan", slope: float | None = None, **parameters: float) -> Surrogate:
    """A surrogate gradient by its name, or from a function.

    Args:
        kind: a name in `SURROGATES`; a `Surrogate`, which is returned as it is; or a function (u, gradient of the
            spikes, spikes) -> gradient of u, as `snntorch.surrogate.custom_surrogate` takes it.
        slope: the first parameter, whatever its name; None takes snnTorch's default.
        parameters: parameters by name.

    Raises:
        UnknownNameError: no surrogate or parameter has this name. HpmlError: a parameter that is not finite.
    """
    if isinstance(kind, Surrogate):
        return kind
    if not isinstance(kind, str):
        return Surrogate("custom", function=kind)
    if kind not in SURROGATES:
        raise UnknownNameError("surrogate", kind, SURROGATES)
    values = dict(SURROGATES[kind][1])
    for name, value in parameters.items():
        if name not in values:
            raise UnknownNameError(f"parameter of surrogate {kind!r}", name, values)
        values[name] = float(value)
    if slope is not None:
        if not values:
            raise HpmlError(f"surrogate {kind!r} has no parameter; leave slope={slope!r} out")
        values[next(iter(values))] = float(slope)
    for name, value in values.items():
        if not math.isfinite(value):
            raise HpmlError(f"surrogate {kind!r}: {name}={value!r} must be finite")
    return Surrogate(kind, tuple(values.values()))
