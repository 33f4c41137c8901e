"""What compression pays on which machine: score, energy and latency of pruned, quantized and distilled networks.

    python benchmarks/compression.py [cnn spiking smollm2] [--rows dense 2:4 ...] [--out FILE] [--page FILE]

Rows: as it is; half of the weights zero; 2:4; half of the channels; int8; int4 (GPTQ, groups of 64); a student of half
the width; combinations. Columns: a data-center GPU, an edge GPU, a CPU, PCM and ReRAM crossbars, Loihi 2, SpiNNaker 2,
at system scope and batch 1. The CNN and the spiking network learn scikit-learn's digits, and pruned and distilled ones
are trained on; SmolLM2 is taken as it is: its energies are of one token with 128 in the cache, and its scores are
perplexities of the digital network on one text.

Every cell is written down as soon as it is known, and a second start goes on where the first one ended. One thread.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

import hpml_sim as hs
from hpml_sim.data.batches import first
from hpml_sim.networks.generation import phase_workload

RESULTS = Path(__file__).parent / "results" / "compression.jsonl"
GPUS, CPU, CROSSBARS, SPIKING = ("h200", "jetson-orin"), "cpu", ("pcm-hermes", "reram-neurram"), ("loihi-2", "spinnaker-2")  # fmt: skip  # noqa: E501
COLUMNS = (*GPUS, CPU, *CROSSBARS, *SPIKING)
ROWS = ("dense", "unstructured", "2:4", "channels", "int8", "int4", "distilled", "2:4 + int8", "channels + int4")
CHIPS, WHEN, STEPS = 2, "1 day", 8


@cache
def digits() -> hs.Data:
    """The data of the small networks."""
    return hs.load_data("digits")


def fit(network: nn.Module, epochs: int = 6, **options: Any) -> nn.Module:
    """The network, trained on in place."""
    hs.fit(network, digits(), epochs=epochs, seed=0, show_progress=False, **options)
    return network.eval()


@cache
def small(width: int) -> nn.Module:
    """A trained CNN."""
    return fit(hs.models.build("cnn", (1, 8, 8), 10, width=width), epochs=12)


def pruned(network: nn.Module, pattern: Any) -> nn.Module:
    """Half of it, trained on: what a network loses before that says little."""
    return fit(hs.prune(network, pattern, data=first(digits().train, 128)[0]))


def quantized(network: nn.Module, scheme: Any) -> nn.Module:
    """In few bits, without training."""
    data = first(digits().train, 128)[0] if scheme == "int4" else None
    return hs.quantize(network, scheme, data=data).eval()


def compressed(row: str) -> nn.Module:
    """The CNN of a row."""
    if row == "distilled":
        return fit(hs.models.build("cnn", (1, 8, 8), 10, width=8), epochs=12, teacher=small(16))
    network = small(16)
    for part in () if row == "dense" else row.split(" + "):
        network = quantized(network, part) if part.startswith("int") else pruned(network, part)
    return network


# --------------------------------------------------------------------------------------------------------- the cells


def digital(card: str, quantized_network: bool) -> Any:
    """The target of a GPU or CPU: GPUs compute in 16 bits what is not quantized, as they are used."""
    if card == CPU or quantized_network:
        return hs.Digital(card)
    return hs.Digital(card, precision="bf16" if card == "h200" else "fp16")


def cell(estimate: hs.Estimate, score: hs.Score | None, unit: str = "") -> dict[str, Any]:
    """What is kept of a cell."""
    bands = {"energy_j": estimate.energy_j, "latency_s": estimate.latency_s}
    found: dict[str, Any] = {name: [band.low, band.nominal, band.high] for name, band in bands.items()}
    if score is not None:
        found |= {"score": score.mean, "unit": unit or score.unit}
    return found


def of_cnn(row: str, column: str) -> dict[str, Any]:
    """The CNN on a machine."""
    return _small_cell(compressed_once(row), row, column)


@cache
def compressed_once(row: str) -> nn.Module:
    """A row's network is made once."""
    return compressed(row)


def _small_cell(network: nn.Module, row: str, column: str) -> dict[str, Any]:
    x = first(digits().test, 50)[0]
    if column in CROSSBARS:
        converted = hs.convert(network, column)
        hs.calibrate(converted, first(digits().train, 64)[0])
        score = hs.evaluate(hs.program(converted, CHIPS, 0).at(WHEN), digits())
        return cell(hs.estimate(hs.workload(converted, data=x), scope="system"), score)
    if column in SPIKING:
        target = hs.Spiking(column, neuron=hs.spiking.Leaky(beta=1.0), steps=STEPS, encoder="direct")
        spiking = hs.spiking.calibrated(network, digits(), target)
        return cell(hs.estimate(hs.workload(spiking, data=x), column, scope="system"), hs.evaluate(spiking, digits()))
    return cell(hs.estimate(network, digital(column, "int" in row), data=x, scope="system"), hs.evaluate(network, digits()))  # fmt: skip  # noqa: E501


@cache
def spiking_network(row: str) -> nn.Module:
    """A trained spiking network of a row: the compressed network is converted, then trained on spikes."""
    parts = [] if row in ("dense", "distilled") else row.split(" + ")
    torch.manual_seed(0)
    network: nn.Module = hs.models.mlp(64, 128 if row != "distilled" else 64, 10)
    fit(network, epochs=4)
    for part in parts:
        if not part.startswith("int"):
            network = hs.prune(network, part, data=first(digits().train, 128)[0])  # type: ignore[arg-type]
    for part in parts:
        if part.startswith("int"):  # trained straight through the rounding, as no calibration sees spikes
            network = hs.quantize(network, part)  # type: ignore[arg-type]
    spiking = hs.convert(network, hs.Spiking("loihi-2", steps=STEPS))
    if row == "distilled":
        return fit(spiking, teacher=spiking_network("dense"))
    return fit(spiking)


