"""One forward pass, watched: layers by hooks, and whatever tensor operations happen outside known layers.

Three ways of watching run at once, because none sees everything. Hooks see layers with their inputs and outputs, but no
`x @ self.weight` in a `forward`. A dispatch mode sees every operation below autograd, but not whose it is, nor which of
them are one layer. A function mode sees scaled dot-product attention before torch picks a kernel for it. A stack of
frames, one for each module that is running, decides who counts: a known layer speaks for all that happens inside it,
and what happens in any other module is counted operation by operation.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from hpml_sim.conversion.compression import Compression, notes_of
from hpml_sim.counting.layer_rules import rule_for
from hpml_sim.counting.operation_counters import OperationCounter, leading_sizes, operation_name
from hpml_sim.counting.operation_counts import LayerCount
from hpml_sim.counting.rule import Rule
from hpml_sim.counting.tally import Tallies
from hpml_sim.counting.tensor_origins import Origins
from hpml_sim.counting.tensors import tensors_in
from hpml_sim.counting.torch_operations import is_wide, macs_of, storage_of
from hpml_sim.kernels.common.vmapping import is_mapped, level_of, unmapped_first


@dataclass
class _Frame:
    """A module that is running.

    Attributes:
        name: dotted name in the network.
        module: the module.
        rule: how it is counted; None for a module that is not known.
        hidden: a known layer speaks for the tensor operations in here.
        opaque: it speaks for the layers that it calls, too.
        beyond: a known layer whose class has a `forward` of its own: its products are watched, too.
        macs: what was seen of those products.
        arrived: storages of its inputs: what comes out in one of them was not computed here.
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
        self.now = 1
        """Samples in the pass that is running."""
        self.paused = False
        """Whether operations that run now are our own, or counted already."""
        self.frames: list[_Frame] = []
        self.ran: dict[str, nn.Module] = {}
        self.unknown: dict[str, None] = {}
        self.origins = Origins(model)
        self.tallies = Tallies()
        self._operations = OperationCounter(self.origins, self.tallies)

    # ------------------------------------------------------------------------------------------------------ one pass

    @contextmanager
    def watching(self, samples: int) -> Iterator[None]:
        """Count everything that runs inside.

        Args:
            samples: samples in this pass.
        """
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
                    # also when the call fails: a model may catch the exception, and the stack of frames has to follow
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
                # A subclass that adds a product to its parent's forward is counted as its parent, and the MACs seen
                # inside beyond the parent's make a row of their own; else LoRA-like layers would lose theirs.
                frame.beyond = type(module).forward is not base.forward  # type: ignore[attr-defined]
                frame.opaque = not rule.sub_layers and not frame.beyond
            elif above is not None and above.hidden:
                frame.hidden, frame.beyond = True, above.beyond
            frame.arrived = frozenset(storage_of(_of_all(t)) for t in tensors_in((args, kwargs)))
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
        if above is not None and frame.rule is None and frame.beyond:  # its products are part of the layer around it
            above.macs += frame.macs
        if output is None:
            return
        # counters compute with tensors themselves (zeros, absolute values): none of that is work of the network
        was, self.paused = self.paused, True
        try:
            if frame.rule is not None:
                inputs = args if not kwargs else _positional(module, args, kwargs)
                if any(map(is_mapped, tensors_in((inputs, output)))):  # a vmap of the network's own
                    inputs, output = (tree_map(_of_all, part) for part in (inputs, output))
                outputs, arrived = list(tensors_in(output)), list(tensors_in(inputs))
                self.origins.saw(outputs)
                self._known(frame, inputs, output)
                if arrived and all(self.origins.constant(t) is not None for t in arrived):
                    self.origins.follow([*arrived, *module.parameters()], outputs, self.now)
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
        leading = leading_sizes(tensors)
        scale = self.origins.share(tensors, list(tensors_in(output)), self.now)
        parameters = dict(module.named_parameters())
        rest = [p for name, p in parameters.items() if not any(_belongs(name, c.name) for c in counts if c.name)]
        for k, count in enumerate(counts):
            own = [p for name, p in parameters.items() if count.name and _belongs(name, count.name)]
            weights = self.origins.claim([*own, *(rest + tensors if k == 0 else [])])
            if count.weight_count:  # kept where parameters do not show it
                weights = count.weight_count if first_call else 0
            name = f"{frame.name}.{count.name}" if count.name else frame.name
            if count.rows and (notes := notes_of(module)):
                count = _as_stored(count, notes.values())
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
        """Name a module that computes where nobody can see: a kernel of its own, numpy, C++.

        An output that did not arrive as an input, was made by no operation that was seen, and is no weight came out of
        the dark.
        """
        self.ran[frame.name] = frame.module
        for t in map(_of_all, tensors_in(output)):
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
        """Count one operation of torch that has just run.

        Args:
            func: the operation, as torch's dispatcher hands it over.
            args: what it was given by position.
            kwargs: what it was given by name.
            out: what it gave.
        """
        if self.paused or not self.frames:
            return
        frame = self.frames[-1]
        if frame.hidden:
            if frame.beyond:
                inputs, outputs = list(tensors_in((args, kwargs))), list(tensors_in(out))
                self.origins.follow(inputs, outputs, self.now, operation_name(func))
                if macs := macs_of(operation_name(func), args, out):
                    sources = [self.origins.constant(t) for t in inputs]
                    held = all(source is not None and source.name for source in sources)  # weights with weights
                    frame.macs += macs * (self.origins.share(inputs, outputs, self.now) if held else 1.0)
        elif not self._operations.count(frame.name, func, args, kwargs, out, self.now):
            self._unknown(frame, str(func))

    def attention(self, query: Tensor, key: Tensor, value: Tensor) -> bool:
        """Count one call of scaled dot-product attention, unless a layer around it speaks for it.

        Args:
            query: (..., heads, queries, width).
            key: (..., key-value heads, keys, width).
            value: (..., key-value heads, keys, width of a value).

        Returns:
            Whether it was counted.
        """
        if self.paused or not self.frames or self.frames[-1].hidden:
            return False
        self._operations.attention(self.frames[-1].name, query, key, value)
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


def _of_all(x: Any) -> Any:
    """A tensor under a vmap with the axis in front, in which all samples lie; anything else as it is."""
    while is_mapped(x):
        x = unmapped_first(x, level_of(x), 0)
    return x


def _positional(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    bound = inspect.signature(module.forward).bind(*args, **kwargs)
    bound.apply_defaults()
    return tuple(bound.arguments.values())


def _as_stored(count: LayerCount, notes: Iterable[Compression]) -> LayerCount:
    """The count of a layer whose weights are quantized; of one whose zeros alone are noted, as it was."""
    numbers = next((own.numbers for own in notes if own.numbers is not None), None)
    if numbers is None:
        return count
    return replace(count, stored_bits=numbers.bits(count.rows), arithmetic=numbers.arithmetic)


def _belongs(parameter: str, part: str) -> bool:
    """Whether a parameter is of a part: weight_ih_l0 of ih_l0, in_proj_bias of in_proj, out_proj.weight of out_proj."""
    return parameter in {f"{kind}_{part}" for kind in ("weight", "bias")} | {
        f"{part}{joint}{kind}" for kind in ("weight", "bias") for joint in ("_", ".")
    }
