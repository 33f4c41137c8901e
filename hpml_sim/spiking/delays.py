"""Delays that are learned: of all that a neuron sends (axonal), or of each connection (synaptic)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from hpml_sim.errors import HpmlError, NotFiniteError, check_switch, check_whole, shown
from hpml_sim.spiking.neurons.parameters import as_tensor, text_of
from hpml_sim.spiking.option_names import option_names_checked
from hpml_sim.spiking.time_folding import TimeFolded


class _Delayed(TimeFolded):
    """Delays of some shape, and what they need of the steps before a call.

    Args:
        shape: of the delays.
        max_delay: steps, >= 1.
        delay: at the beginning, steps, 0 to max_delay; None: drawn, each whole number alike.
        seed: of the draws.
        learn: make the delays a parameter.
        steps: time steps, >= 1.
        chips: simulated chips that lie side by side in the batch, >= 1.
    """

    delay: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        max_delay: int,
        delay: float | Tensor | None,
        seed: int,
        learn: bool,
        steps: int,
        chips: int,
    ):
        super().__init__(steps, chips)
        who = type(self).__name__
        self.max_delay = check_whole(f"{who}: max_delay", max_delay, low=1)
        generator = torch.Generator().manual_seed(check_whole(f"{who}: seed", seed, low=0))
        drawn = torch.randint(0, self.max_delay + 1, shape, generator=generator)
        given = drawn if delay is None else as_tensor(f"{who}: delay", delay)
        if not bool(((given >= 0) & (given <= self.max_delay)).all()):
            raise HpmlError(f"{who}: delay={text_of(given)}: must lie in [0, max_delay={self.max_delay}] steps")
        try:
            value = given.detach().to(torch.get_default_dtype()).expand(shape).clone()
        except RuntimeError as error:
            raise HpmlError(f"{who}: delay of shape {tuple(given.shape)} does not fit {shape}") from error
        if check_switch(f"{who}: learn", learn):
            self.delay = nn.Parameter(value)
        else:
            self.register_buffer("delay", value)

    def steps_late(self) -> Tensor:
        """The delays as they act: within their limits, in evaluation mode rounded to whole steps, as on a chip.

        Raises:
            NotFiniteError: a delay that is NaN, as a training that failed leaves it.
        """
        if not (self.delay.is_meta or torch.compiler.is_compiling()) and bool(torch.isnan(self.delay).any()):
            raise NotFiniteError(f"{type(self).__name__}: a delay is NaN; train anew, with a smaller learning rate")
        delay = self.delay.clamp(0, self.max_delay)
        return delay if self.training else delay.round()

    def with_history(self, x: Tensor) -> Tensor:
        """The values of the steps before the call, `max_delay` of them, then those of the call.

        Args:
            x: (chips, steps, batch, ...).

        Raises:
            HpmlError: a sequence that begins with this call and is not longer than the longest delay.
        """
        if self.layer_state is None and self.max_delay >= self.steps:
            raise HpmlError(
                f"{type(self).__name__}: max_delay={self.max_delay} with {self.steps} steps: what is delayed so long "
                "never arrives; max_delay must be below the steps"
            )
        before = None if self.layer_state is None else self.layer_state.initial(x[:, 0])
        past = x.new_zeros(x.shape[0], self.max_delay, *x.shape[2:]) if before is None else torch.stack(before, 1)
        values = torch.cat([past, x], 1)
        if self.layer_state is not None:
            self.layer_state.store(values[:, values.shape[1] - self.max_delay :].unbind(1))
        return values


class AxonalDelays(_Delayed):
    """Spikes that arrive later, those of each neuron by a number of steps of its own, which is learned.

    In training a delay between two whole numbers divides a spike among the two steps, so that it has a gradient; in
    evaluation delays are rounded to whole steps. Put it behind neurons, before the layer that reads their spikes.

    Source: I. Hammouamri et al., ICLR 2024, arXiv:2306.17670 (learned by interpolation, rounded for evaluation).

    Args:
        shape: of one sample, such as 64 or (16, 1, 1): one delay for each of its entries, broadcasting to a sample.
        max_delay: steps, >= 1, below the steps of a call.
        delay: at the beginning, steps, 0 to max_delay; a number, or a tensor that broadcasts to `shape`; None: drawn.
        seed: of the draws.
        learn: make the delays a parameter.
        steps: time steps, >= 1.
        chips: simulated chips that lie side by side in the batch, >= 1.

    Attributes:
        delay: steps, of the shape given.
        max_delay: the limit of each.

    Raises:
        HpmlError: a value of the wrong type or out of its range, or, when called, fewer steps than delays need.

    Example:
        >>> import torch, hpml_sim as hs
        >>> late = hs.spiking.AxonalDelays(2, max_delay=2, delay=torch.tensor([0.0, 2.0]), steps=4).eval()
        >>> late(torch.eye(4)[:, :2]).tolist()  # (steps x batch, neurons): spikes at steps 0 and 1
        [[1.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 1.0]]
    """

    @option_names_checked
    def __init__(
        self,
        shape: int | tuple[int, ...],
        *,
        max_delay: int,
        delay: float | Tensor | None = None,
        seed: int = 0,
        learn: bool = True,
        steps: int = 1,
        chips: int = 1,
    ):
        sizes = shape if isinstance(shape, tuple) else (shape,)
        for size in sizes:
            check_whole("AxonalDelays: shape", size, low=1)
        super().__init__(sizes, max_delay, delay, seed, learn, steps, chips)

    def forward(self, x: Tensor) -> Tensor:
        """The same values, later; those that would arrive behind the last step are lost.

        Args:
            x: (chips x steps x batch, ...), the shape of a sample one that the delays broadcast to.

        Returns:
            Of x's shape.
        """
        from hpml_sim.kernels.delays import delayed

        unfolded = self.unfold(x)
        delay = self.steps_late()
        try:
            delay = delay.expand(unfolded.shape[2:])
        except RuntimeError as error:
            raise HpmlError(
                f"AxonalDelays: delays of shape {tuple(self.delay.shape)} do not fit samples of {tuple(x.shape[1:])}"
            ) from error
        if self.layer_state is None:
            self.with_history(unfolded[:, :, :0])  # the check alone: zeros before the first step need no copy
            return delayed(unfolded, delay, time_dim=1).flatten(0, 2)
        late = delayed(self.with_history(unfolded), delay, time_dim=1)
        return late[:, self.max_delay :].flatten(0, 2)

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        return f"{tuple(self.delay.shape)}, max_delay={self.max_delay}, steps={self.steps}"


class DelayedLinear(_Delayed):
    """A linear layer in which each connection has a delay of its own: y[t] = sum of w x[t - d] + b.

    The delays are learned as those of `AxonalDelays`. In a pass over all steps it is a convolution over time whose
    kernels have one or two entries, which costs max_delay + 1 times the products of a linear layer; a chip does not.

    Source: I. Hammouamri et al., ICLR 2024, arXiv:2306.17670 (dilated convolutions with learnable spacings, in time).

    Args:
        in_features: inputs, >= 1.
        out_features: outputs, >= 1.
        max_delay: steps, >= 1, below the steps of a call.
        delay: at the beginning, steps, 0 to max_delay; a number, or a tensor that broadcasts to (out, in); None: drawn.
        bias: add a bias.
        seed: of the draws of delays; weights are drawn as those of `nn.Linear`.
        learn: make the delays a parameter.
        steps: time steps, >= 1.
        chips: simulated chips that lie side by side in the batch, >= 1.

    Attributes:
        weight: (out_features, in_features).
        delay: steps, (out_features, in_features).
        max_delay: the limit of each.

    Raises:
        HpmlError: a value of the wrong type or out of its range, or, when called, fewer steps than delays need.

    Example:
        >>> import torch, hpml_sim as hs
        >>> layer = hs.spiking.DelayedLinear(2, 1, max_delay=3, delay=torch.tensor([[0.0, 3.0]]), bias=False, steps=5)
        >>> with torch.no_grad():
        ...     _ = layer.weight.fill_(1.0)
        >>> x = torch.zeros(5, 2)
        >>> x[0] = 1.0  # both inputs at step 0
        >>> layer.eval()(x).flatten().tolist()
        [1.0, 0.0, 0.0, 1.0, 0.0]
    """

    @option_names_checked
    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        max_delay: int,
        delay: float | Tensor | None = None,
        bias: bool = True,
        seed: int = 0,
        learn: bool = True,
        steps: int = 1,
        chips: int = 1,
    ):
        self_in = check_whole("DelayedLinear: in_features", in_features, low=1)
        self_out = check_whole("DelayedLinear: out_features", out_features, low=1)
        super().__init__((self_out, self_in), max_delay, delay, seed, learn, steps, chips)
        self.in_features, self.out_features = self_in, self_out
        bound = 1 / math.sqrt(self_in)  # as nn.Linear
        self.weight = nn.Parameter(torch.empty(self_out, self_in).uniform_(-bound, bound))
        self.bias: nn.Parameter | None = None
        if check_switch("DelayedLinear: bias", bias):
            self.bias = nn.Parameter(torch.empty(self_out).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """What arrives at each step, times the weights.

        Args:
            x: (chips x steps x batch, in_features).

        Returns:
            (chips x steps x batch, out_features).
        """
        unfolded = self.unfold(x)
        if unfolded.dim() != 4 or unfolded.shape[3] != self.in_features:
            raise HpmlError(
                f"DelayedLinear: input of shape {shown(tuple(x.shape))}; expected (chips x steps x batch, "
                f"{self.in_features})"
            )
        values = self.with_history(unfolded)  # (chips, max_delay + steps, batch, inputs)
        rows = values.permute(0, 2, 3, 1).flatten(0, 1)
        out = nn.functional.conv1d(rows, self._kernel(), self.bias)  # (chips x batch, outputs, steps)
        return out.unflatten(0, (unfolded.shape[0], -1)).permute(0, 3, 1, 2).flatten(0, 2)

    def _kernel(self) -> Tensor:
        """(outputs, inputs, max_delay + 1): each weight at its delay, the oldest step first."""
        delay = self.steps_late()
        whole = delay.detach().floor()
        share = delay - whole
        late = whole.long().unsqueeze(2)
        kernel = self.weight.new_zeros(*self.weight.shape, self.max_delay + 1)
        kernel = kernel.scatter_add(2, self.max_delay - late, (self.weight * (1 - share)).unsqueeze(2))
        later = (late + 1).clamp(max=self.max_delay)  # at the limit the share is 0
        return kernel.scatter_add(2, self.max_delay - later, (self.weight * share).unsqueeze(2))

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        return f"{self.in_features}, {self.out_features}, max_delay={self.max_delay}, steps={self.steps}"
