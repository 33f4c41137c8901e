"""What `hpml-sim profile` and `hpml-sim roofline` compute and show."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hpml_sim.cards import CrossbarCard, DigitalCard, NeuromorphicCard, Precision, load_card
from hpml_sim.cli.networks import named_network
from hpml_sim.cost import estimate
from hpml_sim.cost.roofline_points import Point, Roof, core_point, layer_points, measured_points, roof_of, tile_point
from hpml_sim.counting import workload
from hpml_sim.data import load_data
from hpml_sim.data.batches import first
from hpml_sim.errors import HpmlError
from hpml_sim.errors.files import write_file
from hpml_sim.measurement.ceilings import Ceilings
from hpml_sim.measurement.profiling import Profile, profile
from hpml_sim.report.wording import percent
from hpml_sim.units.formatting import si

if TYPE_CHECKING:
    from rich.console import Group


def network_and_batch(
    model: str, data: str | None, input_shape: Sequence[int] | None, batch: int, device: str
) -> tuple[nn.Module, Tensor]:
    """A network by name or import path, and a batch for it, on the device.

    Args:
        model: a network by name, or code by name.
        data: a data set by name, for its samples; None draws random ones.
        input_shape: of one sample, without the batch.
        batch: samples, >= 1.
        device: "cpu" or "cuda".

    Raises:
        UnknownNameError: no such network.
        HpmlError: no input shape is known, a batch < 1, or no such device here.
    """
    if batch < 1:
        raise HpmlError(f"--batch {batch}: must be >= 1")
    if device not in ("cpu", "cuda") or (device == "cuda" and not torch.cuda.is_available()):
        raise HpmlError(f"--device {device}: take cpu, or cuda where torch finds a GPU (see `hpml-sim doctor`)")
    network, input_shape = named_network(
        model, data, input_shape, hint="Or give package.module:callable or file.py:callable."
    )
    if data is not None:
        samples, _ = first(load_data(data).test, batch)
        x = samples[torch.arange(batch) % len(samples)]
    else:
        assert input_shape is not None
        x = torch.rand(batch, *input_shape, generator=torch.Generator().manual_seed(0))
    return network.to(device), x.to(device)


# -------------------------------------------------------------------------------------------------------------- profile


def profile_table(found: Profile, model: str, most: int) -> Group:
    """Time by layer, and the operators that take longest.

    Args:
        found: what was measured.
        model: the network's name.
        most: how many operators are shown.
    """
    from rich.console import Group
    from rich.table import Table

    layers = Table(title=f"{model}, batch {found.batch:,} on {found.device}: {si(found.call_s, 's')} a call")
    for name in ("layer", "kind"):
        layers.add_column(name)
    for name in ("time", "share of layers"):
        layers.add_column(name, justify="right")
    for row in found.layers.to_dict("records"):
        layers.add_row(row["layer"], row["kind"], si(row["seconds"], "s"), f"{percent(row['share'], 1)} %")
    operators = Table(title=f"Operators, the longest {min(most, len(found.operators))} of {len(found.operators)}")
    operators.add_column("operator")
    for name in ("runs a call", "time a call", "share"):
        operators.add_column(name, justify="right")
    for row in found.operators.head(most).to_dict("records"):
        operators.add_row(
            row["operator"], f"{row['calls']:g}", si(row["seconds"], "s"), f"{percent(row['share'], 1)} %"
        )
    between = f"Between the layers (framework, functions): {si(max(found.between_s, 0.0), 's')} a call."
    return Group(layers, operators, between)


def profile_json(found: Profile) -> dict[str, Any]:
    """The same, for programs."""
    return {
        "device": found.device,
        "batch": found.batch,
        "calls": found.calls,
        "call_s": found.call_s,
        "layers": found.layers.to_dict("records"),
        "operators": found.operators.to_dict("records"),
        "trace": None if found.trace is None else str(found.trace),
    }


# ------------------------------------------------------------------------------------------------------------- roofline


def machine_roof(ceilings: Ceilings, precision: Precision) -> Roof:
    """The roof of the machine at hand.

    Raises:
        HpmlError: it was not measured in this precision.
    """
    if precision not in ceilings.rates:
        raise HpmlError(f"--precision {precision}: {ceilings.name} was measured in {', '.join(ceilings.rates)}")
    return Roof(f"{ceilings.name} {precision}", ceilings.rates[precision], ceilings.bandwidth, measured=True)


def under_the_roofs(
    targets: Sequence[str], network: tuple[nn.Module, Tensor] | None, precision: Precision, measured_on: str | None
) -> tuple[list[Roof], list[Point]]:
    """Roofs of the processors among the cards; tiles, cores and, for a network, its layers.

    Args:
        targets: cards.
        network: a network and a batch, or None.
        precision: of processors.
        measured_on: the device's name, to time the layers there as well; None: estimates alone.
    """
    roofs: list[Roof] = []
    points: list[Point] = []
    counted = None
    if network is not None:
        counted = workload(network[0], input_shape=tuple(network[1].shape[1:]))
    for name in targets:
        card = load_card(name)
        if isinstance(card, DigitalCard):
            roofs.append(roof_of(card, precision))
            if counted is not None and network is not None:
                found = estimate(counted, card, batch=len(network[1]), precision=precision)
                points += layer_points(found)
                if measured_on is not None:
                    points += measured_points(found, profile(*network).layer_s, measured_on)
                    measured_on = None  # once
        elif isinstance(card, CrossbarCard):
            points.append(tile_point(card))
        elif isinstance(card, NeuromorphicCard) and (core := core_point(card)) is not None:
            points.append(core)
    return roofs, points


def roofline_table(roofs: Sequence[Roof], points: Sequence[Point]) -> Group:
    """Roofs with their ridge, and what lies under them."""
    from rich.console import Group
    from rich.table import Table

    above = Table(title="Roofs")
    above.add_column("machine")
    for name in ("arithmetic", "memory", "ridge (op/byte)"):
        above.add_column(name, justify="right")
    for roof in roofs:
        above.add_row(
            roof.name + (", measured here" if roof.measured else ""),
            si(roof.rate.nominal, "op/s"),
            si(roof.bandwidth.nominal, "B/s"),
            f"{roof.ridge:.3g}",
        )
    below = Table(title="Under them")
    for name in ("what", "kind", "machine"):
        below.add_column(name)
    for name in ("op/byte", "op/s"):
        below.add_column(name, justify="right")
    below.add_column("limit")
    for p in points:
        below.add_row(p.name, p.kind, p.machine, f"{p.intensity:.3g}", si(p.rate, "op/s"), p.limit)
    return Group(*[table for table, rows in ((above, roofs), (below, points)) if rows])


def write_card(ceilings: Ceilings, path: Path) -> None:
    """Write the measured ceilings as a card named after the file.

    Raises:
        HpmlError: the name is no name of a card, or the card would be broken.
    """
    from hpml_sim.measurement.ceilings_card import ceilings_card

    if path.suffix != ".toml":
        raise HpmlError(f"--write-card {path}: a card is a TOML file; for example this-machine.toml")
    text = ceilings_card(ceilings, path.stem)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, text)
