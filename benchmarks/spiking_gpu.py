"""Fused Leaky on a GPU against the bandwidth of a copy and against SpikingJelly's Triton neuron; equality comes first.

    python benchmarks/spiking_gpu.py [--rounds 15] [--window 0.05] [--out FILE.json]

Shapes are (steps, batch, neurons). Forward reads the current and writes spikes and membranes, backward reads the
spikes' gradient and the membranes and writes the current's gradient: 12 bytes a neuron and step each in float32. Goals:
both reach 80 % of the bytes a second of a copy of 2 GB at the largest shape (the others wait for the host), and neither
forward nor a step forward and back takes longer than SpikingJelly's `LIFNode(step_mode="m")` with its Triton kernels
(left out, and said so, where it is not installed). Exit status 1 if one is missed.

Times are between CUDA events around calls in a row, launches and autograd included; the calls of one round take turns.
Each figure is the median of the rounds with the 10th and 90th percentile.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hpml_sim.kernels.lif import leaky
from hpml_sim.kernels.surrogates import surrogate
from hpml_sim.measurement.machine import machine, versions

ARCHITECTURES = [(25, 128, 256), (100, 128, 1024), (32, 64, 65536)]
BETA, THRESHOLD = 0.5, 1.0
ALPHA = surrogate("atan", 2.0)
BYTES = 12  # a neuron and step, each way
GOAL_BANDWIDTH, GOAL_STEP = 0.8, 1.0
Step = Callable[[Tensor], Tensor]


def draw(shape: tuple[int, ...], device: str) -> tuple[Tensor, Tensor]:
    """Currents around the threshold, and gradients of the spikes."""
    generator = torch.Generator().manual_seed(0)
    x, grad = (torch.randn(shape, generator=generator) for _ in range(2))
    return (0.6 * x + 0.4).to(device), grad.to(device)


@lru_cache(maxsize=2)
def parameters(device: torch.device) -> tuple[Tensor, Tensor]:
    """Where a module keeps them: on the device."""
    return torch.tensor(BETA, device=device), torch.tensor(THRESHOLD, device=device)


def fused(x: Tensor, engine: Any = "numba-cuda", reset: Any = "zero") -> Tensor:
    """Spikes of our neurons; "zero" is the reset that SpikingJelly has, too."""
    return leaky(x, *parameters(x.device), reset=reset, surrogate=ALPHA, engine=engine)[0]


def spikingjelly() -> tuple[Step | None, str]:
    """Spikes of the same neurons by SpikingJelly's Triton kernels; or why not."""
    os.environ["SJ_LIF_CUDA_IMPLEMENTATION"] = "triton"  # read once, when it is imported
    try:
        from spikingjelly.activation_based import neuron
        from spikingjelly.activation_based import surrogate as theirs
    except ImportError as error:
        return None, f"SpikingJelly cannot be imported: {error}"
    node = neuron.LIFNode(
        1 / (1 - BETA), False, THRESHOLD, 0.0, theirs.ATan(ALPHA.parameters[0]), detach_reset=True, step_mode="m"
    )

    def run(x: Tensor) -> Tensor:
        node.reset()
        return node(x)

    return run, "SpikingJelly, Triton"


