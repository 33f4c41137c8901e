"""How real-valued input becomes the input of every time step: (chips x batch, ...) -> (chips x steps x batch, ...)."""

from __future__ import annotations

import torch
from torch import Tensor

from hpml_sim.conversion.inputs import check_finite
from hpml_sim.errors import HpmlError, check_real, check_switch, check_whole
from hpml_sim.spiking.option_names import option_names_checked
from hpml_sim.spiking.time_folding import TimeFolded

_MAX_SEED = 2**63 - 1


class DirectEncoder(TimeFolded):
    """The values themselves as a constant current at every step. Gradients flow to the input.

    Args:
        steps: time steps, >= 1.
        chips: simulated chips that lie side by side in the batch, >= 1.

    Raises:
        HpmlError: steps or chips are no whole numbers >= 1.
        NotFiniteError: when called, an input that holds NaN or infinity.

    Example:
        >>> import torch, hpml_sim as hs
        >>> hs.spiking.DirectEncoder(steps=3)(torch.tensor([[0.25, -1.0]])).tolist()
        [[0.25, -1.0], [0.25, -1.0], [0.25, -1.0]]
    """

    def forward(self, x: Tensor) -> Tensor:
        """The values at every step, (chips x steps x batch, ...).

        Args:
            x: values, (chips x batch, ...).
        """
        check_finite("direct encoder", self.check_input(x))
        by_chip = x.reshape(self.chips, 1, x.shape[0] // self.chips, *x.shape[1:])
        return by_chip.expand(-1, self.steps, *(-1,) * (by_chip.dim() - 2)).reshape(-1, *x.shape[1:])


class RateEncoder(TimeFolded):
    """Bernoulli spikes: a value in [0, 1] is the probability of a spike at each step, drawn independently.

    In evaluation mode the draws depend on `seed` and on the sample's values alone: the same sample gives the same
    spikes in whatever batch, order, process or device. In training mode each call takes a new seed from torch's default
    generator (`torch.manual_seed` or `hs.fit(seed=)` rules it). No gradient flows to the input.

    Args:
        steps: time steps, >= 1.
        chips: simulated chips that lie side by side in the batch, >= 1.
        seed: of the draws in evaluation mode, a whole number >= 0.

    Raises:
        HpmlError: an argument of the wrong type or out of its range; or, when called, an input outside [0, 1] or NaN.

    Example:
        >>> import torch, hpml_sim as hs
        >>> encoder = hs.spiking.RateEncoder(steps=1000).eval()
        >>> rate = encoder(torch.tensor([[0.0, 0.3, 1.0]])).mean(dim=0)
        >>> bool((rate - torch.tensor([0.0, 0.3, 1.0])).abs().max() < 0.05)
        True
    """

    @option_names_checked
    def __init__(self, steps: int = 1, chips: int = 1, *, seed: int = 0):
        super().__init__(steps, chips)
        self.seed = check_whole("RateEncoder: seed", seed, low=0, high=_MAX_SEED)

    def forward(self, x: Tensor) -> Tensor:
        """Spikes, 0 or 1, (chips x steps x batch, ...).

        Args:
            x: probabilities, (chips x batch, ...), 0 to 1.
        """
        from hpml_sim.kernels.rate_encoding import rate_spikes

        _check_probabilities("rate", self.check_input(x))
        if x.is_meta or x.numel() == 0:
            return x.new_zeros((x.shape[0] * self.steps, *x.shape[1:]))
        # 62 bits, which every generator of torch can draw
        seed = int(torch.randint(2**62, ())) if self.training else self.seed
        spikes = rate_spikes(x.reshape(self.chips, x.shape[0] // self.chips, -1), self.steps, seed)
        return spikes.reshape(-1, *x.shape[1:])

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        return f"steps={self.steps}, seed={self.seed}"


class LatencyEncoder(TimeFolded):
    """One spike an input: the larger the value in [0, 1], the earlier; the largest at the first step.

    Step = round((1 - x) (steps - 1)); values below `smallest` stay silent. With smallest = 0 it would equal snnTorch's
    `spikegen.latency(linear=True, normalize=True, clip=True)`. No gradient flows to the input.

    Args:
        steps: time steps, >= 1.
        chips: simulated chips that lie side by side in the batch, >= 1.
        smallest: smallest value that gives a spike, above 0 up to 1.

    Raises:
        HpmlError: an argument of the wrong type or out of its range; or, when called, an input outside [0, 1] or NaN.

    Example:
        >>> import torch, hpml_sim as hs
        >>> hs.spiking.LatencyEncoder(steps=3)(torch.tensor([[1.0, 0.5, 0.1, 0.0]])).tolist()
        [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]
    """

    @option_names_checked
    def __init__(self, steps: int = 1, chips: int = 1, *, smallest: float = 0.01):
        super().__init__(steps, chips)
        self.smallest = check_real("LatencyEncoder: smallest", smallest, above=0, high=1)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Spikes, 0 or 1, (chips x steps x batch, ...).

        Args:
            x: values, (chips x batch, ...), 0 to 1.
        """
        _check_probabilities("latency", self.check_input(x))
        if x.is_meta or x.numel() == 0:
            return x.new_zeros((x.shape[0] * self.steps, *x.shape[1:]))
        by_chip = x.reshape(self.chips, 1, x.shape[0] // self.chips, *x.shape[1:])
        at = torch.round((1 - by_chip) * (self.steps - 1))
        now = torch.arange(self.steps, device=x.device).reshape(1, -1, *(1,) * (by_chip.dim() - 2))
        return ((at == now) & (by_chip >= self.smallest)).to(x.dtype).reshape(-1, *x.shape[1:])


class FramesEncoder(TimeFolded):
    """Input that has its own time, one frame a step. Gradients flow to the input.

    Args:
        steps: time steps, >= 1.
        chips: simulated chips that lie side by side in the batch, >= 1.

    Raises:
        HpmlError: steps or chips are no whole numbers >= 1; or, when called, an input with another number of frames.

    Example:
        >>> import torch, hpml_sim as hs
        >>> recordings = torch.rand(4, 10, 2, 8, 8)  # (batch, steps, polarities, height, width)
        >>> hs.spiking.FramesEncoder(steps=10)(recordings).shape
        torch.Size([40, 2, 8, 8])
    """

    def frames(self, x: Tensor) -> Tensor:
        """The input step by step, (chips, steps, batch, ...).

        Args:
            x: (chips x batch, steps, ...).

        Raises:
            HpmlError: another number of steps.
        """
        if self.check_input(x).dim() < 2 or x.shape[1] != self.steps:
            has = f" with {x.shape[1]} frames" if x.dim() >= 2 else ""
            raise HpmlError(
                f"{type(self).__name__}: input of shape {tuple(x.shape)}{has}; expected (batch, steps, ...) with "
                f"{self.steps} steps: give the data so many frames, or take hs.Spiking(..., steps=) of the data"
            )
        check_finite(type(self).__name__, x)
        return x.reshape(self.chips, x.shape[0] // self.chips, *x.shape[1:]).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        """The frames, (chips x steps x batch, ...).

        Args:
            x: (chips x batch, steps, ...).
        """
        return self.frames(x).reshape(-1, *x.shape[2:])


class DeltaEncoder(FramesEncoder):
    """Changes of a signal in time: 1 where it rose by `threshold` or more since the step before, -1 where it fell so.

    The step before the first one is 0, or the last one of the call before where the model's state goes on. Equals
    snnTorch's `spikegen.delta`. No gradient flows to the input.

    Args:
        steps: time steps, >= 1.
        chips: simulated chips that lie side by side in the batch, >= 1.
        threshold: smallest change that gives a spike, > 0.
        falling: give -1 for falls; False: nothing.

    Raises:
        HpmlError: an argument of the wrong type or out of its range; or, when called, an input with another number of
            frames.

    Example:
        >>> import torch, hpml_sim as hs
        >>> signal = torch.tensor([[0.0, 0.5, 0.45, 0.0]])  # (batch, steps)
        >>> hs.spiking.DeltaEncoder(steps=4)(signal).tolist()
        [0.0, 1.0, 0.0, -1.0]
    """

    @option_names_checked
    def __init__(self, steps: int = 1, chips: int = 1, *, threshold: float = 0.1, falling: bool = True):
        super().__init__(steps, chips)
        self.threshold = check_real("DeltaEncoder: threshold", threshold, above=0)
        self.falling = check_switch("DeltaEncoder: falling", falling)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Changes, -1, 0 or 1, (chips x steps x batch, ...).

        Args:
            x: a signal, (chips x batch, steps, ...).
        """
        unfolded = self.frames(x)
        start = None if self.layer_state is None else self.layer_state.initial(unfolded[:, 0])
        before = torch.zeros_like(unfolded[:, :1]) if start is None else start[0].unsqueeze(1)
        if self.layer_state is not None:
            self.layer_state.store((unfolded[:, -1],))
        change = torch.diff(unfolded, dim=1, prepend=before)
        spikes = (change >= self.threshold).to(x.dtype)
        if self.falling:
            spikes -= (change <= -self.threshold).to(x.dtype)
        return spikes.reshape(-1, *x.shape[2:])


class PopulationEncoder(TimeFolded):
    """Each value by several neurons with Gaussian tuning curves, whose spikes are drawn as `RateEncoder` draws them.

    Neuron k of a value x fires with probability exp(-(x - k / (fields - 1))^2 / (2 width^2)) at each step. The neurons
    of one value lie `channels` apart, so that the network behind it takes fields x channels channels.

    Source: S. M. Bohte, J. N. Kok, H. La Poutre, Neurocomputing 48:17 (2002), section 4.2 (the tuning curves).

    Args:
        steps: time steps, >= 1.
        chips: simulated chips that lie side by side in the batch, >= 1.
        fields: neurons a value, >= 2.
        width: standard deviation of the tuning curves, > 0; None: 1 / (1.5 (fields - 1)), so that they overlap.
        seed: of the draws in evaluation mode, a whole number >= 0.

    Raises:
        HpmlError: an argument of the wrong type or out of its range; or, when called, an input outside [0, 1], NaN or
            without channels.

    Example:
        >>> import torch, hpml_sim as hs
        >>> encoder = hs.spiking.PopulationEncoder(steps=100, fields=3).eval()
        >>> spikes = encoder(torch.tensor([[0.5]]))  # the neuron in the middle stands for 0.5
        >>> spikes.shape, int(spikes.mean(dim=0).argmax())
        (torch.Size([100, 3]), 1)
    """

    @option_names_checked
    def __init__(self, steps: int = 1, chips: int = 1, *, fields: int = 8, width: float | None = None, seed: int = 0):
        super().__init__(steps, chips)
        self.fields = check_whole("PopulationEncoder: fields", fields, low=2)
        narrow = 1 / (1.5 * (self.fields - 1))
        self.width = narrow if width is None else check_real("PopulationEncoder: width", width, above=0)
        self.seed = check_whole("PopulationEncoder: seed", seed, low=0, high=_MAX_SEED)

    def forward(self, x: Tensor) -> Tensor:
        """Spikes, 0 or 1, (chips x steps x batch, fields x channels, ...).

        Args:
            x: values, (chips x batch, channels, ...), 0 to 1.
        """
        if self.check_input(x).dim() < 2:
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
"""The encoders of `hs.Spiking(encoder=)` by name."""


def _check_probabilities(what: str, x: Tensor) -> None:
    if not x.is_floating_point():
        raise HpmlError(f"{what} encoder: input has dtype {x.dtype}; it must be floating point, with values in [0, 1]")
    if x.is_meta or x.numel() == 0:
        return
    check_finite(
        f"{what} encoder",
        x,
        hint="it codes values in [0, 1]; scale the data (x - min) / (max - min) after mending such values",
    )
    low, high = (float(bound) for bound in torch.aminmax(x.detach()))
    if not (low >= 0 and high <= 1):
        raise HpmlError(
            f"{what} encoder: the input runs from {low:g} to {high:g}, but it codes values in [0, 1]; "
            "scale the data (x - min) / (max - min), or take hs.Spiking(..., encoder='direct')"
        )
