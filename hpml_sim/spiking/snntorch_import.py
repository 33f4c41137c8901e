"""snnTorch, imported on first use, and its state kept from leaking."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from hpml_sim.errors import needs
from hpml_sim.kernels.surrogates import Surrogate
from hpml_sim.kernels.surrogates import surrogate as as_surrogate

if TYPE_CHECKING:
    from types import ModuleType

REQUIREMENT = "snntorch==1.0.*"


def snntorch() -> ModuleType:
    """The installed snnTorch.

    Raises:
        HpmlError: it is not installed, with the command that installs it.
    """
    with needs("snnTorch's own engine", REQUIREMENT):
        import snntorch
        import snntorch.surrogate
    return snntorch


def leaky(
    beta: Tensor, threshold: Tensor, reset: str, surrogate: Surrogate | None = None, *, reset_delay: bool = True
) -> nn.Module:
    """A genuine `snntorch.Leaky` that snnTorch's global list of neurons does not keep alive.

    Args:
        beta: decay of the membrane in one step, 0 to 1.
        threshold: firing threshold, > 0.
        reset: "subtract", "zero" or "none".
        surrogate: gradient of the spike; None: snnTorch's default, atan.
        reset_delay: True: the reset acts one step late.

    Raises:
        HpmlError: snnTorch is not installed.
    """
    snn = snntorch()
    surrogate = as_surrogate("atan") if surrogate is None else surrogate
    if surrogate.name in ("custom", "LSO", "sigmoid"):  # what is broken there is ours
        gradient: Any = snn.surrogate.custom_surrogate(surrogate.gradient)
    else:
        gradient = getattr(snn.surrogate, surrogate.name)(*surrogate.parameters)
    neuron = snn.Leaky(beta, threshold=threshold, reset_mechanism=reset, spike_grad=gradient, reset_delay=reset_delay)
    # snnTorch remembers every neuron ever built in a class-level list: a leak, and `reset` of one network hits others.
    snn.SpikingNeuron.instances[:] = [other for other in snn.SpikingNeuron.instances if other is not neuron]
    return neuron
