"""The digital baselines side by side with their peers, in one process; both must compute the same first.

    python benchmarks/baselines.py [--rounds 15] [--window 0.1] [--threads N] [--out benchmarks/results/NAME.json]

CPU: the MLP and the CNN, compiled, in bf16 and in int8 against torch eager, at batch 1 and at the best batch.
GPU (left out, and said so, where there is none): the same with CUDA graphs and channels last; the bandwidth of a copy;
our numba-CUDA kernels against cuBLAS, cuDNN and torch, TF32 off; the crossbar's converters; a whole training step.
Goals: the register-tiled product reaches 50 % of cuBLAS, the converters 80 % of torch's copy of 1 GB.

A ratio is (peer's time) / (our time), above 1 where ours is faster: the median over rounds in which the two take turns,
with the 10th and 90th percentile. Times are wall-clock of calls in a row, launches included, synchronized at the end.
"""

from __future__ import annotations

import argparse
import copy
import datetime
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
from hpml_sim.conversion import convert
from hpml_sim.errors import HpmlError
from hpml_sim.measurement import measure_batches
from hpml_sim.measurement.machine import machine, versions
from hpml_sim.networks.models import cnn, mlp
from hpml_sim.targets import Digital

GOAL = 0.5  # of cuBLAS in fp32 without tensor cores
GOAL_BANDWIDTH = 0.8  # of a copy's bytes a second


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


class DiffersError(RuntimeError):
    """Two ways to one result that give two."""


# ------------------------------------------------------------------------------------------------------------ measuring


def difference(case: Case) -> float:
    """Largest difference of the two results, relative to the peer's largest value.

    Raises:
        DiffersError: it is beyond the case's tolerance; no time of such a pair is worth anything.
    """
    ours, theirs = case.ours().detach().double(), case.theirs().detach().double()
    if ours.shape != theirs.shape:
        raise DiffersError(f"{case.name}: shape {tuple(ours.shape)}, but {case.against} gives {tuple(theirs.shape)}")
    off = float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-30)) if theirs.numel() else 0.0
    if not off <= case.tolerance:
        raise DiffersError(f"{case.name} differs from {case.against} by {off:.2g} (allowed {case.tolerance:.2g})")
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


def network_cases(window_s: float, device: str) -> Iterator[Case]:
    """The same network in other precisions and by other engines, at batch 1 and at eager torch's best batch."""
    shapes = {"mlp 64-128-10": (mlp(64, 128, 10), (1, 8, 8)), "cnn 1x28x28": (cnn((1, 28, 28), 10), (1, 28, 28))}
    variants = {
        "compiled": (Digital(engine="torch-compile"), 1e-5),
        "bf16": (Digital(precision="bf16"), 0.05),
        "int8": (Digital(precision="int8"), 0.05),
        "channels last": (Digital(channels_last=True), 1e-5),
    }
    if device == "cpu":
        variants["bf16, compiled"] = (Digital(engine="torch-compile", precision="bf16"), 0.05)
    else:
        variants |= {
            "CUDA graph": (Digital(engine="cuda-graph"), 1e-5),
            "tf32": (Digital(precision="tf32"), 5e-3),
            "fp16": (Digital(precision="fp16"), 0.01),
            "bf16, CUDA graph": (Digital(engine="cuda-graph", precision="bf16"), 0.05),
            "numba-CUDA": (Digital(engine="numba-cuda"), 1e-5),
        }
    for name, (network, shape) in shapes.items():
        network = network.to(device)
        eager = convert(network, Digital()).eval()
        best = measure_batches(eager, torch.rand(*shape, device=device), min_window_s=window_s, windows=1).best.batch
        for batch in (1, best):
            x = torch.rand(batch, *shape, generator=torch.Generator().manual_seed(0)).to(device)
            for label, (target, tolerance) in variants.items():
                images = any(isinstance(layer, nn.Conv2d) for layer in network.modules())
                if target.channels_last and not images:
                    continue
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
    from hpml_sim.baselines.cuda_elementwise import copy as clone
    from hpml_sim.baselines.cuda_reduction import total

    x = torch.rand(elements, device=device)
    yield Case("copy", "torch.clone", lambda: clone(x), lambda: x.clone(), 0.0, bytes=8 * elements)
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


def converter_cases(elements: int, device: str) -> Iterator[Case]:
    """The crossbar's DAC (8 bytes a value) and ADC (8 bytes a reading with noise) against the same in torch."""
    from hpml_sim.kernels.crossbar_product import cuda, reference

    height, tiles = (8, 2) if elements < 1 << 20 else (256, 4)
    vectors = elements // (height * tiles)
    x = torch.randn(1, vectors, tiles, height, device=device)
    y, noise = (torch.randn(1, tiles, vectors, height, device=device) for _ in range(2))
    scale, codes, z = torch.rand(1, tiles, height, device=device), torch.empty_like(y), y.new_empty(1, vectors, height)
    there_codes, there_z = torch.empty_like(codes), torch.empty_like(z)

    def run(call: Callable[..., None], *arguments: Any) -> Tensor:
        call(*arguments)
        return arguments[-1]

    yield Case(
        "crossbar DAC",
        "torch",
        lambda: run(cuda.dac, x, None, 40.0, 127, codes),
        lambda: run(reference.dac, x, None, 40.0, 127, there_codes),
        0.0,
        bytes=8 * x.numel(),
    )
    convert_all = (y, noise, True, 0.5, 20.0, 127, scale)
    yield Case(
        "crossbar ADC",
        "torch",
        lambda: run(cuda.adc, *convert_all, None, z),
        lambda: run(reference.adc, *convert_all, None, there_z),
        1e-6,
        bytes=8 * y.numel() + 4 * z.numel(),
    )


