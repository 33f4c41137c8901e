"""How a network runs for many chips: once for all of them under `torch.vmap`, checked against one chip alone.

The network sees (batch, ...) and can join, sort, sum or transpose rows as it likes: the chips are an axis that it never
sees. What vmap cannot carry, such as control flow that depends on values, runs chip by chip.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from hpml_sim.analog.chip_pass import ChipPass, running
from hpml_sim.analog.kept_tensors import (
    Path,
    Place,
    Snapshot,
    attribute_holder,
    copy_plain_attributes,
    map_tensors,
    places,
    sharing,
)
from hpml_sim.analog.layers import crossbars
from hpml_sim.analog.random_states import OwnGenerators
from hpml_sim.analog.vmap_rules import VmapRules, cannot_write
from hpml_sim.analog.written_parameters import WrittenParameters
from hpml_sim.conversion.cloning import clone
from hpml_sim.conversion.modules import place_in_network, returns_of
from hpml_sim.conversion.output_structure import OutputsDifferError, stack_chips, take_apart
from hpml_sim.kernels.common.vmapping import is_mapped, level_of, mapped_first, no_fallback_warning, unmapped_first

Call = Callable[[nn.Module], Any]
"""Runs a network once, from the seed of this call."""

_LOG = logging.getLogger(__name__)
_RELATIVE = 1e-5
"""Rounding of sums in another order, in units of the largest value of a tensor."""
_MAX_OUTLIERS = 1e-3
"""Share of the values that may differ by more: where a rounding tips a spike or the step of a converter."""
_SAMPLE = 4096
"""Inputs of each layer that are compared."""


class ChipsDifferError(Exception):
    """All chips together gave another result than one of them alone; runs chip by chip from then on."""


@dataclass
class Products:
    """What the layers of chip 0 took and gave in a pass of all chips, to be held against that chip alone.

    The chip alone gets the products of the pass: so both round and clip the same values, and a difference in the last
    digit of a sum cannot grow through the converters of the layers after it.

    Attributes:
        found: (shape of the inputs, some of them, the products), in the order of the layers' calls.
        next: which of them is next.
    """

    found: list[tuple[torch.Size, Tensor, Tensor]] = field(default_factory=list)
    next: int = 0

    def watch(self, x: Tensor, y: Tensor) -> None:
        """Note one product of all chips.

        Args:
            x: inputs, shape (chips or 1, groups, vectors, rows).
            y: products, shape (chips, groups, vectors, cols).
        """
        self.found.append((x.shape[1:], _some(x[0]).clone(), y[:1].clone()))

    def replay(self, x: Tensor) -> Tensor:
        """The product of chip 0 at the next call of a layer.

        Args:
            x: inputs of the chip alone, shape (1, groups, vectors, rows).

        Raises:
            ChipsDifferError: other inputs than in the pass of all chips.
        """
        if self.next >= len(self.found):
            raise ChipsDifferError("chip 0 alone computes more products")
        shape, inputs, y = self.found[self.next]
        self.next += 1
        if x.shape[1:] != shape or not _close(inputs, _some(x[0])):
            raise ChipsDifferError(f"chip 0 alone has other inputs at product {self.next}")
        return y


class ChipAxis:
    """Runs a network for all its chips.

    Args:
        network: the network, its layers on programmed chips.
        n_chips: how many chips.
        said: what was already logged for these chips; the reason is added.

    Attributes:
        chip_by_chip: why the network runs one chip at a time; None: all chips run in one pass.
    """

    def __init__(self, network: nn.Module, n_chips: int, said: set[str]):
        self.network = network
        self.n_chips = n_chips
        self.chip_by_chip: str | None = None
        self._said = said
        self._widen = False
        self._checked = False
        self._writes: bool | None = None  # whether a call writes into parameters; seen in the first one
        self._generators: tuple[nn.Module, OwnGenerators] | None = None  # of the network; found once
        self._kept: dict[Path, Any] = {}  # what the last call left in the network with the chips in front

    def run(self, call: Call, guard: AbstractContextManager[Any]) -> Any:
        """What the network gives, its tensors with the chips in front.

        Args:
            call: runs a network once; the same every time it is called.
            guard: entered for one run of one chip.
        """
        if self.n_chips == 1:
            return self._only_chip(call, guard)
        if self.chip_by_chip is not None:
            try:
                return self._one_by_one(call, guard)
            except OutputsDifferError as differ:
                # chips that do not lie in memory together have another reason than a line of code
                where = returns_of(self.network) if "line " not in self.chip_by_chip else ""
                raise OutputsDifferError(f"{differ}. Seen in {where or self.chip_by_chip}") from None
        error, y = self._try_together(call, guard)
        if error is not None and cannot_write(error) and not self._widen:
            self._widen = True
            error, y = self._try_together(call, guard)
            self._widen = error is None
        if error is None:
            return y
        reason = _reason(error, self.network)
        try:
            y = self._one_by_one(call, guard)  # an error that is the network's own is raised here
        except OutputsDifferError as differ:
            where = place_in_network(error, self.network)
            where = where if "line " in where else returns_of(self.network) or where
            raise OutputsDifferError(f"{differ}. Seen in {where}") from error
        self.chip_by_chip = reason
        if not self._said:
            self._said.add(reason)
            _LOG.warning("chips run one by one, not together: %s", reason)
        return y

    # --------------------------------------------------------------------------------------------------- all together

    def _try_together(self, call: Call, guard: AbstractContextManager[Any]) -> tuple[Exception | None, Any]:
        """One pass of all chips; where it raises, the network, its hooks and its noise are as before."""
        found = (crossbar.programmed for crossbar in crossbars(self.network).values())
        noise = [(tiles, tiles.noise_positions()) for tiles in found if tiles is not None]
        before, kept = Snapshot.of(self.network, copies=not self._checked), self._kept
        generators = self._own_generators()
        start = generators.states()
        alone = None if self._checked else clone(self.network, sharing(self.network, {}))
        products = None if self._checked else Products()
        written = None if self._checked else WrittenParameters(self.network)
        try:
            y = self._together(call, products)
            if alone is not None and products is not None and written is not None:
                written.undo()
                end = generators.states()
                if start:
                    OwnGenerators(alone).put(start)  # some may be named by the code, and no part of the copy
                self._check(call, alone, products, y, guard)
                generators.put(end)
                written.undo()
                written.redo()
        except Exception as error:  # whatever vmap or the network raises
            before.restore()
            generators.put(start)
            if written is not None:
                written.restore()
            self._kept = kept
            for tiles, positions in noise:
                tiles.rewind_noise(positions)
            return error, None
        self._checked = True
        return None, y

    def _own_generators(self) -> OwnGenerators:
        if self._generators is None or self._generators[0] is not self.network:
            self._generators = self.network, OwnGenerators(self.network)
        return self._generators[1]

    def _together(self, call: Call, products: Products | None) -> Any:
        rebuild: Callable[[list[Tensor]], Any] | None = None

        def one_chip(chip: Tensor) -> tuple[Tensor, ...]:
            nonlocal rebuild
            level = level_of(chip)
            self._hand_over(lambda tensor: mapped_first(tensor, level))
            try:
                rules = VmapRules(widen=self._widen, level=level, length=self.n_chips)
                with rules, running(ChipPass(chip, None if products is None else products.watch)):
                    y = call(self.network)
                tensors, rebuild = take_apart(y)
                return (chip, *tensors)
            finally:
                self._take_back(level)

        # "same": chips differ by their devices alone, and chip i draws the same whatever chips run beside it
        with no_fallback_warning():
            _, *tensors = torch.vmap(one_chip, randomness="same")(torch.arange(self.n_chips))
        assert rebuild is not None
        return rebuild(tensors)

    def _hand_over(self, of_chip: Callable[[Tensor], Tensor]) -> None:
        """Give the network what it kept in its last call, each chip its own."""
        for place in self._kept_places().values():
            place.put(map_tensors(of_chip, place.value))

    def _kept_places(self) -> dict[Path, Place]:
        """The places that still hold what the last call left there with the chips in front."""
        if not self._kept:
            return {}
        now = places(self.network)
        return {
            path: now[path]
            for path, value in self._kept.items()
            if path in now and now[path].of_network and now[path].value is value
        }

    def _take_back(self, level: int) -> None:
        """Turn what the network and its hooks keep into ordinary tensors, the chips in front."""
        self._kept = {}

        for path, place in places(self.network).items():
            value = place.value
            parts = value if isinstance(value, tuple) else (value,)
            if any(map(is_mapped, parts)):
                place.put(map_tensors(lambda tensor: unmapped_first(tensor, level, self.n_chips), value))
                if place.of_network:
                    self._kept[path] = place.value

    def _check(
        self, call: Call, alone: nn.Module, products: Products, y: Any, guard: AbstractContextManager[Any]
    ) -> None:
        """Hold chip 0 among the others against chip 0 alone."""
        found = Snapshot.of(self.network)
        try:
            with guard, running(ChipPass(0, replay=products.replay)):
                want, _ = take_apart(call(alone))
        finally:
            found.restore_hooks()  # which ran a second time
        got, _ = take_apart(y)
        if products.next < len(products.found) or len(got) != len(want):
            raise ChipsDifferError("chip 0 alone computes fewer products, or returns other tensors")
        for mine, its in zip(got, want, strict=True):
            if mine.shape[1:] != its.shape or not _close(mine[0], its):
                raise ChipsDifferError("chip 0 alone gives another result than among the others")

    # ----------------------------------------------------------------------------------------------------- one by one

    def _only_chip(self, call: Call, guard: AbstractContextManager[Any]) -> Any:
        self._hand_over(lambda tensor: tensor[0])
        before = Snapshot.of(self.network)
        written = None if self._writes is False else WrittenParameters(self.network)
        with guard, running(ChipPass(0)):
            y = call(self.network)
        self._writes = written is not None and written.undo()
        if written is not None:
            written.redo()
        self._write_kept([before.changed(self.network)])
        return stack_chips([y])

    def _one_by_one(self, call: Call, guard: AbstractContextManager[Any]) -> Any:
        """One chip after the other, each with states of its own."""
        outputs, kept = [], []
        generators = self._own_generators()
        start = end = generators.states()
        stateful, held, network = True, self._kept_places(), self.network
        written = None if self._writes is False else WrittenParameters(self.network)
        for chip in range(self.n_chips):
            network = self.network
            if stateful:
                chosen: dict[int, Any] = {}
                for place in held.values():
                    value = place.value
                    for part in value if isinstance(value, tuple) else (value,):
                        if isinstance(part, Tensor):
                            chosen[id(part)] = part[chip]
                network = clone(self.network, sharing(self.network, chosen))
            before = Snapshot.of(network)
            own = generators if network is self.network or not start else OwnGenerators(network)
            own.put(start)
            with guard if chip == 0 else nullcontext(), running(ChipPass(chip)):
                outputs.append(call(network))
            kept.append(before.changed(network))
            end = own.states()
            if written is not None and not written.undo():
                written, self._writes = None, False
            if chip + 1 < self.n_chips:
                before.restore_hooks()  # every chip finds them as the first one did
            # where the first chip left nothing behind, no chip needs a copy of its own
            stateful = stateful and (chip > 0 or bool(held) or before.differs(network))
        generators.put(end)
        if written is not None:
            written.redo()
        if network is not self.network:
            copy_plain_attributes(network, self.network)
        self._write_kept(kept)
        return stack_chips(outputs)

    def _write_kept(self, kept: list[dict[Path, tuple[Place, Any]]]) -> None:
        """Put what the chips kept into the network and into what its hooks reach, the chips in front."""
        self._kept = {}
        if not any(kept):
            return
        modules = dict(self.network.named_modules())
        written: set[Path] = set()
        for path, (place, _) in kept[0].items():
            values = [one[path][1] for one in kept if path in one]
            if len(values) < len(kept):
                continue
            if place.of_network:
                attribute_holder(modules[path[0]], path[1])[path[1]] = stack_chips(values)
                written.add(path)
            else:
                place.put(stack_chips(values))
        self._kept = {path: place.value for path, place in places(self.network).items() if path[:2] in written}


def _some(x: Tensor) -> Tensor:
    """Some values of a tensor, spread over it."""
    flat = x.detach().reshape(-1)
    return flat[:: max(1, len(flat) // _SAMPLE)]


def _close(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are equal but for rounding, and for few values that a rounding tipped over."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if not (a.is_floating_point() or a.is_complex()):
        different = a != b
    else:
        finite = torch.isfinite(b)
        scale = float(b.abs()[finite].max()) if bool(finite.any()) else 0.0
        different = ~torch.isclose(a, b, rtol=0, atol=_RELATIVE * scale, equal_nan=True)
    return int(different.sum()) <= _MAX_OUTLIERS * different.numel()


def _reason(error: Exception, network: nn.Module) -> str:
    """Why chips cannot run together, in a line: the module, the line of its code, and what was raised there."""
    if isinstance(error, ChipsDifferError):
        return str(error)
    first = next(iter(str(error).splitlines()), "")
    return f"{place_in_network(error, network)}: {type(error).__name__}: {first}"
