"""Fits the tables `[serving]` and `[power]` of a GPU's card to served language models.

    python benchmarks/fit_serving.py --records FOLDER [--gpus h100 b200] [--left-out] [--out FILE]

FOLDER has llm_serving.csv. Least squares on the logarithms of mean step, time between tokens and power, each over 5 %,
with a soft loss, and with priors that keep constants near what they are known to be. Joules a token are step x power
and are not fitted. First the constants of dense networks, then those of experts, with the former as they are. What all
GPUs share (length of prompts, spread of answers, ...) is fitted on the H100, the GPU with most records.

Printed: the constants, mean absolute errors, the bounds with nine of ten records between them; with --left-out also the
errors on each network that was left out, and on each GPU with the constants of the other; --out keeps the errors.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from fit_results import Rows, write
from scipy.optimize import least_squares

from hpml_sim.cards import DigitalCard, load_card
from hpml_sim.cost.digital.power import scaled_power
from hpml_sim.cost.serving.scheduling import Load, Served, serve
from hpml_sim.cost.validation.records.serving import ServedRow, read

# name -> (start, relative standard deviation of the prior)
SHARED = {"prompt": (250.0, 0.3), "spread": (1.5, 0.1), "median_below": (1.0, 0.3)}
DENSE = {
    "step_time": (1.5e-3, 0.7),
    "sequence_time": (2e-5, 1.0),
    "kernel_time": (2.5e-6, 0.4),
    "attention_efficiency": (0.75, 0.15),
    "clocks": (50.0, 0.7),
    "traffic": (150e-12, 0.3),
    "attention": (180e-12, 0.4),
    "operation": (0.5e-12, 0.4),
}
UNEVEN = {"unevenness": (1.0, 0.4)}
EXPERTS = {
    "expert_bandwidth": (0.75, 0.1),
    "expert_rate": (0.4, 0.4),
    "expert_time": (10e-6, 0.6),
    "expert_operation": (1e-12, 0.4),
}
POWER = ("clocks", "traffic", "attention", "operation", "expert_operation")
FIGURES = ("step", "between tokens", "power", "joules a token")
Constants = dict[str, float]


@dataclass(frozen=True)
class Fit:
    """Rows and the constants that are fitted to them."""

    rows: Sequence[ServedRow]
    start: Constants
    priors: dict[str, tuple[float, float]]

    def solve(self) -> Constants:
        """The constants, those included that were not fitted."""
        names = list(self.priors)

        def residuals(x: np.ndarray) -> np.ndarray:
            trial = self.start | dict(zip(names, np.exp(x).tolist(), strict=True))
            errors = np.log1p(errors_of(self.rows, trial)[:, :3]).ravel() / 0.05
            known = [(v - np.log(self.priors[n][0])) / self.priors[n][1] for n, v in zip(names, x, strict=True)]
            return np.concatenate([errors, known])

        found = least_squares(
            residuals, np.log([self.start[n] for n in names]), loss="soft_l1", f_scale=2, max_nfev=30
        )  # fmt: skip
        return self.start | dict(zip(names, np.exp(found.x).tolist(), strict=True))


def with_constants(card: DigitalCard, constants: Constants) -> DigitalCard:
    """The card with these constants, in SI units, in place of its own."""
    serving, power = card.serving, card.power
    assert serving is not None
    assert power is not None

    def changed(quantity, value):
        return quantity.model_copy(
            update={"value": value / (quantity.si / quantity.value), "low": None, "high": None}
        )  # fmt: skip

    tables = [
        table.model_copy(
            update={n: changed(getattr(table, n), v) for n, v in constants.items() if n in type(table).model_fields}
        )
        for table in (serving, power)
    ]
    return card.model_copy(update={"serving": tables[0], "power": tables[1]})


def served(row: ServedRow, constants: Constants) -> Served:
    """The estimate of a row with these constants."""
    shape = row.shape
    if shape.experts is not None:
        shape = replace(shape, experts=replace(shape.experts, unevenness=constants["unevenness"]))
    model = replace(row, shape=shape).model(with_constants(row.card, constants))
    load = Load(
        row.batch, constants["prompt"], row.output,
        spread=constants["spread"], median_below=constants["median_below"],
    )  # fmt: skip
    return serve(model, load)


def errors_of(rows: Sequence[ServedRow], constants: Constants) -> np.ndarray:
    """Estimate / measured - 1 of the figures of each row: (rows, figures)."""
    found = []
    for row in rows:
        y = served(row, constants)
        found.append(
            (
                y.step_s / row.step_s - 1,
                y.between_s / row.between_s - 1,
                y.power_w * row.split.devices / row.power_w - 1,
                y.token_j / row.token_j - 1,
            )
        )
    return np.array(found)


def fit_gpu(rows: Sequence[ServedRow], shared: Constants | None) -> Constants:
    """All constants of a GPU; of dense networks first."""
    start = {n: v[0] for n, v in (SHARED | DENSE | UNEVEN | EXPERTS).items()} | (shared or {})
    dense = [row for row in rows if row.dense]
    found = Fit(dense, start, DENSE if shared else SHARED | DENSE).solve() if dense else start
    mixed = [row for row in rows if not row.dense]
    return Fit(mixed, found, EXPERTS if shared else UNEVEN | EXPERTS).solve() if mixed else found


def shown(rows: Sequence[ServedRow], constants: Constants) -> str:
    """Mean absolute errors of dense networks and of those with experts."""
    return said(rows, errors_of(rows, constants))


def said(rows: Sequence[ServedRow], errors: np.ndarray) -> str:
    """The same of errors."""
    parts = []
    for row in figures("", "", rows, errors):
        means = ", ".join(f"{what} {row[what]:.1%}" for what in FIGURES)
        parts.append(f"{row['networks']} ({row['rows']} rows): {means}")
    return "; ".join(parts)


def figures(gpu: str, left_out: str, rows: Sequence[ServedRow], errors: np.ndarray) -> Rows:
    """Mean absolute errors as rows of what is kept."""
    found: Rows = []
    for name, chosen in (("dense", True), ("experts", False)):
        own = np.array([row.dense == chosen for row in rows])
        if own.any():
            means = dict(zip(FIGURES, np.abs(errors[own]).mean(axis=0).round(3).tolist(), strict=True))
            found.append({"gpu": gpu, "left_out": left_out, "networks": name, "rows": int(own.sum())} | means)
    return found


def bounds(rows: Sequence[ServedRow], constants: Constants) -> str:
    """Measured / estimated, between the twentieth of the rows at either end."""
    errors = errors_of(rows, constants)
    times, energies = 1 / (1 + errors[:, :2].ravel()), 1 / (1 + errors[:, 2:].ravel())
    low, high = np.quantile(times, [0.05, 0.95]), np.quantile(energies, [0.05, 0.95])
    return f"time {low[0]:.2f} to {low[1]:.2f}, energy and power {high[0]:.2f} to {high[1]:.2f}"


def main() -> None:
    """Fit and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=Path, required=True)
    parser.add_argument("--gpus", nargs="+", default=["h100", "b200"])
    parser.add_argument("--left-out", action="store_true")
    parser.add_argument("--out", type=Path, help="keep the errors there, as JSON")
    options = parser.parse_args()
    found = [row for row in read(options.records / "llm_serving.csv") if isinstance(row, ServedRow)]
    by_gpu = {gpu: [row for row in found if row.card.name == gpu] for gpu in options.gpus}
    shared: Constants | None = None
    fitted: dict[str, Constants] = {}
    kept: Rows = []
    for gpu, rows in by_gpu.items():
        fitted[gpu] = fit_gpu(rows, shared)
        shared = shared or {n: fitted[gpu][n] for n in SHARED | UNEVEN}
        print(f"\n{gpu}: " + ", ".join(f"{n} {v:.4g}" for n, v in fitted[gpu].items()))
        print(f"{gpu}: {shown(rows, fitted[gpu])}")
        kept += figures(gpu, "nothing", rows, errors_of(rows, fitted[gpu]))
        print(f"{gpu}: nine of ten, measured / estimated: {bounds(rows, fitted[gpu])}", flush=True)
    if not options.left_out:
        write(options.out, kept)
        return
    for gpu, rows in by_gpu.items():
        for name in sorted({row.name for row in rows}):
            rest, out = [r for r in rows if r.name != name], [r for r in rows if r.name == name]
            without = fit_gpu(rest, shared)
            kept += figures(gpu, name, out, errors_of(out, without))
            print(f"{gpu} without {name}: {shown(out, without)}", flush=True)
    for gpu, rows in by_gpu.items():
        for other in by_gpu:
            if other != gpu:
                card, giver = load_card(gpu), load_card(other)
                assert isinstance(card, DigitalCard)
                assert isinstance(giver, DigitalCard)
                tables = {"serving": giver.serving, "power": scaled_power(card, giver)}
                moved = [replace(row, card=card.model_copy(update=tables)) for row in rows]
                errors = plain(moved)
                kept += figures(gpu, f"its own rows; tables of {other}", moved, errors)
                print(f"{gpu} with the tables of {other}: {said(moved, errors)}")
    write(options.out, kept)


def plain(rows: Sequence[ServedRow]) -> np.ndarray:
    """Estimate / measured - 1 with the cards as they are: (rows, figures)."""
    return np.array(
        [
            (y.step_s / r.step_s - 1, y.between_s / r.between_s - 1, y.power_w * r.split.devices / r.power_w - 1,
             y.token_j / r.token_j - 1)
            for r in rows for y in [r.served()]
        ]
    )  # fmt: skip


if __name__ == "__main__":
    main()
