"""What the results of measuring show of themselves in a terminal and in a notebook."""

import pandas as pd
import pytest

from hpml_sim.errors import HpmlError
from hpml_sim.measurement import Measurement, Window
from hpml_sim.measurement.ceilings import Ceilings
from hpml_sim.measurement.diagnosis import Check, Diagnosis
from hpml_sim.measurement.profiling import Profile
from hpml_sim.units.bands import Band

FIGURES = {
    "device": "a CPU <b>",
    "batch": 64,
    "latency_s": 2e-4,
    "latency_p10_s": 1.5e-4,
    "latency_p90_s": 3e-4,
    "throughput_hz": 3.2e5,
    "calls": 9000,
    "energy_j": None,
    "energy_provenance": None,
    "energy_reason": "no RAPL counter",
    "window_s": 2.1,
    "samples_s": (2e-4,) * 9000,
    "windows": (Window(0.7, 3000, None),) * 3,
}


def shown(thing) -> tuple[str, str]:
    text, html = repr(thing), thing._repr_html_()
    assert len(text) < 1200
    assert max(map(len, text.splitlines())) <= 80
    assert len(html) < 4000
    assert "<b>" not in html
    return text, html


def test_a_measurement_says_latency_throughput_and_why_there_is_no_energy():
    text, html = shown(Measurement(**FIGURES))
    for said in (
        "batch 64",
        "200 us",
        "150 us\N{EN DASH}300 us",
        "9,000 calls",
        "320,000 samples/s",
        "no RAPL counter",
    ):
        assert said in text
        assert said in html


def test_a_measurement_with_a_meter_says_energy_with_and_without_idle_power():
    energy = {"energy_j": 3e-6, "energy_provenance": "measured:nvml", "energy_reason": "", "idle_power_w": 70.0}
    text, _ = shown(Measurement(**{**FIGURES, **energy, "energy_without_idle_j": 2e-6}))
    assert "3.00 uJ a sample, idle power included (measured:nvml)" in text
    assert "70.0 W; above it 2.00 uJ a sample" in text


@pytest.mark.parametrize(
    "changes",
    [{"latency_s": float("nan")}, {"throughput_hz": 0.0}, {"energy_j": float("inf")}, {"latency_p10_s": -1.0}],
)
def test_figures_that_make_no_sense_are_refused(changes):
    with pytest.raises(HpmlError, match=rf"measurement: .*{next(iter(changes))}|measurement: latency_s"):
        Measurement(**{**FIGURES, **changes})


def test_ceilings():
    ceilings = Ceilings(
        device="cpu", name="a CPU <b>", cores=4, bandwidth=Band(9e9, 1e10, 1.1e10), rates={"fp32": Band.exact(1e11)},
        convolution=Band(0.5, 0.6, 0.7), launch_s=Band.exact(3e-6), call_s=Band.exact(4e-6), memory_bytes=16 << 30,
        cache_bytes=None, cache_bandwidth=None, idle_w=None, active_w=None, max_w=None, byte_j=None,
        power_provenance="no RAPL counter",
    )  # fmt: skip
    text, html = shown(ceilings)
    for said in ("4 threads", "10.0 GB/s", "100 Gop/s", "no RAPL counter"):
        assert said in text
        assert said in html


def test_a_profile_names_the_longest_layers_first():
    layers = pd.DataFrame(
        {
            "layer": [f"layer.{k} <b>" for k in range(20)],
            "kind": "Linear",
            "seconds": [1e-6 * k for k in range(20)],
            "share": [k / 190 for k in range(20)],
        }
    )
    text, _ = shown(Profile("a CPU", 1, 30, 2e-4, layers, pd.DataFrame(), None))
    assert text.splitlines()[2].startswith("layer.19")
    assert "10 shorter layers in .layers" in text


def test_a_diagnosis_says_what_works_and_how_the_rest_is_repaired():
    checks = (
        Check("torch", True, True, "2.13"),
        Check("aihwkit", False, True, "undefined <b>", "make tiles"),
        Check("RAPL", False, False, "no counter"),
    )
    text, html = shown(Diagnosis(checks, {"torch": "2.13"}, "Linux, 2 cores"))
    assert "Not working: aihwkit." in text
    assert "make tiles" in html
    assert "Not working: aihwkit." in html
