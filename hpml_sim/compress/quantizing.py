"""`hs.quantize`: a network whose weights, or weights and inputs, take few bits."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from hpml_sim.compress.awq import awq
from hpml_sim.compress.calibration_data import CalibrationData, collect
from hpml_sim.compress.gptq import gptq
from hpml_sim.compress.matrices import Matrix, matrices
from hpml_sim.compress.rounding import RoundInputs, rounded
from hpml_sim.conversion import Converted
from hpml_sim.conversion.cloning import clone
from hpml_sim.conversion.compression import NumberFormat, Numbers, is_quantized, note
from hpml_sim.conversion.converting import LayerChoice
from hpml_sim.conversion.modules import check_network
from hpml_sim.errors import HpmlError, check_choice, check_whole

Method = Literal["nearest", "gptq", "awq"]
GROUPED = ("int4", "fp4", "ternary")
"""Formats of four bits and fewer, whose weights share scales in groups."""
GROUP = 64
"""Weights that share a scale in formats of four bits and fewer."""


def quantize(
    model: nn.Module,
    scheme: Numbers = "int8",
    *,
    method: Method | None = None,
    data: CalibrationData | None = None,
    group: int | None = None,
    weight_bits: int | None = None,
    input_bits: int | None = None,
    only: LayerChoice = None,
    skip: LayerChoice = None,
) -> nn.Module:
    """A network in numbers of few bits: an ordinary one, which every function and target takes. The argument stays.

    The weights lie on the grid of the format as floating-point values, so that the network runs, trains and converts
    anywhere with the accuracy that the format has. Estimates know what is stored: GPUs and CPUs read fewer bytes of
    weights, and with "int8" and "fp8" multiply faster where their card has a peak for it. `hs.fit` trains the result on
    and keeps the grid (quantization-aware, straight through the rounding). This changes the network; a digital target's
    `precision=` is only how a machine runs one that is not quantized, and the two are not taken together.

    Args:
        model: the network.
        scheme: "int8": weights with a scale an output, inputs with a scale a vector, found in each call. "fp8": the
            same in E4M3. Weights alone: "int8-weights", "int4", "fp4" (E2M1), "ternary".
        method: how weights are rounded: "nearest"; "gptq": errors are made up for by weights not rounded yet; "awq":
            inputs that are large on average get a factor first. None takes "gptq" with data, else "nearest".
        data: calibration data for "gptq" and "awq": a batch of inputs, a data set by name, or samples.
        group: weights of an output that share a scale, >= 2; None takes 64 for four bits and fewer, else all.
        weight_bits: of "int8": bits of a weight with its sign, 2 to 8, where not 8.
        input_bits: of "int8": bits of an input of a layer, 1 to 8, where not 8. Inputs without a negative number have
            no sign: 4 bits are 16 levels, as many as 15 steps of spikes tell apart.
        only: quantize these layers only, by name or by a predicate (name, module) -> bool; None: all.
        skip: leave these layers as they are; None: none.

    Returns:
        A new network.

    Raises:
        UnknownNameError: no layer has this name.
        HpmlError: a scheme or method that does not exist, a method without data, a network that is quantized already,
            or one without layers to quantize.

    Example:
        >>> import torch, hpml_sim as hs
        >>> net = hs.models.mlp(64, 32, 10)
        >>> small = hs.quantize(net, "int4", data=torch.rand(100, 64))
        >>> hs.workload(small, input_shape=(64,)).layers[0].stored_bits
        4.25
        >>> hs.convert(small, hs.Digital("h200", precision="int8"))
        Traceback (most recent call last):
        hpml_sim.errors.ConversionError: Digital(precision='int8'): the network is quantized ...
    """
    check_network("quantize: model", model)
    check_choice("quantize: scheme", scheme, get_args(Numbers))
    method = _method(method, data)
    if group is not None:
        group = check_whole("quantize: group", group, low=2, hint="64 is usual")
    for name, bits, low in (("weight_bits", weight_bits, 2), ("input_bits", input_bits, 1)):
        if bits is not None and scheme != "int8":
            raise HpmlError(f"quantize: {name}={bits}: is for scheme='int8'; {scheme!r} has bits of its own")
        if bits is not None:
            check_whole(f"quantize: {name}", bits, low=low, high=8)
    if isinstance(model, Converted):
        raise HpmlError(
            f"quantize: the network is converted for {model.target!r}; quantize the original, and convert that"
        )
    if is_quantized(model):
        raise HpmlError("quantize: the network is quantized already; take the one that it was made from")
    numbers = NumberFormat(
        scheme, group if group is not None else GROUP if scheme in GROUPED else None, weight_bits, input_bits
    )
    network = clone(model)
    found = matrices("quantize", network, only, skip)
    seen = _Inputs()
    if method != "nearest" and data is not None:
        collect("quantize", network, found, data, seen.take)
    for own in found:
        own.write(_rounded(own, seen, method, numbers))
        note(own.module, own.parameter, numbers=numbers)
        if numbers.arithmetic and own.parameter == "weight":
            every = isinstance(own.module, nn.modules.conv._ConvNd)
            dims = tuple(range(1, own.weight.dim())) if every else (-1,)
            own.module.register_forward_pre_hook(RoundInputs(numbers, dims))
    return network


class _Inputs:
    """What each layer is multiplied with: second moments and mean magnitudes."""

    def __init__(self) -> None:
        self.hessians: dict[str, Tensor] = {}
        self.magnitudes: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def take(self, own: Matrix, vectors: Tensor) -> None:
        vectors = vectors.double()
        name, zero = own.name, torch.zeros((), dtype=torch.double, device=vectors.device)
        self.hessians[name] = self.hessians.get(name, zero) + vectors.T @ vectors
        self.magnitudes[name] = self.magnitudes.get(name, zero) + vectors.abs().sum(0)
        self.counts[name] = self.counts.get(name, 0) + len(vectors)


def _rounded(own: Matrix, seen: _Inputs, method: Method, numbers: NumberFormat) -> Tensor:
    """The weights of a layer on the grid; of one whose inputs were not seen, the nearest ones."""
    matrix = own.read()
    if method == "nearest" or not seen.counts.get(own.name):
        return rounded(matrix, numbers)
    hessian = seen.hessians[own.name] / seen.counts[own.name]
    if method == "gptq":
        # zeros of a pruned network stay: they take no error of others
        return torch.where(matrix == 0, 0.0, gptq(matrix, hessian, numbers)).to(matrix.dtype)
    return awq(matrix, hessian, seen.magnitudes[own.name] / seen.counts[own.name], numbers)


def _method(method: Method | None, data: CalibrationData | None) -> Method:
    if method is None:
        return "nearest" if data is None else "gptq"
    check_choice("quantize: method", method, get_args(Method))
    if method != "nearest" and data is None:
        raise HpmlError(f"quantize: method={method!r}: looks at inputs; give data=, or take method='nearest'")
    if method == "nearest" and data is not None:
        raise HpmlError("quantize: data=: method='nearest' looks at no data; leave one of them out")
    return method