def of_spiking(row: str, column: str) -> dict[str, Any]:
    """The spiking network on a machine; spikes on crossbars through chips."""
    network, x = spiking_network(row), first(digits().test, 50)[0]
    score = hs.evaluate(network, digits())
    if column in CROSSBARS:
        on_tiles = hs.convert(network.network, column)  # type: ignore[arg-type]
        hs.calibrate(on_tiles, first(digits().train, 64)[0])
        score = hs.evaluate(hs.program(on_tiles, CHIPS, 0).at(WHEN), digits())
        return cell(hs.estimate(hs.workload(on_tiles, data=x), scope="system"), score)
    counts = hs.workload(network, data=x)
    target = column if column in SPIKING else digital(column, "int" in row)
    return cell(hs.estimate(counts, target, scope="system"), score)


@cache
def language_model(row: str) -> nn.Module:
    """SmolLM2 of a row, without training."""
    network: nn.Module = hs.load_network("smollm2-135m").eval()
    data = first(hs.load_data("text").train, 4)[0][:, :256]
    for part in () if row == "dense" else row.split(" + "):
        network = hs.quantize(network, part) if part.startswith("int") else hs.prune(network, part, data=data)  # type: ignore[arg-type]  # fmt: skip
    return network.eval()


@cache
def perplexity(row: str) -> hs.Score:
    """Of the digital network on one text."""
    x, y = first(hs.load_data("text").test, 1)
    return hs.evaluate(language_model(row), [(x[:, :256], y[:, :256])], task="language_model")


def of_smollm2(row: str, column: str) -> dict[str, Any]:
    """A token of SmolLM2 on a machine."""
    if row == "distilled":
        return {"why": "trained rows are for the small networks"}
    network = language_model(row)
    if column in SPIKING:
        hs.convert(network, column)  # says why not
    if column in CROSSBARS:
        converted = hs.convert(network, column, skip="head")
        return cell(hs.estimate(phase_workload(converted, "decode", 128), converted.target, scope="system"), None)
    counts = phase_workload(network, "decode", 128)
    return cell(hs.estimate(counts, digital(column, "int" in row), engine=None, scope="system"), perplexity(row))


NETWORKS: dict[str, Callable[[str, str], dict[str, Any]]] = {
    "cnn": of_cnn,
    "spiking": of_spiking,
    "smollm2": of_smollm2,
}


def cells(networks: list[str], rows: list[str], out: Path) -> Iterator[dict[str, Any]]:
    """All cells that are not there yet, each as soon as it is known."""
    there = {(c["network"], c["row"], c["column"]) for c in kept(out)}
    wanted = [(n, r, c) for n in networks for r in rows for c in COLUMNS if (n, r, c) not in there]
    for number, (network, row, column) in enumerate(wanted):
        start = time.process_time()
        try:
            found = NETWORKS[network](row, column)
        except hs.HpmlError as error:
            found = {"why": str(error)}
        print(f"{number + 1}/{len(wanted)} {network}, {row}, {column}: {time.process_time() - start:.1f} s", flush=True)
        yield {"network": network, "row": row, "column": column, **found}


def kept(out: Path) -> list[dict[str, Any]]:
    """The cells of earlier starts."""
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()] if out.exists() else []


# ---------------------------------------------------------------------------------------------------------- the page


def tables(found: list[dict[str, Any]]) -> str:
    """The cells as Markdown: for each network, energies and latencies over the dense row's, and scores."""
    by = {(c["network"], c["row"], c["column"]): c for c in found}
    parts = []
    for network in dict.fromkeys(c["network"] for c in found):
        rows = [row for row in ROWS if any((network, row, column) in by for column in COLUMNS)]
        for title, quantity in (("Energy", "energy_j"), ("Latency", "latency_s"), ("Score", "score")):
            lines = [f"**{network}: {title.lower()}**", "", f"| row | {' | '.join(COLUMNS)} |", "|---" * 8 + "|"]
            for row in rows:
                shown = [
                    _shown(by.get((network, row, c)), by.get((network, "dense", c)), quantity, row) for c in COLUMNS
                ]
                lines.append(f"| {row} | {' | '.join(shown)} |")
            parts.append("\n".join(lines))
    reasons = dict.fromkeys(f"- {c['network']} on {c['column']}: {c['why']}" for c in found if "why" in c and c["row"] == "dense")  # fmt: skip  # noqa: E501
    return "\n\n".join([*parts, "**What cannot be mapped**\n\n" + "\n".join(reasons)] if reasons else parts) + "\n"


def _shown(own: dict[str, Any] | None, dense: dict[str, Any] | None, quantity: str, row: str) -> str:
    if own is None or quantity not in own:
        return ""
    if quantity == "score":
        return (
            f"{100 * own['score']:.1f} %"
            if own["unit"] != "perplexity" and own["score"] <= 1
            else f"{own['score']:.4g}"
        )
    nominal = own[quantity][1]
    if row == "dense" or dense is None or quantity not in dense:
        return f"{nominal:.3g} {quantity[-1].upper() if quantity.endswith('j') else 's'}"
    return f"x {nominal / dense[quantity][1]:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=list(NETWORKS), metavar="NETWORK", help=", ".join(NETWORKS))
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=ROWS)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--page", type=Path, help="write the tables here, as Markdown")
    given = parser.parse_args()
    torch.set_num_threads(1)
    for found in cells(given.networks, given.rows, given.out):
        with given.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(found) + "\n")
    text = tables(kept(given.out))
    print(text)
    if given.page is not None:
        given.page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
