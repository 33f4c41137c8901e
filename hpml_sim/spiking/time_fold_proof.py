"""May time be folded into the batch? Tried out on the first call, since a `forward()` may do anything with its rows.

Attention over the first dimension, statistics over the batch, two views put together along it: layers that mix rows mix
time steps once these lie in the batch. A private copy of the network runs over a few steps in one pass, and then step
by step; layers with a memory are replaced by random spikes, the same in both, so that a difference can neither grow nor
hide. Where the two differ, the network runs step by step from then on.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._C._functorch import peek_interpreter_stack  # pyright: ignore[reportMissingImports]
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

from hpml_sim.conversion.cloning import clone
from hpml_sim.errors import HpmlError
from hpml_sim.spiking.layer_kinds import BATCH_NORMS
from hpml_sim.spiking.row_wise import has_crossbar, is_row_wise
from hpml_sim.spiking.time_folded_layers import TimeFoldedBatchNorm, TimeFoldedDropout
from hpml_sim.spiking.time_folding import TimeFolded
from hpml_sim.spiking.time_loop import prepare_pass, run_step_by_step

_LOG = logging.getLogger(__name__)
_STEPS = 3
"""Steps that the proof takes: enough to see a step in another's place."""
_SHARE = 1e-3
"""Values that may differ: a rounding now and then takes a converter to its next step."""
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class FoldProof:
    """Whether a network may run over all steps in one pass, found out once for training and once for evaluation.

    Attributes:
        why_not: why the network runs step by step; None while all steps run at once.
    """

    def __init__(self) -> None:
        self.why_not: str | None = None
        self._known: dict[Any, str | None] = {}

    def holds(self, network: nn.Module, x: Tensor, steps: int, chips: int) -> bool:
        """Whether the network may run over all steps in one pass.

        Args:
            network: takes (chips x steps x batch, ...).
            x: an input of it.
            steps: time steps, >= 1.
            chips: simulated chips that lie side by side in the batch, >= 1.
        """
        if steps == 1 or x.is_meta or x.numel() == 0 or is_row_wise(network):
            return True
        # other modules in the network, after a replacement by hand, are another network
        key = (network.training, *(type(module).__qualname__ for module in network.modules()))
        if key not in self._known:
            if peek_interpreter_stack() is not None:
                return False  # values cannot be looked at inside vmap; a loop is right whatever the network does
            try:
                found = _why_not(network, x, steps, chips)
            except _UndecidedError:
                return True  # the call fails, or its numbers mean nothing, in one way or the other
            if found is not None and self.why_not is None:
                _LOG.warning(
                    "%s: its time steps run one by one, not in one pass, because %s", type(network).__name__, found
                )
            self._known[key] = found
        self.why_not = self._known[key] or self.why_not
        return self._known[key] is None


class _UndecidedError(Exception):
    """The network fails step by step as well, or gives NaN."""


class _MixedError(Exception):
    """The two ways differ."""


def _why_not(network: nn.Module, x: Tensor, steps: int, chips: int) -> str | None:
    """Why a network must run step by step; None where it need not."""
    devices = [x.device] if x.is_cuda else []
    # whoever watches operations must not see the proof's
    with (
        torch.no_grad(),
        torch.random.fork_rng(devices=devices),
        _disable_current_modes(),
        torch._C.DisableTorchFunction(),
    ):
        found = _differs(network, x.detach(), steps, chips, training=False)
        if found is None and network.training:
            found = _differs(network, x.detach(), steps, chips, training=True)
    return found


def _differs(network: nn.Module, x: Tensor, steps: int, chips: int, *, training: bool) -> str | None:
    try:
        copy = _private_copy(network, training=training)
    except HpmlError as error:
        return f"it cannot be proved that they do not mix: {error}"
    few = min(steps, _STEPS)
    generator = torch.Generator().manual_seed(0)
    x = x.reshape(chips, steps, -1, *x.shape[1:])[:, :few].flatten(0, 2)
    if x.is_floating_point():  # an input that is the same at every step would hide what mixes steps
        x = x * (0.5 + 0.5 * torch.rand(x.shape, generator=generator)).to(x)
    script = _Script(copy, few, chips, generator)
    try:
        with script.acting():
            try:
                prepare_pass(copy, few)
                folded = copy(x)
            except Exception as error:
                return _alone_or_undecided(network, x, few, chips, error)
            script.check(folded, "its output")
            for step in range(few):
                script.step = step
                script.compare_output(folded, _one_step(copy, x, few, chips, step))
    except _MixedError as mixed:
        if training and script.is_random(x):
            return None  # evaluation has decided
        return str(mixed)
    return None


def _one_step(copy: nn.Module, x: Tensor, steps: int, chips: int, step: int) -> Any:
    prepare_pass(copy, 1)
    one = x.unflatten(0, (chips, steps, -1))[:, step].flatten(0, 1)
    try:
        return copy(one)
    except _MixedError:
        raise
    except Exception as error:
        raise _UndecidedError from error


