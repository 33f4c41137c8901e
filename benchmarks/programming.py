"""Programming and aging of chips: time and memory for each weight, against torch's own normal numbers.

    python benchmarks/programming.py [--hidden 2048] [--layers 6] [--chips 1] [--repeats 5] [--large]
    python benchmarks/programming.py --evaluate 3 [--of 25] [--time "1 day"]

Time is given in draws of `torch.randn`, measured in the same process between our passes: 40 of them are about 0.1 us on
an idle core. Before anything is timed, what a chip holds is compared with the definition in plain numpy. Memory is the
highest resident size of a fresh process over that before, without the weights that are the result. `--large` takes
networks of the size of SmolLM2 (134 million weights) and of GPT-2 (124 million), of random weights. `--evaluate`
evaluates chips of SmolLM2-135M itself on 512 tokens, one after another as `hs.evaluate` does, out of `--of` that were
programmed, and prints after each the highest resident memory of the whole process so far (`getrusage`): what does not
grow from chip to chip is the same for any number of them.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import hpml_sim as hs
from hpml_sim.analog.layers import crossbars

CARD = hs.Analog("pcm-hermes")


def network(widths: list[int]) -> nn.Module:
    """Linear layers of these widths, of small random weights.

    Args:
        widths: from input to output.
    """
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(a, b, bias=False) for a, b in pairwise(widths)))


def large(name: str) -> nn.Module:
    """Matrices of the sizes of a language model, its head on its embedding.

    Args:
        name: "smollm2" or "gpt2".
    """
    if name == "smollm2":
        shapes, width, vocabulary = [(576, 576)] * 2 + [(576, 192)] * 2 + [(576, 1536)] * 2 + [(1536, 576)], 576, 49152
        shapes *= 30
    else:
        shapes, width, vocabulary = [(768, 2304), (768, 768), (768, 3072), (3072, 768)] * 12, 768, 50257
    torch.manual_seed(0)
    layers = nn.ModuleList([nn.Embedding(vocabulary, width)])
    layers.extend(nn.Linear(a, b, bias=False) for a, b in shapes)
    head = nn.Linear(width, vocabulary, bias=False)
    head.weight = layers[0].weight  # type: ignore[assignment]
    layers.append(head)
    return layers


def seconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def agree() -> None:
    """Hold what a chip multiplies with against the definition in float64 numpy, which draws its own numbers."""
    from hpml_sim.analog.device_laws import aging_of
    from hpml_sim.analog.seeds import Purpose, derive
    from hpml_sim.kernels.device_noise import reference

    chips = hs.program(hs.convert(network([90, 20]), CARD), chips=1, seed=3)
    (layer,) = chips.backend.layers.values()  # type: ignore[attr-defined]
    law = layer.device_model.law
    cells = layer.layer.weight.double() / layer.full_scale[0, 0].unsqueeze(-1)
    target = reference.target_conductances(law, cells.detach().reshape(-1).numpy())
    seeds = [derive(3, p, time_s=t) for p, t in ((Purpose.PROGRAMMING, 0.0), (Purpose.READ, 86400.0))]
    aged = reference.age_devices(law, aging_of(layer.device_model.noise_model, 86400.0), target, *seeds)
    (crossbar,) = crossbars(chips.at("1 day")).values()
    assert crossbar.programmed is not None
    np.testing.assert_allclose(
        crossbar.programmed.weight.reshape(-1), reference.read_weights(law, aged), rtol=1e-4, atol=1e-5
    )


def resident() -> float:
    """Memory of this process, bytes."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return 1024.0 * int(fields["VmRSS"].split()[0])


class Peak:
    """The highest resident memory within the block, bytes."""

    def __enter__(self) -> Peak:
        self.bytes, self._on = resident(), True
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while self._on:
            self.bytes = max(self.bytes, resident())
            time.sleep(0.005)

    def __exit__(self, *problem: object) -> None:
        self._on = False
        self._thread.join()


