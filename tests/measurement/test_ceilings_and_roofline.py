"""Ceilings that are measured, cards made of them, points under the roofs, the plot and the command."""

import json
import re

import numpy as np
import pytest
import torch

from hpml_sim.cards import load_card
from hpml_sim.cli import main
from hpml_sim.cost import estimate
from hpml_sim.cost.roofline_points import Point, Roof, core_point, layer_points, measured_points, roof_of, tile_point
from hpml_sim.counting import workload
from hpml_sim.errors import HpmlError
from hpml_sim.measurement import ceilings as measuring
from hpml_sim.measurement.ceilings import Ceilings, measure_ceilings
from hpml_sim.measurement.ceilings_card import ceilings_card
from hpml_sim.measurement.power import Availability
from hpml_sim.networks.models import mlp
from hpml_sim.report.plots import machine_roofline
from hpml_sim.units.bands import Band

SMALL = measuring.Size(1 << 20, 64, window_s=0.02)


@pytest.fixture
def made_up() -> Ceilings:
    return Ceilings(
        device="cpu",
        name="Some CPU",
        cores=4,
        bandwidth=Band(8e9, 1e10, 1.1e10),
        rates={"fp32": Band(9e10, 1e11, 1.2e11)},
        convolution=Band(0.4, 0.5, 0.6),
        launch_s=Band(2e-6, 3e-6, 5e-6),
        call_s=Band(1e-6, 4e-6, 9e-6),
        memory_bytes=1 << 33,
        cache_bytes=1 << 25,
        cache_bandwidth=Band(3e10, 4e10, 5e10),
        idle_w=None,
        active_w=None,
        max_w=None,
        byte_j=None,
        power_provenance="no RAPL counter",
    )


def test_what_is_measured_here_is_what_numpy_sees():
    found = measure_ceilings("cpu", size=SMALL)
    assert found.cores == torch.get_num_threads()
    assert found.bandwidth.low <= found.bandwidth.nominal <= found.bandwidth.high
    assert 1e8 < found.bandwidth.nominal < 1e13
    assert 1e8 < found.rates["fp32"].nominal < 1e14
    assert 1e-8 <= found.launch_s.nominal < 1e-3
    assert found.memory_bytes > 1 << 28
    assert found.idle_w is None or found.idle_w > 0


def test_a_power_meter_gives_idle_active_and_most(clock):
    clock.look_s = 1e-4  # the windows are full after some hundred calls

    class Steady:
        name = "steady"

        def available(self):
            return Availability(True)

        def energy_j(self):
            return 50.0 * clock.now_s

    found = measure_ceilings("cpu", size=SMALL, meter=Steady())
    assert found.power_provenance == "measured:steady"
    assert found.idle_w == pytest.approx(50, rel=0.02)
    assert found.active_w == pytest.approx(0, abs=1)
    assert found.max_w == pytest.approx(50, rel=0.02)


@pytest.mark.parametrize("device", ["mps", "banana", None, "meta"])
def test_a_device_that_is_not_there_is_refused(device):
    with pytest.raises(HpmlError, match=f"device='{device}' cannot be measured here"):
        measure_ceilings(device)


def test_slope_and_rest_of_the_launch_chain(monkeypatch):
    """Chains of n layers that take 7 us and 2 us a layer."""

    class Took:
        def __init__(self, layers):
            self.samples_s = np.full(9, 7e-6 + 2e-6 * layers)

    monkeypatch.setattr(measuring, "measure", lambda chain, *_, **__: Took(len(chain)))
    launch, call = measuring._launches(torch.device("cpu"), 0.1)
    assert launch.nominal == pytest.approx(2e-6)
    assert call.nominal == pytest.approx(7e-6)


def test_the_cache_is_the_largest_that_the_system_lists(tmp_path):
    for index, size in enumerate(("48K", "2M", "32M")):
        (tmp_path / f"index{index}").mkdir()
        (tmp_path / f"index{index}" / "size").write_text(size + "\n")
    assert measuring._cache_bytes(tmp_path) == 32 << 20
    assert measuring._cache_bytes(tmp_path / "nowhere") is None


