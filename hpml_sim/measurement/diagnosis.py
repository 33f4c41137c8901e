"""`doctor`: which parts of hpml_sim work on this machine, why others do not, and the command that repairs them.

Every library is tried, not only looked up: a version number says nothing about a compiled part built for another torch.
What could crash or leave state behind runs in a process of its own.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpml_sim.analog import aihwkit_import as _aihwkit
from hpml_sim.units.display import html_table, plain_lines

if TYPE_CHECKING:
    from rich.console import RenderableType

_MIN_PYTHON = (3, 11)
_TIMEOUT_S = 120
_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_PACKAGES = (
    "hpml_sim",
    "torch",
    "aihwkit",
    "snntorch",
    "nir",
    "numba",
    "numba-cuda",
    "nvidia-ml-py",
    "numpy",
    "scipy",
    "pandas",
    "scikit-learn",
    "matplotlib",
    "pydantic",
)


@dataclass(frozen=True)
class Check:
    """One thing that was tried.

    Attributes:
        name: of the library, device or data set that was tried.
        ok: whether it works.
        required: whether hpml_sim counts as broken without it. A GPU, a power meter, a browser and data sets beyond
            scikit-learn's are not required.
        detail: what was found, or why it does not work.
        fix: the exact command that repairs it; None if it works or if nothing can be done on this machine.
    """

    name: str
    ok: bool
    required: bool
    detail: str
    fix: str | None = None


@dataclass(frozen=True, repr=False)
class Diagnosis:
    """All checks of one machine; `doctor` gives it.

    Attributes:
        checks: in the order in which to read them.
        versions: package name to version; None where it is not installed.
        machine: one line: operating system, processor type, cores.
    """

    checks: tuple[Check, ...]
    versions: dict[str, str | None] = field(default_factory=dict)
    machine: str = ""

    @property
    def ok(self) -> bool:
        """Whether everything that is required works."""
        return all(check.ok for check in self.checks if check.required)

    def __getitem__(self, name: str) -> Check:
        """The check of this `name`.

        Raises:
            KeyError: there is none.
        """
        for check in self.checks:
            if check.name == name:
                return check
        raise KeyError(f"no check {name!r}; there are: {', '.join(check.name for check in self.checks)}")

    def table(self) -> RenderableType:
        """For a rich console: one row a check, then the commands that repair what does not work."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        rows = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
        rows.add_column("")
        rows.add_column("check", no_wrap=True)
        rows.add_column("what was found", overflow="fold")
        style = {"ok": "green", "NO": "bold red", "no": "yellow"}
        for check in self.checks:
            mark = _mark(check)
            rows.add_row(Text(mark, style=style[mark]), check.name, Text(check.detail))
        parts: list[RenderableType] = [rows, Text()]
        fixes = self._fixes()
        if fixes:
            parts.append(Text("To repair it:", style="bold"))
            for name, fix in fixes:
                parts.extend([Text(f"  {name}"), Text(f"    $ {fix}", overflow="fold")])
            parts.append(Text())
        parts.append(Text(self._verdict(), style="green" if self.ok else "bold red"))
        return Group(*parts)

    def text(self) -> str:
        """A block to paste into an issue: plain text, without the host's and the user's name."""
        width = max((len(check.name) for check in self.checks), default=0)
        lines = ["hpml-sim doctor", self.machine, ""]
        lines += [f"{_mark(check)}  {check.name:<{width}}  {check.detail}" for check in self.checks]
        lines += ["", *(f"to repair {name}: {fix}" for name, fix in self._fixes())]
        lines += [", ".join(f"{name} {version or '-'}" for name, version in self.versions.items()), self._verdict()]
        home = str(Path.home())
        return "\n".join(lines).replace(home, "~") if len(home) > 1 else "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain types only, for JSON."""
        return {
            "ok": self.ok,
            "machine": self.machine,
            "checks": [dict(vars(check)) for check in self.checks],
            "versions": dict(self.versions),
        }

    def __str__(self) -> str:
        """As `text()`."""
        return self.text()

    def __repr__(self) -> str:
        lines = [(f"{_mark(check)}  {check.name}", check.detail) for check in self.checks]
        return plain_lines(f"Diagnosis of {self.machine}", [*lines, ("", self._verdict())])

    def _repr_html_(self) -> str:
        """What a notebook shows: a line a check."""
        lines = [(_mark(check), check.name, check.detail, check.fix) for check in self.checks]
        columns = ["", "check", "what was found", "to repair it"]
        return html_table(f"Diagnosis of {self.machine}", lines, columns=columns, note=self._verdict())

    def _fixes(self) -> list[tuple[str, str]]:
        return [(check.name, check.fix) for check in self.checks if not check.ok and check.fix]

    def _verdict(self) -> str:
        broken = [check.name for check in self.checks if check.required and not check.ok]
        absent = [check.name for check in self.checks if not check.required and not check.ok]
        if broken:
            return f"Not working: {', '.join(broken)}."
        rest = f" Not on this machine, and not needed: {', '.join(absent)}." if absent else ""
        return f"Everything that is needed works.{rest}"


