"""How many products each input of a layer takes part in, borders included, and what that makes of sparse inputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from hpml_sim.counting.operation_counts import LayerCount


def has_values(x: Tensor | None) -> bool:
    """Whether there is anything to measure: a tensor that is not on `torch.device("meta")` and not empty."""
    return x is not None and not x.is_meta and x.numel() > 0


def activity(x: Tensor) -> dict[str, Any]:
    """What the values of an input say, as fields of `LayerCount`: zeros, spikes, mean square.

    Args:
        x: the input.
    """
    found: dict[str, Any] = {"input_elements": float(x.numel()), "activation_bits": x.element_size() * 8}
    if not has_values(x):
        return found
    found["active_fraction"] = float(torch.count_nonzero(x)) / x.numel()
    found["binary_input"] = bool(((x == 0) | (x == 1)).all())
    if x.is_floating_point():
        largest = float(x.abs().max())
        found["input_mean_square"] = float((x / largest).square().mean(dtype=torch.double)) if largest > 0 else 0.0
    return found


def _weights(weight: Tensor | None) -> dict[str, Any]:
    if weight is None:
        return {}
    found: dict[str, Any] = {"weight_bits": weight.element_size() * 8}
    if has_values(weight):
        found["zero_weights"] = weight.numel() - int(torch.count_nonzero(weight))
        found["zero_pattern"] = "2:4" if is_two_four(weight) else ""
        if weight.is_floating_point():
            largest = float(weight.abs().max())
            found["weight_mean_abs"] = float(weight.abs().mean(dtype=torch.double)) / largest if largest > 0 else 0.0
    return found


def is_two_four(weight: Tensor) -> bool:
    """Whether of each four weights that follow each other along dimension 1 at least two are zero.

    Args:
        weight: (groups, rows, cols) of a product, (outputs, inputs, *kernel) of a convolution.

    Source: A. Mishra et al., "Accelerating sparse deep neural networks", arXiv:2104.08378, 2021, section 3.
    """
    if weight.shape[1] % 4 or 2 * int(torch.count_nonzero(weight)) > weight.numel():
        return False
    return bool(((weight != 0).unflatten(1, (-1, 4)).sum(2) <= 2).all())


def _real_products(x: Tensor) -> int:
    """Multiply-accumulates of real numbers in one of this type: (a + bi)(c + di) has four."""
    return 4 if x.is_complex() else 1


def _effective(x: Tensor, operations: float) -> dict[str, float]:
    """NeuroBench's rule: a call whose inputs are all -1, 0 or 1 makes accumulates, any other multiply-accumulates."""
    spikes = bool(((x == 0) | (x == 1) | (x == -1)).all())
    return {"effective_acs": operations, "effective_macs": 0.0} if spikes else {"effective_macs": operations}


def product(x: Tensor, cols: int, weight: Tensor | None = None, *, op: str = "linear", name: str = "") -> LayerCount:
    """The count of one product of vectors and a matrix.

    Synaptic operations = sum over inputs of [x != 0] x fan-out; the fan-out is `cols` or, for NeuroBench, the number of
    the input's weights that are not zero.

    Args:
        x: (groups, vectors, rows).
        cols: outputs of each matrix.
        weight: (groups, rows, cols); None counts as a weight without zeros.
        op: kind of the layer, as in `LayerCount`.
        name: of the part of the layer, or "" for all of it.
    """
    groups, vectors, rows = x.shape
    real = _real_products(x)
    dense = float(x.numel()) * cols * real
    count = LayerCount(
        name,
        op,
        rows=rows,
        cols=cols,
        groups=groups,
        vectors=float(vectors),
        macs=dense,
        dense_sops=dense,
        sops=dense,
        effective_macs=dense,
        output_elements=float(groups * vectors * cols),
        **activity(x),
        **_weights(weight),
    )
    if not has_values(x):
        return count
    nonzero = (x != 0).sum(1).double()  # (groups, rows)
    sops = float(nonzero.sum()) * cols * real
    effective = sops
    if count.zero_weights and weight is not None:
        effective = float((nonzero * (weight != 0).sum(2)).sum()) * real
    return replace(count, sops=sops, **_effective(x, effective))


