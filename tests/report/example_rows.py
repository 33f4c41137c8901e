"""Rows as a compare of five machines writes them, made up but of the right size; no simulation behind them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from hpml_sim.cards import Scope
from hpml_sim.cost import Estimate, LayerWork, Roof, Term
from hpml_sim.measurement import Measurement
from hpml_sim.report.wording import time_label
from hpml_sim.results import CardInfo, Row
from hpml_sim.tasks.score import Score
from hpml_sim.units.bands import Band

HOUR, DAY, YEAR = 3600.0, 86400.0, 365 * 86400.0
TIMES = (1.0, HOUR, DAY, YEAR)
TARGETS = ("cpu", "h200", "pcm-hermes", "reram-neurram", "loihi")
SAMPLES = 360

_CARDS: dict[str, tuple[str, str, Scope]] = {
    "cpu": ("x86 server core pair, fp32", "digital", "system"),
    "h200": ("NVIDIA H200 SXM, 141 GB", "digital", "board"),
    "pcm-hermes": ("IBM HERMES, 64 cores, 14 nm PCM, 4-phase reads", "crossbar", "chip"),
    "reram-neurram": ("NeuRRAM, 48 cores, 130 nm RRAM", "crossbar", "chip"),
    "loihi": ("Intel Loihi, 14 nm, 128 cores", "neuromorphic", "chip"),
}
_SOURCES = {
    "mle": "S. Bekman, Machine Learning Engineering, accelerator tables, 2025. https://github.com/stas00/ml-engineering",
    "serialalice": "Serial Alice, GPU Energy Benchmark: board power of H100, H200 and B200 under LLM serving, 2026",
    "nsight": "A guide to Nsight (groundy): round trip of an element-wise PyTorch operator on a V100",
    "launch": "susun, pegainfer (3): From Launch Overhead to CUDA Graph (Part 1)",
    "legallo2023": "M. Le Gallo et al., A 64-core mixed-signal in-memory compute chip based on phase-change memory for "
    "deep neural network inference, Nature Electronics 6:680, 2023. doi:10.1038/s41928-023-01010-1",
    "wan2022": "W. Wan et al., A compute-in-memory chip based on resistive random-access memory, Nature 608:504, 2022. "
    "doi:10.1038/s41586-022-04992-8",
    "davies2018": "M. Davies et al., Loihi: a neuromorphic manycore processor with on-chip learning, IEEE Micro 38(1), "
    "2018. doi:10.1109/MM.2018.112130359",
    "blouw2019": "P. Blouw et al., Benchmarking keyword spotting efficiency on neuromorphic hardware, NICE 2019. "
    "arXiv:1812.01739",
}
_TERMS: dict[str, list[tuple[str, str, float, float, tuple[str, ...]]]] = {
    # layer, component, joules, band factor, sources
    "cpu": [
        ("", "static", 1.31e-3, 1.5, ("mle",)),
        ("fc1", "arithmetic", 9.1e-6, 1.5, ("mle",)),
        ("fc2", "arithmetic", 1.4e-6, 1.5, ("mle",)),
        ("fc1", "memory", 2.9e-6, 1.5, ("mle",)),
        ("fc2", "memory", 4.4e-7, 1.5, ("mle",)),
    ],
    "h200": [
        ("", "idle", 4.1e-3, 1.35, ("serialalice",)),
        ("", "launch", 2.2e-3, 1.35, ("serialalice", "nsight", "launch")),
        ("fc1", "memory", 2.6e-6, 1.35, ("mle",)),
        ("fc2", "memory", 4.1e-7, 1.35, ("mle",)),
        ("fc1", "arithmetic", 1.3e-8, 1.35, ("mle",)),
    ],
    "pcm-hermes": [
        ("fc1", "array, DAC and ADC", 31.6e-9, 1.25, ("legallo2023",)),
        ("fc2", "array, DAC and ADC", 17.1e-9, 1.25, ("legallo2023",)),
        ("fc1", "buffer", 3.1e-10, 2.0, ("legallo2023",)),
        ("fc2", "buffer", 2.2e-10, 2.0, ("legallo2023",)),
        ("fc1", "digital (bias, ReLU)", 2.6e-11, 3.0, ("legallo2023",)),
    ],
    "reram-neurram": [
        ("fc1", "word lines", 0.61e-9, 2.0, ("wan2022",)),
        ("fc1", "neurons and control", 0.86e-9, 2.0, ("wan2022",)),
        ("fc1", "input pulses", 0.32e-9, 2.0, ("wan2022",)),
        ("fc2", "word lines", 0.10e-9, 2.0, ("wan2022",)),
        ("fc2", "neurons and control", 0.14e-9, 2.0, ("wan2022",)),
        ("fc2", "input pulses", 0.05e-9, 2.0, ("wan2022",)),
    ],
    "loihi": [
        ("", "static", 9.8e-6, 1.9, ("davies2018", "blouw2019")),
        ("", "x86 host", 8.1e-6, 1.1, ("blouw2019",)),
        ("fc1", "synaptic operations", 9.7e-7, 1.5, ("davies2018",)),
        ("fc2", "synaptic operations", 1.6e-7, 1.5, ("davies2018",)),
        ("fc1", "neuron updates", 1.7e-7, 1.2, ("davies2018",)),
        ("fc2", "neuron updates", 1.3e-8, 1.2, ("davies2018",)),
        ("fc1", "spikes", 4.4e-9, 1.2, ("davies2018",)),
    ],
}
_ACCURACY = {"cpu": 0.9722, "h200": 0.9722, "loihi": 0.9583}
_ANALOG = {
    "pcm-hermes": {1.0: (0.9641, 0.0034), HOUR: (0.9622, 0.0041), DAY: (0.9598, 0.0049), YEAR: (0.9519, 0.0078)},
    "reram-neurram": {1.0: (0.9566, 0.0061), DAY: (0.9502, 0.0083)},
}
_NO_DATA = "the noise model rests on measurements at 1 s and at 1 day (Wan 2022, Fig. 2); it is not extrapolated to {}"


def _band(value: float, factor: float) -> Band:
    return Band(low=value / factor, nominal=value, high=value * factor)


def _accuracy(values: list[float]) -> Score:
    return Score.of(values, SAMPLES)


def _estimate(target: str, batch: int, scale: float) -> Estimate:
    """`scale`: how the energy differs between seeds (spikes) and falls with the batch."""
    scope = _CARDS[target][2]
    terms = [
        Term(layer=layer, component=component, energy_j=_band(joules * scale, factor), sources=sources)
        for layer, component, joules, factor, sources in _TERMS[target]
    ]
    energy = Band(
        low=sum(t.energy_j.low for t in terms),
        nominal=sum(t.energy_j.nominal for t in terms),
        high=sum(t.energy_j.high for t in terms),
    )
    one = {"cpu": 28e-6, "h200": 31e-6, "pcm-hermes": 1.06e-6, "reram-neurram": 41e-6, "loihi": 138e-6}[target]
    latency = _band(one * (1 + (batch - 1) * 0.0002), 1.5)
    rate = _band((1.0 if batch > 1 or target != "pcm-hermes" else 1.8) * batch / latency.nominal, 1.5)
    area = {"cpu": None, "h200": 814.0, "pcm-hermes": 144.0, "reram-neurram": 159.0, "loihi": 60.0}[target]
    mapping: dict[str, dict[str, float]] = {
        "pcm-hermes": {"tiles": 2, "chips": 1, "utilization": 0.0723},
        "reram-neurram": {"tiles": 4, "chips": 1, "utilization": 0.0361},
        "loihi": {"cores": 2, "chips": 1, "steps": 25, "synaptic_operations": 48_211},
    }
    excluded = {
        "cpu": ["DRAM refresh and the power supply's losses"],
        "h200": ["the host: processor, memory, power supply", "the transfer of inputs over PCIe"],
        "pcm-hermes": [
            "transport between layers: the published chip does it off chip, in an FPGA",
            "softmax and the argmax of the output",
            "programming the weights, and recalibration against drift",
        ],
        "reram-neurram": ["transfer between cores", "programming the weights", "idle cores (44 of 48)"],
        "loihi": ["encoding the input into spikes on the host", "loading the weights"],
    }
    return Estimate(
        card=target,
        scope=scope,
        batch=batch,
        energy_j=energy,
        latency_s=latency,
        throughput_hz=rate,
        area_mm2=None if area is None else Band(low=area, nominal=area, high=area),
        terms=tuple(terms),
        mapping=mapping.get(target, {}),
        excluded=tuple(excluded[target]),
        sources={key: _SOURCES[key] for t in terms for key in t.sources},
        reported_separately={"dynamic_j": _band(1.32e-6, 1.5), "recalibration_w": _band(2e-3, 2)}
        if target == "loihi"
        else {},
        roof=_roof(target, batch),
    )


_CEILINGS = {"cpu": (3.9e12, 160e9, 3.3e-6), "h200": (53.8e12, 3.74e12, 5e-6)}
"""Operations a second, bytes a second, seconds of a launch."""


def _roof(target: str, batch: int) -> Roof | None:
    """The layers of `mlp 64-128-10` in fp32; batch 1 waits for launches, a large batch for the roof."""
    if target not in _CEILINGS:
        return None
    rate, bandwidth, launch = _CEILINGS[target]
    layers = []
    for name, operations, weights, moved in (("fc1", 16384, 8192, 192), ("act", 128, 0, 256), ("fc2", 2560, 1280, 138)):
        work, traffic = batch * operations, 4.0 * (weights + batch * moved)
        limits = {"compute": work / rate, "memory": traffic / bandwidth, "launch": launch}
        longest = max(limits, key=lambda limit: limits[limit])
        layers.append(
            LayerWork(
                layer=f"network.{name}",
                operations=work,
                traffic_bytes=traffic,
                time_s=limits[longest],
                limit=longest,
            )
        )
    return Roof(operations_hz=_band(rate, 1.2), bandwidth=_band(bandwidth, 1.1), layers=tuple(layers))


def _measurement(batch: int, rng: np.random.Generator) -> Measurement:
    latency = 36.4e-6 * (1 + (batch - 1) * 0.00027) * float(rng.normal(1, 0.01))
    return Measurement(
        provenance="measured:clock",
        device="Intel Xeon (2 cores, 2 threads)",
        batch=batch,
        latency_s=latency,
        latency_p10_s=0.96 * latency,
        latency_p90_s=1.21 * latency,
        throughput_hz=batch / latency,
        calls=2_000,
        energy_j=None,
        energy_provenance=None,
        energy_reason="no RAPL counter is readable on this machine and there is no NVIDIA GPU",
        window_s=2_000 * latency,
    )


def _layers(target: str) -> list[dict[str, object]]:
    kind = _CARDS[target][1]
    became = {"digital": "digital", "crossbar": "AnalogLinear", "neuromorphic": "Linear + Leaky"}[kind]
    analog = kind == "crossbar"
    per = 1 if target == "pcm-hermes" else 2
    return [
        {
            "layer": "fc1",
            "was": "Linear",
            "became": became,
            "tiles": per if analog else None,
            "utilization": 0.125 / per if analog else None,
            "why": "",
        },
        {
            "layer": "act",
            "was": "ReLU",
            "became": "Leaky" if kind == "neuromorphic" else "digital",
            "tiles": None,
            "utilization": None,
            "why": "no weights to map" if analog else "",
        },
        {
            "layer": "fc2",
            "was": "Linear",
            "became": became,
            "tiles": per if analog else None,
            "utilization": 0.0195 / per if analog else None,
            "why": "",
        },
    ]


def example_rows(
    *,
    targets: tuple[str, ...] = TARGETS,
    seeds: tuple[int, ...] = (0,),
    times: tuple[float, ...] = TIMES,
    chips: int = 25,
    rename: dict[str, str] | None = None,
) -> list[Row]:
    """Rows of one run, the same on every call.

    Args:
        targets: of `TARGETS`.
        seeds: of the run.
        times: of the run; ReRAM has data at 1 s and 1 day only.
        chips: of each crossbar.
        rename: label of a target -> another label (to try names that break things).
    """
    rows = []
    for target in targets:
        title, kind, scope = _CARDS[target]
        label = (rename or {}).get(target, target)
        for seed in seeds:
            rng = np.random.default_rng([seed, TARGETS.index(target)])
            scale = float(rng.normal(1, 0.03)) if target == "loihi" else 1.0
            batches = (1, 16384) if kind == "digital" else (1,)
            estimates = [_estimate(target, b, scale / (1 if b == 1 else 0.4 * b)) for b in batches]
            measurements = [_measurement(b, rng) for b in batches] if target == "cpu" else []
            shift = float(rng.normal(0, 0.003)) if len(seeds) > 1 else 0.0
            for time in times if kind == "crossbar" else (None,):
                notes = []
                if kind == "crossbar":
                    figures = _ANALOG[target].get(time or 0.0)
                    if figures is None:
                        accuracy = None
                        notes.append(_NO_DATA.format(time_label(time or 0.0)))
                    else:
                        drawn = np.clip(rng.normal(figures[0] + shift, figures[1], chips), 0, 1)
                        accuracy = _accuracy([round(v * SAMPLES) / SAMPLES for v in drawn])
                else:
                    accuracy = _accuracy([round((_ACCURACY[target] + shift) * SAMPLES) / SAMPLES])
                if target == "loihi":
                    notes.append("25 time steps, rate coding; weights of 8 bits are not emulated")
                rows.append(
                    Row(
                        run="3f9c0a7be12d",
                        model="mlp 64-128-10",
                        data="digits",
                        target=label,
                        config={"class": kind.title(), "card": target, **({"steps": 25} if target == "loihi" else {})},
                        card=CardInfo(name=target, title=title, kind=kind, version=1, scope=scope),
                        seed=seed,
                        time_s=time,
                        scores=[] if accuracy is None else [accuracy],
                        estimates=estimates,
                        measurements=measurements,
                        layers=_layers(target),
                        notes=notes,
                        versions={"hpml_sim": "0.1.0", "torch": "2.13.0", "aihwkit": "1.2.0", "python": "3.11.7"},
                        machine={"cpu": "Intel Xeon", "cores": "2", "threads": "2", "cuda": "none"},
                    )
                )
    return rows


def rescored(
    rows: list[Row], of_accuracy: Callable[[float], float], metric: str, *, unit: str = "", higher: bool = False
) -> list[Row]:
    """The same rows of a task with another metric.

    Args:
        rows: as `example_rows` makes them.
        of_accuracy: the figure that stands in place of an accuracy.
        metric: its name.
        unit: as of a `Score`.
        higher: whether a larger value is the better one.
    """

    def score(found: Score) -> Score:
        values = [of_accuracy(value) for value in found.values]
        interval = (0.9 * values[0], 1.1 * values[0])
        return Score.of(values, SAMPLES, metric=metric, unit=unit, higher_is_better=higher, interval=interval)

    return [row.model_copy(update={"scores": [score(found) for found in row.scores]}) for row in rows]


def regression_rows(**keywords: Any) -> list[Row]:
    """Rows whose score is an error in kelvin, about 2.8 K."""
    return rescored(example_rows(**keywords), lambda accuracy: 100 * (1 - accuracy), "RMSE", unit="K")


def language_rows(**keywords: Any) -> list[Row]:
    """Rows whose score is a perplexity of about 20."""
    return rescored(example_rows(**keywords), lambda accuracy: 20 * (0.9722 / accuracy) ** 6, "perplexity")


def two_metrics_rows() -> list[Row]:
    """Rows of a perplexity, and of a share that follows it."""
    found = []
    for row, right in zip(language_rows(), example_rows(), strict=True):
        shares = [Score.of(score.values, score.samples, metric="token accuracy") for score in right.scores]
        found.append(row.model_copy(update={"scores": [*row.scores, *shares]}))
    return found