def doctor() -> Diagnosis:
    """Try everything that hpml_sim depends on (about 6 s, several checks at the same time).

    Nothing is printed or changed. A terminal shows the result with `print(hs.doctor())`, a notebook without it.

    Returns:
        One check for each library, device and data set, with the command that repairs what does not work.

    Example:
        >>> import hpml_sim as hs
        >>> diagnosis = hs.doctor()
        >>> diagnosis["Python"].ok
        True
    """
    # The slow ones run in processes of their own while the rest goes on here.
    with ThreadPoolExecutor(max_workers=3) as pool:
        aihwkit = pool.submit(_aihwkit.probe_aihwkit)
        numba = pool.submit(_guarded, "numba", True, _numba)
        has_gpu, cuda = _cuda_device()
        numba_cuda = pool.submit(_guarded, "numba-CUDA", True, lambda: _numba_cuda(has_gpu))
        checks = [_python(), _guarded("torch", True, _torch), cuda]
        after = [
            _guarded("snntorch", True, _snntorch),
            numba.result(),
            numba_cuda.result(),
            _guarded("NVML", False, _nvml),
            _guarded("RAPL", False, _rapl),
            _guarded("Fashion-MNIST", False, _fashion_mnist),
            _guarded("browser", False, _browser),
        ]
        checks += _aihwkit_checks(aihwkit.result())
    return Diagnosis(
        checks=tuple(checks + after),
        versions={name: _version(name) for name in _PACKAGES},
        machine=f"{platform.system()} {platform.release()} {platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}",
    )


def _mark(check: Check) -> str:
    """The word before a check: "no" in small letters for what is not required, which is no fault."""
    if check.ok:
        return "ok"
    return "NO" if check.required else "no"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _in_clone() -> bool:
    return (Path(__file__).resolve().parent.parent / "tools" / "setup_env").is_dir()


def _install(extra: str) -> str:
    """The command that installs an extra: the set-up of a clone, or pip elsewhere."""
    return "make setup" if _in_clone() else _pip(f"hpml_sim[{extra}]")


def _pip(requirement: str) -> str:
    """The command that installs one requirement into this environment."""
    return f"{'.venv/bin/' if _in_clone() else 'python -m '}pip install '{requirement}'"


def _guarded(name: str, required: bool, check: Callable[[], Check]) -> Check:
    """Run a check; one that fails in a way that it does not expect becomes a finding, too."""
    try:
        return check()
    except Exception as error:
        return Check(name, False, required, _one_line(error), _install("analog,snn,cuda") if required else None)


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _run(source: str, **environment: str) -> tuple[bool, str]:
    """Run a piece of Python elsewhere: whether it worked, and its last line or why not."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", source],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
        env=os.environ | environment,
    )
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    return done.returncode == 0, lines[-1][:300] if lines else f"ended with status {done.returncode}"


def _python() -> Check:
    ok = sys.version_info >= _MIN_PYTHON
    fix = None if ok else "make distclean setup PYTHON=python3.11"
    return Check("Python", ok, True, f"{platform.python_version()} (needs 3.11 or newer)", fix)


def _torch() -> Check:
    try:
        import torch
    except ImportError as error:
        return Check("torch", False, True, _one_line(error), _install("analog"))
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"
    total = float(torch.ones(4) @ torch.ones(4))
    return Check("torch", total == 4.0, True, f"{torch.__version__} ({build} build, {torch.get_num_threads()} threads)")


def _cuda_device() -> tuple[bool, Check]:
    """Whether torch sees a GPU, and the check."""
    name = "CUDA device"
    try:
        import torch

        if torch.cuda.is_available():
            ok, found = _run(
                "import torch; x = torch.ones(64, 64, device='cuda'); assert float((x @ x).sum()) == 64**3;"
                "print(torch.cuda.get_device_name())"
            )
            return ok, Check(name, ok, False, found, None if ok else "nvidia-smi")
        built_for = torch.version.cuda
    except ImportError as error:
        return False, Check(name, False, False, _one_line(error))
    if shutil.which("nvidia-smi") is None:
        return False, Check(name, False, False, "none: no NVIDIA driver here; GPU figures are estimated from cards")
    if built_for is None:
        why = "this machine has an NVIDIA driver, but torch is a CPU build"
        return False, Check(name, False, False, why, "make distclean setup")
    return False, Check(name, False, False, f"torch (CUDA {built_for}) finds no usable GPU", "nvidia-smi")


def _aihwkit_checks(probe: _aihwkit.Probe) -> list[Check]:
    """Three checks of one probe: installed, noise models, compiled tiles."""
    installed = probe.version is not None
    found = str(probe.version) if installed else probe.detail
    fix = _install("analog") if not installed else _aihwkit.MENDING_COMMAND
    noise = "programming noise and drift run" if probe.noise_models else probe.detail
    tiles = probe.detail if probe.ok else probe.explain()
    return [
        Check("aihwkit", installed, True, found, None if installed else fix),
        Check("aihwkit noise models", probe.noise_models, True, noise, None if probe.noise_models else fix),
        Check("aihwkit compiled tiles", probe.ok, True, tiles, None if probe.ok else fix),
    ]


def _snntorch() -> Check:
    """Version, and what a reset does: our fused neurons must equal the convention that is installed."""
    from hpml_sim.spiking.snntorch_reset import snntorch_convention

    ok, detail = snntorch_convention()
    fix = _pip("snntorch==1.0.*") if _version("snntorch") else _install("snn")
    return Check("snntorch", ok, True, detail, None if ok else fix)


def _numba() -> Check:
    ok, found = _run(
        "import numba, numpy as np\n"
        "@numba.njit\n"
        "def total(x):\n"
        "    s = 0.0\n"
        "    for v in x:\n"
        "        s += v\n"
        "    return s\n"
        "assert total(np.ones(8)) == 8.0\n"
        "print(f'{numba.__version__} compiles for this CPU')"
    )
    return Check("numba", ok, True, found, None if ok else _install("cuda"))


_KERNEL = """
import numpy as np
from numba import cuda

