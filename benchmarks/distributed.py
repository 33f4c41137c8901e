"""Strong scaling of `fit` on several processes, and what an all-reduce costs against the ring model.

    python benchmarks/distributed.py [--processes 1 2 4] [--width 1024] [--batch 256] [--out FILE.json]

Starts itself under torchrun (gloo on CPUs, NCCL where each process has a GPU). A training step of an MLP shares out a
batch of fixed size. Speed-up is the time of one process over that of p; efficiency is speed-up / p.
Ring model: t(n) = 2 (p - 1) latency + 2 (p - 1) / p n / bandwidth. Its two constants are fitted to the smallest and the
largest message; the table holds the sizes between against it.

Source: P. Patarasuk, X. Yuan, "Bandwidth optimal all-reduce algorithms for clusters of workstations", JPDC
69:117, 2009.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.functional import cross_entropy

from hpml_sim.measurement.machine import machine, versions
from hpml_sim.networks.models import mlp
from hpml_sim.training.distributed import ProcessGroup

SIZES = tuple(4**k for k in range(4, 13))  # bytes: 256 B to 64 MiB
REPEATS = 15


def seconds(call: Any, repeats: int = REPEATS) -> list[float]:
    """10th percentile, median, 90th."""
    samples = []
    for i in range(repeats + 3):
        if dist.is_initialized():
            dist.barrier()
        start = time.perf_counter()
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if i >= 3:
            samples.append(time.perf_counter() - start)
    return np.percentile(samples, (10, 50, 90)).tolist()


def worker(width: int, batch: int) -> None:
    """One process: prints what process 0 measured."""
    gpu = torch.cuda.is_available() and torch.cuda.device_count() >= int(os.environ.get("WORLD_SIZE", "1"))
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if gpu else torch.device("cpu")
    if gpu:
        torch.cuda.set_device(device)
    torch.set_num_threads(1)
    group = ProcessGroup.join(device)
    torch.manual_seed(0)
    model = group.wrap(mlp(width, width, width, 10).to(device))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    x, labels = torch.rand(batch, width, device=device), torch.arange(batch, device=device) % 10
    part, weight = group.shard(torch.arange(batch, device=device))

    def step() -> None:
        optimizer.zero_grad()
        (cross_entropy(model(x[part]), labels[part]) * weight).backward()
        optimizer.step()

    found: dict[str, Any] = {"processes": group.size, "device": str(device), "step_s": seconds(step), "all_reduce": []}
    if group.size > 1:
        for size in SIZES:
            message = torch.ones(size // 4, device=device)
            found["all_reduce"].append({"bytes": size, "seconds": seconds(lambda m=message: dist.all_reduce(m))})
    if group.rank == 0:
        print("FOUND " + json.dumps(found))


def ring(found: dict[str, Any]) -> list[dict[str, float]]:
    """The model's two constants from the ends, and its prediction for each size."""
    p, rows = found["processes"], found["all_reduce"]
    low, high = rows[0], rows[-1]
    t_low, t_high = low["seconds"][1], high["seconds"][1]
    per_byte = (t_high - t_low) / (high["bytes"] - low["bytes"])
    start = t_low - per_byte * low["bytes"]
    return [
        {
            "bytes": row["bytes"],
            "measured_s": row["seconds"][1],
            "model_s": start + per_byte * row["bytes"],
            "latency_s": start / (2 * (p - 1)),
            "bandwidth": 2 * (p - 1) / p / per_byte,
        }
        for row in rows
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        worker(given.width, given.batch)
        return
    results = []
    for processes in given.processes:
        start = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        own = [__file__, "--worker", "--width", str(given.width), "--batch", str(given.batch)]
        ran = subprocess.run([*start, *own], capture_output=True, text=True, check=False)
        lines = [line for line in ran.stdout.splitlines() if line.startswith("FOUND ")]
        if not lines:
            raise SystemExit(f"{processes} processes: {ran.stderr.strip().splitlines()[-1]}")
        results.append(json.loads(lines[0].removeprefix("FOUND ")))
    one = results[0]["step_s"][1] * results[0]["processes"]
    print(f"MLP of {given.width}, batch {given.batch}, a thread a process; median (10 to 90 %)")
    for r in results:
        low, middle, high = (1e3 * s for s in r["step_s"])
        speed = one / r["step_s"][1]
        print(
            f"  {r['processes']} on {r['device']}: {middle:8.2f} ms ({low:.2f}..{high:.2f}), speed-up {speed:.2f}, ",
            end="",
        )
        print(f"efficiency {speed / r['processes']:.0%}")
        if r["all_reduce"]:
            r["ring"] = ring(r)
            first = r["ring"][0]
            print(f"    ring: {1e6 * first['latency_s']:.1f} us a hop, {first['bandwidth'] / 1e9:.2f} GB/s a link")
            for row in r["ring"]:
                ratio = row["measured_s"] / row["model_s"]
                print(f"    {row['bytes']:>10,} B: {1e6 * row['measured_s']:10.1f} us, model x {ratio:.2f}")
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(
            json.dumps({"machine": machine(), "versions": versions(), "results": results}, indent=1) + "\n"
        )
        print(f"written to {given.out}")


if __name__ == "__main__":
    main()
