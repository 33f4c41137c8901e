"""A network on programmed chips at one time: what `chips.at(time)` gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from hpml_sim.analog.chip_axis import ChipAxis
from hpml_sim.analog.layers import check_programmed_weights, crossbars
from hpml_sim.analog.programmed_weights import WeightsDifferError
from hpml_sim.analog.random_states import seeded_generators
from hpml_sim.analog.sample_noise import Orders, SampleNoise, current_samples
from hpml_sim.analog.seeds import Purpose, derive
from hpml_sim.analog.unmapped_matmul import UnmappedMatmulGuard
from hpml_sim.analog.weight_uses import WeightUses
from hpml_sim.conversion.chips_in_front import ChipsInFront, Shapes
from hpml_sim.conversion.idle_layers import IdleLayers
from hpml_sim.conversion.modules import place_in_network
from hpml_sim.conversion.network_call import copied_tensors
from hpml_sim.conversion.output_structure import stack_chips
from hpml_sim.errors import HpmlError
from hpml_sim.units.display import html_table, plain_lines
from hpml_sim.units.times import format_time


class NetworkPerChip(nn.Module):
    """Networks of one chip each, for layers that hold one chip only.

    Args:
        networks: one for each chip.
    """

    def __init__(self, networks: list[nn.Module]):
        super().__init__()
        self.networks = nn.ModuleList(networks)


class ProgrammedModel(ChipsInFront):
    """Programmed chips at one time since programming: called as the network, chips in front of all that it gives.

    The network never sees the chips: it is called with (batch, ...) and may join, sort or sum rows as it likes. All
    chips run in one pass (`torch.vmap`), and the first call is checked against one chip alone. A network that cannot
    run so, because what it does depends on values, runs chip by chip; this is logged once.

    For evaluation only. The noise of the k-th call depends on seed, time and the calls before it alone: evaluating
    twice draws twice, and a new `chips.at(time)` repeats it all. `hs.evaluate` is one call, whatever its batches. What
    the network itself draws is the same for all chips, so that they differ by their devices alone.

    Args:
        said: what was logged for these chips at other times, which is not logged again; None: nothing.
        uses: where a call notes what it does with weights, for chips at all times; None: for these alone.
        orders: how rows lie, as evaluations of these chips at any time found it, and where they note it; None: for
            these alone.
        one_by_one: why the chips do not lie in memory together; None: they do.
        parts: make the models of as many chips as lie in memory together, one after another.

    Attributes:
        network: the network.
        n_chips: how many chips.
        seed: what all randomness comes from.
        time_s: seconds since the end of programming.
        uses: what the first call did with the weights of the layers.
    """

    def __init__(
        self,
        network: nn.Module,
        n_chips: int,
        seed: int,
        time_s: float,
        said: set[str] | None = None,
        *,
        uses: WeightUses | None = None,
        orders: dict[Shapes, Orders] | None = None,
        one_by_one: str | None = None,
        parts: Sequence[Callable[[], ProgrammedModel]] = (),
    ):
        super().__init__()
        self.network = network
        self.n_chips = n_chips
        self.seed = seed
        self.time_s = time_s
        self._calls = 0
        self.uses = WeightUses() if uses is None else uses
        self._orders: dict[Shapes, Orders] = {} if orders is None else orders
        self._axis = ChipAxis(network, n_chips, set() if said is None else said)
        self._axis.chip_by_chip = one_by_one
        self._parts = tuple(parts)
        super().train(False)

    def parts(self) -> Iterator[ProgrammedModel]:
        """The same chips, as many at a time as lie in memory together, in order: mostly all of them, this model.

        Whoever makes many calls, as `hs.evaluate` does, makes all of them on one part before it takes the next: a part
        is drawn when its turn comes, and its memory is free again once it is no longer held.
        """
        if not self._parts:
            yield self
        for part in self._parts:
            yield part()

    def sample_streams(self, model: nn.Module) -> SampleNoise:
        """For one evaluation of a model: the noise of all its programmed chips.

        Args:
            model: what is evaluated: this network, or one that it is a part of.
        """
        chips = [module for module in model.modules() if isinstance(module, ProgrammedModel)]
        programmed = [c for module in chips for c in crossbars(module).values() if c.programmed is not None]
        noisy = any(crossbar.target.output_noise > 0 or crossbar.target.read_noise > 0 for crossbar in programmed)
        known: dict[Shapes, Orders] = self._orders if len(chips) == 1 else {}
        return SampleNoise(None if noisy else {}, known, call=max((module._calls for module in chips), default=0))

    @property
    def chip_by_chip(self) -> str | None:
        """Why the network runs one chip at a time: a module and what torch said; None: all chips run in one pass."""
        if isinstance(self.network, NetworkPerChip):
            return "layers of aihwkit hold one chip each"
        return self._axis.chip_by_chip

    @property
    def n_passes(self) -> int:
        """How many times the network runs in one call: 1, or once for each chip."""
        return 1 if self.chip_by_chip is None else self.n_chips

    def train(self, mode: bool = True) -> ProgrammedModel:
        """Refused, unless it asks for the mode that the chips are in.

        Args:
            mode: False is allowed, and changes nothing.

        Raises:
            HpmlError: programmed chips are not trained.
        """
        if mode:
            raise HpmlError("programmed chips cannot be trained; train the model, then program it again")
        return self

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """All chips on the same inputs.

        Args:
            args: of the network, as it takes them: tensors of any shape, which are the same for every chip, and others.
            kwargs: of the network, as `args`.

        Returns:
            What the network gives, its tensors with the chips in front: mostly (chips, batch, ...).

        Raises:
            HpmlError: chips return tensors of different shapes, or a layer has another weight than was programmed.
        """
        if torch.compiler.is_compiling():  # vmap over compiled passes is no graph; the network inside stays as it is
            outside: Any = torch.compiler.disable(self._run)
            return outside(None, args, kwargs)
        return self._run(None, args, kwargs)

    def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """A method of the network, such as `generate`, for all chips.

        Args:
            method: its name; of the network that was converted.
            args: of the method; the same for every chip.
            kwargs: of the method, as `args`.

        Returns:
            What the method gives, its tensors with the chips in front.

        Raises:
            HpmlError: the network has no such method, or chips return tensors of different shapes.

        Example:
            >>> import torch, hpml_sim as hs
            >>> class Classifier(torch.nn.Linear):
            ...     def labels(self, x):
            ...         return self(x).argmax(-1)
            >>> chips = hs.program(hs.convert(torch.nn.Sequential(Classifier(8, 4)), "pcm-hermes"), chips=3, seed=0)
            >>> chips.at("1 day").call("forward", torch.rand(5, 8)).shape
            torch.Size([3, 5, 4])
        """
        if not callable(getattr(_owner(self.network, method), method, None)):
            raise HpmlError(
                f"chips.at(time).call: method={method!r}: {type(_inner(self.network)).__name__} has no method of this "
                "name"
            )
        return self._run(method, args, kwargs)

    @torch.no_grad()
    def _run(self, method: str | None, args: Any, kwargs: Any) -> Any:
        tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        tensors += list(self.network.parameters())[:1]
        device = tensors[0].device if tensors else torch.device("cpu")

        def call(network: nn.Module) -> Any:
            # a network that writes into its inputs must not change those of the next chip
            own_args, own_kwargs = copied_tensors((args, kwargs))
            function = network if method is None else getattr(_owner(network, method), method)
            return function(*own_args, **own_kwargs)

        def seeded(network: nn.Module) -> Any:
            with self._seeded(device):
                return call(network)

        if isinstance(self.network, NetworkPerChip):
            with self._seeded(device):  # aihwkit's noise comes from the global generator: each chip draws its own
                y = stack_chips([call(network) for network in self.network.networks])
        else:
            # once is enough, for the chips at all times: other calls do the same products, and the guard looks at
            # every operation
            guard = UnmappedMatmulGuard(self.network) if self.uses.found is None else None
            self._axis.network = self.network  # an attribute that a user may set
            samples = current_samples()
            idle = None if guard is None else IdleLayers(self.network, "programmed chips")
            for crossbar in crossbars(self.network).values():
                if crossbar.programmed is not None:
                    crossbar.programmed.begin(self._calls if samples is None else samples.call)
            try:
                y = self._axis.run(seeded, guard or nullcontext())
            except WeightsDifferError as error:
                raise WeightsDifferError(f"{error}. Seen in {place_in_network(error, self.network)}") from error
            if self._calls & (self._calls + 1) == 0:  # after 1, 2, 4, 8, ... calls: it takes a pass over the weights
                check_programmed_weights(self.network)
            if guard is not None and idle is not None:
                self.uses.note(self.network, guard.nominal)
                guard.warn()
                idle.warn()
        samples = current_samples()
        self._calls = self._calls + 1 if samples is None else samples.call + 1
        return y

    @contextmanager
    def _seeded(self, device: torch.device) -> Iterator[None]:
        """Within the block, the global generators of torch, Python and numpy start from the seed of this call."""
        # encoders and the like draw from the global generator: they get a seed of this call
        cuda = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda):
            samples = current_samples()
            call, first = (self._calls, 0) if samples is None else (samples.call, samples.first)
            seed = derive(self.seed, Purpose.NETWORK, layer=first, time_s=self.time_s, call=call)
            torch.default_generator.manual_seed(seed)
            if cuda:
                with torch.cuda.device(device):
                    torch.cuda.manual_seed(seed)
            with seeded_generators(seed):
                yield

    def load_state_dict(self, *_args: Any, **_kwargs: Any) -> Any:
        """Refused.

        Raises:
            HpmlError: what is programmed would not change with the weights.
        """
        raise HpmlError(
            "programmed chips hold conductances, which no state dict has: load it into the converted model and program "
            "that; hs.save_chips and hs.load_chips keep chips themselves"
        )

    def __repr__(self) -> str:
        return plain_lines(self._title(), self._facts())

    def _repr_html_(self) -> str:
        return html_table(self._title(), self._facts())

    def _title(self) -> str:
        return f"Programmed chips at {format_time(self.time_s)}: (batch, ...) -> ({self.n_chips}, batch, ...)"

    def _facts(self) -> list[tuple[str, object]]:
        layers = len(crossbars(self.network))
        one_by_one = [("chip by chip", self.chip_by_chip)] if self.chip_by_chip is not None else []
        return [
            ("analog layers", layers or ""),  # chips of aihwkit's own layers have no crossbar of ours
            ("seed", str(self.seed)),
            *one_by_one,
            ("network", "print(model.network)"),
        ]


def _inner(network: nn.Module) -> nn.Module:
    """The network that was converted."""
    if isinstance(network, NetworkPerChip):
        network = network.networks[0]
    inner = getattr(network, "network", None)
    return inner if isinstance(inner, nn.Module) else network


def _owner(network: nn.Module, method: str) -> nn.Module:
    """What has a method: what `convert` made, or the network that it was made from."""
    return network if hasattr(network, method) else _inner(network)
