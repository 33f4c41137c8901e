"""Fused leaky neurons against snnTorch, torch.compile and SpikingJelly, forward and backward, in one process.

    python benchmarks/spiking.py [--threads 1 2] [--repeats 9] [--compile] [--only PART...] [--out results/NAME.json]

with PART of neurons, large, network, convolutional, delays, scaling, memory.

Shapes are (steps, batch, neurons). Every pair is checked first: spikes and gradients equal snnTorch's to the last bit;
SpikingJelly rounds in another order, so spikes of 99.99 % of the neurons, and their gradients to 1e-5. Then all take
turns, the quickest of three each; a ratio is the median over the repeats, with the smallest and largest. With one
thread, time is the processor's time of this thread, which other work on the machine disturbs less; with more it is the
clock's. Against:

    best loop      snnTorch, `for current in x.unbind(0)`
    usual loop     snnTorch, `for t in range(steps): x[t]`, whose backward is quadratic in the steps
    compile        `torch.compile` of the best loop (--compile; 25 steps only: it unrolls the loop, and 500 steps would
                   compile for an hour); its compile time is printed, not counted
    SpikingJelly   `LIFNode(step_mode="m")`, reset to zero, as ours then
    copy           ours over copying the bytes that must move: forward reads x, writes spikes and membranes; backward
                   reads membranes and the spikes' gradient, writes x's gradient: three copies between five blocks

network: a training step of 784-1000-10, 25 steps, batch 128, against the faster of two loops that snnTorch users can
write: step by step, or layer by layer with matrix products over all steps. Once with an image that is the same at every
step (its first product is done once by all), once with one that changes (two large products, which all must do); with
--compile also `torch.compile` of the step-by-step loop.
convolutional: that of the network of snnTorch's tutorial 6, also against the loop as the tutorial writes it.
delays: networks with learned delays behind their hidden neurons over the same without; checked with delays of 0.
scaling: time at 512 steps over that at 128. memory: peak of a process of its own, less what it had before.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import snntorch as snn
import torch
from torch import Tensor, nn

from hpml_sim.kernels.lif import leaky
from hpml_sim.measurement.machine import machine, versions
from hpml_sim.spiking import AxonalDelays, FusedNetwork, LeakyNeurons, fuse

SMALL = [(25, 128, 256), (100, 64, 256), (500, 16, 1024)]
LARGE = (100, 128, 1024)
GOALS = {"best loop": {1: 8.0, 2: 5.0}, "compile": 3.0, "SpikingJelly": 3.0, "copy": 3.0}
LARGE_GOALS = {"best loop": 3.0, "compile": 3.0, "SpikingJelly": 3.0, "usual loop": 20.0, "copy": 3.0}
PARTS = ("neurons", "large", "network", "convolutional", "delays", "scaling", "memory")
BETA, THRESHOLD = 0.95, 1.0
NEURON = snn.Leaky(BETA, threshold=THRESHOLD)
Run = Callable[[Tensor], Tensor]
Row = dict[str, Any]


# -------------------------------------------------------------------------------------------------- who takes part


def fused(x: Tensor) -> Tensor:
    return leaky(x, NEURON.beta, NEURON.threshold)[0]


def fused_zero(x: Tensor) -> Tensor:
    return leaky(x, NEURON.beta, NEURON.threshold, reset="zero")[0]


def loop(currents: Iterable[Tensor], membrane: Tensor) -> Tensor:
    spikes = []
    for current in currents:
        spike, membrane = NEURON(current, membrane)
        spikes.append(spike)
    return torch.stack(spikes)


def best_loop(x: Tensor) -> Tensor:
    return loop(x.unbind(0), torch.zeros_like(x[0].detach()))


def usual_loop(x: Tensor) -> Tensor:
    return loop((x[t] for t in range(len(x))), torch.zeros_like(x[0].detach()))


def spikingjelly() -> Run:
    from spikingjelly.activation_based import neuron, surrogate

    node = neuron.LIFNode(1 / (1 - BETA), False, THRESHOLD, 0.0, surrogate.ATan(2.0), detach_reset=True, step_mode="m")

    def run(x: Tensor) -> Tensor:
        node.reset()
        return node(x)

    return run


# ------------------------------------------------------------------------------------------------------ measuring


def now() -> float:
    return time.thread_time() if torch.get_num_threads() == 1 else time.perf_counter()


def step(run: Run, x: Tensor, grad: Tensor) -> tuple[float, Tensor, Tensor]:
    """Seconds of forward and backward, spikes, and the input's gradient."""
    x = x.detach().requires_grad_()
    start = now()
    spikes = run(x)
    spikes.backward(grad)
    seconds = now() - start
    assert x.grad is not None
    return seconds, spikes.detach(), x.grad


