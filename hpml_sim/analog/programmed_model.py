"""A network on programmed chips at one time: what `chips.at(time)` gives."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from hpml_sim.analog.layers import crossbars
from hpml_sim.analog.seeds import Purpose, derive
from hpml_sim.analog.unmapped_matmul import UnmappedMatmulGuard
from hpml_sim.errors import HpmlError
from hpml_sim.kernels.common.memory import BLOCKS
from hpml_sim.units.display import html_table, plain_lines
from hpml_sim.units.times import format_time


class ProgrammedModel(nn.Module):
    """Programmed chips at one time since programming: (batch, ...) -> (chips, batch, ...). For evaluation only.

    The noise of the k-th call depends on seed, time and the calls before it alone: evaluating twice draws twice, and a
    new `chips.at(time)` repeats it all.

    Attributes:
        network: the network, which takes all chips in its batch.
        n_chips: how many chips.
        seed: what all randomness comes from.
        time_s: seconds since the end of programming.
    """

    def __init__(self, network: nn.Module, n_chips: int, seed: int, time_s: float):
        super().__init__()
        self.network = network
        self.n_chips = n_chips
        self.seed = seed
        self.time_s = time_s
        self._calls = 0
        super().train(False)

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

    @torch.no_grad()
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """All chips on the same inputs: (batch, ...) -> (chips, batch, ...).

        Args:
            args: of the network. Tensors, also in lists and dicts, have the batch first; each chip gets the same.
            kwargs: of the network, as `args`.

        Returns:
            What the network gives, its tensors with the chips in front.

        Raises:
            HpmlError: no tensor given, tensors of different batches, or an output that lost the batch.
        """
        given = [t for t in tree_leaves((args, kwargs)) if _has_batch(t)]
        if not given:
            kinds = ", ".join(type(value).__name__ for value in (*args, *kwargs.values())) or "nothing"
            raise HpmlError(f"programmed chips take a tensor (batch, ...), got {kinds}")
        samples, device = len(given[0]), given[0].device
        for other in given[1:]:
            if len(other) != samples:
                raise HpmlError(
                    f"programmed chips: tensors of shapes {tuple(given[0].shape)} and {tuple(other.shape)} have "
                    "not the same batch in front. What is the same for all samples, such as a mask, belongs into the "
                    "network: wrap it in a module that holds it, and convert that"
                )
        for crossbar in crossbars(self.network).values():
            if crossbar.programmed is not None:
                crossbar.programmed.batch = max(1, samples)
        folded_args, folded_kwargs = tree_map(self._fold, (args, kwargs))
        cuda = [device] if device.type == "cuda" else []
        # encoders and the like draw from the global generator: they get a seed of this call
        with torch.random.fork_rng(devices=cuda):
            seed = derive(self.seed, Purpose.NETWORK, time_s=self.time_s, call=self._calls)
            torch.default_generator.manual_seed(seed)
            if cuda:
                with torch.cuda.device(device):
                    torch.cuda.manual_seed(seed)
            # once is enough: the second call does the same products, and the guard looks at every operation
            first = self._calls == 0 and not torch.compiler.is_compiling()
            with UnmappedMatmulGuard(self.network) if first else nullcontext():
                y = self.network(*folded_args, **folded_kwargs)
        self._calls += 1
        return tree_map(lambda value: self._unfold(value, samples), y)

    def _fold(self, value: Any) -> Any:
        """(batch, ...) -> (chips * batch, ...), each chip the same."""
        if not _has_batch(value):
            return value
        return BLOCKS.empty((self.n_chips, *value.shape), like=value).copy_(value).flatten(0, 1)

    def _unfold(self, value: Any, samples: int) -> Any:
        if not isinstance(value, Tensor):
            return value
        if value.shape[:1] != (self.n_chips * samples,):
            raise HpmlError(
                f"programmed chips: the network must return (batch, ...), got {tuple(value.shape)} for {self.n_chips} "
                f"chips x {samples} samples; where it returns time or layers first, transpose that in its forward()"
            )
        return value.unflatten(0, (self.n_chips, samples))

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
        return [
            ("analog layers", layers or ""),  # chips of aihwkit's own layers have no crossbar of ours
            ("seed", str(self.seed)),
            ("network", "print(model.network)"),
        ]


def _has_batch(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() > 0
