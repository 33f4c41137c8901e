"""Fused leaky neurons against snnTorch's, forward and backward, in one process; equality to the last bit comes first.

    python benchmarks/spiking.py [--threads 1 2] [--repeats 9] [--large] [--compile] [--network]

Rows: (steps, batch, neurons). Ratios are medians over interleaved repeats, with their smallest and largest value:
    unbind   snnTorch's best loop: `for current in x.unbind(0)`
    index    snnTorch's usual loop: `for t in range(T): x[t]`, whose backward is quadratic in T
    compile  `torch.compile` of the unbind loop (--compile; up to 25 steps: it unrolls the loop, and 500 steps would
             compile for an hour); its compile time is printed, not counted
    copy     our time over that of copying the bytes that must move: forward reads x, writes spikes and membranes;
             backward reads membranes and the spikes' gradient, writes x's gradient (into pages already in use)
    --network: a training step of 784-1000-10 at T = 25, batch 128, `hs.spiking.fuse` against the loop over steps
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import snntorch as snn
import torch
from torch import Tensor, nn

from hpml_sim.kernels.lif import leaky
from hpml_sim.spiking import fuse

SHAPES = [(25, 128, 256), (100, 64, 256), (500, 16, 1024)]
LARGE = [(100, 128, 1024)]
BETA, THRESHOLD = 0.95, 1.0


def fused(x: Tensor) -> Tensor:
    return leaky(x, torch.tensor(BETA), THRESHOLD)[0]


def unbind(x: Tensor) -> Tensor:
    return loop(x.unbind(0))


def index(x: Tensor) -> Tensor:
    return loop(x[t] for t in range(len(x)))


NEURON = snn.Leaky(BETA, threshold=THRESHOLD)


def unbind_plain(x: Tensor) -> Tensor:
    """The loop with the neuron made outside, which a compiler can trace."""
    membrane, spikes = torch.zeros_like(x[0]), []
    for current in x.unbind(0):
        spike, membrane = NEURON(current, membrane)
        spikes.append(spike)
    return torch.stack(spikes)


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


def network_step(repeats: int) -> None:
    """Ratio of a whole training step, the loop of snnTorch over the fused network."""
    torch.manual_seed(0)
    neurons = [snn.Leaky(BETA, init_hidden=True) for _ in range(2)]
    net = nn.Sequential(nn.Linear(784, 1000), neurons[0], nn.Linear(1000, 10), neurons[1])
    fast = fuse(net)
    x = torch.rand(25, 128, 784)
    labels = torch.randint(10, (128,))

    def train(run: Callable[[], Tensor], module: nn.Module) -> tuple[float, Tensor]:
        module.zero_grad()
        start = time.perf_counter()
        counts = run().sum(0)
        nn.functional.cross_entropy(counts, labels).backward()
        return time.perf_counter() - start, counts.detach()

    def loop_over_steps() -> Tensor:
        for neuron in neurons:
            neuron.reset_mem()
        return torch.stack([net(current) for current in x.unbind(0)])

    differ = (train(loop_over_steps, net)[1] != train(lambda: fast(x), fast)[1]).float().mean()
    pairs = [(train(loop_over_steps, net)[0], train(lambda: fast(x), fast)[0]) for _ in range(repeats)]
    print(f"784-1000-10, T=25, batch 128: loop / fused {spread([a / b for a, b in pairs])}", end="")
    print(f"   ({100 * float(differ):.2g} % of the output counts differ: one large matrix product against 25)")


def copies(x: Tensor, target: Tensor) -> float:
    start = time.perf_counter()
    for _ in range(3):  # three reads and three writes of x's size: what the six passes move
        target.copy_(x)
    return time.perf_counter() - start


def compiled_ratio(x: Tensor, grad: Tensor, fused_s: float) -> str:
    run = torch.compile(unbind_plain, fullgraph=True)
    start = time.perf_counter()
    _, spikes, grad_x = step(run, x, grad)
    compile_s = time.perf_counter() - start
    _, want, want_grad = step(unbind, x, grad)
    if not (torch.equal(spikes, want) and torch.equal(grad_x, want_grad)):
        return "differs from snnTorch's loop"
    for _ in range(3):  # it may compile again once it has seen the types of a second call
        start = time.perf_counter()
        step(run, x, grad)
        compile_s += time.perf_counter() - start
    return f"{spread([step(run, x, grad)[0] / fused_s for _ in range(9)])}, {compile_s:.0f} s to compile"


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):6.1f} ({min(values):.1f}..{max(values):.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--large", action="store_true", help="also (100, 128, 1024): 52 MB a tensor")
    parser.add_argument("--compile", action="store_true", help="also torch.compile, for 25 steps")
    parser.add_argument("--network", action="store_true", help="also a training step of a whole network")
    arguments = parser.parse_args()
    print(
        f"{'shape':>17} threads   fused ms   {'unbind / fused':<23} {'index / fused':<23} {'fused / copy':<21} "
        "compile / fused"
    )
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
                f"{spread([a / b for a, b in zip(ours, times['copy'], strict=True)]):<21} "
                f"{compiled_ratio(x, grad, half) if arguments.compile and len(x) <= 25 else '-'}",
                flush=True,
            )
        if arguments.network:
            network_step(arguments.repeats)


if __name__ == "__main__":
    main()