def best(run: Run, x: Tensor, grad: Tensor) -> float:
    """Seconds of the quickest of three in a row: memory and caches as in a step that repeats."""
    return min(step(run, x, grad)[0] for _ in range(3))


def draw(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = 0.6 * torch.randn(shape, generator=generator) + 0.2
    return x, torch.randn(shape, generator=generator)


def check(name: str, run: Run, ours: Run, x: Tensor, grad: Tensor) -> None:
    """Stop where two differ: no time of such a pair is worth anything."""
    _, spikes, grad_x = step(ours, x, grad)
    _, want, want_grad = step(run, x, grad)
    equal = torch.equal(spikes, want) and torch.equal(grad_x, want_grad)
    if name == "SpikingJelly":
        same = (spikes == want).all(0)  # neurons that never came within rounding of their threshold
        off = ((grad_x - want_grad) * same).abs().max() / want_grad.abs().max()
        equal = bool(same.double().mean() > 0.9999) and bool(off <= 1e-5)
    if not equal:
        raise SystemExit(f"{tuple(x.shape)}: spikes or gradients differ from those of {name}")


def copies(x: Tensor, grad: Tensor, targets: list[Tensor]) -> float:
    start = now()
    targets[0].copy_(x)
    targets[1].copy_(x)
    targets[2].copy_(grad)
    return now() - start


def spread(values: Iterable[float]) -> list[float]:
    """Median, smallest, largest."""
    values = list(values)
    return [statistics.median(values), min(values), max(values)]


def ratios(above: list[float], below: list[float]) -> list[float]:
    return spread(a / b for a, b in zip(above, below, strict=True))


def row(what: str, against: str, ratio: list[float], goal: float | None, **more: Any) -> Row:
    """Print a result and return it; the copy's, the memory's and the scaling's goals are upper bounds."""
    at_most = against in ("copy", "memory", "scaling", "delays")
    verdict = "" if goal is None else "met" if (ratio[0] <= goal) == at_most or ratio[0] == goal else "MISSED"
    wanted = "" if goal is None else f"goal {'<=' if at_most else '>='} {goal:g}: {verdict}"
    print(f"{what:<44} {against:<13} {ratio[0]:8.2f} ({ratio[1]:.2f}..{ratio[2]:.2f})  {wanted}", flush=True)
    threads = torch.get_num_threads()
    return {"what": what, "against": against, "threads": threads, "ratio": ratio, "goal": goal, **more}


# ---------------------------------------------------------------------------------------------------------- parts


def neurons(shape: tuple[int, ...], goals: dict[str, Any], repeats: int, *, compiled: bool) -> Iterator[Row]:
    x, grad = draw(shape)
    peers: dict[str, tuple[Run, Run]] = {"best loop": (best_loop, fused), "usual loop": (usual_loop, fused)}
    peers["SpikingJelly"] = (spikingjelly(), fused_zero)
    more: dict[str, Any] = {}
    if compiled and len(x) <= 25:
        run = torch.compile(best_loop, fullgraph=True)
        start = time.perf_counter()
        for _ in range(3):  # it may compile again once it has seen a second call
            step(run, x, grad)
        more["compile_s"] = time.perf_counter() - start
        peers["compile"] = (run, fused)
    for name, (peer, ours) in peers.items():
        check(name, peer, ours, x, grad)
    targets = [torch.empty_like(x) for _ in range(3)]
    copies(x, grad, targets)
    taken: dict[Any, list[float]] = {key: [] for key in (*peers, fused, fused_zero, "copy")}
    for repeat in range(repeats):
        for ours in (fused, fused_zero):
            taken[ours].append(best(ours, x, grad))
        taken["copy"].append(min(copies(x, grad, targets) for _ in range(3)))
        for name, (peer, _) in peers.items():
            if name != "usual loop":
                taken[name].append(best(peer, x, grad))
            elif repeat < 2:  # seconds each
                taken[name].append(step(peer, x, grad)[0])
    what = f"{shape}, {torch.get_num_threads()} threads"
    milliseconds = 1e3 * statistics.median(taken[fused])
    for name, (_, ours) in peers.items():
        goal = goals.get(name)
        if isinstance(goal, dict):
            goal = goal.get(torch.get_num_threads())
        ratio = ratios(taken[name], taken[ours][: len(taken[name])])
        yield row(what, name, ratio, goal, fused_ms=milliseconds, **(more if name == "compile" else {}))
    yield row(what, "copy", ratios(taken[fused], taken["copy"]), goals["copy"], fused_ms=milliseconds)


Networks = dict[str, tuple[Callable[[], Tensor], nn.Module]]


def train(run: Callable[[], Tensor], module: nn.Module, labels: Tensor) -> tuple[float, Tensor]:
    """Seconds of a training step, and the spikes of the output."""
    module.zero_grad()
    start = now()
    counts = run().sum(0)
    nn.functional.cross_entropy(counts, labels).backward()
    return now() - start, counts.detach()


def networks(what: str, runs: Networks, labels: Tensor, repeats: int, goals: dict[str, float]) -> Iterator[Row]:
    """The fused network against loops that users of snnTorch can write; of the best loops the faster one."""
    counts = {name: train(*run, labels)[1] for name, run in runs.items()}
    differ = max(float((counts["fused"] != other).float().mean()) for other in counts.values())
    if differ > 0.01:
        raise SystemExit(f"{what}: {100 * differ:.1f} % of the output counts differ")
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            taken[name].append(train(*run, labels)[0])
    best = min(("step by step", "layer by layer"), key=lambda name: statistics.median(taken[name]))
    what = f"{what}, {torch.get_num_threads()} threads"
    for name in (best, *(name for name in ("usual loop", "compile") if name in runs)):
        goal = goals.get("best loop" if name == best else name)
        milliseconds = 1e3 * statistics.median(taken["fused"])
        yield row(
            what, name, ratios(taken[name], taken["fused"]), goal, counts_that_differ=differ, fused_ms=milliseconds
        )


def network(repeats: int, *, compiled: bool) -> Iterator[Row]:
    steps, batch = 25, 128
    torch.manual_seed(0)
    first, second = nn.Linear(784, 1000), nn.Linear(1000, 10)
    hidden, output = (snn.Leaky(BETA, init_hidden=True) for _ in range(2))
    net = nn.Sequential(first, hidden, second, output)
    fast = fuse(net)
    labels = torch.randint(10, (batch,))

    def usual(x: Tensor) -> Tensor:
        hidden.reset_mem()
        output.reset_mem()
        return torch.stack([net(current) for current in x.unbind(0)])

    def step_by_step(currents: Iterable[Tensor]) -> Tensor:
        m, n, out = torch.zeros(batch, 1000), torch.zeros(batch, 10), []
        for current in currents:
            spike, m = NEURON(current, m)
            spike, n = NEURON(second(spike), n)
            out.append(spike)
        return torch.stack(out)

    def layer_by_layer(currents: Iterable[Tensor]) -> Tensor:
        later = second(loop(currents, torch.zeros(batch, 1000)))
        return loop(later.unbind(0), torch.zeros(batch, 10))

    image = torch.rand(batch, 784)
    for kind, x in (("one image", image.expand(steps, -1, -1)), ("one a step", torch.rand(steps, batch, 784))):

        def currents(x: Tensor = x, constant: bool = kind == "one image") -> Iterable[Tensor]:
            return [first(x[0])] * steps if constant else first(x).unbind(0)

        runs: Networks = {
            "fused": (lambda x=x: fast(x), fast),
            "step by step": (lambda c=currents: step_by_step(c()), net),
            "layer by layer": (lambda c=currents: layer_by_layer(c()), net),
            "usual loop": (lambda x=x: usual(x), net),
        }
        if compiled:
            runs["compile"] = (torch.compile(lambda c=currents: step_by_step(c())), net)
        yield from networks(f"784-1000-10, {kind}", runs, labels, repeats, {"best loop": 2.0})


def convolutional(repeats: int) -> Iterator[Row]:
    """The network of snnTorch's tutorial 6, 12C5-MP2-64C5-MP2-10 with an image for 50 steps."""
    steps, batch, decay = 50, 128, 0.5
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 12, 5), nn.MaxPool2d(2), nn.Conv2d(12, 64, 5), nn.MaxPool2d(2), nn.Linear(64 * 4 * 4, 10)]
    neurons = [snn.Leaky(decay, init_hidden=True) for _ in range(3)]
    net = nn.Sequential(*layers[:2], neurons[0], *layers[2:4], neurons[1], nn.Flatten(), layers[4], neurons[2])
    parts = [nn.Sequential(*layers[:2]), nn.Sequential(*layers[2:4]), nn.Sequential(nn.Flatten(), layers[4])]
    shapes = [(batch, 12, 12, 12), (batch, 64, 4, 4), (batch, 10)]
    fast, neuron = fuse(net), snn.Leaky(decay)
    labels, image = torch.randint(10, (batch,)), torch.rand(batch, 1, 28, 28)

    def usual() -> Tensor:
        for one in neurons:
            one.reset_mem()
        return torch.stack([net(image) for _ in range(steps)])

    def step_by_step() -> Tensor:
        states, out, first = [torch.zeros(shape) for shape in shapes], [], parts[0](image)
        for _ in range(steps):
            spike, states[0] = neuron(first, states[0])
            for layer in (1, 2):
                spike, states[layer] = neuron(parts[layer](spike), states[layer])
            out.append(spike)
        return torch.stack(out)

    def layer_by_layer() -> Tensor:
        currents: Iterable[Tensor] = [parts[0](image)] * steps
        for layer in (0, 1, 2):
            membrane, spikes = torch.zeros(shapes[layer]), []
            for current in currents:
                spike, membrane = neuron(current, membrane)
                spikes.append(spike)
            if layer < 2:
                currents = parts[layer + 1](torch.cat(spikes)).unflatten(0, (steps, batch)).unbind(0)
        return torch.stack(spikes)

    runs: Networks = {
        "fused": (lambda: fast(image.expand(steps, *image.shape)), fast),
        "step by step": (step_by_step, net),
        "layer by layer": (layer_by_layer, net),
        "usual loop": (usual, net),
    }
    yield from networks("tutorial 6, one image", runs, labels, repeats, {"usual loop": 3.0})


