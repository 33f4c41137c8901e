"""`hpml-sim validate` on paper: the points as a table for the screen, or as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from hpml_sim.cost.validation import Point


def validation_table(points: Sequence[Point]) -> Table:
    """A row a point: what was published, what the equations give, the error, the tolerance and whether it holds."""
    from rich.table import Table

    outside = sum(not point.ok for point in points)
    verdict = "all within tolerance" if not outside else f"{outside} outside tolerance"
    table = Table(title="Published machines against our equations", caption=f"{len(points)} points, {verdict}")
    table.add_column("point")
    for name in ("published", "model"):
        table.add_column(name, justify="right")
    table.add_column("unit")
    table.add_column("error", justify="right")
    for name in ("tolerance", "basis", ""):
        table.add_column(name)
    for point in points:
        verdict = "[green]ok[/]" if point.ok else "[bold red]outside[/]"
        table.add_row(
            point.name,
            f"{point.published:.4g}",
            f"{point.model:.4g}",
            "" if point.unit == "1" else point.unit,
            f"{point.error:+.1%}",
            point.tolerance,
            point.basis,
            verdict,
        )
    return table


def validation_json(points: Sequence[Point]) -> str:
    """A list of points: name, published, model, unit, error, tolerance, allowed, ok, basis, source, note."""
    return json.dumps([point.to_dict() for point in points], indent=2)
