"""Put the demo's table into the README and draw its pictures: `python docs/readme.py runs/demo`."""

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from hpml_sim import load_results
from hpml_sim.report.plots import accuracy_over_time, energy_against_accuracy
from hpml_sim.results import Row
from hpml_sim.units.formatting import si, span

DOCS = Path(__file__).parent
README = DOCS.parent / "README.md"
HEAD = "| machine (scope) | 1 s | 1 h | 1 day | 1 year | energy of one inference | latency |\n" + "|---" * 7 + "|"


def lines(rows: Sequence[Row]) -> Iterator[str]:
    """One line a target and batch; measured ones marked."""
    times = sorted({row.time_s for row in rows if row.time_s is not None})
    for target in dict.fromkeys(row.target for row in rows):
        mine = [row for row in rows if row.target == target]
        first = mine[0]
        accuracies = []
        for time in times:
            a = next(row for row in mine if row.time_s in (time, None)).score
            spread = f" ± {100 * a.std:.1f}" if a and a.n > 1 else ""
            accuracies.append(f"{100 * a.mean:.1f}{spread} %" if a else "—")
        for e in first.estimates:
            batch = f", batch {e.batch:,}" if len(first.estimates) > 1 else ""
            costs = [f"{si(b.nominal, u)} ({span(b)})" for b, u in ((e.energy_j, "J"), (e.latency_s, "s"))]
            yield f"| {target}{batch} ({e.scope}) | {' | '.join([*accuracies, *costs])} |"
        for m in first.measurements:
            energy = "no meter" if m.energy_j is None else si(m.energy_j, "J")
            name = f"{target}, batch {m.batch}, **measured** (this machine)"
            yield f"| {name} | {' | '.join([*accuracies, energy, si(m.latency_s, 's')])} |"


def main(folder: str) -> None:
    """Rewrite the marked part of the README and the two pictures."""
    rows = load_results(folder).rows
    table = "\n".join([HEAD, *lines(rows)])
    text = README.read_text(encoding="utf-8")
    marked = re.sub(r"(<!-- demo[^>]*-->\n).*?(<!-- end -->)", rf"\g<1>{table}\n\g<2>", text, flags=re.DOTALL)
    README.write_text(marked, encoding="utf-8")
    for name, draw in (("demo_energy", energy_against_accuracy), ("demo_drift", accuracy_over_time)):
        draw(rows).savefig(DOCS / f"{name}.png", dpi=110, facecolor="white")


if __name__ == "__main__":
    main(sys.argv[1])