def delays(repeats: int) -> Iterator[Row]:
    """A training step with axonal delays behind the hidden neurons, over that without them."""
    for sizes, steps, batch, goal in (((784, 1000, 10), 25, 128, 1.2), ((40, 256, 256, 10), 50, 128, None)):
        x = (torch.rand(steps, batch, sizes[0], generator=torch.Generator().manual_seed(0)) < 0.1).float()
        labels, nets = torch.randint(10, (batch,)), []
        for delayed in (False, True):
            torch.manual_seed(0)
            made: list[nn.Module] = []
            for number, (before, after) in enumerate(pairwise(sizes)):
                if number and delayed:
                    made.append(AxonalDelays(before, max_delay=20))
                made += [nn.Linear(before, after), LeakyNeurons(BETA)]
            nets.append(FusedNetwork(nn.Sequential(*made)))
        late = [module for module in nets[1].modules() if isinstance(module, AxonalDelays)]
        drawn = [module.delay.detach().clone() for module in late]
        with torch.no_grad():
            for module in late:
                module.delay.zero_()
            if not torch.equal(nets[0](x), nets[1](x)):
                raise SystemExit("delays of 0 change a network")
            for module, delay in zip(late, drawn, strict=True):
                module.delay.copy_(delay + 0.3)
        taken: tuple[list[float], list[float]] = ([], [])
        for _ in range(repeats + 1):
            for net, seconds in zip(nets, taken, strict=True):
                seconds.append(train(lambda net=net, x=x: net(x), net, labels)[0])
        what = f"{'-'.join(map(str, sizes))}, {steps} steps, {torch.get_num_threads()} threads"
        yield row(what, "delays", ratios(taken[1][1:], taken[0][1:]), goal)


