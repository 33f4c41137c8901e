"""One forward pass, watched: layers by hooks, and whatever tensor operations happen outside known layers."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from hpml_sim.counting.counts import LayerCount
from hpml_sim.counting.fan_out import Convolution, product
from hpml_sim.counting.operations import (
    FACTORS,
    NO_PRODUCTS,
    NO_WORK,
    SCALED_DOT_PRODUCT,
    as_batch,
    distinct,
    is_wide,
    macs_of,
    storage_of,
)
from hpml_sim.counting.origins import Origins
from hpml_sim.counting.rules import Rule, dot_product_attention, rule_for, tensors_in
from hpml_sim.counting.tally import Tallies


@dataclass
class _Frame:
    """A module that is running.

    `hidden`: a known layer speaks for the tensor operations; `opaque`: and for the layers it calls as well.
    `beyond`: a known layer with a forward of its own, whose products are watched too; `macs` is what was seen of them.
    """

    name: str
    module: nn.Module
    rule: Rule | None = None
    hidden: bool = False
    opaque: bool = False
    beyond: bool = False
    macs: float = 0.0
    arrived: frozenset[int] = frozenset()


class Recorder:
    """Collects counts during forward passes of one model."""

    def __init__(self, model: nn.Module):
        self.model = model
        self.now = 1  # samples in the pass that is running
        self.paused = False
        self.frames: list[_Frame] = []
        self.ran: dict[str, nn.Module] = {}
        self.unknown: dict[str, None] = {}
        self.origins = Origins(model)
        self.tallies = Tallies()

    # ------------------------------------------------------------------------------------------------------ one pass

    @contextmanager
    def watching(self, samples: int) -> Iterator[None]:
        """Count everything that runs inside, `samples` samples at once."""
        self.tallies.samples += samples
        self.tallies.passes += 1
        self.now = samples
        self.frames = []
        fast_path = torch.backends.mha.get_fastpath_enabled()
        handles = []
        with ExitStack() as stack:
            try:
                # torch's fused transformer kernels would run past the layers inside
                torch.backends.mha.set_fastpath_enabled(False)
                for name, module in self.model.named_modules():
                    handles.append(
                        module.register_forward_pre_hook(self._entering(name), prepend=True, with_kwargs=True)
                    )
                    handles.append(module.register_forward_hook(self._leave, with_kwargs=True, always_call=True))
                stack.enter_context(_Attention(self))
                stack.enter_context(_Operations(self))
                yield
            finally:
                torch.backends.mha.set_fastpath_enabled(fast_path)
                for handle in handles:
                    handle.remove()
                self.origins.forget()

    def _entering(self, name: str) -> Any:
        def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if self.paused:  # a counter touched a weight that is computed when it is read
                return
            above = self.frames[-1] if self.frames else None
            found = rule_for(type(module))
            frame = _Frame(name or type(self.model).__name__, module)
            if above is not None and above.opaque:
                frame.hidden = frame.opaque = True
            elif found is not None and found[0].counter is not None:
                rule, base = found
                frame.rule, frame.hidden = rule, True
                frame.beyond = type(module).forward is not base.forward  # type: ignore[attr-defined]
                frame.opaque = not rule.sub_layers and not frame.beyond
            elif above is not None and above.hidden:
                frame.hidden, frame.beyond = True, above.beyond
            frame.arrived = frozenset(storage_of(t) for t in tensors_in((args, kwargs)))
            self.frames.append(frame)

        return enter

    def _leave(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if self.paused:
            return
        while self.frames and self.frames[-1].module is not module:  # left by an exception that was caught further up
            self.frames.pop()
        if not self.frames:
            return
        frame = self.frames.pop()
        above = self.frames[-1] if self.frames else None
        if above is not None and frame.rule is None and frame.beyond:
            above.macs += frame.macs
        if output is None:
            return
        was, self.paused = self.paused, True
        try:
            if frame.rule is not None:
                self.origins.saw(list(tensors_in(output)))
                inputs = args if not kwargs else _positional(module, args, kwargs)
                self._known(frame, inputs, output)
            elif not frame.hidden:
                self._check_seen(frame, output)
        finally:
            self.paused = was

    def _known(self, frame: _Frame, inputs: tuple[Any, ...], output: Any) -> None:
        module, rule = frame.module, frame.rule
        if rule is None or rule.counter is None:
            return
        counts = list(rule.counter(module, inputs, output))
        first_call = self.origins.claim_once(module)
        tensors = list(tensors_in(inputs))
        leading = _leading(tensors)
        scale = self.origins.share(tensors, list(tensors_in(output)), self.now)
        parameters = dict(module.named_parameters())
        rest = [p for name, p in parameters.items() if not any(_belongs(name, c.name) for c in counts if c.name)]
        for k, count in enumerate(counts):
            own = [p for name, p in parameters.items() if count.name and _belongs(name, count.name)]
            weights = self.origins.claim([*own, *(rest + tensors if k == 0 else [])])
            if count.weight_count:  # kept where parameters do not show it
                weights = count.weight_count if first_call else 0
            name = f"{frame.name}.{count.name}" if count.name else frame.name
            if count.op == "softmax" and self.frames:
                self.tallies.softmax_in.add(self.frames[-1].name)
            self.tallies.add(replace(count, name=name, module=type(module).__name__), weights, scale, leading)
        self.origins.used |= {*frame.arrived, *map(storage_of, parameters.values())}
        more = frame.macs - sum(count.macs for count in counts)
        if frame.beyond and more > 0:
            self.tallies.add(
                LayerCount(f"{frame.name}.forward", "matmul", macs=more, dense_sops=0.0), 0, scale, leading
            )

    def _check_seen(self, frame: _Frame, output: Any) -> None:
        """Whoever computes where no one can see is named: a kernel of its own, numpy, C++."""
        self.ran[frame.name] = frame.module
        for t in tensors_in(output):
            if storage_of(t) not in frame.arrived and not self.origins.is_known(t):
                self._unknown(frame)
                self.origins.saw([t])  # named once, not again by each module around it

    def not_counted(self) -> tuple[str, ...]:
        """What ran and is not counted: modules with a kernel of their own, operations, matrices that no one touched."""
        named = dict(self.unknown)
        for name, module in self.ran.items():
            what = f"{name} ({type(module).__name__})"
            for label, p in module.named_parameters(recurse=False):
                if what not in named and is_wide(p) and storage_of(p) not in self.origins.used:
                    named[f"{what}: parameter {label} was not seen in use"] = None
        return tuple(named)

    def _unknown(self, frame: _Frame, operation: str = "") -> None:
        what = f"{frame.name} ({type(frame.module).__name__})"
        self.unknown[f"{what}: {operation}" if operation else what] = None

    # --------------------------------------------------------------------------------------------- tensor operations

    def operation(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        """Count one operation of torch that has just run."""
        if self.paused or not self.frames:
            return
        frame = self.frames[-1]
        name, namespace = func._schema.name.split("::")[-1], func.namespace
        if frame.hidden:
            if frame.beyond:
                frame.macs += macs_of(name, args, out)
            return
        inputs, outputs = list(tensors_in((args, kwargs))), list(tensors_in(out))
        if name.startswith(("empty", "new_empty")):  # whoever fills it may be out of sight
            return
        self.origins.follow(inputs, outputs)
        if not inputs or func.is_view or name.startswith(NO_WORK) or torch.Tag.inplace_view in func.tags:
            return
        arrived = {storage_of(t) for t in inputs}
        self.origins.used |= arrived
        self.origins.saw([t for t in outputs if storage_of(t) not in arrived])
        if name == "clone":  # to change the layout in memory; whether it is needed depends on the batch
            return
        scale = self.origins.share(inputs, outputs, self.now)
        if name in FACTORS:
            self._factors(frame, name, args, scale)
        elif name == "convolution":
            self._convolution(frame, args, out, scale)
        elif name.startswith(SCALED_DOT_PRODUCT):
            self.attention(*args[:3])
        elif name == "embedding":
            table = self.origins.constant(args[0])
            bits = {"weight_bits": args[0].element_size() * 8, "activation_bits": out.element_size() * 8}
            count = LayerCount(
                _layer_of(table.name) if table else frame.name,
                "embedding",
                input_elements=float(args[1].numel()),
                output_elements=float(out.numel()),
                **bits,
            )
            self.tallies.add(count, self.origins.claim(inputs), scale, _leading(inputs[1:]))
        elif namespace not in ("aten", "prim", "prims") or not self._harmless(func, name, inputs, outputs):
            self._unknown(frame, str(func))
        else:
            if "softmax" in name:
                self.tallies.softmax_in.add(frame.name)
            count = LayerCount(
                frame.name,
                "elementwise",
                input_elements=float(sum(map(distinct, inputs))),
                output_elements=float(sum(t.numel() for t in outputs)),
                activation_bits=inputs[0].element_size() * 8,
            )
            self.tallies.add(count, self.origins.claim(inputs), scale, _leading(outputs))

    def _harmless(self, func: Any, name: str, inputs: list[Tensor], outputs: list[Tensor]) -> bool:
        """Whether an operation certainly holds no products of inputs and weights."""
        if torch.Tag.pointwise in func.tags:
            # a matrix spread over an input by broadcasting is a product in disguise: (x[:, :, None] * w).sum(1)
            moving = [t for t in inputs if self.origins.constant(t) is None]
            spread = any(1 < t.numel() < outputs[0].numel() for t in moving) if outputs else False
            return not (
                name.startswith("mul") and spread and any(is_wide(t) and self.origins.is_weight(t) for t in inputs)
            )
        return torch.Tag.reduction in func.tags or name.startswith(NO_PRODUCTS)

    def _factors(self, frame: _Frame, name: str, args: tuple[Any, ...], scale: float) -> None:
        left, right = (args[k] for k in FACTORS[name])
        left3, right3 = as_batch(left, right)
        if self._is_matrix(right, left):
            x, matrix, constant = left3, right3, self.origins.constant(right)
        elif constant := self.origins.constant(left):
            x, matrix = right3.transpose(1, 2), left3.transpose(1, 2)
        else:
            count = replace(product(left3, right3.shape[2]), name=frame.name, op="matmul", rows=0, cols=0, groups=1)
            moved = float(distinct(left) + distinct(right))
            count = replace(count, vectors=0.0, input_elements=moved, dense_sops=0.0, sops=0.0, binary_input=False)
            self.tallies.add(replace(count, effective_macs=0.0, effective_acs=0.0), 0, scale, _leading([left]))
            return
        if matrix.shape[0] > 1 and matrix.stride(0) == 0:  # one matrix, expanded over the batch
            x, matrix = x.reshape(1, -1, x.shape[2]), matrix[:1]
        weights = self.origins.claim([t for t in args if isinstance(t, Tensor)], buffers=True)
        named = _layer_of(constant.name) if constant and constant.name else frame.name
        self.tallies.add(product(x, matrix.shape[2], matrix, name=named), weights, scale, _leading([left]))

    def _is_matrix(self, right: Tensor, left: Tensor) -> bool:
        """Whether the right factor is the weight: if neither depends on the input, the one made of parameters is."""
        constant, other = self.origins.constant(right), self.origins.constant(left)
        return constant is not None and not (other is not None and other.weight and not constant.weight)

    def _convolution(self, frame: _Frame, args: tuple[Any, ...], out: Tensor, scale: float) -> None:
        x, weight, _, stride, padding, dilation, transposed, _, groups = args[:9]
        n = x.dim() - 2
        stride, padding, dilation = (tuple(v) * n if len(v) == 1 else tuple(v) for v in (stride, padding, dilation))
        channels = weight.shape[0] if transposed else weight.shape[1] * groups
        outs = weight.shape[1] * groups if transposed else weight.shape[0]
        pairs = tuple((p, p) for p in padding)
        shape = Convolution(channels, outs, tuple(weight.shape[2:]), stride, pairs, dilation, groups, transposed)
        count = shape.count(x, out.shape[2:], weight)
        constant = self.origins.constant(weight)
        if constant is None:  # filters that depend on the input
            count = replace(count, op="matmul", rows=0, cols=0, groups=1, vectors=0.0, dense_sops=0.0, sops=0.0)
            count = replace(count, effective_macs=0.0, effective_acs=0.0, zero_weights=0, weight_mean_abs=None)
            count = replace(count, binary_input=False)
        name = _layer_of(constant.name) if constant and constant.name else frame.name
        weights = self.origins.claim(list(tensors_in(args)), buffers=True) if constant else 0
        self.tallies.add(replace(count, name=name), weights, scale, _leading([x]))

    def attention(self, query: Tensor, key: Tensor, value: Tensor) -> bool:
        """Count one call of scaled dot-product attention, unless a layer around it speaks for it."""
        if self.paused or not self.frames or self.frames[-1].hidden:
            return False
        frame = self.frames[-1]
        heads, kv_heads = math.prod(query.shape[:-2]), math.prod(key.shape[:-2])
        count = dot_product_attention(
            heads,
            query.shape[-2],
            key.shape[-2],
            query.shape[-1],
            like=query,
            value_width=value.shape[-1],
            kv_heads=kv_heads,
        )
        self.tallies.add(replace(count, name=frame.name), 0, 1.0, _leading([query]))
        return True

    @contextmanager
    def hiding(self) -> Iterator[None]:
        """Whatever runs inside has been counted."""
        was, self.paused = self.paused, True
        try:
            yield
        finally:
            self.paused = was


class _Operations(TorchDispatchMode):
    """Shows every operation below autograd to the recorder."""

    def __init__(self, recorder: Recorder):
        super().__init__()
        self._recorder = recorder

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self._recorder.operation(func, args, kwargs or {}, out)
        return out


class _Attention(TorchFunctionMode):
    """Counts scaled dot-product attention before torch picks a kernel, which would hide grouped heads."""

    def __init__(self, recorder: Recorder):
        super().__init__()
        self._recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        given = dict(zip(("query", "key", "value"), args, strict=False)) | kwargs
        if not self._recorder.attention(given["query"], given["key"], given["value"]):
            return func(*args, **kwargs)
        with self._recorder.hiding():
            out = func(*args, **kwargs)
        self._recorder.origins.saw([out])
        return out


def _positional(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    bound = inspect.signature(module.forward).bind(*args, **kwargs)
    bound.apply_defaults()
    return tuple(bound.arguments.values())


def _belongs(parameter: str, part: str) -> bool:
    """Whether a parameter is of a part: weight_ih_l0 of ih_l0, in_proj_bias of in_proj, out_proj.weight of out_proj."""
    return parameter in {f"{kind}_{part}" for kind in ("weight", "bias")} | {
        f"{part}{joint}{kind}" for kind in ("weight", "bias") for joint in ("_", ".")
    }


def _layer_of(parameter: str) -> str:
    return parameter.removesuffix(".weight").removesuffix("_weight")


def _leading(tensors: list[Tensor]) -> tuple[int, int]:
    """The first size of an input, and the product of the first two."""
    shape = tensors[0].shape if tensors else torch.Size()
    return math.prod(shape[:1]), math.prod(shape[:2])