def times(net: nn.Module, chips: int, repeats: int) -> None:
    analog = hs.convert(net, CARD)
    weights = sum(crossbar.tiling.rows * crossbar.tiling.cols for crossbar in crossbars(analog).values())
    found: dict[str, list[float]] = {"program": [], "a time": []}
    for _ in range(repeats):
        draw = seconds(lambda: torch.randn(weights)) / weights
        made = []
        found["program"].append(seconds(lambda m=made: m.append(hs.program(analog, chips=chips, seed=0))))
        found["a time"].append(seconds(lambda m=made: m[0].at("1 day")))
        for values in found.values():
            values[-1] /= draw * weights * chips
    print(f"{weights:,} weights, {chips} chip(s); CPU time a weight and chip in normal numbers of torch (goal: 40)")
    for name, values in found.items():
        print(f"  {name:8s} {statistics.median(values):6.2f}  ({min(values):.2f}..{max(values):.2f})")


def memory(net: nn.Module, chips: int) -> None:
    analog = hs.convert(net, CARD)
    kept = sum(p.numel() * p.element_size() for p in net.parameters())
    sizes = [crossbar.tiling.rows * crossbar.tiling.cols for crossbar in crossbars(analog).values()]
    hs.program(hs.convert(network([40, 8]), CARD), chips=1).at("1 day")  # compiled passes are loaded
    before = resident()
    with Peak() as peak:
        start = time.process_time()
        programmed = hs.program(analog, chips=chips, seed=0)
        took = time.process_time() - start
    beside = peak.bytes - before - kept
    print(f"program: {took:.1f} s of CPU; peak beside the copy of the network {beside / 2**20:.0f} MiB")
    print(f"  that is {beside / max(sizes):.1f} bytes a weight of the largest layer (goal: 12)")
    with Peak() as peak:
        start = time.process_time()
        programmed.at("1 day")
        took = time.process_time() - start
    held = sum(sizes) * 4 * (chips if sum(sizes) * 4 * chips <= 2**28 else 1)
    print(
        f"a time: {took:.1f} s of CPU; peak beside copy and chips {(peak.bytes - before - kept - held) / 2**20:.0f} MiB"
    )
    print(f"  above network and programmed weights: {(peak.bytes - before - held) / 2**30:.2f} GiB")


def evaluation(evaluated: int, programmed: int, when: str) -> None:
    """The memory of chips that are evaluated one after another.

    Args:
        evaluated: how many.
        programmed: how many there are.
        when: time since programming.
    """

    def peak() -> str:
        return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB at the peak"

    data = hs.load_data("text", length=512)
    net = hs.load_network("smollm2-135m")
    print(f"the network: {peak()}", flush=True)
    chips = hs.program(hs.convert(net, CARD, skip="head"), chips=programmed, seed=0)
    print(f"{programmed} chips programmed: {peak()}", flush=True)
    test: Any = torch.utils.data.Subset(data.test, [0])  # type: ignore[arg-type]
    parts = chips.at(when, only=range(evaluated)).parts()
    for number in range(evaluated):  # no enumerate: it would hold the chip before
        part = next(parts)
        start = time.process_time()
        score = hs.evaluate(part, test, task="language_model")
        took = time.process_time() - start
        print(f"chip {number} at {when}: perplexity {score.mean:.1f}, {took:.0f} s of CPU, {peak()}", flush=True)
        del part


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--chips", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--large", action="store_true", help="memory of networks of the size of SmolLM2 and GPT-2 as well"
    )
    parser.add_argument("--evaluate", type=int, metavar="CHIPS", help="chips of SmolLM2-135M, one after another")
    parser.add_argument("--of", type=int, default=25, help="chips that are programmed for --evaluate")
    parser.add_argument("--time", default="1 day", help="since programming, for --evaluate")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.memory_of:
        memory(large(given.memory_of), given.chips)
        return 0
    if given.evaluate:
        evaluation(given.evaluate, given.of, given.time)
        return 0
    agree()
    net = network([given.hidden] * (given.layers + 1))
    hs.program(hs.convert(network([40, 8]), CARD), chips=1).at("1 day")  # compiled passes are loaded
    times(net, given.chips, given.repeats)
    for name in ("smollm2", "gpt2") if given.large else ():
        print(f"\n{name}:", flush=True)
        subprocess.run([sys.executable, __file__, "--memory-of", name, "--chips", str(given.chips)], check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
