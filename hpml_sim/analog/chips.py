"""The life of a chip: program, wait, run. Nothing here ever changes the model that was programmed.

    chips = program(model, chips=25, seed=0)      # conductances of 25 chips, each with its own errors
    aged = chips.at("1 day")                      # the same chips a day later: (batch, ...) -> (chips, batch, ...)

Every time is computed from the programmed state, so times can come in any order, and one seed gives the same bits.
"""

from __future__ import annotations

from typing import Any, NoReturn, Protocol

import torch
from torch import nn

from hpml_sim.analog.calibration import programmable_crossbars
from hpml_sim.analog.conversion_cost import warn_of_cost
from hpml_sim.analog.fused_backend import FusedBackend, frozen_copy
from hpml_sim.analog.interop.aihwkit import AihwkitBackend
from hpml_sim.analog.layers import weight_matrix
from hpml_sim.analog.noise_models import NoiseModel
from hpml_sim.analog.programmed_model import ProgrammedModel
from hpml_sim.analog.seeds import checked_seed
from hpml_sim.errors import HpmlError, check_memory, check_whole
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

    def at(self, time_s: float) -> nn.Module:
        """The network with the chips programmed into its layers, or a `NetworkPerChip`.

        Args:
            time_s: seconds since the end of programming.
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

    def __len__(self) -> int:
        return self.n_chips

    def at(self, time: str | float) -> ProgrammedModel:
        """The chips at a time since the end of programming, drift compensation included.

        Args:
            time: seconds >= 0, or text like "1 s", "1 h", "1 day", "1 year".

        Returns:
            A model (batch, ...) -> (chips, batch, ...).

        Raises:
            HpmlError: not a time, or negative.
            UnsupportedTimeError: the card's noise model has no data for it.
        """
        time_s = parse_time(time)
        for noise_model in self.backend.noise_models:
            noise_model.check_time(time_s)
        return ProgrammedModel(self.backend.at(time_s), self.n_chips, self.seed, time_s, self._said)

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
        HpmlError: a model without analog layers, weights that are not finite, or an argument out of range.
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
    crossbars = programmable_crossbars(model, "program")
    for name in crossbars:
        if not bool(torch.isfinite(weight_matrix(model, name)).all()):
            raise HpmlError(f"layer {name!r}: weights are NaN or infinite; nothing was programmed")
    weights = sum(weight_matrix(model, name).numel() for name in crossbars)
    check_memory(f"program: chips={n_chips} of {weights:,} weights", 4.0 * n_chips * weights, "program fewer chips")
    engines = {crossbar.target.engine for crossbar in crossbars.values()}
    if len(engines) > 1:
        raise HpmlError(
            "layers of engine='fused' and of engine='aihwkit' cannot be programmed together; take one engine"
        )
    warn_of_cost(model, "program")
    network = frozen_copy(model)
    if engines == {"aihwkit"}:
        return Chips(AihwkitBackend(network, n_chips, seed), n_chips, seed)
    return Chips(FusedBackend.program(network, n_chips, seed), n_chips, seed)
