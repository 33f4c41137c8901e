"""`gpu_collectives.csv`: collectives among the GPUs of a machine, as Vidur profiled them."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import cast, get_args

from hpml_sim.cards import DigitalCard, load_card
from hpml_sim.cost.serving.collectives import Collective, Collectives
from hpml_sim.cost.validation.records.record import Record, Skipped
from hpml_sim.errors import HpmlError

FILE = "gpu_collectives.csv"
WITHIN = 1.41
"""Factor within which nine of ten of the recorded collectives lie."""


def rows(path: Path) -> Iterator[Record | Skipped]:
    """The seconds of each row beside ours. Sizes are bytes of the whole result.

    Args:
        path: of the file; `machine` is a card's name and the name of one of its links, such as "a100_dgx".
    """
    with path.open(encoding="utf-8", newline="") as file:
        for line, row in enumerate(csv.DictReader(file), start=2):
            where, machine = f"{path.name}:{line}", row["machine"]
            gpu, _, name = machine.partition("_")
            try:
                card = load_card(gpu)
            except HpmlError:
                yield Skipped(where, gpu, f"{gpu}: no such card")
                continue
            what = row["collective"].replace("_", "-")
            link = card.links.get(name.replace("_", "-")) if isinstance(card, DigitalCard) else None
            if link is None:
                yield Skipped(where, gpu, f"{machine}: card {gpu!r} has no link {name!r}")
                continue
            if what not in get_args(Collective):
                yield Skipped(where, gpu, f"{what}: known are {', '.join(get_args(Collective))}")
                continue
            gpus, size = int(row["gpus"]), float(row["size_as_recorded"])
            seconds = Collectives(link).time_s(cast(Collective, what), size, gpus)
            yield Record(
                gpu=gpu,
                name=f"{machine} {what} x{gpus}, {size:,.0f} bytes",
                group=name.replace("_", "-"),
                quantity="time",
                measured=float(row["median_ms"]) / 1e3,
                estimate=seconds,
                low=seconds / WITHIN,
                high=seconds * WITHIN,
            )
