"""The life of a chip: program, wait, run. Nothing here ever changes the model that was programmed.

    chips = program(model, chips=25, seed=0)      # conductances of 25 chips, each with its own errors
    aged = chips.at("1 day")                      # the same chips a day later: (batch, ...) -> (chips, batch, ...)

Every time is computed from the programmed state, so times can come in any order, and one seed gives the same bits.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NoReturn, Protocol

import torch
from torch import Tensor, nn

from hpml_sim.analog.calibration import programmable_crossbars
from hpml_sim.analog.chip_contents import Conductances, conductances_of, named_layer, weights_of
from hpml_sim.analog.conversion_cost import warn_of_cost
from hpml_sim.analog.crossbar import Crossbar
from hpml_sim.analog.fused_backend import TOGETHER_BYTES, FusedBackend, frozen_copy
from hpml_sim.analog.interop.aihwkit import AihwkitBackend
from hpml_sim.analog.layers import crossbars, weight_matrix
from hpml_sim.analog.noise_models import NoiseModel
from hpml_sim.analog.programmed_layer import ProgrammedLayer
from hpml_sim.analog.programmed_model import ProgrammedModel
from hpml_sim.analog.programmed_weights import WeightsDifferError
from hpml_sim.analog.sample_noise import Orders
from hpml_sim.analog.seeds import checked_seed
from hpml_sim.analog.weight_uses import WeightUses
from hpml_sim.conversion.chips_in_front import Shapes
from hpml_sim.conversion.output_structure import OutputsDifferError
from hpml_sim.conversion.training_sessions import FewSamples, register_before_training
from hpml_sim.errors import HpmlError, check_memory, check_whole, free_memory_bytes, shown
from hpml_sim.targets import Analog
from hpml_sim.units.display import html_table, plain_lines
from hpml_sim.units.times import parse_time


class Backend(Protocol):
    """What holds the conductances of chips: our own layers (`FusedBackend`), or aihwkit's (`AihwkitBackend`)."""

    @property
    def targets(self) -> list[Analog]:
        """Configurations of the layers, in order."""
        ...

    @property
    def noise_models(self) -> list[NoiseModel]:
        """Noise models of the layers, in order."""
        ...

    @property
    def chip_bytes(self) -> int:
        """What the weights of one chip take at one time, bytes."""
        ...

    def at(self, time_s: float, chips: Sequence[int], *, together: bool) -> nn.Module:
        """The network with some chips programmed into its layers, or a `NetworkPerChip`.

        Args:
            time_s: seconds since the end of programming.
            chips: their numbers.
            together: whether all of them lie in memory; else each is drawn when the network runs for it.
        """
        ...


