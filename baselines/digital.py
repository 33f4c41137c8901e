"""The network in ordinary arithmetic: what `convert(model, Digital(...))` makes.

The default, float32 operator by operator, is the caller's network and nothing else, so that a copy costs no more than
its weights. Everything slower to prepare (compiling, kernels) happens only when the configuration asks for it.
"""

from __future__ import annotations

import copy
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from hpml_sim.baselines.cuda_launch import cuda_backend
from hpml_sim.baselines.graph import Graphs
from hpml_sim.baselines.int8 import quantize
from hpml_sim.conversion import Converted, LayerReport, register_target
from hpml_sim.conversion.compression import is_quantized
from hpml_sim.errors import ConversionError, HpmlError
from hpml_sim.targets import Digital

Chosen = Callable[[str, nn.Module], bool]
_STORED = {"bf16": torch.bfloat16, "fp16": torch.float16}


class DigitalNetwork(Converted):
    """A network on a CPU or GPU in the precision and by the engine that its `Digital` target names.

    float32 in, float32 out, whatever the precision: (batch, ...) -> (batch, ...). `network` is always an ordinary
    module with the names of the original, so that hooks, counts and `state_dict` work on it.

    - fp32, tf32: float32 weights. On a GPU the forward call switches TF32 off or on and puts it back, because torch
      lets cuDNN use it by default: an "fp32" convolution would otherwise be rounded to 10 bits. Gradients are computed
      later, outside the call, with the setting that the process has then.
    - bf16, fp16: weights and buffers are cast once, here, not in every call as autocast does; that is what an inference
      server does and what the estimate counts (2 bytes a weight). Training on such weights would lose small updates,
      so they do not require gradients: train in float32, then convert.
    - int8: torchao's dynamic quantization of linear layers: weights once, with a scale an output channel; activations
      in every call, with a scale a sample. Other layers stay float32.

    Example:
        >>> import torch, hpml_sim as hs
        >>> net = hs.models.mlp(64, 128, 10)
        >>> half = hs.convert(net, hs.Digital("cpu", precision="bf16"))
        >>> isinstance(half, hs.baselines.DigitalNetwork)
        True
        >>> half(torch.rand(5, 1, 8, 8)).dtype, next(half.network.parameters()).dtype
        (torch.float32, torch.bfloat16)
    """

    target: Digital

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the network: mostly (batch, ...) -> (batch, ...).

        Args:
            args: what the network takes by position.
            kwargs: what the network takes by name.

        Raises:
            HpmlError: TF32 was asked for on another device than a GPU, or the only input is no tensor.
        """
        self.refuse_other_than_tensors(args)
        self.note_input(args, kwargs)
        if self.target.channels_last:
            args, kwargs = tree_map(_channels_last, (args, kwargs))
        stored = _STORED.get(self.target.precision)
        if stored is not None:
            args, kwargs = tree_map(partial(_cast_floats, dtype=stored), (args, kwargs))
            return tree_map(partial(_cast_floats, dtype=torch.float32), self._call(*args, **kwargs))
        first = next((value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)), None)
        if first is not None and first.is_cuda:
            with _float32_products("tf32" if self.target.precision == "tf32" else "ieee"):
                return self._call(*args, **kwargs)
        if self.target.precision == "tf32":
            raise HpmlError(
                f"Digital(precision='tf32'): the input is on {'the CPU' if first is None else first.device}; TF32 "
                "exists on NVIDIA GPUs since Ampere. Move model and input there (.to('cuda')), or take precision='fp32'"
            )
        return self._call(*args, **kwargs)

    def _call(self, *args: Any, **kwargs: Any) -> Any:
        return self.network(*args, **kwargs)


def _channels_last(value: Any) -> Any:
    images = isinstance(value, Tensor) and value.dim() == 4
    return value.contiguous(memory_format=torch.channels_last) if images else value


def _cast_floats(value: Any, dtype: torch.dtype) -> Any:
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value


class CompiledNetwork(DigitalNetwork):
    """The same through `torch.compile`, or as a CUDA graph; prepared at the first call, and again for other input.

    A hook registered on a layer after the conversion (a count, a profile) makes the calls run eagerly while it is
    there: compiled code would silently pass it by. A graph keeps nothing for a backward pass, so where gradients are
    wanted its calls run eagerly, too.

    Args:
        network: an ordinary module, in the precision of the target.
        target: with the engine "torch-compile" or "cuda-graph".
        layers: what became of each layer.

    Example:
        >>> import hpml_sim as hs
        >>> net = hs.models.mlp(64, 128, 10)
        >>> compiled = hs.convert(net, hs.Digital("cpu", engine="torch-compile"))
        >>> isinstance(compiled, hs.baselines.CompiledNetwork)
        True
    """

    def __init__(self, network: nn.Module, target: Digital, layers: tuple[LayerReport, ...]):
        super().__init__(network, target, layers)
        self._compiled: Callable[..., Any] | None = None
        self._hooks = [h for m in network.modules() for h in (m._forward_hooks, m._forward_pre_hooks)]
        self._own_hooks = sum(map(len, self._hooks))

    def _call(self, *args: Any, **kwargs: Any) -> Any:
        graph = self.target.engine == "cuda-graph"
        if graph and (kwargs or len(args) != 1 or not isinstance(args[0], Tensor)):
            raise HpmlError(
                "Digital(engine='cuda-graph'): graphs are recorded for one tensor as input; take "
                "engine='torch-compile' for a network of several inputs"
            )
        trains = graph and torch.is_grad_enabled() and any(p.requires_grad for p in self.network.parameters())
        if trains or sum(map(len, self._hooks)) != self._own_hooks:
            return self.network(*args, **kwargs)
        if self._compiled is None:
            self._compiled = Graphs(self.network) if graph else _compile(self.network)
        return self._compiled(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        # A copy must compile its own network: the compiled code would go on using the weights of this one.
        return {**self.__dict__, "_compiled": None}


@register_target(Digital)
def convert_digital(model: nn.Module, target: Digital, chosen: Chosen) -> DigitalNetwork:
    """Make a network ready for a CPU or GPU.

    Args:
        model: a copy that nobody else uses; it becomes (part of) the result.
        target: precision and engine.
        chosen: (name, layer) -> whether the layer gets them; the others keep float32 and torch.

    Raises:
        ConversionError: precision and engine do not go together, no layer was chosen, a layer has no kernel, or what
            the engine needs (a compiler, a GPU) is missing.
    """
    if not target.asks_nothing and is_quantized(model):
        raise ConversionError(
            f"Digital(precision={target.precision!r}): the network is quantized (hs.quantize), which says already what "
            "it is stored and multiplied in; leave precision out, or convert the network before it was quantized"
        )
    if target.engine == "numba-cuda":
        return _on_kernels(model, target, chosen)
    leaves = [(name, layer) for name, layer in model.named_modules() if not any(layer.children())]
    kept = [name for name, layer in leaves if not chosen(name, layer)]
    if leaves and len(kept) == len(leaves):
        raise ConversionError("convert: only= and skip= leave no layer to convert; choose at least one")
    stored = _STORED.get(target.precision)
    if kept and (target.precision == "tf32" or target.engine in ("torch-compile", "cuda-graph")):
        raise ConversionError(
            f"{target!r}: TF32, torch.compile and graphs take the whole network, but only= or skip= leaves out "
            f"{_some(kept)}. Take engine='torch' with precision='fp32', 'bf16', 'fp16' or 'int8', or "
            "engine='numba-cuda'"
        )
    if target.precision == "int8" and not is_quantized(model):
        return _finish(model, target, quantize(model.float(), chosen))
    if stored is None:
        model.float()  # does nothing to a float32 network
    else:
        _cast(model, stored, keep={name for name, _ in leaves if name in kept})
    layers = tuple(
        LayerReport(name, type(layer).__name__, type(layer).__name__ + " (fp32)", why="left out by only= or skip=")
        if name in kept
        else LayerReport(name, type(layer).__name__, f"{type(layer).__name__} ({_precision_and_engine(target)})")
        for name, layer in leaves
    )
    return _finish(model, target, layers)


def _finish(model: nn.Module, target: Digital, layers: tuple[LayerReport, ...]) -> DigitalNetwork:
    if target.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if target.engine == "torch":
        return DigitalNetwork(model, target, layers)
    if target.engine == "torch-compile":
        _require_compiler(model)
    elif not torch.cuda.is_available():
        raise ConversionError(
            "Digital(engine='cuda-graph'): torch finds no GPU (`hpml-sim doctor` says why); graphs exist on NVIDIA "
            "GPUs. Take engine='torch' or 'torch-compile', which run here, or estimate the GPU from its card"
        )
    return CompiledNetwork(model, target, layers)


def _precision_and_engine(target: Digital) -> str:
    return target.precision if target.engine == "torch" else f"{target.precision}, {target.engine}"


def _some(names: list[str]) -> str:
    return ", ".join(map(repr, names[:3])) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


# ------------------------------------------------------------------------------------------------------------ precision


def _cast(model: nn.Module, stored: torch.dtype, keep: set[str]) -> None:
    """Cast weights and buffers in place; layers in `keep` stay float32 and convert what goes in and out."""
    kept = {name: copy.deepcopy(model.get_submodule(name).state_dict()) for name in keep}
    model.to(stored)
    for name, state in kept.items():
        layer = model.get_submodule(name).float()
        layer.load_state_dict(state)  # the values before rounding
        layer.register_forward_pre_hook(_widen)
        layer.register_forward_hook(_NARROW[stored])
    for parameter in model.parameters():
        parameter.requires_grad_(False)


def _widen(_layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(x.float() if isinstance(x, Tensor) and x.is_floating_point() else x for x in inputs)


def _to_bf16(_layer: nn.Module, _inputs: tuple[Any, ...], output: Any) -> Any:
    return output.to(torch.bfloat16) if isinstance(output, Tensor) and output.is_floating_point() else output


def _to_fp16(_layer: nn.Module, _inputs: tuple[Any, ...], output: Any) -> Any:
    return output.to(torch.float16) if isinstance(output, Tensor) and output.is_floating_point() else output


# Named functions, not closures: the model must stay picklable.
_NARROW = {torch.bfloat16: _to_bf16, torch.float16: _to_fp16}


@contextmanager
def _float32_products(precision: Literal["ieee", "tf32"]) -> Iterator[None]:
    """How the GPU multiplies float32 within: exactly rounded ("ieee"), or with factors of 10 bits ("tf32")."""
    backends: Any = torch.backends
    places = (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn)
    before = [place.fp32_precision for place in places]
    try:
        for place in places:
            place.fp32_precision = precision
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.fp32_precision = value


# ------------------------------------------------------------------------------------------------------------ compiling


def _compile(network: nn.Module) -> Callable[[Tensor], Tensor]:
    with warnings.catch_warnings():
        # torch's own compiler still imports what torch itself has deprecated.
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.compile(network)


def _require_compiler(model: nn.Module) -> None:
    """torch.compile writes C++ for CPUs; without a compiler its first call would fail with a page of its own stack."""
    on_gpu = any(p.is_cuda for p in model.parameters())
    if on_gpu or any(map(shutil.which, filter(None, (os.environ.get("CXX"), "g++", "clang++", "c++")))):
        return
    raise ConversionError(
        "Digital(engine='torch-compile'): torch.compile needs a C++ compiler on a CPU, and none of g++, clang++, c++ "
        "is found; install one (Debian: apt-get install g++), or take engine='torch'"
    )


# -------------------------------------------------------------------------------------------------------------- kernels


def _on_kernels(model: nn.Module, target: Digital, chosen: Chosen) -> DigitalNetwork:
    try:
        cuda_backend()
    except HpmlError as error:
        raise ConversionError(f"Digital(engine='numba-cuda'): {error}") from error
    from hpml_sim.baselines.cuda_network import onto_kernels  # imports numba.cuda

    network, layers = onto_kernels(model.float(), chosen)
    return DigitalNetwork(network, target, tuple(layers))
