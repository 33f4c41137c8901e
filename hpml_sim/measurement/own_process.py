"""A measurement in a fresh process: what this process has loaded, cached or left running does not disturb it.

The fresh process is another Python on the same cores, with as many threads. Model and inputs are sent there in a file,
together with the user's own code where no module has it, and its measurements or its error come back in another file.
It holds a pipe to this process, and ends when that is closed: no process stays behind, however this one ends.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hpml_sim.conversion.cloning import clone
from hpml_sim.conversion.network_call import Inputs, map_tensors, tensors_in
from hpml_sim.errors import HpmlError
from hpml_sim.measurement.clocks import time_model
from hpml_sim.measurement.result import Measurement
from hpml_sim.networks.importing import sent_whole

_log = logging.getLogger(__name__)

_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from hpml_sim.measurement.own_process import main; main(*sys.argv[2:])"
)


def measure_in_own_process(
    model: nn.Module, examples: Sequence[Inputs], *, device: torch.device | None = None, **options: Any
) -> list[Measurement]:
    """Time a model on each of several examples, one after another, all in one fresh process.

    Args:
        model: (batch, ...) -> anything. It is copied; this process computes nothing with it.
        examples: batches, each a tensor or several.
        device: where to measure; None takes the device of the first example.
        options: of `measure`: min_window_s, windows, warmup_s, meter.

    Returns:
        One measurement an example, in their order.

    Raises:
        HpmlError: the model cannot be sent, it or its measurement failed there, or the process was ended.
    """
    import cloudpickle  # takes what is defined in a script or notebook, too

    where = str(next(tensors_in(examples[0])).device if device is None else device)
    try:
        cpu = [map_tensors(Tensor.cpu, example) for example in examples]
        with sent_whole():
            sent = cloudpickle.dumps((clone(model).cpu(), cpu, where, torch.get_num_threads(), options))
    except Exception as error:  # pickle raises whatever the object's own methods raise
        raise HpmlError(
            f"measure in a process of its own: {type(model).__name__} cannot be sent there "
            f"({type(error).__name__}: {error}); hs.measure(model, example) measures it in this one"
        ) from error
    with tempfile.TemporaryDirectory() as folder:
        given, result, words = (Path(folder) / name for name in ("given", "result", "words"))
        given.write_bytes(sent)
        command = [sys.executable, "-c", _START, json.dumps([*map(str, sys.path)]), str(given), str(result)]
        with (
            words.open("wb") as output,
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, stderr=output) as run,
        ):
            try:
                run.wait()
            except BaseException:  # Ctrl-C
                run.kill()
                raise
        if printed := words.read_text(errors="replace").strip():
            _log.debug("the measuring process printed: %s", printed)
        if not result.exists():
            raise HpmlError(f"measure in a process of its own: {_ended(run.returncode, printed)}")
        found = pickle.loads(result.read_bytes())
    if isinstance(found, HpmlError):
        raise found
    return found


def _ended(status: int, printed: str) -> str:
    if status < 0:
        return f"it was ended by {signal.Signals(-status).name} (out of memory?); try a smaller batch or network"
    return f"it ended with status {status} and printed: {printed.splitlines()[-1] if printed else 'nothing'}"


def main(given: str, result: str) -> None:
    """In the other process: measure what lies in one file, and leave measurements or an error in another."""
    threading.Thread(target=_end_with_the_other, daemon=True).start()
    found: list[Measurement] | HpmlError
    try:
        model, examples, device, threads, options = pickle.loads(Path(given).read_bytes())
        torch.set_num_threads(threads)
        model.to(device)
        found = [
            time_model(model, map_tensors(lambda tensor: tensor.to(device), example), **options) for example in examples
        ]
    except HpmlError as error:
        found = error
    except Exception as error:  # whatever the model raises
        traceback.print_exc()
        found = HpmlError(f"measure in a process of its own: {type(error).__name__}: {error}")
    half = Path(f"{result}.half")
    half.write_bytes(pickle.dumps(found))
    half.rename(result)


def _end_with_the_other() -> None:
    """Wait until the process that started this one closes its end of the pipe, or has ended."""
    while os.read(0, 1):
        pass
    os._exit(1)
