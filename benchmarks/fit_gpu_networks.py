"""Fits the constants of kernels, `[kernels]` of a GPU's card, to measured image networks.

    python benchmarks/fit_gpu_networks.py --records FOLDER [--gpus rtx-3090 ...] [--leave-out] [--out FILE]

FOLDER has image_networks.csv (setting, model, image_size, batch, images_per_s). Eight constants a GPU, by Nelder-Mead
from those that its card has; the others stay as they are. What is minimized: the mean of |ln(estimate / measured)| over
all rows, that of the settings' |median ln|, and three times what these have above 0.07. Then, if asked: each network
left out in turn, and each GPU by its data sheet with the constants of each of the others. --out keeps these errors.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from fit_results import Rows, write
from scipy.optimize import minimize

from hpml_sim.cards import DigitalCard
from hpml_sim.cost.digital.gpu import Gpu
from hpml_sim.cost.digital.products import BYTES
from hpml_sim.cost.digital.work import Work
from hpml_sim.cost.validation.records.images import COLUMNS, Setting, counts
from hpml_sim.cost.validation.records.machines import machine
from hpml_sim.cost.validation.records.reading import rows

FITTED = (
    "tile_efficiency", "tile_half", "product_bandwidth", "memory_efficiency", "channels_last", "channels_first",
    "depthwise", "overlap",
)  # fmt: skip
LOWEST = np.array([0.2, 0.5, 0.5, 0.6, 0.5, 0.3, 0.01, 1.5])
HIGHEST = np.array([0.98, 60, 0.97, 0.95, 1.0, 1.0, 0.6, 6.0])


@dataclass(frozen=True)
class Row:
    """One measured network: what it asks for, by which engine, and the seconds of its batch."""

    setting: Setting
    network: str
    name: str
    work: Work
    batch: int
    seconds: float


def read(folder: Path) -> dict[str, list[Row]]:
    """Card -> its rows."""
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows(folder / "image_networks.csv", COLUMNS):
        setting = Setting.of(row["setting"])
        card = machine(setting.machine)
        if card is None or card.kernels is None:
            continue
        batch = round(float(row["batch"]))
        work = Work.of(
            counts(row["model"], int(row["image_size"])),
            BYTES[setting.precision],
            setting.engine,
            None,
            setting.fused_attention,
        )
        seconds = batch / float(row["images_per_s"])
        found[card.name].append(Row(setting, row["model"], row["setting"], work, batch, seconds))
    return found


def gpu(card: DigitalCard, setting: Setting, values: np.ndarray) -> Gpu:
    """The GPU with other constants."""
    eta, half, product, stream, last, first, depthwise, overlap = map(float, values)
    of_card = Gpu.of(card, setting.precision, setting.engine, setting.channels_last, None)
    assert card.kernels is not None
    share = last if setting.channels_last or setting.engine == "torch-compile" else first
    products = replace(
        of_card.products,
        tile_efficiency=eta,
        tile_half=half,
        overlap=overlap,
        product_bandwidth=product,
        stream_rate=card.memory_bandwidth.si * stream,
    )
    return replace(of_card, products=products, convolution=share, narrow_rate=card.peak["fp32"].si * depthwise)


def errors(card: DigitalCard, records: list[Row], values: np.ndarray) -> np.ndarray:
    """ln(estimate / measured) of each row; the host starts kernels faster than they run at these batches."""
    found = []
    for row in records:
        machine_now = gpu(card, row.setting, values)
        seconds = machine_now.time_s(
            row.work, row.batch, row.work.traffic(row.batch, 0.0) - row.work.kept(row.batch, machine_now.cache)
        )
        found.append(np.log(seconds.sum() / row.seconds))
    return np.array(found)


def objective(records: list[Row], error: np.ndarray) -> float:
    """Mean deviation of rows and of settings."""
    settings = {row.name for row in records}
    medians = [np.median(error[[row.name == name for row in records]]) for name in settings]
    return float(
        np.mean(np.abs(error)) + np.mean(np.abs(medians)) + 3 * np.mean(np.maximum(np.abs(medians) - np.array(0.07), 0))
    )


def fit(card: DigitalCard, records: list[Row], start: np.ndarray, steps: int) -> np.ndarray:
    """The constants that suit the rows best."""

    def loss(scaled: np.ndarray) -> float:
        values = scaled * start
        if (values < LOWEST).any() or (values > HIGHEST).any():
            return 10.0
        return objective(records, errors(card, records, values))

    found = minimize(loss, np.ones(len(start)), method="Nelder-Mead", options={"maxfev": steps, "adaptive": True})
    return found.x * start


def begin(card: DigitalCard) -> np.ndarray:
    """Where the search starts: the card's own constants, within their bounds."""
    k = card.kernels
    assert k is not None
    own = [k.tile_efficiency.si, k.tile_half.si, k.product_bandwidth.si, card.memory_efficiency.si]
    own += [0.9 if k.channels_last is None else k.channels_last.si]
    own += [0.65 if k.channels_first is None else k.channels_first.si]
    own += [0.1 if k.depthwise is None else k.depthwise.si, k.overlap.si]
    return np.clip(np.array(own), LOWEST * 1.02, HIGHEST * 0.98)


