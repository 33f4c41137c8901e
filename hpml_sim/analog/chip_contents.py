"""What programmed chips hold, to be looked at: the conductance of every device, and the weights that they amount to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hpml_sim.analog.bit_slicing import significance
from hpml_sim.analog.programmed_layer import ProgrammedLayer, weights_of_cells
from hpml_sim.errors import HpmlError, UnknownNameError, shown
from hpml_sim.units.display import html_table, plain_lines
from hpml_sim.units.times import format_time


@dataclass(frozen=True)
class Conductances:
    """The devices of one layer on some chips, at one time; in siemens.

    A weight w of a column whose largest weight is `full_scale` is told to lie at w / full_scale x (g_max - g_min): as
    G+ - G-, one device of the pair at g_min; or half of it away from the middle of the range of a single device.

    Attributes:
        layer: name of the layer.
        time_s: seconds since the end of programming; None: right after it, before anything is read.
        positive_s: G+, or the only device of each weight, siemens, shape (chips, slices, outputs, inputs): a row for
            each column of the crossbar, as the layer's matrix has it.
        negative_s: G-, siemens, of the same shape; None where one device holds a weight.
        full_scale: weight at the largest conductance, of each column of each row tile, shape (row tiles, outputs).
        significance: what each slice counts, most significant first; together 1.
        g_min_s: smallest conductance of a device, siemens.
        g_max_s: largest conductance of a device, siemens.
    """

    layer: str
    time_s: float | None
    positive_s: Tensor
    negative_s: Tensor | None
    full_scale: Tensor
    significance: tuple[float, ...]
    g_min_s: float
    g_max_s: float

    def __repr__(self) -> str:
        return plain_lines(*self._shown())

    def _repr_html_(self) -> str:
        return html_table(*self._shown())

    def _shown(self) -> tuple[str, list[tuple[str, object]]]:
        chips, slices, outputs, inputs = self.positive_s.shape
        when = "right after programming" if self.time_s is None else f"at {format_time(self.time_s)}"
        pair = "pairs of devices" if self.negative_s is not None else "devices"
        return f"Conductances of layer {self.layer!r} {when}", [
            ("shape", f"{chips} chips x {slices} slices x {outputs} outputs x {inputs} inputs, {pair}"),
            ("range", f"{self.g_min_s * 1e6:g} to {self.g_max_s * 1e6:g} microsiemens, as programmed"),
            ("mean", f"{float(self.positive_s.mean()) * 1e6:.4g} microsiemens (positive_s)"),
        ]


def named_layer(layers: dict[str, ProgrammedLayer], where: str, layer: object) -> tuple[str, ProgrammedLayer]:
    """A layer by the name that the report of the network gives it, or by its name in the converted network.

    Args:
        layers: by dotted name in the converted network.
        where: the call, which begins the message.
        layer: the name.

    Raises:
        HpmlError: not a name, or that of a layer of several matrices; the message has theirs.
        UnknownNameError: no analog layer has it.
    """
    short = {name.removeprefix("network").removeprefix("."): name for name in layers}
    if not isinstance(layer, str):
        raise HpmlError(f"{where}: layer={shown(layer)}: must be the name of an analog layer, such as {min(short)!r}")
    if layer in short or layer in layers:
        return layer, layers[short.get(layer, layer)]
    parts = [name for name, full in short.items() if layers[full].weights.layer == layer]
    if not parts:
        raise UnknownNameError(f"layer in {where}: layer=", layer, set(short))
    if len(parts) > 1:  # such as an LSTM, which the report has in one row
        names = ", ".join(map(repr, parts))
        raise HpmlError(f"{where}: layer={layer!r}: it has several matrices; name one of them: {names}")
    return layer, layers[short[parts[0]]]


def conductances_of(name: str, layer: ProgrammedLayer, chips: Sequence[int], time_s: float | None) -> Conductances:
    """Every device of one layer.

    Args:
        name: of the layer, as it was asked for.
        layer: on all chips.
        chips: numbers of those that are wanted.
        time_s: seconds since the end of programming; None: right after programming.
    """
    crossbar, model = layer.crossbar, layer.device_model
    tiling, target = crossbar.tiling, crossbar.target

    def as_matrix(g_us: Tensor) -> Tensor:
        """(groups, row tiles, slices * cols, height) -> (slices, groups * cols, rows), siemens."""
        cut = g_us.unflatten(2, (target.slices, tiling.cols)).permute(2, 0, 3, 1, 4)
        return cut.flatten(3)[..., : tiling.rows].flatten(1, 2).double() * 1e-6

    found = [[as_matrix(device) for device in g_us] for g_us in layer.conductances(chips, time_s)]
    devices = [torch.stack(parts) for parts in zip(*found, strict=True)]
    return Conductances(
        layer=name,
        time_s=time_s,
        positive_s=devices[0],
        negative_s=devices[1] if len(devices) == 2 else None,
        full_scale=layer.full_scale.transpose(0, 1).flatten(1),
        significance=(1.0,) if target.levels is None else tuple(significance(target.levels, target.slices)),
        g_min_s=model.g_min_us * 1e-6,
        g_max_s=model.g_max_us * 1e-6,
    )


@torch.no_grad()
def weights_of(layer: ProgrammedLayer, chips: Sequence[int], time_s: float) -> Tensor:
    """What chips multiply with in one layer, drift compensation included.

    Args:
        layer: on all chips.
        chips: numbers of those that are wanted.
        time_s: seconds since the end of programming.

    Returns:
        shape (chips, *weight of the layer), float32.
    """
    own: nn.Module = layer.layer
    cells, found = layer.empty(1)[0], []
    for chip in chips:
        layer.draw(chip, cells, time_s=time_s)
        matrix = weights_of_cells(layer.crossbar, cells, layer.compensated(chip, cells, time_s))
        found.append(own.from_matrix(matrix).clone())  # type: ignore[operator]
    return torch.stack(found)
