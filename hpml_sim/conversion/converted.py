"""`Converted`: a network made ready for a target."""

from __future__ import annotations

import inspect
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from hpml_sim.conversion.idle_layers import multipliers
from hpml_sim.conversion.layer_report import LayerReport
from hpml_sim.conversion.seen_input import SeenInput
from hpml_sim.errors import HpmlError, shown
from hpml_sim.targets import PerLayer, Target

if TYPE_CHECKING:
    from hpml_sim.conversion.mapping import Mapping
    from hpml_sim.conversion.report import Report


class Converted(nn.Module):
    """A network made ready for a target: its call is that of the network it was made from.

    `hs.convert` makes it. A notebook shows its report.

    Args:
        network: the new network.
        target: the configuration that it was made for.
        layers: what became of each layer.
        mapping: where its products lie on crossbars; None for a target without crossbars.

    Attributes:
        network: the new network.
        target: the configuration that it was made for.
        layers: what became of each layer, as `convert` left it.
        mapping: where its products lie on crossbars; None for a target without crossbars.
        last_input: the shapes of what the last call was given; None before the first one. A copy keeps it.

    Example:
        >>> import torch, hpml_sim as hs
        >>> analog = hs.convert(hs.models.mlp(64, 32, 10), "pcm-hermes")
        >>> analog(torch.rand(5, 64)).shape
        torch.Size([5, 10])
        >>> print(analog.report)
        layer  was      became        tiles  utilization  input_range  why
        0      Flatten  digital                                        no weight matrix
        1      Linear   AnalogLinear      1       3.12 %  dynamic
        2      ReLU     digital                                        no weight matrix
        3      Linear   AnalogLinear      1      0.488 %  dynamic
    """

    def __init__(
        self,
        network: nn.Module,
        target: Target | PerLayer,
        layers: tuple[LayerReport, ...],
        mapping: Mapping | None = None,
    ):
        super().__init__()
        self.network = network
        self.target = target
        self.layers: tuple[LayerReport, ...] = layers
        self.mapping = mapping
        self.last_input: SeenInput | None = None

    @property
    def report(self) -> Report:
        """A table (a pandas DataFrame) of a row a layer, printed with all its columns within 80 characters.

        Its columns are `layer`, `was`, `became`, `tiles`, `utilization`, `input_range`, `converter_db` and `why`, as
        `LayerReport` describes them.
        """
        from hpml_sim.conversion.report import Report  # pandas takes a third of a second

        return Report([asdict(layer) for layer in self.layers_now()])

    def layers_now(self) -> tuple[LayerReport, ...]:
        """What became of each layer, with the ranges that its converters have now."""
        if self.mapping is None:
            return self.layers
        states = {name: part.converter_state() for name, part in multipliers(self.network).items()}
        parts = {layer.layer: [product.name for product in layer.products] for layer in self.mapping.layers}
        found = []
        for layer in self.layers:
            own = [states[name] for name in parts.get(layer.layer, ()) if name in states]
            if layer.tiles is not None and own:
                known = [state.signal_to_error_db for state in own if state.signal_to_error_db is not None]
                layer = replace(
                    layer,
                    input_range=", ".join(dict.fromkeys(state.input_range for state in own if state.input_range)),
                    converter_db=round(min(known), 1) if known else None,
                )
            found.append(layer)
        return tuple(found)

    @property
    def accepts_loss_kwargs(self) -> bool:
        """Whether Hugging Face's `Trainer` may add arguments of its own to a call: where the network takes any name.

        `Trainer` asks for this by name, and otherwise reads it from `forward`, which takes any name here.
        """
        taken = inspect.signature(self.network.forward).parameters.values()
        return any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in taken)

    def refuse_other_than_tensors(self, args: tuple[Any, ...]) -> None:
        """Refuse a call with something that no network takes.

        Args:
            args: what the network was called with, by position.

        Raises:
            HpmlError: a single input that is a text, a number or None.
        """
        if len(args) == 1 and isinstance(args[0], (str, bytes, int, float, type(None))):
            raise HpmlError(f"{type(self).__name__}: input={shown(args[0])}: must be a tensor (batch, ...)")

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Mostly (batch, ...) -> (batch, ...); whatever the network it was made from takes and gives.

        Args:
            args: what the network takes by position.
            kwargs: what the network takes by name.

        Raises:
            HpmlError: the only input is a text, a number or None.
        """
        self.refuse_other_than_tensors(args)
        self.note_input(args, kwargs)
        return self.network(*args, **kwargs)

    def note_input(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Keep the shapes of an input: `hs.estimate(model)` without a shape of its own takes them.

        Args:
            args: what a call was given by position.
            kwargs: what a call was given by name.
        """
        # a compiled graph must not depend on what the last call was given
        if not torch.compiler.is_compiling() and not torch.jit.is_tracing():  # type: ignore[attr-defined]
            self.last_input = SeenInput.of(args, kwargs)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return self.report.html(f"{type(self.network).__name__}, converted", str(self.target))