def training_cases(batch: int, width: int, device: str) -> Iterator[Case]:
    """One step of gradient descent on an MLP; both go on training, so they are compared on the loss before any step."""
    from hpml_sim.baselines.cuda_trainer import MlpTrainer

    x, labels = torch.rand(batch, width, device=device), torch.arange(batch, device=device) % 10
    flop = 3 * 2.0 * batch * (2 * width * width + 10 * width)
    name = f"training step, MLP of {width}, batch {batch}"
    for graph in (False, True) if device == "cuda" else (False,):
        torch.manual_seed(0)
        ours = mlp(width, width, width, 10).to(device)
        theirs = copy.deepcopy(ours)
        trainer = MlpTrainer(ours, lr=1e-6, momentum=0.9)  # type: ignore[arg-type]
        optimizer = torch.optim.SGD(theirs.parameters(), lr=1e-6, momentum=0.9)

        def train(trainer: MlpTrainer = trainer) -> Tensor:
            return trainer.step(x, labels)

        def step(theirs: nn.Module = theirs, optimizer: torch.optim.Optimizer = optimizer) -> Tensor:
            loss = F.cross_entropy(theirs(x), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

        if graph:
            yield Case(f"{name}, as a CUDA graph", "torch eager", recorded(train), step, 1e-4, flop)
        else:
            yield Case(name, "torch eager", train, step, 1e-4, flop)


def recorded(call: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """A call as a CUDA graph: the launches of all its kernels in one."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = call()

    def replay() -> Tensor:
        graph.replay()
        return result

    return replay


def gpu_cases(device: str, *, small: bool = False) -> Iterator[Case]:
    """All cases of kernels; `small` makes them fit the simulator, to try the script and not to time anything."""
    torch.manual_seed(0)  # the same numbers in every run, so that rounding stays where it was checked
    yield from copy_cases(40 if small else 1 << 28, device)
    yield from product_cases((6,) if small else (512, 1024, 2048, 4096, 8192), device)
    yield from layer_cases(3 if small else 4096, 8 if small else 2048, device)
    yield from converter_cases(48 if small else 1 << 27, device)
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
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        "rounds": given.rounds,
        "window_s": given.window,
    }
    if given.only != "gpu":
        print(f"CPU: {machine()['cpu']}, {torch.get_num_threads()} threads")
        with torch.no_grad():
            record["cpu"] = run(network_cases(given.window, "cpu"), given.rounds, given.window, lambda: None)
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
            with torch.no_grad():
                cases = network_cases(given.window, "cuda")
                record["networks"] = run(cases, given.rounds, given.window, torch.cuda.synchronize)
            record["goals"] = goals(record["kernels"])
            met = all(goal["met"] for goal in record["goals"])
            for goal in record["goals"]:
                verdict = "met" if goal["met"] else "MISSED"
                print(f"{goal['what']}: {goal['reached']:.0%}; goal {goal['goal']:.0%}: {verdict}")
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(record, indent=2) + "\n")
        print(f"written to {given.out}")
    return 0 if met else 1


def goals(kernels: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was to be reached, and whether it was."""
    clone = next(
        r["bytes_per_s"] * r["ours_s"] / r["theirs_s"] for r in kernels if r["name"] == "copy" and "ratio" in r
    )
    product = max(r["ratio"] for r in kernels if r["name"].endswith("register-tiled") and "ratio" in r)
    reached = [("register-tiled product, of cuBLAS without tensor cores, at best", product, GOAL)]
    reached += [
        (f"{r['name']}, of torch's copy", r["bytes_per_s"] / clone, GOAL_BANDWIDTH)
        for r in kernels
        if r["name"].startswith("crossbar") and "ratio" in r
    ]
    return [{"what": what, "reached": value, "goal": goal, "met": value >= goal} for what, value, goal in reached]


def run(cases: Iterator[Case], rounds: int, window_s: float, wait: Callable[[], None]) -> list[dict[str, Any]]:
    results = []
    for case in cases:
        try:
            result = compare(case, rounds, window_s, wait)
        except (RuntimeError, HpmlError) as error:  # a library that refuses a shape must not cost the other figures
            reason = str(error).splitlines()[0]
            print(f"  {case.name:<44} failed: {reason[:150]}", flush=True)
            results.append({"name": case.name, "failed": reason})
            continue
        show(result)
        results.append(asdict(result))
    return results


if __name__ == "__main__":
    sys.exit(main())
