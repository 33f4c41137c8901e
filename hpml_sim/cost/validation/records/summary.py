"""What is left over between records and estimates: for each file, machine and kind of figure."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from math import log
from pathlib import Path
from typing import Any

from hpml_sim.cost.validation.records.collectives import FILE as COLLECTIVES
from hpml_sim.cost.validation.records.collectives import read_collectives
from hpml_sim.cost.validation.records.images import read_images
from hpml_sim.cost.validation.records.products import read_products
from hpml_sim.cost.validation.records.record import Quantity, Record, Skipped
from hpml_sim.cost.validation.records.serving import FILE as SERVING
from hpml_sim.cost.validation.records.serving import read_serving
from hpml_sim.errors import HpmlError, shown

READERS: dict[str, Callable[[Path], Iterator[Record | Skipped]]] = {
    "gpu_products.csv": read_products,
    "image_networks.csv": read_images,
    COLLECTIVES: read_collectives,
    SERVING: read_serving,
}
"""Name of a file -> what reads it and estimates its rows."""
NEAR = 0.2
"""Rows this close to the measured figure are counted as well."""


@dataclass(frozen=True)
class Summary:
    """One file, one machine, one kind of figure.

    Attributes:
        file: name of the file.
        gpu: the machine, as the file names it.
        quantity: "time", "energy" or "power"; "" where every row was skipped.
        group: part of the file; "" for all of it.
        rows: how many were estimated.
        skipped: how many were not.
        why: reason -> number of rows skipped for it.
        median_ratio: estimate over measured; None without rows, like all below.
        median_abs_log: median of |ln(estimate / measured)|.
        mape: mean of |estimate / measured - 1|.
        within_20: share of rows at most 20 % off.
        inside: share of rows whose measured figure lies within the band.
        band: median of high / low.
    """

    file: str
    gpu: str
    quantity: Quantity | str
    group: str
    rows: int
    skipped: int
    why: dict[str, int]
    median_ratio: float | None = None
    median_abs_log: float | None = None
    mape: float | None = None
    within_20: float | None = None
    inside: float | None = None
    band: float | None = None

    @classmethod
    def of(cls, file: str, gpu: str, group: str, records: Sequence[Record], why: dict[str, int]) -> Summary:
        """Sum up records of one kind.

        Args:
            file: name of the file.
            gpu: the machine.
            group: part of the file.
            records: of one quantity, or none.
            why: reasons of the rows that were skipped.
        """
        skipped = sum(why.values())
        if not records:
            return cls(file, gpu, "", group, 0, skipped, why)
        ratios = [record.ratio for record in records]
        return cls(
            file,
            gpu,
            records[0].quantity,
            group,
            len(records),
            skipped,
            why,
            median_ratio=statistics.median(ratios),
            median_abs_log=statistics.median(abs(log(ratio)) for ratio in ratios),
            mape=statistics.fmean(abs(ratio - 1) for ratio in ratios),
            within_20=statistics.fmean(abs(ratio - 1) <= NEAR for ratio in ratios),
            inside=statistics.fmean(record.inside for record in records),
            band=statistics.median(record.high / record.low for record in records),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def held_against(folder: str | Path) -> list[Summary]:
    """Estimate every row of the records in a folder.

    Args:
        folder: with one or more files named as in `READERS`.

    Returns:
        A summary for each file, machine and kind of figure, with the parts of a file after the whole.

    Raises:
        HpmlError: no such folder, none of the files in it, or a file that is not what its name says.
    """
    place = Path(folder)
    found = [place / name for name in READERS if (place / name).is_file()]
    if not found:
        raise HpmlError(
            f"validate: records={shown(str(folder))}: must be a folder with one or more of {', '.join(READERS)}"
        )
    return [summary for path in found for summary in _summaries(path.name, READERS[path.name](path))]


def _summaries(file: str, read: Iterable[Record | Skipped]) -> Iterator[Summary]:
    records: dict[str, list[Record]] = defaultdict(list)
    skipped: dict[str, Counter[str]] = defaultdict(Counter)
    for row in read:
        if isinstance(row, Record):
            records[row.gpu].append(row)
        else:
            skipped[row.gpu][row.why] += 1
    if not records and not skipped:
        yield Summary.of(file, "(no rows)", "", [], {})
    for gpu in dict.fromkeys([*records, *skipped]):
        why = dict(skipped[gpu])
        if gpu not in records:
            yield Summary.of(file, gpu, "", [], why)
        for quantity in dict.fromkeys(record.quantity for record in records[gpu]):
            of_kind = [record for record in records[gpu] if record.quantity == quantity]
            yield Summary.of(file, gpu, "", of_kind, why)
            for group in dict.fromkeys(sorted((r.group for r in of_kind), key=_order)):
                if group:
                    yield Summary.of(file, gpu, group, [r for r in of_kind if r.group == group], {})


def _order(group: str) -> tuple[float, str]:
    digits = "".join(c for c in group if c.isdigit())
    return (float(digits or 0) + 0.5 * group.startswith("above"), group)