def both_ways(run: Step, x: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Spikes, and the current's gradient."""
    x = x.detach().requires_grad_()
    spikes = run(x)
    spikes.backward(grad)
    assert x.grad is not None
    return spikes.detach(), x.grad


def check(shape: tuple[int, ...], device: str, peer: Step | None) -> dict[str, Any]:
    """How far ours on `device` is from the CPU kernels (which equal snnTorch's bit for bit), and the peer from ours."""
    x, grad = draw(shape, device)
    found: dict[str, Any] = {}
    for reset in ("zero", "subtract"):
        ours = both_ways(lambda x, reset=reset: fused(x, reset=reset), x, grad)
        want = both_ways(lambda x, reset=reset: fused(x, "numba", reset), x.cpu(), grad.cpu())
        found[f"equals_cpu_{reset}"] = all(torch.equal(a.cpu(), b) for a, b in zip(ours, want, strict=True))
    if peer is not None:
        (spikes, grad_x), (theirs, their_grad) = both_ways(fused, x, grad), both_ways(peer, x, grad)
        found["peer_spikes_that_differ"] = float((spikes != theirs).float().mean())
        same = (spikes == theirs).all(0)  # where a spike differs, the gradients do too
        found["peer_gradient_difference"] = float(((grad_x - their_grad) * same).abs().max() / grad_x.abs().max())
    return found


def seconds(call: Callable[[], Any], calls: int) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(calls):
        call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3 / calls


def measure(shape: tuple[int, ...], peer: Step | None, rounds: int, window_s: float) -> dict[str, np.ndarray]:
    """Seconds of a call in each round, by name."""
    x, grad = draw(shape, "cuda")
    x.requires_grad_()
    spikes = fused(x)
    source, target = (torch.empty(1 << 28, device="cuda") for _ in range(2))
    calls: dict[str, Callable[[], Any]] = {
        "copy": lambda: target.copy_(source),
        "forward": lambda: fused(x),
        "backward": lambda: torch.autograd.grad(spikes, x, grad, retain_graph=True),
        "step": lambda: both_ways(fused, x, grad),
    }
    if peer is not None:
        calls["peer forward"] = lambda: peer(x)
        calls["peer step"] = lambda: both_ways(peer, x, grad)
    counts = {name: max(1, int(window_s / max(seconds(call, 3), seconds(call, 3)))) for name, call in calls.items()}
    taken = [[seconds(call, counts[name]) for name, call in calls.items()] for _ in range(rounds)]
    return dict(zip(calls, np.array(taken).T, strict=True))


def spread(values: np.ndarray) -> list[float]:
    """Median, 10th and 90th percentile."""
    return [float(v) for v in np.percentile(values, (50, 10, 90))]


def results(shape: tuple[int, ...], times: dict[str, np.ndarray]) -> dict[str, Any]:
    """Times, and the ratios that the goals name: median, 10th and 90th percentile of the rounds."""
    clone = 8 * (1 << 28) / times["copy"]
    moved = BYTES * int(np.prod(shape))
    made: dict[str, Any] = {"shape": shape, "copy_bytes_per_s": spread(clone)}
    made |= {f"{name.replace(' ', '_')}_s": spread(taken) for name, taken in times.items()}
    made |= {f"{name}_of_copy_bandwidth": spread(moved / times[name] / clone) for name in ("forward", "backward")}
    if "peer step" in times:
        made["peer_forward_over_ours"] = spread(times["peer forward"] / times["forward"])
        made["peer_step_over_ours"] = spread(times["peer step"] / times["step"])
    return made


def goals(shapes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was to be reached, and whether it was, by the medians."""
    largest = max(shapes, key=lambda made: int(np.prod(made["shape"])))
    reached = [
        (f"{way} at {largest['shape']}, of the copy's bandwidth", largest[f"{way}_of_copy_bandwidth"], GOAL_BANDWIDTH)
        for way in ("forward", "backward")
    ]
    reached += [
        (f"{what} at {made['shape']}, peer / ours", made[f"peer_{what}_over_ours"], GOAL_STEP)
        for made in shapes
        for what in ("forward", "step")
        if f"peer_{what}_over_ours" in made
    ]
    return [{"what": what, "reached": v[0], "goal": goal, "met": v[0] >= goal} for what, v, goal in reached]


def show(values: list[float], digits: int = 2) -> str:
    return f"{values[0]:.{digits}f} ({values[1]:.{digits}f}..{values[2]:.{digits}f})"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--window", type=float, default=0.05, help="seconds of one turn at least (0.05)")
    parser.add_argument("--out", type=Path, help="write the results here as JSON, with machine and versions")
    given = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("not measured: torch finds no GPU")
        return 0
    peer, why = spikingjelly()
    record: dict[str, Any] = {
        "machine": machine(),
        "versions": versions(),
        "gpu": torch.cuda.get_device_name(),
        "peer": why,
        "shapes": [],
    }
    print(f"{record['gpu']}; peer: {why}")
    equal = True
    for shape in ARCHITECTURES:
        checked = check(shape, "cuda", peer)
        equal = equal and checked["equals_cpu_zero"] and checked["equals_cpu_subtract"]
        made = {**results(shape, measure(shape, peer, given.rounds, given.window)), **checked}
        record["shapes"].append(made)
        print(f"{shape}: {checked}")
        print(f"  copy {show([v / 1e12 for v in made['copy_bytes_per_s']])} TB/s", end="")
        for way in ("forward", "backward"):
            print(
                f"; {way} {show([1e6 * v for v in made[f'{way}_s']], 0)} us, "
                f"{show(made[f'{way}_of_copy_bandwidth'])} of the copy's bandwidth (goal {GOAL_BANDWIDTH})",
                end="",
            )
        print(f"; a step {show([1e6 * v for v in made['step_s']], 0)} us", end="")
        if "peer_step_over_ours" in made:
            print(
                f"; peer / ours: step {show(made['peer_step_over_ours'])}, "
                f"forward {show(made['peer_forward_over_ours'])} (goal {GOAL_STEP})",
                end="",
            )
        print(flush=True)
    record["goals"] = goals(record["shapes"])
    for goal in record["goals"]:
        verdict = "met" if goal["met"] else "MISSED"
        print(f"{goal['what']}: {goal['reached']:.2f}; goal {goal['goal']}: {verdict}")
    if given.out:
        given.out.write_text(json.dumps(record, indent=2) + "\n")
    if not equal:
        print("spikes or gradients differ from the CPU's: no time above is worth anything")
    return 0 if equal and all(goal["met"] for goal in record["goals"]) else 1


if __name__ == "__main__":
    sys.exit(main())
