"""How large a mapped weight may be. The limit belongs to the weights that it was computed from, and to no others.

Training clips weights at a multiple of their standard deviation, and what is mapped afterwards is clipped alike.
Weights that were loaded, or changed in another way, such as by folding a batch norm into them, were never trained to be
clipped.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from hpml_sim.analog.effective_weights import clip_weights
from hpml_sim.analog.weight_probe import WeightProbe

_SIDE = 16
"""A sample has about this many rows and columns."""
_ONE_STEP, _EQUAL = 0.3, 0.02
"""How far a sample may move, relative to itself: by an optimizer's last step; by a change of the number format."""


class WeightLimit(nn.Module):
    """The largest weight of one crossbar.

    Args:
        device: of the limit.
        dtype: of the limit.

    Attributes:
        weight_limit: largest weight, a buffer; infinite where nothing is clipped. One number, or one for each channel,
            shape (groups * cols, 1).
        trained_at_levels: whether training rounded the weights to the levels of their cells; not in the state dict.
        weight_probe: while the network runs to find what mapping costs it; None at all other times.
    """

    weight_limit: Tensor

    def _add_limit(self, channels: int | None, device: torch.device | None, dtype: torch.dtype | None) -> None:
        shape = () if channels is None else (channels, 1)
        self.register_buffer("weight_limit", torch.full(shape, math.inf, device=device, dtype=dtype))
        # some of the weights that the limit is of; whether they are exactly these, or an optimizer's step older
        self._limit_sample: Tensor | None = None
        self._limit_exact = False
        self.trained_at_levels = False
        self.weight_probe: WeightProbe | None = None
        self.register_load_state_dict_pre_hook(_believe_loaded)

    def _limits(self, weight: Tensor, sigmas: float | None) -> bool:
        """Whether this pass sets the limit: in training, of weights that are trained. Frozen ones are not cut anew."""
        return self.training and sigmas is not None and not is_frozen(weight)

    def _follow(self, weight: Tensor, sigmas: float | None, *, compiled: bool) -> None:
        """Set the limit to a multiple of the weights' standard deviation where this pass does so, else check it.

        Args:
            weight: shape (groups * cols, rows).
            sigmas: the multiple; None: nothing is clipped.
            compiled: whether it is found in a compiled pass over the weights, on the CPU.
        """
        if sigmas is None or not self._limits(weight, sigmas):
            self._check_limit(weight)
            return
        if compiled and not self.weight_limit.dim():
            from hpml_sim.kernels.crossbar_product.training import spread

            self.weight_limit.fill_(sigmas * spread(weight))
        else:
            self.weight_limit.copy_(self.limit_at(weight, sigmas))
        self._limit_is_of(weight)

    def limit_at(self, weight: Tensor, sigmas: float) -> Tensor:
        """A multiple of the standard deviation: of all weights, or of those of each channel.

        Args:
            weight: shape (groups * cols, rows).
            sigmas: the multiple.

        Returns:
            Shape of `weight_limit`.
        """
        if self.weight_limit.dim():
            # as aihwkit-lightning's LAYER_GAUSSIAN_PER_CHANNEL; what has no spread has no outliers either
            sigma = weight.detach().std(1, correction=int(weight.shape[1] > 1), keepdim=True)
            return torch.where(sigma > 0, sigmas * sigma, math.inf)
        flat = weight.detach().flatten()
        variance = flat.dot(flat) / len(flat) - flat.mean().square()  # several times quicker than torch.std
        return sigmas * variance.clamp(min=0).sqrt()

    def within_limit(self, weight: Tensor) -> tuple[Tensor, float]:
        """The weights with their channels clipped, where each has a limit, and the limit of all that is left.

        Args:
            weight: shape (groups * cols, rows).
        """
        if self.weight_limit.dim():
            return clip_weights(weight, self.weight_limit.to(weight)), math.inf
        return weight, float(self.weight_limit)

    def limited(self, weight: Tensor, sigmas: float | None) -> tuple[Tensor, float]:
        """`within_limit` in a step of training on the CPU, which sets the limit first.

        Args:
            weight: shape (groups * cols, rows).
            sigmas: the limit, in standard deviations of the weights; None: nothing is clipped.
        """
        self._follow(weight, sigmas, compiled=True)
        return self.within_limit(weight)

    def _limit_is_of(self, weight: Tensor) -> None:
        """Note, in training, which weights the limit was computed from."""
        if not torch.compiler.is_compiling():
            # in every step of a training: a module's own way to set attributes takes as long as the copy
            self.__dict__.update(_limit_sample=_sample(weight).clone(), _limit_exact=False)

    def _check_limit(self, weight: Tensor) -> None:
        """Clip nothing where the weights are others than those of the limit; outside of training."""
        if torch.compiler.is_compiling() or weight.is_meta or not bool(torch.isfinite(self.weight_limit).any()):
            return
        now = _sample(weight)
        before = self._limit_sample
        if before is not None:  # None: the limit was loaded together with the weights
            before = before.to(now)
            moved = (now - before).norm() if before.shape == now.shape else math.inf
            if moved > (_EQUAL if self._limit_exact else _ONE_STEP) * before.norm():
                self.forget_limit()
                return
        if not self._limit_exact:
            self._limit_sample, self._limit_exact = now.clone(), True

    def mapped(self, weight: Tensor) -> tuple[Tensor, float]:
        """`within_limit` outside of training, where a limit of other weights clips nothing.

        Args:
            weight: shape (groups * cols, rows).
        """
        self._check_limit(weight)
        return self.within_limit(weight)

    @torch.no_grad()
    def forget_limit(self) -> None:
        """Clip nothing until training computes a limit again."""
        self.weight_limit.fill_(math.inf)
        self._limit_sample = None


def is_frozen(weight: Tensor) -> bool:
    """Whether training leaves a matrix as it is, as beside adapters.

    Args:
        weight: a layer's parameter, or a view of it as its crossbar takes it.
    """
    # gradient checkpointing runs a forward without gradients first, where a view of a parameter seems to need none
    return not (weight if weight._base is None else weight._base).requires_grad


def forget_limit_of_loaded(layer: Any, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Forget the limit of a layer whose weights are loaded without one; a hook that runs before `load_state_dict`.

    Args:
        layer: owns the weight and the crossbar.
        state_dict: what is loaded.
        prefix: of the layer's own names in it.
    """
    if f"{prefix}weight" in state_dict and f"{prefix}crossbar.weight_limit" not in state_dict:
        layer.crossbar.forget_limit()


def _believe_loaded(limit: Any, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """A limit that is loaded belongs to the weights that are loaded with it."""
    if f"{prefix}weight_limit" in state_dict:
        limit._limit_sample, limit._limit_exact = None, False


def _sample(weight: Tensor) -> Tensor:
    """Some of the weights, in float32. weight: (rows, columns)."""
    rows, columns = (max(1, size // _SIDE) for size in weight.shape)
    return weight.detach()[::rows, ::columns].float()