def scaling(repeats: int) -> Iterator[Row]:
    cases = [draw((steps, 16, 512)) for steps in (128, 512)]
    taken = [[step(fused, *case)[0] for case in cases] for _ in range(repeats + 1)][1:]
    yield row("512 steps / 128 steps, (., 16, 512)", "scaling", spread(long / short for short, long in taken), 6.0)


def peak(run: Run) -> int:
    """Bytes by which a step raises the peak of this process."""
    step(run, *draw((3, 2, 4)))
    x, grad = draw(LARGE)
    ctypes.CDLL(None).malloc_trim(0)  # what was freed would serve again and not show
    Path("/proc/self/clear_refs").write_text("5")  # the peak from now on; man 5 proc
    before = resident("VmRSS")
    step(run, x, grad)
    return resident("VmHWM") - before


def resident(name: str) -> int:
    """Bytes of this process in memory: now (VmRSS) or at the peak (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))


def memory() -> Iterator[Row]:
    def of(name: str) -> int:
        command = [sys.executable, __file__, "--peak", name]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    ours, theirs = of("fused"), of("best_loop")
    yield row(f"peak of a step at {LARGE}", "memory", [ours / theirs] * 3, 1.0, ours_bytes=ours, theirs_bytes=theirs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--compile", action="store_true", help="also torch.compile, for 25 steps")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--out", type=Path, help="write the results here as JSON, with machine and versions")
    parser.add_argument("--peak", choices=("fused", "best_loop"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.peak:
        torch.set_num_threads(1)
        print(peak({"fused": fused, "best_loop": best_loop}[given.peak]))
        return
    rows: list[Row] = []
    for threads in given.threads:
        torch.set_num_threads(threads)
        if "neurons" in given.only:
            for shape in SMALL:
                rows += neurons(shape, GOALS, given.repeats, compiled=given.compile)
        if "large" in given.only:
            rows += neurons(LARGE, LARGE_GOALS, given.repeats, compiled=False)
        if "network" in given.only:
            rows += network(given.repeats, compiled=given.compile)
        if "convolutional" in given.only:
            rows += convolutional(given.repeats)
        if "delays" in given.only:
            rows += delays(given.repeats)
        if "scaling" in given.only:
            rows += scaling(given.repeats)
    if "memory" in given.only:
        rows += memory()
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        record = {"machine": machine(), "versions": versions(), "rows": rows}
        given.out.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
