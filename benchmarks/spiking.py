"""Fused leaky neurons against snnTorch's, forward and backward, in one process; equality to the last bit comes first.

    python benchmarks/spiking.py [--threads 1 2] [--repeats 9] [--large]

Rows: (steps, batch, neurons). Ratios are medians over interleaved repeats, with their smallest and largest value:
    unbind   snnTorch's best loop: `for current in x.unbind(0)`
    index    snnTorch's usual loop: `for t in range(T): x[t]`, whose backward is quadratic in T
    copy     our time over that of copying the bytes that must move: forward reads x, writes spikes and membranes;
             backward reads membranes and the spikes' gradient, writes x's gradient (into pages already in use)
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import snntorch as snn
import torch
from torch import Tensor

from hpml_sim.kernels.lif import leaky

SHAPES = [(25, 128, 256), (100, 64, 256), (500, 16, 1024)]
LARGE = [(100, 128, 1024)]
BETA, THRESHOLD = 0.95, 1.0


def fused(x: Tensor) -> Tensor:
    return leaky(x, torch.tensor(BETA), THRESHOLD)[0]


def unbind(x: Tensor) -> Tensor:
    return loop(x.unbind(0))


def index(x: Tensor) -> Tensor:
    return loop(x[t] for t in range(len(x)))


def loop(currents) -> Tensor:
    neuron, membrane, spikes = snn.Leaky(BETA, threshold=THRESHOLD), None, []
    for current in currents:
        membrane = torch.zeros_like(current) if membrane is None else membrane
        spike, membrane = neuron(current, membrane)
        spikes.append(spike)
    snn.SpikingNeuron.instances.clear()
    return torch.stack(spikes)


def step(run: Callable[[Tensor], Tensor], x: Tensor, grad: Tensor) -> tuple[float, Tensor, Tensor]:
    """Seconds of forward and backward, spikes, and the input's gradient."""
    x = x.detach().requires_grad_()
    start = time.perf_counter()
    spikes = run(x)
    spikes.backward(grad)
    seconds = time.perf_counter() - start
    assert x.grad is not None
    return seconds, spikes.detach(), x.grad


def copies(x: Tensor, target: Tensor) -> float:
    start = time.perf_counter()
    for _ in range(3):  # three reads and three writes of x's size: what the six passes move
        target.copy_(x)
    return time.perf_counter() - start


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):6.1f} ({min(values):.1f}..{max(values):.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--large", action="store_true", help="also (100, 128, 1024): 52 MB a tensor")
    arguments = parser.parse_args()
    print(f"{'shape':>17} threads   fused ms   unbind / fused          index / fused           fused / copy")
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        for shape in SHAPES + (LARGE if arguments.large else []):
            generator = torch.Generator().manual_seed(0)
            x = 0.6 * torch.randn(shape, generator=generator) + 0.2
            grad, target = torch.randn(shape, generator=generator), torch.empty(shape)
            _, spikes, grad_x = step(fused, x, grad)
            _, want_spikes, want_grad = step(unbind, x, grad)
            if not (torch.equal(spikes, want_spikes) and torch.equal(grad_x, want_grad)):
                raise SystemExit(f"{shape}: spikes or gradients differ from snnTorch's; no time is worth anything")
            times: dict[str, list[float]] = {name: [] for name in ("fused", "unbind", "index", "copy")}
            for repeat in range(arguments.repeats):
                times["fused"].append(min(step(fused, x, grad)[0] for _ in range(3)))
                times["unbind"].append(step(unbind, x, grad)[0])
                times["copy"].append(min(copies(x, target) for _ in range(3)))
                if repeat < 2:  # seconds each
                    times["index"].append(step(index, x, grad)[0])
            ours, half = times["fused"], statistics.median(times["fused"])
            print(
                f"{shape!s:>17} {threads:7d} {1e3 * half:10.2f}   "
                f"{spread([a / b for a, b in zip(times['unbind'], ours, strict=True)]):<23} "
                f"{spread([a / half for a in times['index']]):<23} "
                f"{spread([a / b for a, b in zip(ours, times['copy'], strict=True)])}",
                flush=True,
            )


if __name__ == "__main__":
    main()
