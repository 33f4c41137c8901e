"""A measurement in a process of its own: what this one has loaded, cached or left running does not count."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hpml_sim.errors import HpmlError
from hpml_sim.meters.measure import Measurement, measure


def measure_in_own_process(model: nn.Module, example: Tensor, **options: Any) -> Measurement:
    """`measure(model, example, **options)`, by a fresh Python on the same device, with as many threads.

    Raises:
        HpmlError: the model cannot be pickled, or the other process failed; the message holds its last line.
    """
    import cloudpickle  # takes what is defined in a script or notebook, too

    device = example.device
    try:
        sent = cloudpickle.dumps(
            (copy.deepcopy(model).cpu(), example.cpu(), str(device), torch.get_num_threads(), options)
        )
    except Exception as error:  # pickle raises whatever the object's own methods raise
        raise HpmlError(
            f"measure(own_process=True): {type(model).__name__} cannot be sent to another process "
            f"({type(error).__name__}: {error}); take own_process=False"
        ) from error
    with tempfile.TemporaryDirectory() as folder:
        given, result = Path(folder) / "given", Path(folder) / "result"
        given.write_bytes(sent)
        command = [sys.executable, "-m", "hpml_sim.meters.own_process", str(given), str(result)]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        if ran.returncode or not result.exists():
            last = (ran.stderr.strip().splitlines() or ["no message"])[-1]
            raise HpmlError(f"measure(own_process=True): the other process failed (status {ran.returncode}): {last}")
        return pickle.loads(result.read_bytes())


def main(arguments: list[str]) -> None:
    """Read what to measure from one file, write the measurement into another."""
    given, result = map(Path, arguments)
    model, example, device, threads, options = pickle.loads(given.read_bytes())
    torch.set_num_threads(threads)
    result.write_bytes(pickle.dumps(measure(model.to(device), example.to(device), **options)))


if __name__ == "__main__":
    main(sys.argv[1:])