def test_a_card_of_measured_ceilings_loads_and_estimates_what_was_measured(made_up, tmp_path):
    path = tmp_path / "this-machine.toml"
    path.write_text(ceilings_card(made_up, "this-machine"))
    card = load_card(path)
    assert card.peak["fp32"].band() == pytest.approx(made_up.rates["fp32"])
    assert card.memory_bandwidth.si == pytest.approx(1e10)
    assert card.launch_time.si == pytest.approx(3e-6)
    assert card.cache_bandwidth.si == pytest.approx(4e10)
    assert card.power_max.si == pytest.approx(280 * 4 / 64)
    assert card.power_max.status == "scaled"
    assert any("Power was not measured (no RAPL counter)" in limit for limit in card.limits)
    # 1024 x 1024 at batch 512: 2 x 2^29 operations at 1e11 a second, and 8 MiB at 1e10 a second: arithmetic decides
    found = estimate(workload(mlp(1024, 1024), input_shape=(1024,)), card, batch=512)
    assert found.roof.layers[-1].time_s == pytest.approx(2**30 / 1e11 + 3e-6), "and the kernel's launch"
    assert found.latency_s.nominal == pytest.approx(2**30 / 1e11 + 3e-6 + 4e-6, rel=1e-3)


def test_a_measured_power_stands_in_the_card(made_up, tmp_path):
    import dataclasses

    watts = {"idle_w": 20.0, "active_w": 5.0, "max_w": 90.0, "byte_j": 6e-11}
    powered = dataclasses.replace(made_up, **watts, power_provenance="measured:rapl")
    path = tmp_path / "this.toml"
    path.write_text(ceilings_card(powered, "this"))
    card = load_card(path)
    assert (card.power_idle.si, card.power_active.si, card.power_max.si) == (20.0, 5.0, 90.0)
    assert card.energy_per_byte.si == pytest.approx(6e-11)
    assert card.power_idle.status == "measured"
    with pytest.raises(HpmlError, match="no meter could be read"):
        ceilings_card(dataclasses.replace(made_up, device="cuda"), "gpu")
    with pytest.raises(HpmlError, match="lower case letters"):
        ceilings_card(made_up, "This Machine")


def test_layers_lie_where_operations_and_bytes_put_them():
    found = estimate(workload(mlp(64, 128, 10), input_shape=(64,)), "cpu")
    roof = found.roof
    points = {p.name: p for p in layer_points(found)}
    layer = next(y for y in roof.layers if y.layer == "1")
    assert points["1"].intensity == layer.operations / layer.traffic_bytes
    assert points["1"].rate == layer.operations / layer.time_s
    assert points["1"].rate <= roof_of(load_card("cpu")).at(points["1"].intensity) * (1 + 1e-9)
    measured = measured_points(found, {"1": 1e-3}, "here")
    assert [(p.name, p.kind, p.rate) for p in measured] == [("1", "measured", layer.operations / 1e-3)]


def test_a_tile_keeps_its_weights_and_a_core_reads_them():
    tile = tile_point(load_card("pcm-hermes"))
    assert tile.intensity == 2 * 256 * 256 / (256 + 256)  # 8 bits in for each row, 8 bits out for each column
    card = load_card("pcm-hermes")
    assert tile.rate == pytest.approx(2 * 256 * 256 / card.preset.time_per_mvm.si, rel=0.05)
    core = core_point(load_card("loihi"))
    assert core.intensity == 2.0  # two operations for a weight of one byte
    assert core.rate == pytest.approx(2 / load_card("loihi").events.sop_time.si)
    assert core_point(load_card("truenorth")) is None