@cuda.jit
def double(x):
    i = cuda.grid(1)
    if i < x.size:
        x[i] = 2 * x[i]

x = np.arange(8, dtype=np.float32)
moved = cuda.to_device(x)
double[2, 4](moved)
assert (moved.copy_to_host() == 2 * x).all(), "the kernel gave wrong numbers"
"""


def _numba_cuda(has_gpu: bool) -> Check:
    """A tiny kernel on the GPU where there is one, otherwise in numba's simulator."""
    name = "numba-CUDA"
    if has_gpu:
        ok, found = _run(_KERNEL, NUMBA_ENABLE_CUDASIM="0")
        if ok:
            return Check(name, True, True, f"{_version('numba-cuda') or 'numba'} runs kernels on the GPU")
        import torch

        toolkit = (torch.version.cuda or "13").partition(".")[0]
        return Check(name, False, True, f"on the GPU: {found}", _pip(f"numba-cuda[cu{toolkit}]"))
    ok, found = _run(_KERNEL, NUMBA_ENABLE_CUDASIM="1")
    detail = "no GPU; kernels run in numba's simulator (right numbers, no speed)" if ok else f"simulator: {found}"
    return Check(name, ok, True, detail, None if ok else _install("cuda"))


def _nvml() -> Check:
    """The GPU's energy counter, read as a measurement would read it."""
    from hpml_sim.measurement.power import Nvml

    can, why = Nvml().available()
    if can:
        return Check("NVML", True, False, "the GPU's energy is measured")
    fix = _install("cuda") if _version("nvidia-ml-py") is None else None
    return Check("NVML", False, False, f"GPU energy is not measured, never 0: {why}", fix)


def _rapl() -> Check:
    """The processor's energy counter, read as a measurement would read it."""
    from hpml_sim.measurement.power import POWERCAP, Rapl

    can, why = Rapl().available()
    if can:
        return Check("RAPL", True, False, "the processor's energy is measured")
    # there, but only for root; without a counter (most virtual machines) nothing can be done
    counters = list(POWERCAP.glob("intel-rapl:*/energy_uj"))
    fix = "sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj" if counters else None
    return Check("RAPL", False, False, f"CPU energy is not measured, never 0: {why}", fix)


def _fashion_mnist() -> Check:
    from hpml_sim.data.image_files import find_files

    name = "Fashion-MNIST"
    if find_files("fashion-mnist"):
        return Check(name, True, False, "found")
    why = "not found (HPML_SIM_DATA may name the folder of all sets); scikit-learn's digits always work"
    return Check(name, False, False, why, "sudo apt-get install dataset-fashion-mnist")


def find_browser() -> str | None:
    """A Chromium to look at reports with, the system's or one that Playwright installed; None if there is none."""
    for candidate in _BROWSERS:
        if found := shutil.which(candidate):
            return found
    for cache in (Path.home() / ".cache/ms-playwright", Path.home() / "Library/Caches/ms-playwright"):
        for pattern in ("chromium-*/chrome-linux*/chrome", "chromium-*/chrome-mac*/*.app/Contents/MacOS/*"):
            if found := sorted(cache.glob(pattern)):
                return str(found[-1])
    return None


def _browser() -> Check:
    name = "browser"
    if find_browser():
        return Check(name, True, False, "a Chromium for looking at reports in tests")
    why = "no Chromium; reports are written all the same, only their browser tests are skipped"
    return Check(name, False, False, why, "sudo apt-get install chromium")
