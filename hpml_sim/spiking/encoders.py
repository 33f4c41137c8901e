"""How real-valued input becomes the input of every time step: (chips x batch, ...) -> (chips x steps x batch, ...)."""

from __future__ import annotations

import torch
from torch import Tensor

from hpml_sim.errors import HpmlError
from hpml_sim.spiking.neurons import InTime


class DirectEncoder(InTime):
    """The values themselves as a constant current at every step. Differentiable."""

    def forward(self, x: Tensor) -> Tensor:
        """(chips x batch, ...) -> (chips x steps x batch, ...)."""
        by_chip = x.reshape(self.chips, 1, x.shape[0] // self.chips, *x.shape[1:])
        return by_chip.expand(-1, self.steps, *(-1,) * (by_chip.dim() - 2)).reshape(-1, *x.shape[1:])


class RateEncoder(InTime):
    """Bernoulli spikes: a value in [0, 1] is the probability of a spike at each step, drawn independently.

    In evaluation mode the draws depend on `seed` and on the sample's values alone: the same sample gives the same
    spikes in whatever batch, order, process or device. In training mode each call takes a new seed from torch's default
    generator (`torch.manual_seed` or `hs.fit(seed=)` rules it). No gradient flows to the input.

    Raises:
        HpmlError: (on call) an input outside [0, 1], or NaN.
    """

    def __init__(self, steps: int = 1, chips: int = 1, *, seed: int = 0):
        super().__init__(steps, chips)
        self.seed = seed

    def forward(self, x: Tensor) -> Tensor:
        """(chips x batch, ...) in [0, 1] -> 0 or 1, (chips x steps x batch, ...)."""
        from hpml_sim.kernels.rate import rate_spikes

        if not x.is_floating_point():
            raise HpmlError(
                f"rate encoder: input has dtype {x.dtype}; it must be floating point, with values in [0, 1]"
            )
        if x.is_meta or x.numel() == 0:
            return x.new_zeros((x.shape[0] * self.steps, *x.shape[1:]))
        low, high = (float(bound) for bound in torch.aminmax(x.detach()))
        if not (low >= 0 and high <= 1):
            raise HpmlError(
                f"rate encoder: the input runs from {low:g} to {high:g}, but a spike's probability lies in [0, 1]; "
                "scale the data (x - min) / (max - min), or take Spiking(encoder='direct')"
            )
        seed = int(torch.randint(2**62, ())) if self.training else self.seed
        spikes = rate_spikes(x.reshape(self.chips, x.shape[0] // self.chips, -1), self.steps, seed)
        return spikes.reshape(-1, *x.shape[1:])

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        return f"steps={self.steps}, seed={self.seed}"


ENCODERS: dict[str, type[InTime]] = {"direct": DirectEncoder, "rate": RateEncoder}
