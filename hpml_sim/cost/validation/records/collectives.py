"""`gpu_collectives.csv`: collectives among the GPUs of a machine, as Vidur profiled them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast, get_args

from hpml_sim.cost.serving.collectives import Collective, Collectives
from hpml_sim.cost.validation.records.machines import machine
from hpml_sim.cost.validation.records.reading import number, rows, whole
from hpml_sim.cost.validation.records.record import Record, Skipped

FILE = "gpu_collectives.csv"
COLUMNS = ("collective", "machine", "gpus", "size_as_recorded", "median_ms")
WITHIN = 1.41
"""Factor within which nine of ten of the recorded collectives lie."""


def read_collectives(path: Path) -> Iterator[Record | Skipped]:
    """The seconds of each row beside ours. Sizes are bytes of the whole result.

    Args:
        path: of the file; `machine` is a card's name and the name of one of its links, such as "a100_dgx".
    """
    for line, row in enumerate(rows(path, COLUMNS), start=2):
        where, name = f"{path.name}:{line}", row["machine"]
        gpu, _, connected = name.partition("_")
        gpus, size = whole(path, row, "gpus", line), number(path, row, "size_as_recorded", line)
        measured = 1e-3 * number(path, row, "median_ms", line)
        card = machine(gpu)
        if card is None:
            yield Skipped(where, gpu, f"no card of {gpu}")
            continue
        what = row["collective"].replace("_", "-")
        link = card.links.get(connected.replace("_", "-"))
        if link is None:
            known = ", ".join(card.links) or "none"
            yield Skipped(where, gpu, f"{name}: card {card.name} has no link {connected!r}; its links: {known}")
            continue
        if what not in get_args(Collective):
            yield Skipped(where, gpu, f"collective {what!r}: known are {', '.join(get_args(Collective))}")
            continue
        seconds = Collectives(link).time_s(cast(Collective, what), size, gpus)
        yield Record(
            gpu=gpu,
            name=f"{name} {what} x{gpus}, {size:,.0f} bytes",
            group=connected.replace("_", "-"),
            quantity="time",
            measured=measured,
            estimate=seconds,
            low=seconds / WITHIN,
            high=seconds * WITHIN,
        )
