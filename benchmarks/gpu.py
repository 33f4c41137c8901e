"""Everything that wants a GPU, as one command: tests marked `gpu`, benchmarks, notebooks; what ran and how it went.

    python benchmarks/gpu.py [--only STEP ...] [--list]          (make gpu)

Goes on after a step that fails. Results are written to benchmarks/results/<gpu>_<step>.json, and gpu.py's own record of
what ran, how long it took and with which status to <gpu>_steps.json. Exit status: 0 if every step met its goals, 1 if
one did not or failed; without a GPU 0, after one line that says what is missing.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import torch

from hpml_sim.measurement.machine import machine, versions

ROOT = Path(__file__).resolve().parent.parent
MAX_S = 300  # of a step; one that hangs must not cost the others


def steps(name: str, gpus: int) -> dict[str, list[str]]:
    """The commands, by name; `name` begins the files of results, `gpus` is how many processes share the training."""

    def script(step: str, *options: str) -> list[str]:
        return [sys.executable, f"benchmarks/{step}.py", *options, "--out", f"benchmarks/results/{name}_{step}.json"]

    return {
        "tests": [sys.executable, "-m", "pytest", "-q", "-m", "gpu"],
        "baselines": script("baselines", "--only", "gpu"),
        "spiking_gpu": script("spiking_gpu"),
        "estimates": script("estimates", "--device", "cuda"),
        "distributed": script("distributed", "--processes", *dict.fromkeys(("1", str(gpus)))),
        "notebooks": [sys.executable, "tools/notebooks.py"],
    }


def main(arguments: list[str] | None = None) -> int:
    names = list(steps("", 1))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="some of the steps")
    parser.add_argument("--list", action="store_true", help="print the commands and run none")
    given = parser.parse_args(arguments)
    found = torch.cuda.is_available()
    name = re.sub("[^a-z0-9]+", "-", torch.cuda.get_device_name().removeprefix("NVIDIA ").lower()) if found else "gpu"
    commands = steps(name, torch.cuda.device_count() or 1)
    if given.list:
        for step in given.only:
            print(step, *commands[step])
        return 0
    if not found:
        print("nothing measured: torch finds no NVIDIA GPU. On a machine with one: make setup gpu")
        return 0
    ran = []
    for step in given.only:
        print(f"== {step}", flush=True)
        start = time.perf_counter()
        try:
            status: int | str = subprocess.run(commands[step], cwd=ROOT, check=False, timeout=MAX_S).returncode
        except subprocess.TimeoutExpired:
            status = f"ended after {MAX_S} s"
        ran.append({"step": step, "seconds": round(time.perf_counter() - start, 1), "status": status})
        verdict = "met" if status == 0 else f"MISSED or failed ({status})"
        print(f"== {step}: {ran[-1]['seconds']} s, {verdict}", flush=True)
    record = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        "steps": ran,
    }
    (ROOT / "benchmarks" / "results" / f"{name}_steps.json").write_text(json.dumps(record, indent=1) + "\n")
    return 0 if all(row["status"] == 0 for row in ran) else 1


if __name__ == "__main__":
    sys.exit(main())
