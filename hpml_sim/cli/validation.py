"""`hpml-sim validate` on paper: points and records as tables for the screen, or as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from hpml_sim.cost.validation import Point
    from hpml_sim.cost.validation.records.summary import Summary


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


def records_table(summaries: Sequence[Summary]) -> Table:
    """A row a file, machine and kind of figure: how far off estimates are, and why rows were skipped.

    Args:
        summaries: what `held_against` gave.
    """
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="Measured records against our estimates")
    table.add_column("file and machine", no_wrap=True)
    for name in ("rows", "skipped", "ratio", "median |ln|", "MAPE", "within 20 %", "in the band", "band"):
        table.add_column(name, justify="right")
    file = None
    for summary in summaries:
        if summary.file != file:
            file = summary.file
            table.add_row(f"[bold]{file}[/]")
        name = f"    {summary.group}" if summary.group else f"  {summary.gpu} {summary.quantity}"
        table.add_row(name, f"{summary.rows:,}", f"{summary.skipped:,}" if summary.skipped else "", *_figures(summary))
    reasons = [f"{y.file}, {y.gpu}: skipped {count:,}: {why}" for y in summaries for why, count in y.why.items()]
    if reasons:  # below, where they take no room from the figures
        table.caption = escape("\n".join(dict.fromkeys(reasons)))
        table.caption_justify = "left"
    return table


def _figures(summary: Summary) -> list[str]:
    if summary.median_ratio is None:
        return [""] * 6
    return [
        f"{summary.median_ratio:.3f}",
        f"{summary.median_abs_log:.3f}",
        f"{summary.mape:.1%}",
        f"{summary.within_20:.0%}",
        f"{summary.inside:.0%}",
        f"{summary.band:.2f}",
    ]