@dataclass(frozen=True)
class Convolution:
    """Geometry of a convolution with n spatial dimensions.

    Attributes:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel: n sizes.
        stride: n sizes.
        padding: n (before, after) pairs; if transposed, what is cut off.
        dilation: n sizes.
        groups: channels are cut into so many groups that do not meet.
        transposed: whether it spreads inputs instead of gathering them.
        mode: how the padding is filled, torch's names ("zeros", "reflect", ...).
    """

    in_channels: int
    out_channels: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int = 1
    transposed: bool = False
    mode: str = "zeros"

    def axis_fan_out(self, axis: int, size: int, out_size: int) -> Tensor | None:
        """Outputs that each position reaches along one axis.

        Args:
            axis: which spatial dimension, from 0.
            size: positions of the input.
            out_size: positions of the output.

        Returns:
            (size,); None if `out_size` is not what this geometry gives.
        """
        kernel, stride, dilation = self.kernel[axis], self.stride[axis], self.dilation[axis]
        before, after = self.padding[axis]
        taps = dilation * torch.arange(kernel)
        if self.transposed:
            reached = stride * torch.arange(size)[:, None] + taps - before
            return ((reached >= 0) & (reached < out_size)).sum(1).double()
        if self.mode == "zeros":
            source = F.pad(torch.arange(size), (before, after), value=-1)
        else:  # a padded position stands for a real one
            source = F.pad(torch.arange(size, dtype=torch.double)[None, None], (before, after), mode=self.mode)[
                0, 0
            ].long()
        if out_size != (len(source) - dilation * (kernel - 1) - 1) // stride + 1:
            return None
        used = source[stride * torch.arange(out_size)[:, None] + taps].flatten()
        return torch.bincount(used[used >= 0], minlength=size).double()

    def weighted_fan_out(self, mask: Tensor, sizes: Sequence[int], out_sizes: Sequence[int]) -> Tensor:
        """Weights that each input (channels, *sizes) meets: the gradient of the sum of all outputs.

        Args:
            mask: which weights count, of the shape of the weight.
            sizes: n sizes of the input.
            out_sizes: n sizes of the output.
        """
        n = len(sizes)
        with torch.enable_grad():
            probe = torch.zeros(1, self.in_channels, *sizes, dtype=torch.double, device=mask.device, requires_grad=True)
            mask = mask.double()
            if self.transposed:
                call = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[n - 1]
                full = call(probe, mask, stride=self.stride, groups=self.groups, dilation=self.dilation)
                # positions beyond the kernel's reach (output_padding) hold no product, so cutting to the size is exact
                for axis, ((before, _), size) in enumerate(zip(self.padding, out_sizes, strict=True)):
                    full = full.narrow(2 + axis, before, min(size, full.shape[2 + axis] - before))
            else:
                pairs = [side for pair in reversed(self.padding) for side in pair]
                padded = F.pad(probe, pairs, mode="constant" if self.mode == "zeros" else self.mode)
                call = (F.conv1d, F.conv2d, F.conv3d)[n - 1]
                full = call(padded, mask, stride=self.stride, groups=self.groups, dilation=self.dilation)
            return torch.autograd.grad(full.sum(), probe)[0][0]

    def count(self, x: Tensor, out_sizes: Sequence[int], weight: Tensor | None = None) -> LayerCount:
        """The count of one call.

        A convolution is the matrix of its kernel (inputs of one output x outputs of one group) applied at every output
        position; transposed, the matrix (channels of one group x what they spread) applied at every input position.

        Args:
            x: (batch, channels, *sizes).
            out_sizes: n sizes of the output.
            weight: the kernel; None counts as one without zeros.
        """
        batch, _, *sizes = x.shape
        taps = math.prod(self.kernel)
        ins, outs = self.in_channels // self.groups, self.out_channels // self.groups
        rows, cols = (ins, outs * taps) if self.transposed else (ins * taps, outs)
        vectors = float(batch * math.prod(sizes if self.transposed else out_sizes))
        axes = [self.axis_fan_out(k, size, out) for k, (size, out) in enumerate(zip(sizes, out_sizes, strict=True))]
        real = _real_products(x)
        macs = rows * cols * self.groups * vectors * real
        # a subclass may pad on its own: then the borders are not known, and padding counts as input
        known = [axis for axis in axes if axis is not None]
        exact = len(known) == len(axes)
        dense = (
            float(x.shape[0] * self.in_channels * outs * real * math.prod(float(a.sum()) for a in known))
            if exact
            else macs
        )
        count = LayerCount(
            "",
            "conv",
            rows=rows,
            cols=cols,
            groups=self.groups,
            vectors=vectors,
            macs=macs,
            dense_sops=dense,
            sops=dense,
            effective_macs=dense,
            output_elements=float(batch * self.out_channels * math.prod(out_sizes)),
            **activity(x),
            **_weights(weight),
        )
        if not has_values(x):
            return count
        if not exact:
            sops = macs * count.active_fraction
            return replace(count, sops=sops, **_effective(x, sops))
        nonzero = (x != 0).sum(0).double()  # (channels, *sizes)
        spread = nonzero.sum(0)
        for axis in known:
            spread = (axis.to(spread.device).reshape(-1, *[1] * (spread.dim() - 1)) * spread).sum(0)
        sops = float(spread) * outs * real
        effective = sops
        if count.zero_weights and weight is not None:
            effective = float((nonzero * self.weighted_fan_out(weight != 0, sizes, out_sizes)).sum()) * real
        return replace(count, sops=sops, **_effective(x, effective))
