import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from rich.console import Console

from hpml_sim.analog import aihwkit_import as _aihwkit
from hpml_sim.analog.aihwkit_import import Probe, require_aihwkit
from hpml_sim.measurement.diagnosis import Check, Diagnosis, doctor

REQUIRED = {
    "Python",
    "torch",
    "aihwkit",
    "aihwkit noise models",
    "aihwkit compiled tiles",
    "snntorch",
    "numba",
    "numba-CUDA",
}
OPTIONAL = {"CUDA device", "NVML", "RAPL", "Fashion-MNIST", "browser"}


@pytest.fixture(scope="module")
def examined() -> tuple[Diagnosis, float, str]:
    """A real run: the report, the processor seconds it took with its helpers, and what it printed."""
    printed = io.StringIO()
    before = os.times()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        report = doctor()
    spent = [b - a for a, b in zip(before[:4], os.times()[:4], strict=True)]
    return report, sum(spent), printed.getvalue()


@pytest.fixture
def here(examined) -> Diagnosis:
    return examined[0]


def rendered(report: Diagnosis, width: int = 80) -> str:
    console = Console(width=width, force_terminal=False)
    with console.capture() as capture:
        console.print(report.table())
    return capture.get()


def test_everything_required_works_here(here):
    assert here.ok, here.text()
    assert {check.name for check in here.checks if check.required} == REQUIRED
    assert {check.name for check in here.checks if not check.required} == OPTIONAL


def test_it_is_quick_and_silent(examined):
    _, processor_s, printed = examined
    assert processor_s < 15  # not the time on the wall: other work on the machine must not decide
    assert printed == ""


def test_what_is_absent_is_said_and_does_no_harm(here):
    for check in here.checks:
        assert check.detail
        if check.ok:
            assert check.fix is None
    assert here["snntorch"].detail.startswith("snntorch 1.0.")
    assert here.versions["torch"]
    with pytest.raises(KeyError, match="there are: Python, torch"):
        here["toch"]


def test_report_goes_through_json(here):
    back = json.loads(json.dumps(here.to_dict()))
    assert back["ok"] is True
    assert {check["name"] for check in back["checks"]} == REQUIRED | OPTIONAL


def broken_report() -> Diagnosis:
    return Diagnosis(
        checks=(
            Check("torch", True, True, "2.13.0"),
            Check("aihwkit compiled tiles", False, True, "weights must be a CPU tensor", "make tiles"),
            Check("RAPL", False, False, "no counter"),
        ),
        versions={"torch": "2.13.0", "aihwkit": None},
        machine="a machine",
    )


@pytest.mark.parametrize("width", [40, 80, 200])
def test_table_shows_fault_and_command_at_any_width(width):
    shown = rendered(broken_report(), width)
    assert "$ make tiles" in shown
    assert "NO" in shown
    assert "Not working: aihwkit compiled tiles." in " ".join(shown.split())
    assert all(len(line) <= width for line in shown.splitlines())


def test_text_is_a_block_for_an_issue():
    text = broken_report().text()
    assert "a machine" in text
    assert "NO  aihwkit compiled tiles  weights must be a CPU tensor" in text
    assert "no  RAPL" in text
    assert "to repair aihwkit compiled tiles: make tiles" in text
    assert "torch 2.13.0, aihwkit -" in text


