"""Step 7: a whole network on the kernels: layers that are torch's in everything but the arithmetic.

`onto_kernels` exchanges the layers of a model for these. They share the parameters and the names of the layers they
replace, so `state_dict`, optimizers, hooks and counts go on as before, and the model trains by `loss.backward()`.
A ReLU right behind a linear or convolution layer is fused into it; its place is taken by an `nn.Identity`.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn.utils import parametrize

from hpml_sim.baselines.cuda_conv import avg_pool2d, conv2d
from hpml_sim.baselines.cuda_linear import linear, relu
from hpml_sim.conversion import LayerReport
from hpml_sim.errors import ConversionError


class KernelLinear(nn.Linear):
    """`nn.Linear` (and a ReLU, if fused) in one kernel: (..., in_features) -> (..., out_features)."""

    fused_relu = False

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Run the layer: (..., in_features) -> (..., out_features), float32."""
        return linear(input, self.weight, self.bias, relu=self.fused_relu)


class KernelConv2d(nn.Conv2d):
    """`nn.Conv2d` (and a ReLU, if fused) in one kernel: (batch, C, H, W) -> (batch, O, H', W')."""

    fused_relu = False

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Run the layer: (batch, C, H, W) -> (batch, O, H', W'), float32."""
        stride, padding = self.stride, self.padding
        assert not isinstance(padding, str)  # _why_not refused it
        return conv2d(
            input,
            self.weight,
            self.bias,
            stride=(stride[0], stride[1]),
            padding=(padding[0], padding[1]),
            relu=self.fused_relu,
        )


class KernelReLU(nn.ReLU):
    """`nn.ReLU` in a kernel of its own, never in place."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """max(input, 0), of the input's shape, float32."""
        return relu(input)


class KernelAvgPool2d(nn.AvgPool2d):
    """`nn.AvgPool2d` with windows side by side."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Mean of each window: (batch, C, H, W) -> (batch, C, H', W'), float32."""
        return avg_pool2d(input, self.kernel_size)  # type: ignore[arg-type]


NO_KERNEL_NEEDED = (nn.Flatten, nn.Identity, nn.Unflatten, nn.Dropout)
"""Views, and noise that is gone outside training: left to torch."""


def onto_kernels(model: nn.Module, chosen: Callable[[str, nn.Module], bool]) -> tuple[nn.Module, list[LayerReport]]:
    """Exchange layers in place; the model itself is returned, or what replaces it where it is a single layer.

    Args:
        model: a copy that nobody else uses.
        chosen: (name, layer) -> whether the caller wants this layer on kernels.

    Returns:
        The network, and a row for each layer.

    Raises:
        ConversionError: names every layer that was chosen and has no kernel, and why.
    """
    uses = [id(m) for _, m in model.named_modules(remove_duplicate=False)]
    refused: list[str] = []
    rows: list[LayerReport] = []
    replaced: dict[int, nn.Module] = {}
    for name, layer in list(model.named_modules()):
        was = type(layer).__name__
        if any(layer.children()):
            if any(True for _ in layer.parameters(recurse=False)) and chosen(name, layer):
                refused.append(f"{name or '(model)'} ({was}): has weights of its own beside its layers")
        elif not chosen(name, layer):
            rows.append(LayerReport(name, was, "digital", why="left out by only= or skip=; runs in torch"))
        elif isinstance(layer, NO_KERNEL_NEEDED):
            rows.append(LayerReport(name, was, "digital", why="needs no kernel; runs in torch"))
        elif why := _why_not(layer):
            refused.append(f"{name or '(model)'} ({was}): {why}")
        else:
            replaced[id(layer)] = _on_kernel(layer)
            rows.append(LayerReport(name, was, type(replaced[id(layer)]).__name__))
    if refused:
        names = [entry.split(" ", 1)[0] for entry in refused]
        raise ConversionError(
            "Digital(engine='numba-cuda'): no kernel for "
            + "; ".join(refused)
            + f". Leave them to torch with skip={names}"
            ", or take engine='torch'"
        )
    if not replaced:
        raise ConversionError(
            "Digital(engine='numba-cuda'): no layer to put on kernels (Linear, Conv2d, ReLU, AvgPool2d)"
        )
    if id(model) in replaced:
        return replaced[id(model)], rows
    for name, parent in list(model.named_modules()):
        for child_name, child in list(parent._modules.items()):
            if child is not None and id(child) in replaced:
                setattr(parent, child_name, replaced[id(child)])
        if type(parent) is nn.Sequential:
            rows = _fuse(parent, name, rows, {id(new) for old, new in replaced.items() if uses.count(old) == 1})
    return model, rows


def _why_not(layer: nn.Module) -> str:
    """Why a layer cannot run on a kernel; empty if it can."""
    known = {nn.Linear, nn.Conv2d, nn.ReLU, nn.AvgPool2d}
    base = next((kind for kind in type(layer).__mro__ if kind in known), None)
    if base is None or type(layer).forward is not base.forward:  # type: ignore[attr-defined]
        return "not a Linear, Conv2d, ReLU or AvgPool2d, or it computes something else"
    if parametrize.is_parametrized(layer) or layer._forward_hooks or layer._forward_pre_hooks:
        return "its weights are computed in every call, or it has hooks, which would be lost"
    if isinstance(layer, nn.Conv2d) and (
        layer.groups != 1
        or set(layer.dilation) != {1}
        or isinstance(layer.padding, str)
        or layer.padding_mode != "zeros"
    ):
        return "the kernel knows neither groups nor dilation, and pads with a number of zeros only"
    if isinstance(layer, nn.AvgPool2d) and (layer.stride != layer.kernel_size or layer.padding not in (0, (0, 0))):
        return "the kernel's windows lie side by side, without padding"
    return ""


def _on_kernel(layer: nn.Module) -> nn.Module:
    """The same layer on a kernel, with the same parameters."""
    new: nn.Module
    if isinstance(layer, nn.Linear):
        new = KernelLinear(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
        new.weight, new.bias = layer.weight, layer.bias
    elif isinstance(layer, nn.Conv2d):
        sizes = (layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding)
        new = KernelConv2d(*sizes, bias=layer.bias is not None, device="meta")  # type: ignore[arg-type]
        new.weight, new.bias = layer.weight, layer.bias
    elif isinstance(layer, nn.AvgPool2d):
        new = KernelAvgPool2d(layer.kernel_size)
    else:
        new = KernelReLU()
    return new.train(layer.training)


def _fuse(parent: nn.Sequential, name: str, rows: list[LayerReport], single: set[int]) -> list[LayerReport]:
    """Draw each ReLU behind a linear or convolution layer that is used only there (`single`) into its kernel."""
    for (first_name, first), (second_name, second) in zip(
        list(parent.named_children()), list(parent.named_children())[1:], strict=False
    ):
        if isinstance(first, (KernelLinear, KernelConv2d)) and id(first) in single and isinstance(second, KernelReLU):
            first.fused_relu = True
            parent._modules[second_name] = nn.Identity().train(second.training)
            ahead, behind = (f"{name}.{n}" if name else n for n in (first_name, second_name))
            fused = LayerReport(behind, "ReLU", type(first).__name__, why=f"fused into {ahead}")
            rows = [fused if row.layer == behind else row for row in rows]
    return rows
