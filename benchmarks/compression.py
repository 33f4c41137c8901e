"""What compression pays on which machine: score, energy and latency of pruned, quantized and distilled networks.

    python benchmarks/compression.py [cnn spiking smollm2 llama] [--rows dense 2:4 ...] [--json FILE] [--page FILE]

Rows: as it is; half of the weights zero, anywhere and two in four; half of the channels; half of the inputs of each
layer ("rows" of a crossbar); int8; int4 (GPTQ where a layer's inputs can be seen, groups of 64); a student of half the
width; combinations. Columns: a data-center GPU, an edge GPU, a CPU, PCM and ReRAM crossbars, Loihi 2, SpiNNaker 2, all
at system scope. GPUs and the CPU at batch 1 and at the best batch, GPUs with an inference runtime or a recorded graph.

- cnn: two convolutions and two linear layers on Fashion-MNIST, 12,000 images to learn and 10,000 to test. Each row has
  6 epochs: of pruned ones 2 come after pruning, of dense ones as well; quantized ones are not trained again
- spiking: leaky neurons between linear layers, 8 steps, the same images; all rows are trained for 4 epochs on spikes
- smollm2: SmolLM2-135M as it comes, nothing trained on; a token with 128 in the cache, perplexity of 1,024 tokens of
  text. Its weights come 4-bit, so that its int4 row, of nearest numbers, says little
- llama: Llama 3 8B, which is not here: its sizes alone, a token with 128 in the cache, no scores

A neuromorphic estimate spreads each row over all cores of the chips that it needs: fewer synapses would fit on fewer
cores, which then work longer. Scores on crossbars are of 2 chips a day after programming, on 1,000 images; the CNN's
spikes (calibrated for 8 steps, floating point) are scored on 1,000 images, too. Every cell is written down as soon as
it is known, and a second start goes on where the first one ended. One thread, about 6 minutes of processor time.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Subset

import hpml_sim as hs
from hpml_sim.data.batches import first
from hpml_sim.units.formatting import si

RESULTS = Path(__file__).parent / "results" / "compression.jsonl"
GPUS, CPU, CROSSBARS, SPIKING = ("h200", "jetson-orin"), "cpu", ("pcm-hermes", "reram-neurram"), ("loihi-2", "spinnaker-2")  # fmt: skip  # noqa: E501
COLUMNS = (*GPUS, CPU, *CROSSBARS, *SPIKING)
ROWS = (
    "dense", "unstructured", "2:4", "channels", "rows", "int8", "int4", "distilled", "2:4 + int8", "channels + int4",
)  # fmt: skip
CHIPS, WHEN, STEPS, CONTEXT = 2, "1 day", 8, 128
TRAINING, TESTED, ON_CHIPS = 12_000, 10_000, 1000
WIDTH, EPOCHS, MORE = 16, 4, 2
"""Channels of the CNN's first layer; epochs before a network is pruned, and after it."""


@cache
def images(tested: int = TESTED) -> hs.Data:
    """The data of the small networks."""
    whole: Any = hs.load_data("fashion-mnist")
    return replace(whole, train=Subset(whole.train, range(TRAINING)), test=Subset(whole.test, range(tested)))


@cache
def samples(count: int = 128) -> Tensor:
    """Training images for calibration."""
    return first(images().train, count)[0]


def fit(network: nn.Module, epochs: int, **options: Any) -> nn.Module:
    """The network, trained on in place."""
    hs.fit(network, images(), epochs=epochs, seed=0, show_progress=False, **options)
    return network.eval()


def parts_of(row: str) -> list[Any]:
    """What is done to a network, in order."""
    return [] if row in ("dense", "distilled") else row.split(" + ")


# --------------------------------------------------------------------------------------------------------- the networks


@cache
def trained() -> nn.Module:
    """The CNN before anything is taken from it."""
    return fit(hs.models.build("cnn", (1, 28, 28), 10, width=WIDTH), EPOCHS)