def test_text_does_not_name_the_user(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    report = Diagnosis(checks=(Check("torch", False, True, "cannot load /home/ada/lib/torch.so"),))
    assert "cannot load ~/lib/torch.so" in report.text()
    assert "ada" not in report.text()


def test_only_what_is_required_decides():
    assert not broken_report().ok
    assert Diagnosis(checks=(Check("RAPL", False, False, "no counter"),)).ok


# ---- a broken aihwkit: the one in use, but its compiled part raises as after a change of torch


@pytest.fixture(scope="module")
def broken_aihwkit(tmp_path_factory) -> dict[str, str]:
    """An environment in which aihwkit is found but its compiled module does not load."""
    folder = tmp_path_factory.mktemp("broken")
    spec = find_spec("aihwkit")
    assert spec is not None
    assert spec.submodule_search_locations
    installed = Path(next(iter(spec.submodule_search_locations)))
    shutil.copytree(installed, folder / "aihwkit", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    module = folder / "aihwkit" / "simulator" / "rpu_base.py"
    module.write_text('raise ImportError("rpu_base.so: undefined symbol: _ZN5torch8autograd")\n')
    return os.environ | {"PYTHONPATH": str(folder)}


def run(code: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def test_doctor_with_broken_tiles(broken_aihwkit):
    code = (
        "import sys, rich\n"
        "from hpml_sim.measurement.diagnosis import doctor\n"
        "report = doctor()\n"
        "rich.print(report.table())\n"
        "print(report.text())\n"
        "sys.exit(0 if report.ok else 1)"
    )
    done = run(code, broken_aihwkit)
    assert done.returncode == 1, done.stderr
    said = " ".join(done.stdout.split())
    assert "undefined symbol: _ZN5torch8autograd" in said  # what fails
    assert "Fails: engine" in said
    assert "in-memory training" in said
    assert "Still works: digital and spiking targets" in said
    assert 'analog inference with engine="fused"' in said
    assert "$ make tiles" in said  # the mending command
    assert "ok aihwkit noise models" in said


def test_command_line_with_broken_tiles(broken_aihwkit):
    done = run("import sys; from hpml_sim.cli import main; sys.exit(main(['doctor']))", broken_aihwkit)
    assert done.returncode == 1, done.stderr
    assert "make tiles" in done.stdout


def test_requiring_broken_tiles(broken_aihwkit):
    code = (
        "from hpml_sim.analog.aihwkit_import import require_aihwkit\n"
        "require_aihwkit('noise')\n"
        "try:\n"
        "    require_aihwkit('compiled')\n"
        "except ImportError as error:\n"
        "    print(error)"
    )
    said = run(code, broken_aihwkit).stdout
    assert "undefined symbol" in said
    assert "Still works: digital and spiking targets" in said
    assert "make tiles" in said


def test_probe_by_itself_as_the_set_up_asks_it(repository, broken_aihwkit):
    command = [sys.executable, "-P", str(repository / "hpml_sim" / "analog" / "aihwkit_import.py")]
    good = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert good.returncode == 0, good.stdout
    bad = subprocess.run(command, env=broken_aihwkit, capture_output=True, text=True, timeout=120, check=False)
    assert bad.returncode == 1
    assert "undefined symbol" in bad.stdout


def test_working_aihwkit_is_accepted():
    require_aihwkit("noise")
    require_aihwkit("compiled")


def report_line(version: str | None, **stages: str | None) -> str:
    named = {name.replace("_", " "): error for name, error in stages.items()}
    return "PROBE " + json.dumps({"version": version, "stages": named}) + "\n"


def test_probe_of_a_crash_keeps_what_came_before():
    output = report_line("9.9", **{"import": None}) + report_line("9.9", **{"import": None, "noise": None})
    probe = _aihwkit._read(output, -11, 180)
    assert not probe.ok
    assert probe.noise_models
    assert not probe.torch_tile
    assert probe.detail == "aihwkit 9.9, torch tile: crashed (status -11)"


def test_probe_of_a_wheel_for_another_torch():
    wrong = "RuntimeError: weights must be a CPU tensor"
    output = report_line(
        "1.1.0", **{"import": None}, noise=None, torch_tile=None, inference_tile=wrong, pulsed_tile=wrong
    )
    probe = _aihwkit._read(output, 0, 180)
    assert not probe.ok
    assert "aihwkit's torch tiles" in probe.explain()
    assert "weights must be a CPU tensor" in probe.explain()


def test_probe_that_hangs_or_says_nothing():
    assert "gave no answer in 3 s" in _aihwkit._read("", None, 3).detail
    assert "import: crashed (status 1)" in _aihwkit._read("", 1, 3).detail


def test_probe_without_aihwkit(tmp_path):
    # a venv-less interpreter without site-packages
    missing = "ModuleNotFoundError: No module named 'aihwkit'"
    probe = _aihwkit._read(report_line(None, **{"import": missing}), 0, 180)
    assert probe == Probe(False, None, "aihwkit is not installed")
    assert "every analog target" in probe.explain()