class Chips:
    """Chips that were programmed from one model; `at(time)` gives the network that runs them.

    Attributes:
        n_chips: how many; also `len(chips)`.
        seed: what all their randomness comes from.
        backend: what holds the conductances.

    Example:
        >>> import torch, hpml_sim as hs
        >>> _ = torch.manual_seed(0)
        >>> analog = hs.convert(torch.nn.Linear(8, 4), "pcm-hermes")
        >>> chips = hs.program(analog, chips=3, seed=0)
        >>> len(chips)
        3
        >>> chips.at("1 day")(torch.rand(5, 8)).shape
        torch.Size([3, 5, 4])
    """

    def __init__(self, backend: Backend, n_chips: int, seed: int):
        self.backend = backend
        self.n_chips = n_chips
        self.seed = seed
        self._said: set[str] = set()
        self._uses = WeightUses()
        self._orders: dict[Shapes, Orders] = {}

    def __len__(self) -> int:
        return self.n_chips

    def at(self, time: str | float, *, only: int | Sequence[int] | None = None) -> ProgrammedModel:
        """The chips at a time since the end of programming, drift compensation included.

        Chips whose weights take more than 256 MiB together, or more than half of the memory that is free, do not lie in
        it side by side: each is drawn again whenever the network runs for it. `hs.evaluate` goes through all data with
        as many as lie there before it takes the next, and so does `.parts()` of the result; or ask for one chip at a
        time with `only=`.

        Args:
            time: seconds >= 0, or text like "1 s", "1 h", "1 day", "1 year".
            only: number of a chip, from 0, or several of them; None: all. A chip is the same whatever chips run
                beside it.

        Returns:
            A model (batch, ...) -> (chips, batch, ...).

        Raises:
            HpmlError: not a time, or negative, a chip that does not exist, or not enough memory.
            UnsupportedTimeError: the card's noise model has no data for it.
        """
        time_s = parse_time(time)
        for noise_model in self.backend.noise_models:
            noise_model.check_time(time_s)
        return self._at(time_s, self._numbers(only))

    def conductances(
        self, layer: str, time: str | float | None = None, *, only: int | Sequence[int] | None = None
    ) -> Conductances:
        """The conductance of every device of one layer, in siemens.

        Args:
            layer: name of an analog layer, as in the report of the network; of one with several matrices, such as an
                LSTM, the name of a matrix in the converted network, such as "lstm.cells.0.hidden".
            time: seconds >= 0 since the end of programming, or text like "1 day"; None: right after programming, before
                anything is read.
            only: number of a chip, from 0, or several of them; None: all.

        Returns:
            G+ and G- of each weight, (chips, slices, outputs, inputs).

        Raises:
            UnknownNameError: no analog layer has this name.
            UnsupportedTimeError: the card's noise model has no data for the time.
            HpmlError: not a time, a chip that does not exist, not enough memory, or chips of engine="aihwkit".

        Example:
            >>> import torch, hpml_sim as hs
            >>> analog = hs.convert(torch.nn.Sequential(torch.nn.Linear(8, 4)), "pcm-hermes")
            >>> chips = hs.program(analog, chips=3, seed=0)
            >>> found = chips.conductances("0", "1 day")
            >>> found.positive_s.shape, bool((found.positive_s < 30e-6).all())
            (torch.Size([3, 1, 4, 8]), True)
        """
        name, own, numbers, time_s = self._looked_at("chips.conductances", layer, time, only, bytes_each=32.0)
        return conductances_of(name, own, numbers, time_s)

    def weights(self, layer: str, time: str | float, *, only: int | Sequence[int] | None = None) -> Tensor:
        """The weights that chips multiply with in one layer, slices added up, drift compensation included.

        Args:
            layer: name of an analog layer, as for `conductances`.
            time: seconds >= 0 since the end of programming, or text like "1 day".
            only: number of a chip, from 0, or several of them; None: all.

        Returns:
            shape (chips, *weight of the layer), float32.

        Raises:
            UnknownNameError: no analog layer has this name.
            UnsupportedTimeError: the card's noise model has no data for the time.
            HpmlError: not a time, a chip that does not exist, not enough memory, or chips of engine="aihwkit".

        Example:
            >>> import torch, hpml_sim as hs
            >>> analog = hs.convert(torch.nn.Sequential(torch.nn.Linear(8, 4)), "pcm-hermes")
            >>> hs.program(analog, chips=3, seed=0).weights("0", "1 day").shape
            torch.Size([3, 4, 8])
        """
        _, own, numbers, time_s = self._looked_at("chips.weights", layer, time, only, bytes_each=4.0)
        if time_s is None:
            raise HpmlError(f"chips.weights: time={time!r}: chips drift, so their weights have a time; give '1 day'")
        return weights_of(own, numbers, time_s)

    def _looked_at(
        self, where: str, layer: object, time: str | float | None, only: Any, *, bytes_each: float
    ) -> tuple[str, ProgrammedLayer, tuple[int, ...], float | None]:
        """What a reading of one layer is about, checked."""
        if not isinstance(self.backend, FusedBackend):
            raise HpmlError(f"{where}: chips of engine='aihwkit' keep their conductances; program with engine='fused'")
        name, own = named_layer(self.backend.layers, where, layer)
        own.check_weights()
        time_s = None if time is None else parse_time(time)
        if time_s is not None:
            own.device_model.noise_model.check_time(time_s)
        numbers = self._numbers(only, where)
        needed = bytes_each * math.prod(own.shape) * len(numbers)
        check_memory(f"{where}: layer {name!r} on {len(numbers)} chips", needed, "look at fewer chips with only=")
        return name, own, numbers, time_s

    def _at(self, time_s: float, numbers: tuple[int, ...]) -> ProgrammedModel:
        size, free = self.backend.chip_bytes, free_memory_bytes()
        # those of aihwkit are a network each, and lie there all
        count = 1 if isinstance(self.backend, FusedBackend) else len(numbers)
        check_memory(f"chips.at: the weights of {count} chip{'s' if count > 1 else ''}", size * count, _SMALLER)
        # beside the weights there must be room for what runs through them
        most = TOGETHER_BYTES if free is None else min(TOGETHER_BYTES, free / 2)
        together = len(numbers) == 1 or size * len(numbers) <= most
        network = self.backend.at(time_s, numbers, together=together)
        run = max(1, int(most // max(size, 1)))
        parts = () if together else tuple(numbers[i : i + run] for i in range(0, len(numbers), run))
        return ProgrammedModel(
            network,
            len(numbers),
            self.seed,
            time_s,
            self._said,
            uses=self._uses,
            orders=self._orders,
            one_by_one=None if together else f"{len(numbers)} chips take {size * len(numbers) / 2**30:,.1f} GiB",
            parts=[partial(self._at, time_s, part) for part in parts],
        )

    def _numbers(self, only: int | Sequence[int] | None, where: str = "chips.at") -> tuple[int, ...]:
        if only is None:
            return tuple(range(self.n_chips))
        given = list(only) if isinstance(only, (list, tuple, range)) else [only]
        if not given:
            raise HpmlError(f"{where}: only=[]: must name at least one chip, such as only=0")
        numbers = [check_whole(f"{where}: only", chip, low=0, high=self.n_chips - 1) for chip in given]
        if len(set(numbers)) < len(numbers):
            raise HpmlError(f"{where}: only={shown(only)}: names a chip twice; each must stand there once")
        return tuple(numbers)

    def __call__(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        """Refused: what chips give depends on the time.

        Raises:
            HpmlError: always; it names the next step.
        """
        raise HpmlError("chips(...): chips drift, so they run at a time; call chips.at('1 day')(inputs)")

    def __repr__(self) -> str:
        return plain_lines(self._title(), self._facts())

    def _repr_html_(self) -> str:
        return html_table(self._title(), self._facts())

    def _title(self) -> str:
        return "1 programmed chip" if self.n_chips == 1 else f"{self.n_chips} programmed chips"

    def _facts(self) -> list[tuple[str, object]]:
        targets = self.backend.targets
        return [
            ("analog layers", len(targets)),
            ("card", ", ".join(dict.fromkeys(target.card for target in targets))),
            ("noise model", ", ".join(dict.fromkeys(model.name for model in self.backend.noise_models))),
            ("seed", str(self.seed)),
            ("run them", "chips.at('1 day')(inputs)"),
        ]


def program(model: nn.Module, chips: int = 25, seed: int = 0) -> Chips:
    """Program the weights of a model onto chips. The model is not changed, and may be trained further.

    Args:
        model: a converted model with analog layers.
        chips: how many, >= 1.
        seed: of everything that is random in the chips, 0 to 2^63 - 1; chip i is the same for any number of chips.

    Returns:
        The chips; `.at(time)` runs them.

    Raises:
        HpmlError: a model without analog layers, weights that are not finite, an argument out of range, or more memory
            than is free.
        ImportError: the card's noise model needs aihwkit, which is missing or broken.

    Example:
        >>> import torch, hpml_sim as hs
        >>> _ = torch.manual_seed(0)
        >>> analog = hs.convert(torch.nn.Linear(8, 4), "pcm-hermes")
        >>> chips = hs.program(analog, chips=2, seed=0)
        >>> x = torch.rand(1, 8)
        >>> torch.equal(chips.at("1 h")(x), hs.program(analog, chips=2, seed=0).at("1 h")(x))
        True
    """
    seed = checked_seed(seed)
    n_chips = check_whole("chips", chips, low=1, hint="for example chips=25")
    layers = programmable_crossbars(model, "program")
    for name in layers:
        if not bool(torch.isfinite(weight_matrix(model, name)).all()):
            raise HpmlError(f"layer {name!r}: weights are NaN or infinite; nothing was programmed")
    _check_memory(model, layers, n_chips)
    engines = {crossbar.target.engine for crossbar in layers.values()}
    if len(engines) > 1:
        raise HpmlError(
            "layers of engine='fused' and of engine='aihwkit' cannot be programmed together; take one engine"
        )
    warn_of_cost(model, "program")
    network = frozen_copy(model)
    if engines == {"aihwkit"}:
        return Chips(AihwkitBackend(network, n_chips, seed), n_chips, seed)
    return Chips(FusedBackend.program(network, n_chips, seed), n_chips, seed)


_TRIED = 3
"""Chips that run before a training."""


def try_chips(model: nn.Module, call: Callable[[nn.Module], Any]) -> None:
    """Run a few chips of a model before it is trained, so that outputs which cannot stand side by side are named then.

    Nothing is warned of or logged: with weights that are not trained yet it would say little.

    Args:
        model: any network; not changed. Without analog layers, or with those of aihwkit, nothing is tried.
        call: calls a network with a few samples.

    Raises:
        HpmlError: the chips return tensors of different shapes; or the network fails.
    """
    layers = crossbars(model).values()
    if not layers or any(layer.programmed is not None or layer.target.engine == "aihwkit" for layer in layers):
        return
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    with warnings.catch_warnings(), torch.random.fork_rng(devices=devices), torch.no_grad():
        warnings.simplefilter("ignore")
        chips = program(model, chips=_TRIED, seed=0)
        chips._said.add("tried before training")
        times = [one.times_s for one in chips.backend.noise_models if one.times_s]
        common = set.intersection(*map(set, times)) if times else {1.0}
        if common:
            call(chips.at(min(common)))


@register_before_training
def warn_of_chips_that_differ(model: nn.Module, samples: FewSamples) -> None:
    """Warn before a training where the chips of the model could not be put side by side after it.

    Where several processes train together nothing is tried: one that failed alone would leave the others waiting. Nor
    is a large network, whose chips would take longer than many steps.

    Args:
        model: any network.
        samples: a few of the training's.
    """
    if samples.large or (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return
    try:
        try_chips(model, samples.call)
    except OutputsDifferError as error:
        warnings.warn(
            f"fit: chips of this network cannot run together after the training: {error}; or run one chip at a time, "
            "chips.at('1 day', only=0)",
            RuntimeWarning,
            stacklevel=4,
        )
    except WeightsDifferError as error:
        warnings.warn(f"fit: chips of this network will not run after the training: {error}", RuntimeWarning, 4)
    except Exception:  # whatever else fails, the training itself says it better
        return


_SMALLER = "take a smaller network, or leave layers digital with skip="


def _check_memory(model: nn.Module, layers: dict[str, Crossbar], n_chips: int) -> None:
    """Refuse what does not fit, before anything is computed: programming, and the weights of one chip at one time."""
    kept = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    if any(crossbar.target.engine == "aihwkit" for crossbar in layers.values()):
        what = f"program: chips={n_chips} of engine='aihwkit', each a network of its own"
        check_memory(what, kept * (1.0 + n_chips), "program fewer chips, or take engine='fused'")
        return
    weights, columns, largest, one_chip = 0, 0, 0.0, 0.0
    for name, crossbar in layers.items():
        tiling, size = crossbar.tiling, weight_matrix(model, name).numel()
        cells = crossbar.target.slices * tiling.row_tiles * tiling.height * tiling.groups * tiling.cols
        weights += size
        columns += crossbar.target.slices * tiling.groups * tiling.row_tiles * tiling.cols
        largest = max(largest, 4.0 * cells + 8.0 * size)
        one_chip += 4.0 * cells
    # a chip is drawn again whenever it is needed, so that all of them need the memory of one
    of_chips = 4.0 * n_chips * columns
    check_memory(
        f"program: chips={n_chips} of {weights:,} weights, one after another",
        kept + of_chips + max(largest, one_chip),
        "program fewer chips" if of_chips > kept else _SMALLER,
    )