@cache
def cnn(row: str) -> nn.Module:
    """The CNN of a row; a combination begins with the network of its first part."""
    if row == "distilled":
        return fit(hs.models.build("cnn", (1, 28, 28), 10, width=WIDTH // 2), EPOCHS + MORE, teacher=cnn("dense"))
    if row == "dense":
        return fit(copy.deepcopy(trained()), MORE)
    *before, last = parts_of(row)
    if last.startswith("int"):
        return hs.quantize(
            cnn(before[0] if before else "dense"), last, data=samples() if last == "int4" else None
        ).eval()
    return fit(hs.prune(trained(), last, data=samples()), MORE)


@cache
def spiking_network(row: str) -> tuple[nn.Module, nn.Module]:
    """The network of a row, compressed, then trained on spikes; and the ReLU network with the weights that learned."""
    torch.manual_seed(0)
    source: nn.Module = hs.models.mlp(784, 256 if row != "distilled" else 128, 10)
    fit(source, 1)
    for part in parts_of(row):
        few = part.startswith("int")  # no calibration sees spikes: trained straight through the rounding
        source = hs.quantize(source, part) if few else hs.prune(source, part, data=samples())
    spiking = hs.convert(source, hs.Spiking("loihi-2", steps=STEPS))
    fit(spiking, EPOCHS, teacher=spiking_network("dense")[0] if row == "distilled" else None)
    for own, learned in zip(linear_layers(source), linear_layers(spiking), strict=True):
        own.load_state_dict(learned.state_dict())
    return spiking, source


def linear_layers(network: nn.Module) -> list[nn.Module]:
    """In order."""
    return [layer for layer in network.modules() if isinstance(layer, nn.Linear)]


@lru_cache(maxsize=2)
def language_model(row: str) -> nn.Module:
    """SmolLM2 of a row, without training; two of them are in memory at a time."""
    if row == "dense":
        return hs.load_network("smollm2-135m").eval()
    network, data = language_model("dense"), first(hs.load_data("text").train, 2)[0][:, :256]
    for part in parts_of(row):
        few = part.startswith("int")  # of GPTQ on this network benchmarks/quantization.py tells
        network = hs.quantize(network, part) if few else hs.prune(network, part, data=data)
    return network.eval()


# ------------------------------------------------------------------------------------------------------------ the cells


def figures(estimate: hs.Estimate, best: hs.Estimate | None = None, score: hs.Score | None = None) -> dict[str, Any]:
    """What is kept of a cell."""
    found: dict[str, Any] = {"energy_j": _band(estimate.energy_j), "latency_s": _band(estimate.latency_s)}
    if best is not None:
        found |= {"best_batch": best.batch, "best_energy_j": _band(best.energy_j)}
    if score is not None:
        found |= {"score": score.mean, "ci95": list(score.ci95), "metric": score.metric}
    return found


def _band(band: hs.Band) -> list[float]:
    return [float(f"{value:.4g}") for value in (band.low, band.nominal, band.high)]


def options_of(card: str, quantized: bool, engine: str = "fused") -> dict[str, Any]:
    """How a GPU or a CPU runs a network: in its best engine, and in 16 bits on GPUs where the network does not say."""
    if card == CPU:
        return {}
    return {"engine": engine} | ({} if quantized else {"precision": "bf16" if card == "h200" else "fp16"})


def digital(what: Any, card: str, quantized: bool, score: hs.Score | None, **options: Any) -> dict[str, Any]:
    """A cell of a GPU or CPU, at batch 1 and at the best batch."""
    options |= options_of(card, quantized) | {"scope": "system"}
    return figures(hs.estimate(what, card, **options), hs.estimate(what, card, batch="best", **options), score)


@cache
def digital_score(network: str, row: str) -> hs.Score:
    """Of a small network without noise."""
    return hs.evaluate(cnn(row) if network == "cnn" else spiking_network(row)[0], images())


@cache
def spikes_of_cnn(row: str) -> tuple[nn.Module, hs.Score]:
    """The CNN of a row with spikes in the place of its activations, and its score."""
    target = hs.Spiking("loihi-2", neuron=hs.spiking.Leaky(beta=1.0), steps=STEPS, encoder="direct")
    spiking = hs.spiking.calibrated(cnn(row), images(), target)
    return spiking, hs.evaluate(spiking, images(ON_CHIPS))


def on_crossbars(network: nn.Module, target: Any) -> dict[str, Any]:
    """A cell of crossbars."""
    converted = hs.convert(network, target)
    hs.calibrate(converted, samples(64))
    score = hs.evaluate(hs.program(converted, CHIPS, 0).at(WHEN), images(ON_CHIPS))
    return figures(hs.estimate(hs.workload(converted, data=samples(50)), scope="system"), score=score)


def on_neurons(counts: hs.Workload, card: str, score: hs.Score) -> dict[str, Any]:
    """A cell of a neuromorphic machine: over all cores of the chips that the network needs, whatever was pruned."""
    chips = round(hs.estimate(counts, card).mapping["chips"])
    return figures(hs.estimate(counts, card, chips=chips, scope="system"), score=score)


def of_cnn(row: str, column: str) -> dict[str, Any]:
    """The CNN on a machine."""
    if column in CROSSBARS:
        return on_crossbars(cnn(row), column)
    if column in SPIKING:
        spiking, score = spikes_of_cnn(row)
        return on_neurons(hs.workload(spiking, data=samples(50)), column, score)
    return digital(cnn(row), column, "int" in row, digital_score("cnn", row), data=samples(50))


def of_spiking(row: str, column: str) -> dict[str, Any]:
    """The spiking network on a machine; spikes on crossbars through chips, with the weights that were trained."""
    network, source = spiking_network(row)
    if column in CROSSBARS:
        target = hs.Spiking("loihi-2", steps=STEPS, synapses=hs.Analog(column), scale_weights=False)
        return on_crossbars(source, target)
    counts, score = hs.workload(network, data=samples(50)), digital_score("spiking", row)
    if column in SPIKING:
        return on_neurons(counts, column, score)
    return digital(counts, column, "int" in row, score)


@cache
def perplexity(row: str) -> hs.Score:
    """Of the digital network on four texts."""
    x, y = first(hs.load_data("text").test, 4)
    return hs.evaluate(language_model(row), [(x[:, :256], y[:, :256])], task="language_model")


def of_smollm2(row: str, column: str) -> dict[str, Any]:
    """A token of SmolLM2 on a machine."""
    if row == "distilled":
        raise hs.HpmlError("rows with training are for the small networks: a language model learns for days")
    network = language_model(row)
    if column in SPIKING:
        return figures(hs.estimate(network, column, phase="decode", context=CONTEXT, scope="system"))
    if column in CROSSBARS:  # of chips, benchmarks/language_model.py has perplexities
        converted = hs.convert(network, column, skip="head")
        return figures(hs.estimate(converted, phase="decode", context=CONTEXT, scope="system"))
    return token(network, column, row, perplexity(row))


def of_llama(row: str, column: str) -> dict[str, Any]:
    """A token of Llama 3 8B on a machine, from its sizes."""
    if column not in (*GPUS, CPU):
        raise hs.HpmlError("its weights are not here: zeros of other patterns, tiles and spikes depend on them")
    if row == "distilled":
        raise hs.HpmlError("rows with training are for the small networks: a language model learns for days")
    asked: Any = {"quantize" if part.startswith("int") else "prune": part for part in parts_of(row)}
    return token("llama-3-8b", column, row, None, **asked)


def token(what: Any, column: str, row: str, score: hs.Score | None, **options: Any) -> dict[str, Any]:
    """A cell of a language model on a GPU or CPU: one token, and one of the best batch."""
    options |= {"phase": "decode", "context": CONTEXT, "scope": "system", **options_of(column, "int" in row)}
    best = None if column == CPU else hs.estimate(what, column, batch="best", **options)
    return figures(hs.estimate(what, column, **options), best, score)


NETWORKS: dict[str, Callable[[str, str], dict[str, Any]]] = {
    "cnn": of_cnn,
    "spiking": of_spiking,
    "smollm2": of_smollm2,
    "llama": of_llama,
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
        said = f"{found['energy_j'][1]:.3g} J" if "energy_j" in found else found["why"][:60]
        spent = time.process_time() - start
        print(f"{number + 1}/{len(wanted)} {network}, {row}, {column}: {said} ({spent:.1f} s)", flush=True)
        yield {"network": network, "row": row, "column": column, **found}


def kept(out: Path) -> list[dict[str, Any]]:
    """The cells of earlier starts."""
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()] if out.exists() else []


# ------------------------------------------------------------------------------------------------------------- the page

TABLES = (
    ("energy of an inference, batch 1", "energy_j", "J"),
    ("energy of an inference at the best batch", "best_energy_j", "J"),
    ("latency, batch 1", "latency_s", "s"),
    ("score", "score", ""),
)


def tables(found: list[dict[str, Any]], network: str) -> str:
    """The cells of a network as Markdown: figures of the dense row, the others over them, and scores.

    Args:
        found: all cells.
        network: which network.
    """
    by = {(c["row"], c["column"]): c for c in found if c["network"] == network}
    rows = [row for row in ROWS if any((row, column) in by for column in COLUMNS)]
    parts = []
    for title, quantity, unit in TABLES:
        columns = [c for c in COLUMNS if any(quantity in by.get((row, c), {}) for row in rows)]
        if quantity == "score":  # the same on all digital machines, and of the same spikes on all neuromorphic ones
            columns = [c for c in columns if c not in (GPUS[1], CPU, SPIKING[1])]
        if not columns:
            continue
        names = [{"h200": "digital", "loihi-2": "spikes"}.get(c, c) if quantity == "score" else c for c in columns]
        lines = [f"**{network}: {title}**", "", f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
        for row in rows:
            if any(quantity in by.get((row, c), {}) for c in columns):
                shown = [_shown(by.get((row, c), {}), by.get(("dense", c), {}), quantity, unit, row) for c in columns]
                lines.append(f"| {row} | {' | '.join(shown)} |")
        parts.append("\n".join(lines))
    return "\n\n".join([*parts, *_reasons(by)]) + "\n"


def _shown(own: dict[str, Any], dense: dict[str, Any], quantity: str, unit: str, row: str) -> str:
    if quantity not in own:
        return ""
    if quantity == "score":
        return f"{100 * own['score']:.1f} %" if own["metric"] == "accuracy" else f"{own['score']:.4g}"
    nominal = own[quantity][1]
    if row == "dense" or quantity not in dense:
        return si(nominal, unit)
    return f"x {nominal / dense[quantity][1]:.2f}"


def _reasons(by: dict[tuple[str, str], dict[str, Any]]) -> list[str]:
    """What has no figure, with the machines and rows that share a reason."""
    why: dict[str, list[tuple[str, str]]] = {}
    for place, own in by.items():
        if "why" in own:
            why.setdefault(own["why"], []).append(place)
    lines = []
    for reason, places in why.items():
        rows = ", ".join(dict.fromkeys(row for row, _ in places))
        columns = ", ".join(dict.fromkeys(column for _, column in places))
        lines.append(f"- {columns} ({rows}): {reason}")
    return ["**No figure**\n\n" + "\n".join(lines)] if lines else []


def with_tables(page: str, found: list[dict[str, Any]]) -> str:
    """A page with the tables of all networks, each between its marks.

    Args:
        page: Markdown with `<!-- tables: NETWORK -->` and `<!-- end -->`.
        found: all cells.
    """
    for network in NETWORKS:
        before, mark, rest = page.partition(f"<!-- tables: {network} -->\n")
        if mark:
            page = f"{before}{mark}\n{tables(found, network)}\n<!-- end -->{rest.partition('<!-- end -->')[2]}"
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=list(NETWORKS), metavar="NETWORK", help=", ".join(NETWORKS))
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=ROWS)
    parser.add_argument("--json", type=Path, default=RESULTS, help="a line a cell; what is there already is kept")
    parser.add_argument("--page", type=Path, help="write the tables into this page, between its marks")
    given = parser.parse_args()
    if unknown := set(given.networks) - set(NETWORKS):
        parser.error(f"no network {', '.join(sorted(unknown))}; there are {', '.join(NETWORKS)}")
    torch.set_num_threads(1)
    for found in cells(given.networks, given.rows, given.json):
        with given.json.open("a", encoding="utf-8") as file:
            file.write(json.dumps(found) + "\n")
    found = kept(given.json)
    print("\n".join(tables(found, network) for network in NETWORKS if any(c["network"] == network for c in found)))
    if given.page is not None:
        given.page.write_text(with_tables(given.page.read_text(encoding="utf-8"), found), encoding="utf-8")


if __name__ == "__main__":
    main()