def test_the_plot_draws_every_roof_and_point():
    roofs = [roof_of(load_card("h200")), Roof("here", Band(1, 1, 1) * 1e11, Band(1, 1, 1) * 1e10, measured=True)]
    points = [tile_point(load_card("pcm-hermes")), core_point(load_card("loihi"))]
    axes = machine_roofline(roofs, points, title="all").axes[0]
    lines = axes.get_lines()
    assert [line.get_linestyle() for line in lines[:2]] == ["--", "-"]  # a card's roof is dashed
    assert [line.get_xdata()[0] for line in lines[2:]] == [p.intensity for p in points]
    x, y = lines[1].get_data()
    assert y[-1] == 1e11
    assert 10.0 in list(x)  # the ridge
    with pytest.raises(HpmlError, match="no roof and no point"):
        machine_roofline([], [])


def test_an_unknown_precision_is_named():
    with pytest.raises(HpmlError, match="precision='bf16': card 'cpu' has a peak for fp32 only"):
        roof_of(load_card("cpu"), "bf16")


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as done:
        main(list(arguments))
    return done.value.code, capsys.readouterr()


def test_the_command_draws_tables_plot_and_card(capsys, monkeypatch, made_up, tmp_path):
    monkeypatch.setattr("hpml_sim.measurement.ceilings.measure_ceilings", lambda device: made_up)
    files = ("--write-card", str(tmp_path / "here.toml"), "--out", str(tmp_path / "plot.svg"))
    cards = ("--targets", "h200", "pcm-hermes", "loihi")
    code, said = run(capsys, "roofline", *cards, "--model", "mlp", "--measure", "cpu", *files, "--json")
    assert code == 0, said.err
    found = json.loads(said.out)
    assert [r["name"] for r in found["roofs"]] == ["Some CPU fp32", "here fp32", "h200 fp32"]
    assert {p["kind"] for p in found["points"]} == {"layer", "measured", "tile", "core"}
    assert "<svg" in (tmp_path / "plot.svg").read_text()[:1000]
    assert load_card(tmp_path / "here.toml").title == "Some CPU, 4 threads, as measured"
    code, said = run(capsys, "roofline")
    assert code == 0
    assert "pcm-hermes tile" in said.out


def test_the_profile_command_names_layers_and_writes_a_trace(capsys, tmp_path):
    code, said = run(capsys, "profile", "mlp", "--batch", "4", "--calls", "3", "--trace", str(tmp_path / "t.json"))
    assert code == 0, said.err
    assert "Linear" in said.out
    assert "aten::addmm" in said.out
    assert (tmp_path / "t.json").exists()
    code, said = run(capsys, "profile", "mlp", "--calls", "3", "--json")
    assert json.loads(said.out)["layers"][1]["kind"] == "Linear"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("roofline", "--write-card", "x.toml"), "give --measure cpu"),
        (("roofline", "--out", "plot.gif"), r"a plot is a \.png"),
        (("profile", "rasnet"), "rasnet"),
        (("profile", "mlp", "--batch", "0"), "--batch 0: must be >= 1"),
        (("profile", "torch.nn:Identity"), "give --input-shape"),
    ],
)
def test_mistakes_are_said_in_a_line(arguments, said, capsys):
    code, output = run(capsys, *arguments)
    assert code == 2
    assert len(output.err.strip().splitlines()) == 1
    assert re.search(said, output.err)


@pytest.mark.gpu
def test_a_gpu_is_measured_with_all_its_precisions(tmp_path):
    found = measure_ceilings("cuda", size=measuring.Size(1 << 28, 2048, 0.1))
    assert {"fp32", "tf32", "bf16", "fp16"} <= set(found.rates)
    assert found.rates["bf16"].nominal > found.rates["fp32"].nominal
    path = tmp_path / "gpu.toml"
    path.write_text(ceilings_card(found, "gpu"))
    assert load_card(path).device == "cuda"


def test_what_ran_on_a_processor_has_the_color_of_its_roof():
    roofs = [roof_of(load_card(name)) for name in ("h200", "cpu")]
    points = [Point("b", "layer", 1.0, 1e9, machine="cpu"), Point("a", "layer", 1.0, 1e9, machine="h200")]
    lines = machine_roofline(roofs, points).axes[0].get_lines()
    first, second, on_cpu, on_h200 = (line.get_color() for line in lines)
    assert (on_h200, on_cpu) == (first, second)
    assert first != second
