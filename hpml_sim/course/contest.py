"""The contest of week 14: best accuracy within a budget of energy. `python -m hpml_sim.course.contest ENTRY.py`.

An entry is a Python file with a function `entry()` that returns a trained network on a crossbar: what `hs.convert`
gave, after whatever training its author likes. Its score is its mean accuracy on 25 chips, a day after they were
programmed.

Rules, checked here: the energy of one inference (the card's nominal estimate, batch 1) is within the budget; the card's
scope is `core`, so that all entries count the same parts; and converters, noise and device faults are those of the
card, since the estimate is for them. Training options, compensation and the shape of the network are free.
"""

from __future__ import annotations

import argparse
import runpy
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import cast

import torch

from hpml_sim.analog import program
from hpml_sim.conversion import Converted
from hpml_sim.cost import estimate
from hpml_sim.counting import workload
from hpml_sim.data import Data, load_data
from hpml_sim.data.batches import first
from hpml_sim.errors import HpmlError
from hpml_sim.experiments.pipeline import WORKLOAD_SAMPLES
from hpml_sim.targets import Analog
from hpml_sim.tasks.score import Score
from hpml_sim.training import evaluate
from hpml_sim.units.bands import Band

BUDGET_J = 5e-9
CHIPS = 25
TIME = "1 day"
FREE = {"card", "compensation", "training_noise", "weight_clip", "input_range"}
"""Options of `hs.Analog` that an entry may choose; the others stay at their defaults, which are the card's."""


@dataclass(frozen=True)
class Standing:
    """What an entry reached.

    Attributes:
        name: of the entry.
        card: name of the card that it runs on.
        accuracy: over the chips.
        energy_j: joules of one inference.
        broken: the rules that it breaks, one sentence each; empty for an entry that counts.
    """

    name: str
    card: str
    accuracy: Score
    energy_j: Band
    broken: tuple[str, ...]

    def __str__(self) -> str:
        verdict = "; ".join(self.broken) or "counts"
        return (
            f"{self.name} on {self.card}: {self.accuracy} after {TIME}, "
            f"{1e9 * self.energy_j.nominal:.2f} nJ an inference: {verdict}"
        )


def score(
    model: Converted, name: str = "entry", *, data: str | Data = "digits", budget_j: float = BUDGET_J, seed: int = 0
) -> Standing:
    """Measure an entry against the rules.

    Args:
        model: what `hs.convert` gave for an `hs.Analog` target, trained.
        name: for the table.
        data: a set by name, or a `Data` whose test split nobody has seen.
        budget_j: joules of one inference, > 0.
        seed: of the chips; the organizer keeps it to themselves.

    Raises:
        HpmlError: no network on a crossbar, or a budget that is not positive.
    """
    if not isinstance(model, Converted) or not isinstance(model.target, Analog):
        raise HpmlError(
            f"contest: entry() returned {type(model).__name__}; return what hs.convert(network, hs.Analog(card)) gives"
        )
    if not budget_j > 0:
        raise HpmlError(f"contest: budget_j={budget_j!r} must be > 0")
    task, target = load_data(data), model.target
    counts = workload(model, data=first(task.test, WORKLOAD_SAMPLES)[0])
    cost = estimate(counts, target)
    on_tiles = set() if counts.mapping is None else set(counts.mapping.products)
    digital = [layer.name for layer in counts.layers if layer.rows and layer.name not in on_tiles]
    broken = []
    if cost.energy_j.nominal > budget_j:
        broken.append(f"over the budget of {1e9 * budget_j:g} nJ")
    if cost.scope != "core":
        broken.append(f"card {target.card!r} is of scope {cost.scope!r}; the contest compares figures of scope 'core'")
    if digital:
        broken.append(f"layers {', '.join(digital)} stayed digital; the energy of a core does not count them")
    default = Analog(target.card)
    changed = [
        f.name for f in fields(Analog) if f.name not in FREE and getattr(target, f.name) != getattr(default, f.name)
    ]
    if changed:
        broken.append(f"{', '.join(changed)} differ from the card's, for which the energy is")
    accuracy = evaluate(program(model, chips=CHIPS, seed=seed).at(TIME), task)
    return Standing(name, str(target.card), accuracy, cost.energy_j, tuple(broken))


def ranking(scores: list[Standing]) -> list[Standing]:
    """Entries that count, best accuracy first, less energy first among equals; then those that do not."""
    return sorted(scores, key=lambda s: (bool(s.broken), -s.accuracy.mean, s.energy_j.nominal))


def load_entry(path: Path) -> Callable[[], Converted]:
    """The function `entry` of a file. Running a file of somebody else runs their code: do it where that may be.

    Raises:
        HpmlError: no such file, or no function `entry` in it.
    """
    if not path.is_file():
        raise HpmlError(f"contest: no file {path}")
    found = runpy.run_path(str(path)).get("entry")
    if not callable(found):
        raise HpmlError(f"contest: {path} has no function entry(); it must return a trained network on a crossbar")
    return cast("Callable[[], Converted]", found)


def main(arguments: list[str] | None = None) -> None:
    """Score the entries named on the command line and print them, best first."""
    parser = argparse.ArgumentParser(
        prog="python -m hpml_sim.course.contest", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("entries", nargs="+", type=Path, help="Python files with a function entry()")
    parser.add_argument("--budget-nj", type=float, default=1e9 * BUDGET_J, help="nanojoules an inference")
    parser.add_argument("--data", default="digits", help="data set by name")
    parser.add_argument("--seed", type=int, default=0, help="of the chips")
    options = parser.parse_args(arguments)
    scores = []
    try:
        for path in options.entries:
            torch.manual_seed(0)
            model = load_entry(path)()
            scores.append(
                score(model, path.stem, data=options.data, budget_j=1e-9 * options.budget_nj, seed=options.seed)
            )
    except HpmlError as error:
        sys.exit(str(error))
    for place, result in enumerate(ranking(scores), start=1):
        print(f"{place}. {result}")


if __name__ == "__main__":
    main()
