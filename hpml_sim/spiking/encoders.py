"""How real-valued input becomes the input of every time step: (chips x batch, ...) -> (chips x steps x batch, ...)."""

from __future__ import annotations

import torch
from torch import Tensor

from hpml_sim.errors import HpmlError
from hpml_sim.spiking.time_folding import TimeFolded


def _check_probabilities(what: str, x: Tensor) -> None:
    if not x.is_floating_point():
        raise HpmlError(f"{what} encoder: input has dtype {x.dtype}; it must be floating point, with values in [0, 1]")
    if x.is_meta or x.numel() == 0:
        return
    low, high = (float(bound) for bound in torch.aminmax(x.detach()))
    if not (low >= 0 and high <= 1):
        raise HpmlError(
            f"{what} encoder: the input runs from {low:g} to {high:g}, but it codes values in [0, 1]; "
            "scale the data (x - min) / (max - min), or take Spiking(encoder='direct')"
        )


class DirectEncoder(TimeFolded):
    """The values themselves as a constant current at every step. Differentiable."""

    def forward(self, x: Tensor) -> Tensor:
        """(chips x batch, ...) -> (chips x steps x batch, ...)."""
        by_chip = x.reshape(self.chips, 1, x.shape[0] // self.chips, *x.shape[1:])
        return by_chip.expand(-1, self.steps, *(-1,) * (by_chip.dim() - 2)).reshape(-1, *x.shape[1:])


class RateEncoder(TimeFolded):
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
        from hpml_sim.kernels.rate_encoding import rate_spikes

        _check_probabilities("rate", x)
        if x.is_meta or x.numel() == 0:
            return x.new_zeros((x.shape[0] * self.steps, *x.shape[1:]))
        seed = int(torch.randint(2**62, ())) if self.training else self.seed
        spikes = rate_spikes(x.reshape(self.chips, x.shape[0] // self.chips, -1), self.steps, seed)
        return spikes.reshape(-1, *x.shape[1:])

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        return f"steps={self.steps}, seed={self.seed}"


class LatencyEncoder(TimeFolded):
    """One spike an input: the larger the value in [0, 1], the earlier; the largest at the first step.

    Step = round((1 - x) (steps - 1)); values below `smallest` stay silent. Equals snnTorch's
    `spikegen.latency(linear=True, normalize=True, clip=True)` with smallest = 0. No gradient flows to the input.

    Raises:
        HpmlError: (on call) an input outside [0, 1], or NaN.
    """

    def __init__(self, steps: int = 1, chips: int = 1, *, smallest: float = 0.01):
        super().__init__(steps, chips)
        if not 0 < smallest <= 1:
            raise HpmlError(f"LatencyEncoder: smallest={smallest!r} must lie in (0, 1]")
        self.smallest = smallest

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """(chips x batch, ...) in [0, 1] -> 0 or 1, (chips x steps x batch, ...)."""
        _check_probabilities("latency", x)
        if x.is_meta or x.numel() == 0:
            return x.new_zeros((x.shape[0] * self.steps, *x.shape[1:]))
        by_chip = x.reshape(self.chips, 1, x.shape[0] // self.chips, *x.shape[1:])
        at = torch.round((1 - by_chip) * (self.steps - 1))
        now = torch.arange(self.steps, device=x.device).reshape(1, -1, *(1,) * (by_chip.dim() - 2))
        return ((at == now) & (by_chip >= self.smallest)).to(x.dtype).reshape(-1, *x.shape[1:])


class FramesEncoder(TimeFolded):
    """Input that has its own time: (chips x batch, steps, ...) -> (chips x steps x batch, ...). Differentiable.

    Raises:
        HpmlError: (on call) another number of steps.
    """

    def by_time(self, x: Tensor) -> Tensor:
        """(chips x batch, steps, ...) -> (chips, steps, batch, ...)."""
        if x.dim() < 2 or x.shape[1] != self.steps:
            raise HpmlError(
                f"{type(self).__name__}: input of shape {tuple(x.shape)}; expected (batch, steps, ...) with "
                f"{self.steps} steps: give the data so many frames, or take Spiking(steps={x.shape[1:2]})"
            )
        return x.reshape(self.chips, x.shape[0] // self.chips, *x.shape[1:]).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(chips x batch, steps, ...) -> (chips x steps x batch, ...)."""
        return self.by_time(x).reshape(-1, *x.shape[2:])


class DeltaEncoder(FramesEncoder):
    """Changes of a signal in time: 1 where it rose by `threshold` or more since the step before, -1 where it fell so.

    (chips x batch, steps, ...) -> (chips x steps x batch, ...); the step before the first is 0, or the last one of the
    call before where the model's state goes on. Equals snnTorch's
    `spikegen.delta`. No gradient flows to the input.

    Args:
        threshold: smallest change that gives a spike, > 0. falling: give -1 for falls; otherwise nothing.
    """

    def __init__(self, steps: int = 1, chips: int = 1, *, threshold: float = 0.1, falling: bool = True):
        super().__init__(steps, chips)
        if not threshold > 0:
            raise HpmlError(f"DeltaEncoder: threshold={threshold!r} must be > 0")
        self.threshold = threshold
        self.falling = falling

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """(chips x batch, steps, ...) -> -1, 0 or 1, (chips x steps x batch, ...)."""
        in_time = self.by_time(x)
        start = None if self.carry is None else self.carry.start(in_time[:, 0])
        before = torch.zeros_like(in_time[:, :1]) if start is None else start[0].unsqueeze(1)
        if self.carry is not None:
            self.carry.keep((in_time[:, -1],))
        change = torch.diff(in_time, dim=1, prepend=before)
        spikes = (change >= self.threshold).to(x.dtype)
        if self.falling:
            spikes -= (change <= -self.threshold).to(x.dtype)
        return spikes.reshape(-1, *x.shape[2:])


class PopulationEncoder(TimeFolded):
    """Each value by several neurons with Gaussian tuning curves, whose rates are drawn as `RateEncoder` draws them.

    (chips x batch, channels, ...) -> (chips x steps x batch, fields * channels, ...): neuron k of a value x fires with
    probability exp(-(x - k / (fields - 1))^2 / (2 width^2)); the neurons of one value lie `channels` apart.

    Source: S. M. Bohte, J. N. Kok, H. La Poutre, Neurocomputing 48:17 (2002), section 4.2 (the tuning curves).

    Args:
        fields: neurons a value, >= 2. width: standard deviation; None: 1 / (1.5 (fields - 1)), so that they overlap.
        seed: of the draws, as for `RateEncoder`.
    """

    def __init__(self, steps: int = 1, chips: int = 1, *, fields: int = 8, width: float | None = None, seed: int = 0):
        super().__init__(steps, chips)
        if fields < 2:
            raise HpmlError(f"PopulationEncoder: fields={fields!r} must be >= 2")
        if width is not None and not width > 0:
            raise HpmlError(f"PopulationEncoder: width={width!r} must be > 0")
        self.fields = fields
        self.width = 1 / (1.5 * (fields - 1)) if width is None else width
        self.seed = seed

    def forward(self, x: Tensor) -> Tensor:
        """(chips x batch, channels, ...) in [0, 1] -> 0 or 1, (chips x steps x batch, fields * channels, ...)."""
        if x.dim() < 2:
            raise HpmlError(f"PopulationEncoder: input of shape {tuple(x.shape)}; expected (batch, channels, ...)")
        shape = (x.shape[0], self.fields * x.shape[1], *x.shape[2:])
        _check_probabilities("population", x)
        if x.is_meta or x.numel() == 0:
            return x.new_zeros((shape[0] * self.steps, *shape[1:]))
        centers = torch.linspace(0, 1, self.fields, dtype=x.dtype, device=x.device)
        centers = centers.reshape(-1, *(1,) * (x.dim() - 1))
        rates = torch.exp(-((x.unsqueeze(1) - centers) ** 2) / (2 * self.width**2)).reshape(shape)
        return RateEncoder(self.steps, self.chips, seed=self.seed).train(self.training)(rates)

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        return f"steps={self.steps}, fields={self.fields}, width={self.width:g}, seed={self.seed}"


ENCODERS: dict[str, type[TimeFolded]] = {
    "direct": DirectEncoder,
    "rate": RateEncoder,
    "latency": LatencyEncoder,
    "population": PopulationEncoder,
    "frames": FramesEncoder,
    "delta": DeltaEncoder,
}
