"""`measure`: time a model on the machine at hand, in this process or in a fresh one."""

from __future__ import annotations

from torch import nn

from hpml_sim.conversion.modules import running
from hpml_sim.conversion.network_call import Inputs, tensors_in
from hpml_sim.errors import HpmlError, check_switch, shown
from hpml_sim.measurement.clocks import check_call, check_windows, time_model
from hpml_sim.measurement.own_process import measure_in_own_process
from hpml_sim.measurement.power import Meter
from hpml_sim.measurement.result import Measurement


def measure(
    model: nn.Module,
    example: Inputs,
    *,
    min_window_s: float | None = None,
    windows: int = 3,
    warmup_s: float = 0.2,
    meter: Meter | None = None,
    own_process: bool = False,
) -> Measurement:
    """Time forward passes of `model` on `example` in several windows, warm-up excluded, idle power measured apart.

    Args:
        model: (batch, ...) -> anything; it runs in evaluation mode and from rest, and is left as it was found.
        example: one batch, a tensor or several by position or by name, on the device to be measured.
        min_window_s: least length of a window, > 0; None takes 2 s where a power meter is read, else 0.7 s.
        windows: how many, >= 1.
        warmup_s: calls for at least this long come first and are not counted, >= 0.
        meter: a power meter; None takes the one that belongs to the device.
        own_process: measure in a fresh process, where nothing is left of what this one did (threads, caches, memory),
            as `compare` does; model, example and meter are sent there. It takes the time of importing torch.

    Returns:
        Median latency with its spread, throughput, and energy where a power meter can be read.

    Raises:
        HpmlError: no network, an empty batch, a number out of range, or a model that cannot be sent to another process
            or fails there.

    Example:
        >>> import torch, hpml_sim as hs
        >>> found = hs.measure(hs.models.mlp(64, 16, 10), torch.rand(8, 1, 8, 8), min_window_s=0.01, warmup_s=0.0)
        >>> 0 < found.latency_s < 1, found.throughput_hz == 8 / found.latency_s
        (True, True)
    """
    check_call("measure", model, example)
    check_windows("measure", min_window_s, windows, warmup_s)
    check_switch("measure: own_process", own_process)
    if meter is not None and not all(callable(getattr(meter, name, None)) for name in ("available", "energy_j")):
        raise HpmlError(
            f"measure: meter={shown(meter)}: must be a power meter, an object with name, available() and energy_j(); "
            "leave it out for the one that belongs to the device"
        )
    if own_process:
        return measure_in_own_process(
            model, [example], min_window_s=min_window_s, windows=windows, warmup_s=warmup_s, meter=meter
        )[0]
    with running("measure", model, list(tensors_in(example))):
        return time_model(model, example, min_window_s=min_window_s, windows=windows, warmup_s=warmup_s, meter=meter)
