"""One forward pass, watched: layers by hooks, and whatever tensor operations happen outside known layers."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from hpml_sim.census.counters import Rule, dot_product_attention, rule_for, tensors_in
from hpml_sim.census.counts import ADDITIVE, LayerCount
from hpml_sim.census.fan_out import Convolution, product
from hpml_sim.census.operations import (
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


@dataclass
class _Constant:
    """A tensor that does not depend on the input: `root` and `name` of the parameter or buffer it was made of, if any.

    `weight`: made of parameters alone.
    """

    name: str
    root: Tensor | None
    weight: bool


@dataclass
class _Tally:
    """Sums for one row of the census over all calls and forward passes."""

    first: LayerCount
    sums: dict[str, float] = field(default_factory=dict)
    calls: float = 0.0
    steps: int = 0
    leading: list[float] = field(default_factory=lambda: [0.0, 0.0])
    binary: bool = True
    weighted: dict[str, float] = field(default_factory=dict)
    weight_count: int = 0

    def add(self, count: LayerCount, scale: float, leading: tuple[int, int]) -> None:
        for name in ADDITIVE:
            self.sums[name] = self.sums.get(name, 0.0) + scale * getattr(count, name)
        self.calls += count.calls
        self.steps += count.steps
        self.leading = [total + scale * new for total, new in zip(self.leading, leading, strict=True)]
        self.binary = self.binary and count.binary_input
        for name in ("active_fraction", "input_mean_square"):
            value = getattr(count, name)
            if value is not None:
                self.weighted[name] = self.weighted.get(name, 0.0) + scale * value * count.input_elements


class Recorder:
    """Collects counts during forward passes of one model."""

    def __init__(self, model: nn.Module):
        self.model = model
        self.samples = 0
        self.passes = 0
        self.now = 1  # samples in the pass that is running
        self.tallies: dict[tuple[Any, ...], _Tally] = {}
        self.unknown: dict[str, None] = {}
        self.softmax_in: set[str] = set()
        self.frames: list[_Frame] = []
        self.paused = False
        self.claimed: set[int] = set()
        self.used: set[int] = set()
        self.ran: dict[str, nn.Module] = {}
        self.constants: dict[int, _Constant] = {}
        self.made: set[int] = set()
        # a weak reference keeps the identity of a storage (not its memory) from being given to another
        self.references: dict[int, StorageWeakRef] = {}
        self.held = {storage_of(t): _Constant(name, t, False) for name, t in model.named_buffers()}
        self.held |= {storage_of(t): _Constant(name, t, True) for name, t in model.named_parameters()}

    # ------------------------------------------------------------------------------------------------------ one pass

    @contextmanager
    def watching(self, samples: int) -> Iterator[None]:
        """Count everything that runs inside, `samples` samples at once."""
        self.samples += samples
        self.passes += 1
        self.now = samples
        self.constants = dict(self.held)
        self.made = set()
        self.references = {}
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
                self.constants, self.made, self.references = {}, set(), {}

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
                self.saw(list(tensors_in(output)))
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
        tensors = list(tensors_in(inputs))
        leading = _leading(tensors)
        scale = self._scale(tensors, list(tensors_in(output)))
        parameters = dict(module.named_parameters())
        rest = [p for name, p in parameters.items() if not any(_belongs(name, c.name) for c in counts if c.name)]
        for k, count in enumerate(counts):
            own = [p for name, p in parameters.items() if count.name and _belongs(name, count.name)]
            weights = self._claim([*own, *(rest + tensors if k == 0 else [])])
            if count.weight_count:  # kept where parameters do not show it
                weights = count.weight_count if id(module) not in self.claimed else 0
            name = f"{frame.name}.{count.name}" if count.name else frame.name
            if count.op == "softmax" and self.frames:
                self.softmax_in.add(self.frames[-1].name)
            self._add(replace(count, name=name, module=type(module).__name__), weights, scale, leading)
        self.claimed.add(id(module))
        self.used |= {*frame.arrived, *map(storage_of, parameters.values())}
        more = frame.macs - sum(count.macs for count in counts)
        if frame.beyond and more > 0:
            self._add(LayerCount(f"{frame.name}.forward", "matmul", macs=more, dense_sops=0.0), 0, scale, leading)

    def saw(self, outputs: list[Tensor]) -> None:
        """These tensors were made by work that is counted."""
        for t in outputs:
            self.made.add(self._remember(t))

    def _remember(self, x: Tensor) -> int:
        key = storage_of(x)
        if key not in self.references and key != id(x):
            self.references[key] = StorageWeakRef(x.untyped_storage())
        return key

    def _check_seen(self, frame: _Frame, output: Any) -> None:
        """Whoever computes where no one can see is named: a kernel of its own, numpy, C++."""
        self.ran[frame.name] = frame.module
        for t in tensors_in(output):
            key = storage_of(t)
            if key not in frame.arrived and key not in self.constants and key not in self.made:
                self._unknown(frame)
                self.saw([t])  # named once, not again by each module around it

    def not_counted(self) -> tuple[str, ...]:
        """What ran and is not counted: modules with a kernel of their own, operations, matrices that no one touched."""
        named = dict(self.unknown)
        for name, module in self.ran.items():
            what = f"{name} ({type(module).__name__})"
            for label, p in module.named_parameters(recurse=False):
                if what not in named and is_wide(p) and storage_of(p) not in self.used:
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
        self._follow_constants(inputs, outputs)
        if not inputs or func.is_view or name.startswith(NO_WORK) or torch.Tag.inplace_view in func.tags:
            return
        arrived = {storage_of(t) for t in inputs}
        self.used |= arrived
        self.saw([t for t in outputs if storage_of(t) not in arrived])
        if name == "clone":  # to change the layout in memory; whether it is needed depends on the batch
            return
        scale = self._scale(inputs, outputs)
        if name in FACTORS:
            self._factors(frame, name, args, scale)
        elif name == "convolution":
            self._convolution(frame, args, out, scale)
        elif name.startswith(SCALED_DOT_PRODUCT):
            self.attention(*args[:3])
        elif name == "embedding":
            table = self.constants.get(storage_of(args[0]))
            bits = {"weight_bits": args[0].element_size() * 8, "activation_bits": out.element_size() * 8}
            count = LayerCount(
                _layer_of(table.name) if table else frame.name,
                "embedding",
                input_elements=float(args[1].numel()),
                output_elements=float(out.numel()),
                **bits,
            )
            self._add(count, self._claim(inputs), scale, _leading(inputs[1:]))
        elif namespace not in ("aten", "prim", "prims") or not self._harmless(func, name, inputs, outputs):
            self._unknown(frame, str(func))
        else:
            if "softmax" in name:
                self.softmax_in.add(frame.name)
            count = LayerCount(
                frame.name,
                "elementwise",
                input_elements=float(sum(map(distinct, inputs))),
                output_elements=float(sum(t.numel() for t in outputs)),
                activation_bits=inputs[0].element_size() * 8,
            )
            self._add(count, self._claim(inputs), scale, _leading(outputs))

    def _harmless(self, func: Any, name: str, inputs: list[Tensor], outputs: list[Tensor]) -> bool:
        """Whether an operation certainly holds no products of inputs and weights."""
        if torch.Tag.pointwise in func.tags:
            # a matrix spread over an input by broadcasting is a product in disguise: (x[:, :, None] * w).sum(1)
            moving = [t for t in inputs if storage_of(t) not in self.constants]
            spread = any(1 < t.numel() < outputs[0].numel() for t in moving) if outputs else False
            return not (name.startswith("mul") and spread and any(is_wide(t) and self._is_weight(t) for t in inputs))
        return torch.Tag.reduction in func.tags or name.startswith(NO_PRODUCTS)

    def _factors(self, frame: _Frame, name: str, args: tuple[Any, ...], scale: float) -> None:
        left, right = (args[k] for k in FACTORS[name])
        left3, right3 = as_batch(left, right)
        if self._is_matrix(right, left):
            x, matrix, constant = left3, right3, self.constants[storage_of(right)]
        elif storage_of(left) in self.constants:
            x, matrix, constant = right3.transpose(1, 2), left3.transpose(1, 2), self.constants[storage_of(left)]
        else:
            count = replace(product(left3, right3.shape[2]), name=frame.name, op="matmul", rows=0, cols=0, groups=1)
            moved = float(distinct(left) + distinct(right))
            count = replace(count, vectors=0.0, input_elements=moved, dense_sops=0.0, sops=0.0, binary_input=False)
            self._add(replace(count, effective_macs=0.0, effective_acs=0.0), 0, scale, _leading([left]))
            return
        if matrix.shape[0] > 1 and matrix.stride(0) == 0:  # one matrix, expanded over the batch
            x, matrix = x.reshape(1, -1, x.shape[2]), matrix[:1]
        weights = self._claim([t for t in args if isinstance(t, Tensor)], buffers=True)
        named = _layer_of(constant.name) if constant.name else frame.name
        self._add(product(x, matrix.shape[2], matrix, name=named), weights, scale, _leading([left]))

    def _is_matrix(self, right: Tensor, left: Tensor) -> bool:
        """Whether the right factor is the weight: if neither depends on the input, the one made of parameters is."""
        constant, other = (self.constants.get(storage_of(t)) for t in (right, left))
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
        constant = self.constants.get(storage_of(weight))
        if constant is None:  # filters that depend on the input
            count = replace(count, op="matmul", rows=0, cols=0, groups=1, vectors=0.0, dense_sops=0.0, sops=0.0)
            count = replace(count, effective_macs=0.0, effective_acs=0.0, zero_weights=0, weight_mean_abs=None)
            count = replace(count, binary_input=False)
        name = _layer_of(constant.name) if constant and constant.name else frame.name
        weights = self._claim(list(tensors_in(args)), buffers=True) if constant else 0
        self._add(replace(count, name=name), weights, scale, _leading([x]))

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
        self._add(replace(count, name=frame.name), 0, 1.0, _leading([query]))
        return True

    @contextmanager
    def hiding(self) -> Iterator[None]:
        """Whatever runs inside has been counted."""
        was, self.paused = self.paused, True
        try:
            yield
        finally:
            self.paused = was

    # ------------------------------------------------------------------------------------------- what is not an input

    def _follow_constants(self, inputs: list[Tensor], outputs: list[Tensor]) -> None:
        """What is made of weights, buffers and new tensors alone does not depend on the input either."""
        sources = [self.constants.get(storage_of(t)) for t in inputs]
        if all(source is not None for source in sources):
            by_rank = sorted((s for s in sources if s is not None and s.name), key=lambda s: not s.weight)
            named = by_rank[0] if by_rank else None
            weight = bool(sources) and all(s is not None and s.weight for s in sources)
            for t in outputs:
                name, root = (named.name, named.root) if named else ("", None)
                self.constants.setdefault(self._remember(t), _Constant(name, root, weight))
        else:
            for t in outputs:  # written in place
                self.constants.pop(storage_of(t), None)

    def _is_weight(self, x: Tensor) -> bool:
        constant = self.constants.get(storage_of(x))
        return constant is not None and constant.weight

    def _scale(self, inputs: list[Tensor], outputs: list[Tensor]) -> float:
        """Work on weights is done once for all samples, so each inference bears all of it; work on the input is shared.

        A tensor that came from nowhere (zeros, arange) may be either: a state has the batch among its first dimensions.
        """
        sources = [self.constants.get(storage_of(t)) for t in inputs]
        if not sources or any(source is None for source in sources):
            return 1.0
        if not all(source is not None and source.weight for source in sources):
            sizes = [size for t in outputs for size in t.shape[:2]]
            if any(size % self.now == 0 for size in sizes):
                return 1.0
        return float(self.now)

    # ----------------------------------------------------------------------------------------------------- bookkeeping

    def _claim(self, tensors: Sequence[Tensor], *, buffers: bool = False) -> int:
        """Stored parameters behind these tensors that no row has yet."""
        total = 0
        for t in tensors:
            constant = self.held.get(storage_of(t)) or self.constants.get(storage_of(t))
            root = t if isinstance(t, nn.Parameter) else constant.root if constant else None
            if root is None or id(root) in self.claimed or not (buffers or isinstance(root, nn.Parameter)):
                continue
            self.claimed.add(id(root))
            total += root.numel()
        return total

    def unclaimed(self) -> int:
        """Stored parameters that no row has: of layers that did not run or are not counted."""
        return sum(p.numel() for p in self.model.parameters() if id(p) not in self.claimed)

    def _add(self, count: LayerCount, weights: int, scale: float, leading: tuple[int, int]) -> None:
        key = (count.name, count.op, count.rows, count.cols, count.groups)
        tally = self.tallies.get(key)
        if tally is None:
            tally = self.tallies[key] = _Tally(count)
        tally.add(count, scale, leading)
        tally.weight_count += weights

    def rows(self, *, measured: bool) -> list[LayerCount]:
        """The layers, for one inference."""
        steps = max((t.steps // self.passes for t in self.tallies.values() if t.first.op == "neuron"), default=1)
        return [self._row(tally, steps, measured=measured) for tally in self.tallies.values()]

    def _row(self, tally: _Tally, steps: int, *, measured: bool) -> LayerCount:
        first = tally.first
        sums: dict[str, Any] = {name: total / self.samples for name, total in tally.sums.items()}
        op = "attention" if first.op == "matmul" and first.name in self.softmax_in else first.op
        seen = tally.sums["input_elements"]
        row = replace(
            first,
            op=op,
            **sums,
            calls=tally.calls / self.passes,
            weight_count=tally.weight_count,
            binary_input=tally.binary,
        )
        if op == "neuron":
            own = max(tally.steps // self.passes, 1)
            row = replace(row, steps=own, neurons=round(row.updates / own))
        elif steps > 1:
            # time is in the calls, folded into the batch, or a dimension before it; else this layer ran once for all
            row = replace(row, steps=steps if any(n == steps * self.samples for n in tally.leading) else 1)
        if seen:
            means = {name: total / seen for name, total in tally.weighted.items()}
            row = replace(
                row, active_fraction=means["active_fraction"], input_mean_square=means.get("input_mean_square")
            )
        if measured:
            return row
        return replace(
            row,
            sops=row.dense_sops,
            effective_macs=row.dense_sops,
            effective_acs=0.0,
            spikes=0.0,
            zero_outputs=0.0,
            binary_input=False,
            active_fraction=1.0,
            input_mean_square=None,
        )


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
        self._recorder.saw([out])
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