def said(name: str, error: np.ndarray) -> str:
    """Median ratio and the share within a factor of 1.35."""
    inside = np.mean(np.abs(error) <= np.log(1.35))
    return f"{name:44} median ratio {np.exp(np.median(error)):.3f}, |ln| {np.median(np.abs(error)):.3f}, {inside:.0%}"


def figures(gpu: str, left_out: str, error: np.ndarray) -> dict[str, object]:
    """A row of what is kept."""
    return {
        "gpu": gpu,
        "left_out": left_out,
        "rows": len(error),
        "median_ratio": round(float(np.exp(np.median(error))), 3),
        "median_abs_log": round(float(np.median(np.abs(error))), 3),
        "within_factor_1.4": round(float(np.mean(np.abs(error) <= np.log(1.4))), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=Path, required=True)
    parser.add_argument("--gpus", nargs="*")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--leave-out", action="store_true", help="each network in turn")
    parser.add_argument("--out", type=Path, help="keep the errors there, as JSON")
    options = parser.parse_args()
    kept: Rows = []
    fitted: dict[str, np.ndarray] = {}
    read_once = read(options.records)
    for name, records in read_once.items():
        card = machine(name)
        if card is None or (options.gpus and name not in options.gpus):
            continue
        values = fit(card, records, begin(card), options.steps)
        print(f"\n{name}: " + ", ".join(f"{n} = {v:.3g}" for n, v in zip(FITTED, values, strict=True)))
        error = errors(card, records, values)
        fitted[name] = values
        kept.append(figures(name, "nothing", error))
        for setting in dict.fromkeys(row.name for row in records):
            mine = np.array([row.name == setting for row in records])
            far = [
                f"{row.network} {np.exp(e):.2f}"
                for row, e in zip(records, error, strict=True)
                if row.name == setting and abs(e) > 0.3
            ]
            print("  " + said(setting, error[mine]), *dict.fromkeys(far), flush=True)
        for network in sorted({row.network for row in records}) if options.leave_out else ():
            others = [row for row in records if row.network != network]
            left = [row for row in records if row.network == network]
            error = errors(card, left, fit(card, others, values, 120))
            kept.append(figures(name, network, error))
            print("  " + said(f"without {network}: on it", error), flush=True)
    for name in fitted if options.leave_out else ():
        card = machine(name)
        assert card is not None
        for other, values in fitted.items():
            if other != name:
                error = errors(card, read_once[name], values)
                kept.append(figures(name, f"its own rows; constants of {other}", error))
                print(said(f"{name} with the constants of {other}", error), flush=True)
    write(options.out, kept)


if __name__ == "__main__":
    main()