def _alone_or_undecided(network: nn.Module, x: Tensor, steps: int, chips: int, error: Exception) -> str:
    """What is to be said where one pass over all steps fails: the loop may do."""
    try:
        run_step_by_step(_private_copy(network, training=False), x, steps, chips)
    except Exception as same:
        raise _UndecidedError from same
    return f"all steps in one pass raise {type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _private_copy(network: nn.Module, *, training: bool) -> nn.Module:
    """A copy that shares the parameters, without the user's hooks, at rest; in training without random numbers."""
    memo: dict[int, Any] = {id(p): p for p in network.parameters()}
    for module in network.modules():
        for hooks in _HOOKS:
            memo[id(getattr(module, hooks))] = OrderedDict()
        if isinstance(module, TimeFolded) and module.layer_state is not None:
            memo[id(module.layer_state)] = None  # it may hold the graph of an earlier call
    copy = clone(network, memo).train(training)
    by_step = {module.norm for module in copy.modules() if isinstance(module, TimeFoldedBatchNorm)}
    for module in copy.modules():
        if isinstance(module, (nn.modules.dropout._DropoutNd, nn.RReLU, nn.MultiheadAttention, TimeFoldedDropout)):
            module.eval()
        elif type(module) in BATCH_NORMS and module not in by_step:
            module.eval()  # in training its statistics are those of all steps, and meant to be
    return copy


class _Script:
    """What the layers with a memory are given and give in each run, whatever they would have given.

    Attributes:
        step: the step that runs; None while all run in one pass.
    """

    def __init__(self, copy: nn.Module, steps: int, chips: int, generator: torch.Generator):
        self.step: int | None = None
        self._copy, self._steps, self._chips, self._generator = copy, steps, chips, generator
        self._lines: dict[str, list[tuple[Tensor, Any]]] = {}
        self._used: dict[tuple[str, int | None], int] = {}

    @contextmanager
    def acting(self) -> Iterator[None]:
        """Within the block, layers with a memory and layers on crossbars follow the script."""
        for name, module in self._copy.named_modules():
            remembers = isinstance(module, TimeFolded) and not isinstance(
                module, (TimeFoldedBatchNorm, TimeFoldedDropout)
            )
            if remembers or has_crossbar(module):
                module.forward = self._actor(name, module.forward, random=remembers)
        yield

    def _actor(self, name: str, forward: Callable[..., Any], *, random: bool) -> Callable[..., Any]:
        def act(x: Tensor, *args: Any, **kwargs: Any) -> Any:
            index = self._used.get((name, self.step), 0)
            self._used[name, self.step] = index + 1
            if self.step is None:
                given = forward(x, *args, **kwargs)
                if random:
                    given = tree_map(self._random, given)
                self._lines.setdefault(name, []).append((x, given))
                return given
            if index >= len(self._lines.get(name, ())):
                raise _MixedError(f"layer {name!r} is used more often in one step than in all of them")
            before, given = self._lines[name][index]
            self._compare(before, x, f"the input of layer {name!r}")
            return tree_map(self._at_step, given)

        return act

    def _random(self, like: Tensor) -> Tensor:
        return (torch.rand(like.shape, generator=self._generator) < 0.5).to(like)

    def _at_step(self, whole: Any) -> Any:
        """The part of the step that runs."""
        if not isinstance(whole, Tensor):
            return whole
        if whole.dim() < 1 or whole.shape[0] % (self._chips * self._steps):
            raise _MixedError(f"a tensor of shape {tuple(whole.shape)} has no rows for each of {self._steps} steps")
        rows = whole.shape[0] // (self._chips * self._steps)
        return whole.unflatten(0, (self._chips, self._steps, rows))[:, self.step].flatten(0, 1)

    def compare_output(self, folded: Any, alone: Any) -> None:
        """Compare what the network gave in one pass with what it gave in the step that runs."""
        whole, one = tree_leaves(folded), tree_leaves(alone)
        if len(whole) != len(one):
            raise _MixedError("it gives another number of outputs for one step than for all")
        for a, b in zip(whole, one, strict=True):
            if isinstance(a, Tensor) and isinstance(b, Tensor):
                self._compare(a, b, "its output")

    def check(self, output: Any, what: str) -> None:
        """Nothing can be said of NaN and infinity."""
        for leaf in tree_leaves(output):
            if isinstance(leaf, Tensor) and leaf.is_floating_point() and not bool(torch.isfinite(leaf).all()):
                raise _UndecidedError(what)

    def _compare(self, whole: Tensor, alone: Tensor, what: str) -> None:
        part = self._at_step(whole)
        if part.shape != alone.shape:
            raise _MixedError(f"{what} has shape {tuple(part.shape)} in one pass, {tuple(alone.shape)} in a loop")
        self.check((part, alone), what)
        part, alone = part.double(), alone.double()
        if part.numel() == 0:
            return
        fine = 1e-4 if whole.dtype in (torch.float32, torch.float64) else 3e-2
        apart = (part - alone).abs() > fine * max(float(part.abs().max()), float(alone.abs().max()))
        if float(apart.double().mean()) > _SHARE:
            raise _MixedError(f"{what} is another one when all steps run in one pass: something before it mixes rows")

    def is_random(self, x: Tensor) -> bool:
        """Whether the network gives other numbers each time, so that no comparison says anything."""
        runs = []
        for _ in range(2):
            self._lines, self._used, self.step = {}, {}, None
            self._generator.manual_seed(1)
            prepare_pass(self._copy, self._steps)
            runs.append(tree_leaves(self._copy(x)))
            runs[-1] += [line[0] for name in self._lines for line in self._lines[name]]
        return any(isinstance(a, Tensor) and not torch.allclose(a, b) for a, b in zip(*runs, strict=True))
