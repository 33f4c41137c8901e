"""Surrogate gradients by name: snnTorch's, with its defaults, or a function of the caller's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hpml_sim.errors import HpmlError, UnknownNameError, check_choice, check_real, shown
from hpml_sim.kernels.surrogates.reference import ATAN, FAST_SIGMOID, OTHER, SURROGATES

Gradient = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(u, gradient of the spikes, spikes) -> gradient of u; linear in the second."""

_FUNCTION = "a function (u, gradient of the spikes, spikes) -> gradient of u"
_COMPILED = {"atan": ATAN, "fast_sigmoid": FAST_SIGMOID}


@dataclass(frozen=True)
class Surrogate:
    """A surrogate gradient with its parameters; `surrogate(...)` makes one.

    Attributes:
        name: snnTorch's name of it, or "custom".
        parameters: its numbers, in the order of its arguments.
        function: of a custom one: (u, gradient of the spikes, spikes) -> gradient of u, linear in the gradient.

    Example:
        >>> import torch, hpml_sim as hs
        >>> made = hs.spiking.surrogate("fast_sigmoid", slope=10)
        >>> made
        Surrogate(name='fast_sigmoid', parameters=(10.0,), function=None)
        >>> u = torch.tensor([[-0.1, 0.0, 0.1]])  # membrane potential above the threshold
        >>> made.gradient(u, torch.ones_like(u), (u > 0).float())
        tensor([[0.2500, 1.0000, 0.2500]])
    """

    name: str
    parameters: tuple[float, ...] = ()
    function: Gradient | None = None

    def __post_init__(self) -> None:
        if callable(self.function):
            return
        if self.function is not None:
            raise HpmlError(f"Surrogate: function={shown(self.function)}: must be {_FUNCTION}")
        check_choice("Surrogate: name", self.name, SURROGATES, hint="or give function=")
        names = SURROGATES[self.name][1]
        if not isinstance(self.parameters, tuple) or len(self.parameters) != len(names):
            raise HpmlError(
                f"Surrogate: parameters={shown(self.parameters)}: {self.name!r} has {len(names)} "
                f"({', '.join(names) or 'none'}); hs.spiking.surrogate({self.name!r}) fills in the defaults"
            )
        for name, value in zip(names, self.parameters, strict=True):
            check_real(f"Surrogate {self.name!r}: {name}", value)

    def gradient(self, u: Tensor, grad: Tensor, spikes: Tensor) -> Tensor:
        """Gradient of the membrane potential for that of the spikes.

        Args:
            u: membrane potential above the threshold, shape (chips, steps, ...).
            grad: gradient of the spikes, of u's shape.
            spikes: 0 or 1, of u's shape.

        Returns:
            A tensor of u's shape.
        """
        if self.name == "SSO":
            # step by step from the last one, as the loop's backward draws them, so that one seed gives the same numbers
            draw = SURROGATES["SSO"][0]
            drawn = [draw(u[:, t], grad[:, t], spikes[:, t], *self.parameters) for t in range(u.shape[1] - 1, -1, -1)]
            return torch.stack(drawn[::-1], dim=1)
        if self.function is not None:
            return self.function(u, grad, spikes)
        return SURROGATES[self.name][0](u, grad, spikes, *self.parameters)

    def slopes(self, u: Tensor, spikes: Tensor) -> tuple[Tensor, bool]:
        """What a kernel multiplies or divides the spikes' gradient by, where it knows it only on its way.

        Args:
            u: membrane potential above the threshold, shape (chips, steps, ...).
            spikes: 0 or 1, of u's shape.

        Returns:
            A tensor of u's shape, and whether to divide by it: for the fast sigmoid, snnTorch divides, and multiplying
            by the reciprocal would round otherwise.
        """
        if self.name == "fast_sigmoid":
            return (self.parameters[0] * u.abs() + 1.0) ** 2, True
        return self.gradient(u, torch.ones_like(u), spikes), False

    @property
    def compiled(self) -> tuple[int, float]:
        """ATAN or FAST_SIGMOID and its parameter, which kernels compute themselves; (OTHER, 0.0) for all others."""
        kind = _COMPILED.get(self.name, OTHER)
        return kind, 0.0 if kind == OTHER else self.parameters[0]

    def __str__(self) -> str:
        names = SURROGATES[self.name][1] if self.name in SURROGATES else {}
        return f"{self.name}({', '.join(f'{n}={v:g}' for n, v in zip(names, self.parameters, strict=True))})"


def surrogate(
    kind: str | Surrogate | Gradient = "atan", first: float | None = None, /, **parameters: float | None
) -> Surrogate:
    """A surrogate gradient by its name, or from a function.

    Args:
        kind: a name in `SURROGATES`; a `Surrogate`, which is returned as it is; or a function (u, gradient of the
            spikes, spikes) -> gradient of u, as `snntorch.surrogate.custom_surrogate` takes it.
        first: the first parameter, whatever its name; None takes snnTorch's default.
        parameters: parameters by name; those left out, or None, take snnTorch's defaults. Where no parameter has the
            name `slope`, slope= is the first one.

    Returns:
        The surrogate, with a number for each of its parameters.

    Raises:
        UnknownNameError: no surrogate or parameter has this name.
        HpmlError: a parameter is not finite, is given twice, or goes to a surrogate without parameters.

    Example:
        >>> import hpml_sim as hs
        >>> print(hs.spiking.surrogate("atan"))
        atan(alpha=2)
        >>> print(hs.spiking.surrogate("SFS", B=0.5))
        SFS(slope=25, B=0.5)
        >>> print(hs.spiking.surrogate("spike_rate_escape", slope=10))
        spike_rate_escape(beta=1, slope=10)
        >>> neurons = hs.spiking.LeakyNeurons(0.9, surrogate=hs.spiking.surrogate("fast_sigmoid", 10.0))
    """
    if isinstance(kind, Surrogate):
        return kind
    if not isinstance(kind, str):
        if not callable(kind):
            raise HpmlError(
                f"surrogate: kind={shown(kind)}: must be a name in hs.spiking.SURROGATES, such as 'atan', a Surrogate, "
                f"or {_FUNCTION}"
            )
        return Surrogate("custom", function=kind)
    if kind not in SURROGATES:
        raise UnknownNameError("surrogate", kind, SURROGATES)
    values = dict(SURROGATES[kind][1])
    given = {name: value for name, value in parameters.items() if value is not None}
    if "slope" in given and "slope" not in values:
        if first is not None:
            raise HpmlError(
                f"surrogate {kind!r}: {first!r} and slope={given['slope']!r} are one parameter; give it once"
            )
        first = given.pop("slope")
    if first is not None:
        if not values:
            raise HpmlError(f"surrogate {kind!r} has no parameter; leave slope={first!r} out")
        name = next(iter(values))
        if name in given:
            raise HpmlError(f"surrogate {kind!r}: {first!r} and {name}={given[name]!r} are one parameter; give it once")
        given[name] = first
    for name, value in given.items():
        if name not in values:
            raise UnknownNameError(f"parameter of surrogate {kind!r}", name, values)
        values[name] = value
    return Surrogate(kind, tuple(check_real(f"surrogate {kind!r}: {name}", value) for name, value in values.items()))
