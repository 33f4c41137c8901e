"""The digital baselines side by side with their peers, in one process; both must compute the same first.

    python benchmarks/baselines.py [--rounds 15] [--window 0.1] [--threads N] [--out benchmarks/results/NAME.json]

CPU: the MLP and the CNN, compiled and in bf16 against torch eager, at batch 1 and at the batch of best throughput.
GPU (left out, and said so, where there is none): the bandwidth of a copy; our numba-CUDA kernels against cuBLAS, cuDNN
and torch, TF32 off; a whole training step. Goal: the register-tiled product reaches 50 % of cuBLAS.

A ratio is (peer's time) / (our time), above 1 where ours is faster: the median over rounds in which the two take turns,
with the 10th and 90th percentile. Times are wall-clock of calls in a row, launches included, synchronised at the end.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hpml_sim.baselines import cuda_backend
from hpml_sim.convert import convert
from hpml_sim.errors import HpmlError
from hpml_sim.machine import machine, versions
from hpml_sim.models import cnn, mlp
from hpml_sim.targets import Digital

GOAL = 0.5  # of cuBLAS in fp32 without tensor cores
LARGEST_BATCH = 4096
SATURATED = 0.95  # the best batch is the smallest that reaches this share of the best throughput


@dataclass(frozen=True)
class Case:
    """Two ways to the same result.

    Attributes:
        name: of ours. against: the peer. ours, theirs: calls without arguments that give a tensor.
        tolerance: greatest difference allowed, relative to the peer's largest value.
        flop, bytes: of one call at the least (0: not meaningful).
    """

    name: str
    against: str
    ours: Callable[[], Tensor]
    theirs: Callable[[], Tensor]
    tolerance: float = 1e-5
    flop: float = 0.0
    bytes: float = 0.0


@dataclass(frozen=True)
class Result:
    """Seconds a call (medians) and how many times as fast as the peer ours is: median, 10th and 90th percentile."""

    name: str
    against: str
    ours_s: float
    theirs_s: float
    ratio: float
    ratio_p10: float
    ratio_p90: float
    difference: float
    flop_per_s: float | None
    bytes_per_s: float | None


# ------------------------------------------------------------------------------------------------------------ measuring


def difference(case: Case) -> float:
    """Largest difference of the two results, relative to the peer's largest value.

    Raises:
        SystemExit: it is beyond the case's tolerance; no time of such a pair is worth anything.
    """
    ours, theirs = case.ours().detach().double(), case.theirs().detach().double()
    if ours.shape != theirs.shape:
        raise SystemExit(f"{case.name}: shape {tuple(ours.shape)}, but {case.against} gives {tuple(theirs.shape)}")
    off = float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-30)) if theirs.numel() else 0.0
    if not off <= case.tolerance:
        raise SystemExit(f"{case.name} differs from {case.against} by {off:.2g} (allowed {case.tolerance:.2g})")
    return off


def seconds(call: Callable[[], Tensor], calls: int, wait: Callable[[], None]) -> float:
    wait()
    start = time.perf_counter()
    for _ in range(calls):
        call()
    wait()
    return (time.perf_counter() - start) / calls


def compare(case: Case, rounds: int, window_s: float, wait: Callable[[], None]) -> Result:
    """Check a case, then let the two take turns; `window_s` is how long one turn lasts at least."""
    off = difference(case)
    both = (case.ours, case.theirs)
    counts = [max(1, int(window_s / seconds(call, 3, wait))) for call in both]
    times = np.array([[seconds(call, n, wait) for call, n in zip(both, counts, strict=True)] for _ in range(rounds)])
    p10, p50, p90 = np.percentile(times[:, 1] / times[:, 0], (10, 50, 90)).tolist()
    ours, theirs = np.median(times, axis=0).tolist()
    return Result(
        case.name,
        case.against,
        ours,
        theirs,
        p50,
        p10,
        p90,
        off,
        case.flop / ours if case.flop else None,
        case.bytes / ours if case.bytes else None,
    )


def show(result: Result) -> None:
    rate = f"{result.flop_per_s / 1e12:9.3f} TFLOP/s" if result.flop_per_s else ""
    rate += f"{result.bytes_per_s / 1e9:9.1f} GB/s" if result.bytes_per_s else ""
    spread = f"{result.ratio:6.2f} ({result.ratio_p10:.2f}..{result.ratio_p90:.2f})"
    print(f"  {result.name:<44} {1e6 * result.ours_s:11.1f} us {rate:>19}  {spread} x {result.against}", flush=True)


# ------------------------------------------------------------------------------------------------------------------ CPU


def best_batch(model: nn.Module, shape: tuple[int, ...], window_s: float) -> int:
    """The smallest batch that reaches `SATURATED` of the best throughput, over powers of 4."""
    batches = [4**k for k in range(20) if 4**k <= LARGEST_BATCH]
    rates = []
    for batch in batches:
        x = torch.rand(batch, *shape)
        once = seconds(lambda x=x: model(x), 3, lambda: None)
        rates.append(batch / seconds(lambda x=x: model(x), max(1, int(window_s / once)), lambda: None))
    return next(b for b, rate in zip(batches, rates, strict=True) if rate >= SATURATED * max(rates))


def cpu_cases(window_s: float) -> Iterator[Case]:
    shapes = {"mlp 64-128-10": (mlp(64, 128, 10), (1, 8, 8)), "cnn 1x28x28": (cnn((1, 28, 28), 10), (1, 28, 28))}
    variants = {
        "compiled": (Digital(engine="torch-compile"), 1e-5),
        "bf16": (Digital(precision="bf16"), 0.05),
        "bf16, compiled": (Digital(engine="torch-compile", precision="bf16"), 0.05),
    }
    for name, (network, shape) in shapes.items():
        eager = convert(network, Digital()).eval()
        for batch in (1, best_batch(eager, shape, window_s)):
            x = torch.rand(batch, *shape, generator=torch.Generator().manual_seed(0))
            for label, (target, tolerance) in variants.items():
                torch.compiler.reset()  # or the batch before this one makes it compile for batches of any size
                other = convert(network, target).eval()
                yield Case(
                    f"{name}, {label}, batch {batch}",
                    "torch eager",
                    lambda other=other, x=x: other(x),
                    lambda eager=eager, x=x: eager(x),
                    tolerance,
                )


# ------------------------------------------------------------------------------------------------------------------ GPU


def copy_cases(elements: int, device: str) -> Iterator[Case]:
    """The yardstick of everything that memory decides: 8 bytes an element."""
    from hpml_sim.baselines.cuda_elementwise import copy
    from hpml_sim.baselines.cuda_reduction import total

    x = torch.rand(elements, device=device)
    yield Case("copy", "torch.clone", lambda: copy(x), lambda: x.clone(), 0.0, bytes=8 * elements)
    yield Case("total", "torch.sum", lambda: total(x), lambda: x.sum(), 1e-5, flop=elements, bytes=4 * elements)


def product_cases(sizes: tuple[int, ...], device: str) -> Iterator[Case]:
    from hpml_sim.baselines.cuda_matmul import MATMUL

    for n in sizes:
        a, b = torch.randn(n, n, device=device), torch.randn(n, n, device=device)
        for name, product in MATMUL.items():
            if n > 4096 and name != "register-tiled":
                continue  # seconds a call, and nothing new to learn
            yield Case(
                f"product {n} x {n}, {name}",
                "cuBLAS fp32",
                lambda a=a, b=b, product=product: product(a, b),
                lambda a=a, b=b: a @ b,
                1e-4,
                flop=2.0 * n**3,
            )


def layer_cases(batch: int, width: int, device: str) -> Iterator[Case]:
    from hpml_sim.baselines.cuda_conv import conv2d
    from hpml_sim.baselines.cuda_linear import linear_forward, linear_forward_unfused
    from hpml_sim.baselines.cuda_softmax import cross_entropy

    x, w, b = (torch.randn(*shape, device=device) for shape in ((batch, width), (width, width), (width,)))
    flop = 2.0 * batch * width * width
    fused, unfused = (lambda: linear_forward(x, w, b, relu=True)), (lambda: linear_forward_unfused(x, w, b))
    torchs = lambda: torch.relu(F.linear(x, w, b))  # noqa: E731
    size = f"{batch} x {width} -> {width}"
    yield Case(f"linear + ReLU {size}, fused", "our kernels in a row", fused, unfused, 1e-5, flop)
    yield Case(f"linear + ReLU {size}, fused", "torch", fused, torchs, 1e-4, flop)
    labels = torch.arange(batch, device=device) % width
    moved = 4.0 * batch * width
    yield Case(
        "cross-entropy", "torch", lambda: cross_entropy(x, labels), lambda: F.cross_entropy(x, labels), 1e-5, 0, moved
    )
    channels = max(1, width // 32)
    image, kernel = (
        torch.randn(16, channels, 32, 32, device=device),
        torch.randn(channels, channels, 3, 3, device=device),
    )
    yield Case(
        f"convolution 3 x 3, {channels} channels, direct",
        "cuDNN fp32",
        lambda: conv2d(image, kernel, padding=1),
        lambda: F.conv2d(image, kernel, padding=1),
        1e-4,
        2.0 * 16 * 32 * 32 * channels * channels * 9,
    )


def training_cases(batch: int, width: int, device: str) -> Iterator[Case]:
    """One step of gradient descent on an MLP; both go on training, so they are compared on the loss before any step."""
    from hpml_sim.baselines.cuda_trainer import MlpTrainer

    torch.manual_seed(0)
    ours = mlp(width, width, width, 10).to(device)
    theirs = mlp(width, width, width, 10).to(device)
    theirs.load_state_dict(ours.state_dict())
    trainer = MlpTrainer(ours, lr=1e-6, momentum=0.9)  # type: ignore[arg-type]
    optimiser = torch.optim.SGD(theirs.parameters(), lr=1e-6, momentum=0.9)
    x, labels = torch.rand(batch, width, device=device), torch.arange(batch, device=device) % 10

    def step() -> Tensor:
        loss = F.cross_entropy(theirs(x), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return loss

    flop = 3 * 2.0 * batch * (2 * width * width + 10 * width)
    yield Case(
        f"training step, MLP of {width}, batch {batch}",
        "torch eager",
        lambda: trainer.step(x, labels),
        step,
        1e-4,
        flop,
    )


def gpu_cases(device: str, *, small: bool = False) -> Iterator[Case]:
    """All cases of kernels; `small` makes them fit the simulator, to try the script and not to time anything."""
    torch.manual_seed(0)  # the same numbers in every run, so that rounding stays where it was checked
    yield from copy_cases(40 if small else 1 << 28, device)
    yield from product_cases((6,) if small else (512, 1024, 2048, 4096, 8192), device)
    yield from layer_cases(3 if small else 4096, 8 if small else 2048, device)
    for batch in (2,) if small else (1, 64, 4096):
        yield from training_cases(batch, 6 if small else 1024, device)


def gpu_state() -> tuple[str | None, dict[str, str]]:
    """Why there is nothing to measure on a GPU (None: there is), and what the GPU is."""
    try:
        backend = cuda_backend()
    except HpmlError as error:
        return str(error), {}
    if backend == "simulator":
        return "numba's simulator is switched on (NUMBA_ENABLE_CUDASIM=1): its times say nothing; unset it", {}
    properties = torch.cuda.get_device_properties(0)
    return None, {
        "name": properties.name,
        "multiprocessors": str(properties.multi_processor_count),
        "memory_bytes": str(properties.total_memory),
        "cuda": str(torch.version.cuda),
        "numba-cuda": metadata.version("numba-cuda"),
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="turns of each pair (15)")
    parser.add_argument("--window", type=float, default=0.1, help="seconds of one turn at least (0.1)")
    parser.add_argument("--threads", type=int, help="of torch on the CPU; 1 where others use the cores, too")
    parser.add_argument("--out", type=Path, help="write the results here as JSON, with machine and versions")
    parser.add_argument("--only", choices=("cpu", "gpu"), help="one half of it")
    given = parser.parse_args(arguments)
    if given.threads:
        torch.set_num_threads(given.threads)

    record: dict[str, Any] = {
        "machine": machine(),
        "versions": versions(),
        "rounds": given.rounds,
        "window_s": given.window,
    }
    if given.only != "gpu":
        print(f"CPU: {machine()['cpu']}, {torch.get_num_threads()} threads")
        with torch.no_grad():
            record["cpu"] = run(cpu_cases(given.window), given.rounds, given.window, lambda: None)
    met = True
    if given.only != "cpu":
        missing, record["gpu"] = gpu_state()
        if missing:
            print(
                f"GPU: not measured. {missing}\nOn a machine with an NVIDIA GPU: make setup, then this command again."
            )
            record["gpu"] = {"not_measured": missing}
        else:
            print(f"GPU: {record['gpu']['name']}")
            torch.backends.cuda.matmul.fp32_precision = "ieee"  # type: ignore[attr-defined]
            torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
            record["kernels"] = run(gpu_cases("cuda"), given.rounds, given.window, torch.cuda.synchronize)
            reached = max(r["ratio"] for r in record["kernels"] if r["name"].endswith("register-tiled"))
            met = reached >= GOAL
            verdict = "met" if met else "MISSED"
            print(f"register-tiled product: {reached:.0%} of cuBLAS at best; goal {GOAL:.0%}: {verdict}")
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(record, indent=2) + "\n")
        print(f"written to {given.out}")
    return 0 if met else 1


def run(cases: Iterator[Case], rounds: int, window_s: float, wait: Callable[[], None]) -> list[dict[str, Any]]:
    results = []
    for case in cases:
        result = compare(case, rounds, window_s, wait)
        show(result)
        results.append(asdict(result))
    return results


if __name__ == "__main__":
    sys.exit(main())
