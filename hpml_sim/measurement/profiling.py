"""Where a forward pass spends its time: operators by torch's profiler, layers by the clock, and a trace to open.

Two passes, because each disturbs the other: the profiler slows small operators down, so layers are timed without it.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from hpml_sim.conversion.modes import eval_mode
from hpml_sim.errors import HpmlError, check_whole
from hpml_sim.measurement.clocks import check_call
from hpml_sim.measurement.machine import cpu_name
from hpml_sim.units.display import html_table, text_table
from hpml_sim.units.formatting import si

if TYPE_CHECKING:
    import pandas as pd

_MAX_LINES = 10
"""Layers that the object shows of itself."""


@dataclass(frozen=True, repr=False)
class Profile:
    """What `profile` found.

    Attributes:
        device: name of the processor or GPU that ran.
        batch: samples a call.
        calls: how many were looked at.
        call_s: median seconds of a forward call, timed with nothing else switched on.
        layers: a row a layer: `layer`, `kind`, `seconds` (median of a call), `share` of their sum.
        operators: a row an operator, the longest first: `operator`, `calls` (a forward call), `seconds` a forward call
            without what it calls itself, `share`; on a GPU seconds are the GPU's.
        trace: the trace file, which https://ui.perfetto.dev and chrome://tracing open; None where none was written.
    """

    device: str
    batch: int
    calls: int
    call_s: float
    layers: pd.DataFrame
    operators: pd.DataFrame
    trace: Path | None

    @property
    def layer_s(self) -> dict[str, float]:
        """Seconds of one call of each layer, by name."""
        return dict(zip(self.layers["layer"].tolist(), self.layers["seconds"].tolist(), strict=True))

    @property
    def between_s(self) -> float:
        """Seconds of a call in no layer: the framework, functions between layers. Below 0 is what timing them cost."""
        return self.call_s - sum(self.layers["seconds"].tolist())

    def __repr__(self) -> str:
        return text_table(["layer", "kind", "time", "share"], self._lines(), title=self._title(), note=self._note())

    def _repr_html_(self) -> str:
        """What a notebook shows: the layers that take longest."""
        columns = ["layer", "kind", "time", "share"]
        return html_table(self._title(), self._lines(), columns=columns, note=self._note())

    def _title(self) -> str:
        return f"Profile on {self.device}, batch {self.batch:,}: {si(self.call_s, 's')} a call"

    def _lines(self) -> list[list[str]]:
        longest = self.layers.sort_values("seconds", ascending=False).head(_MAX_LINES)
        return [
            [str(line["layer"]), str(line["kind"]), si(line["seconds"], "s"), f"{100 * line['share']:.1f} %"]
            for line in longest.to_dict("records")
        ]

    def _note(self) -> str:
        more = f"{len(self.layers) - _MAX_LINES} shorter layers in .layers. " if len(self.layers) > _MAX_LINES else ""
        return f"{more}Operators: .operators"


def profile(model: nn.Module, example: Tensor, *, calls: int = 30, trace: str | Path | None = None) -> Profile:
    """Profile forward passes in evaluation mode, without gradients.

    Args:
        model: (batch, ...) -> anything.
        example: one batch, on the device to look at.
        calls: forward passes in each pass, >= 3; a tenth as many come before and are not counted.
        trace: file for the trace, ".json" or ".json.gz"; its folder is made.

    Raises:
        HpmlError: no network, or one without layers, fewer than 3 calls, an empty batch, or a trace that is no JSON
            file.
    """
    import pandas as pd

    check_call("profile", model, example)
    check_whole("profile: calls", calls, low=3)
    path = None if trace is None else Path(trace)
    if path is not None and not path.name.endswith((".json", ".json.gz")):
        raise HpmlError(f"profile: trace={str(trace)!r} must end in .json or .json.gz")
    leaves = {name: layer for name, layer in model.named_modules() if not any(layer.children())}
    if not leaves or leaves.keys() == {""}:
        raise HpmlError(f"profile: {type(model).__name__} has no layers inside; profile a network that holds it")
    gpu = example.device.type == "cuda"
    example = example.clone()  # a network may write into its inputs
    with eval_mode(model):
        for _ in range(max(3, calls // 10)):
            model(example)
        call_s = float(np.median([_timed(model, example) for _ in range(calls)]))
        seconds = _layer_seconds(model, leaves, example, calls)
        found = _profiler_run(model, leaves, example, min(calls, 10), path)
    table = [
        {"layer": name, "kind": type(layer).__name__, "seconds": seconds.get(name, 0.0)}
        for name, layer in leaves.items()
    ]
    layers = pd.DataFrame(table)
    layers["share"] = layers["seconds"] / (layers["seconds"].sum() or 1.0)
    return Profile(
        device=torch.cuda.get_device_name(example.device) if gpu else cpu_name(),
        batch=int(example.shape[0]),
        calls=calls,
        call_s=call_s,
        layers=layers,
        operators=_operators(found, min(calls, 10), gpu),
        trace=path,
    )


def _timed(model: nn.Module, example: Tensor) -> float:
    wait = torch.cuda.synchronize if example.device.type == "cuda" else (lambda: None)
    wait()
    start = time.perf_counter()
    model(example)
    wait()
    return time.perf_counter() - start


def _layer_seconds(model: nn.Module, leaves: dict[str, nn.Module], example: Tensor, calls: int) -> dict[str, float]:
    """Median over calls of the seconds in each layer; a layer that runs several times in a call counts each time."""
    gpu = example.device.type == "cuda"
    starts: dict[str, list[Any]] = defaultdict(list)
    spans: dict[str, list[tuple[Any, Any]]] = defaultdict(list)

    def now() -> Any:
        if not gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def enter(name: str) -> Any:
        return lambda *_: starts[name].append(now())

    def leave(name: str) -> Any:
        return lambda *_: spans[name].append((starts[name].pop(), now()))

    handles = [layer.register_forward_pre_hook(enter(name)) for name, layer in leaves.items()]
    handles += [layer.register_forward_hook(leave(name)) for name, layer in leaves.items()]
    per_call: dict[str, list[float]] = defaultdict(list)
    try:
        for _ in range(calls):
            spans.clear()
            model(example)
            if gpu:
                torch.cuda.synchronize()
            for name, found in spans.items():
                seconds = [a.elapsed_time(b) * 1e-3 if gpu else b - a for a, b in found]
                per_call[name].append(sum(seconds))
    finally:
        for handle in handles:
            handle.remove()
    return {name: float(np.median(values)) for name, values in per_call.items()}


def _profiler_run(
    model: nn.Module, leaves: dict[str, nn.Module], example: Tensor, calls: int, trace: Path | None
) -> Any:
    """torch's profiler over some calls, with a span for each layer in the trace."""
    from torch.profiler import ProfilerActivity, record_function
    from torch.profiler import profile as torch_profile

    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or it tells its own steps on the user's screen
    open_spans: list[Any] = []

    def enter(name: str) -> Any:
        def hook(*_: Any) -> None:
            span = record_function(f"layer {name}")
            span.__enter__()
            open_spans.append(span)

        return hook

    handles = [layer.register_forward_pre_hook(enter(name)) for name, layer in leaves.items()]
    handles += [
        layer.register_forward_hook(lambda *_: open_spans.pop().__exit__(None, None, None)) for layer in leaves.values()
    ]
    activities = [ProfilerActivity.CPU]
    if example.device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    try:
        with torch_profile(activities=activities, acc_events=True) as found:
            for _ in range(calls):
                model(example)
            if example.device.type == "cuda":
                torch.cuda.synchronize()
    finally:
        for handle in handles:
            handle.remove()
    if trace is not None:
        trace.parent.mkdir(parents=True, exist_ok=True)
        found.export_chrome_trace(str(trace))
    return found


def _operators(found: Any, calls: int, gpu: bool) -> pd.DataFrame:
    import pandas as pd

    rows = []
    for event in found.key_averages():
        if event.key.startswith("layer "):
            continue
        spent = event.self_device_time_total if gpu else event.self_cpu_time_total
        if spent > 0:
            rows.append({"operator": event.key, "calls": event.count / calls, "seconds": spent * 1e-6 / calls})
    table = pd.DataFrame(rows, columns=["operator", "calls", "seconds"])
    table["share"] = table["seconds"] / (table["seconds"].sum() or 1.0)
    return table.sort_values("seconds", ascending=False, ignore_index=True)
