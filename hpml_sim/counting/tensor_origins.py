"""Where tensors come from: what does not depend on the input, and which parameters the workload has counted already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from hpml_sim.conversion.idle_layers import Multiplier
from hpml_sim.counting.torch_operations import storage_of


@dataclass
class Constant:
    """A tensor that does not depend on the input.

    Attributes:
        name: of the parameter or buffer it was made of; "" for none.
        root: that parameter or buffer; None for none.
        weight: whether it was made of parameters alone.
        new: whether tensors went into it that came from nowhere, such as zeros.
    """

    name: str
    root: Tensor | None
    weight: bool
    new: bool = False

    def may_hold_samples(self) -> bool:
        """Whether the batch may be among its dimensions: zeros, or a state that is kept in a buffer."""
        return self.new or (not self.weight and self.root is not None and self.root.dim() > 1)


class Origins:
    """Follows tensors by their storage through the forward passes of one model."""

    def __init__(self, model: nn.Module):
        """`model`: whose parameters and buffers are known from the start."""
        self._model = model
        self._held = {storage_of(t): Constant(name, t, False) for name, t in model.named_buffers()}
        self._held |= {storage_of(t): Constant(name, t, True) for name, t in model.named_parameters()}
        self._on_tiles = {
            storage_of(weight)
            for module in model.modules()
            if any(isinstance(part, Multiplier) for part in module.children())
            for weight in module.parameters(recurse=False)
        }
        self._claimed: set[int] = set()
        self.used: set[int] = set()
        """Storages that counted work has read."""
        self.forget()

    def forget(self) -> None:
        """Forget all but what the model holds: tensors of a pass end with it."""
        self._constants = dict(self._held)
        self._gathered: dict[int, Constant] = {}
        self._made: set[int] = set()
        self._spread: set[int] = set()
        # a weak reference keeps the identity of a storage (not its memory) from being given to another
        self._references: dict[int, StorageWeakRef] = {}

    def constant(self, x: Tensor) -> Constant | None:
        """What a tensor was made of; None if it depends on the input."""
        return self._constants.get(storage_of(x))

    def gathered(self, x: Tensor) -> Constant | None:
        """What a tensor was taken out of that holds parts of a weight, chosen by the input; None for any other.

        Args:
            x: any tensor.
        """
        return self._gathered.get(storage_of(x))

    def on_tiles(self, x: Tensor) -> bool:
        """Whether what a tensor was gathered from lies on hardware that multiplies where it lies.

        Args:
            x: any tensor.
        """
        origin = self.gathered(x)
        return origin is not None and origin.root is not None and storage_of(origin.root) in self._on_tiles

    def gather(self, source: Tensor, output: Tensor) -> None:
        """An operation took, or copied, parts of a weight.

        Args:
            source: the weight, or what was gathered from it.
            output: what it gave.
        """
        origin = self._gathered.get(storage_of(source)) or self.constant(source)
        if origin is not None and origin.weight and origin.root is not None and origin.root.dim() > 2:
            self._gathered[self._remember(output)] = origin

    def is_weight(self, x: Tensor) -> bool:
        """Whether a tensor was made of parameters alone."""
        constant = self.constant(x)
        return constant is not None and constant.weight

    def spread(self, outputs: Sequence[Tensor]) -> None:
        """These tensors hold products of an input and a matrix that were not summed yet."""
        self._spread.update(map(self._remember, outputs))

    def is_spread(self, x: Tensor) -> bool:
        """Whether a tensor holds products of an input and a matrix that were not summed yet."""
        return storage_of(x) in self._spread

    def is_known(self, x: Tensor) -> bool:
        """Whether a tensor was made by counted work, or does not depend on the input."""
        return self.constant(x) is not None or storage_of(x) in self._made

    def saw(self, outputs: Sequence[Tensor]) -> None:
        """These tensors were made by work that is counted."""
        for t in outputs:
            self._made.add(self._remember(t))

    def follow(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], samples: int, operation: str = "") -> None:
        """What is made of weights, buffers and new tensors alone does not depend on the input either.

        Args:
            inputs: tensors that an operation read.
            outputs: tensors that it made or wrote.
            samples: in the pass; what was expanded over them, and copied, has the samples in it.
            operation: its name; "": any other than those that copy one tensor several times.
        """
        sources = [self.constant(t) for t in inputs]
        arrived = {storage_of(t) for t in inputs}
        copied = all(storage_of(t) not in arrived for t in outputs)
        if copied and (_expanded(inputs, samples) or _repeated(operation, inputs, outputs, samples)):
            return
        if all(source is not None for source in sources):
            by_rank = sorted((s for s in sources if s is not None and s.name), key=lambda s: not s.weight)
            named = by_rank[0] if by_rank else None
            weight = bool(sources) and all(s is not None and s.weight for s in sources)
            new = not sources or any(s is not None and s.new for s in sources)
            for t in outputs:
                name, root = (named.name, named.root) if named else ("", None)
                self._constants.setdefault(self._remember(t), Constant(name, root, weight, new))
        else:
            for t in outputs:  # written in place
                self._constants.pop(storage_of(t), None)

    def share(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], samples: int) -> float:
        """How often work of a pass of `samples` samples counts, divided by them later.

        Work on weights is done once for all samples, so each inference bears all of it; work on the input is shared. A
        tensor that came from nowhere (zeros, arange) may be either: a state has the batch among its first dimensions.

        Args:
            inputs: tensors that the work read.
            outputs: tensors that it made.
            samples: in the pass.
        """
        sources = [self.constant(t) for t in inputs]
        if not sources or any(source is None for source in sources):
            return 1.0
        # a weight that was expanded over the batch is worked on once for each sample
        if _expanded(inputs, samples):
            return 1.0
        if any(source is not None and source.may_hold_samples() for source in sources):
            # values lie in the last dimension, but of what has no other
            sizes = [size for t in outputs for size in (t.shape[:-1] or t.shape)[:2]]
            if any(size % samples == 0 for size in sizes):
                return 1.0
        return float(samples)

    def claim(self, tensors: Sequence[Tensor], *, buffers: bool = False) -> int:
        """Stored parameters behind these tensors that no row has yet; from now on one has.

        Args:
            tensors: what the work of a row read.
            buffers: whether buffers count as stored parameters, too.
        """
        total = 0
        for t in tensors:
            constant = self._held.get(storage_of(t)) or self.constant(t)
            root = t if isinstance(t, nn.Parameter) else constant.root if constant else None
            if root is None or id(root) in self._claimed or not (buffers or isinstance(root, nn.Parameter)):
                continue
            self._claimed.add(id(root))
            total += root.numel()
        return total

    def claim_once(self, module: nn.Module) -> bool:
        """Whether a module whose weights are no parameters is asked for the first time."""
        first = id(module) not in self._claimed
        self._claimed.add(id(module))
        return first

    def unclaimed(self) -> int:
        """Stored parameters that no row has: of layers that did not run or are not counted."""
        return sum(p.numel() for p in self._model.parameters() if id(p) not in self._claimed)

    def _remember(self, x: Tensor) -> int:
        key = storage_of(x)
        if key not in self._references and key != id(x):
            self._references[key] = StorageWeakRef(x.untyped_storage())
        return key


def _expanded(tensors: Sequence[Tensor], samples: int) -> bool:
    """Whether a tensor stands for the same values for each of several samples."""
    return samples > 1 and any(
        size == samples and step == 0 for t in tensors for size, step in zip(t.shape, _strides(t), strict=True)
    )


def _repeated(operation: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor], samples: int) -> bool:
    """Whether an operation copied a tensor once for each of several samples, along one dimension or into a new one."""
    if samples == 1 or not inputs or not outputs:
        return False
    if operation in ("stack", "cat"):
        same = [storage_of(t) for t in inputs]
        return len(same) % samples == 0 and len(set(same)) * samples == len(same)
    if operation != "repeat":
        return False
    new, old = outputs[0].shape, inputs[0].shape
    return any(to == samples * size for to, size in zip(new, (1,) * (len(new) - len(old)) + old, strict=True))


def _strides(x: Tensor) -> Sequence[int]:
    """Steps in memory; those of a sparse tensor are not known."""
    return x.stride() if x.layout is torch.strided else [1] * x.dim()
