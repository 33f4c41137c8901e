#!/usr/bin/env python3
"""Make `.venv` with everything that `make demo` and `make test` need. Standard library only; any number of runs.

The order matters: torch first, then everything else under a constraint that pins this torch (nothing may pull another),
then aihwkit, whose compiled tiles must fit the torch that is installed. Nothing here needs root.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import platform
import queue
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

if sys.platform != "win32":
    import fcntl

ROOT = Path(__file__).resolve().parent.parent

PYTHON_MIN, PYTHON_MAX = (3, 11), (3, 14)
CPU_TORCH = "torch==2.13.0"
GPU_TORCH = "torch>=2.11"
TORCH_MIN = (2, 9)
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
AIHWKIT_SOURCE = "aihwkit==1.2.0"
EXTRAS = "cluster,course,cuda,data,events,quant,snn,track,tune"
GROUPS = ("dev", "docs", "aihwkit-run")
GROUP_WITHOUT_DEPENDENCIES = "dev-alone"
PIP_MIN = (25, 1)  # the first with --group

# What a set-up depends on: a change in any of them makes the stamp of an earlier one worthless.
STAMPED = ("pyproject.toml", "tools/setup_env.py", "hpml_sim/_aihwkit.py")
# Settings of the caller's that would import or install from or to somewhere else.
MISLEADING = ("PYTHONPATH", "PYTHONHOME", "PIP_USER", "PIP_TARGET", "PIP_PREFIX")


class SetupError(Exception):
    """The set-up cannot go on. The message is for the user, and short."""


# ---------------------------------------------------------------------------------------------------------------------
# Decisions, without side effects


def stamp_key(files: dict[str, bytes], python_version: str, root: str) -> str:
    """Changes whenever an earlier set-up cannot be trusted: other requirements, other Python, a moved folder."""
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name}:{len(files[name])}:".encode())
        digest.update(files[name])
    digest.update(f"python {python_version} root {root}".encode())
    return digest.hexdigest()


def choose_python(running: tuple[int, int], found: dict[tuple[int, int], str], executable: str) -> str:
    """The interpreter to make `.venv` with: the running one if it fits, else the newest fitting one of `found`."""
    if PYTHON_MIN <= running <= PYTHON_MAX:
        return executable
    fitting = sorted(version for version in found if PYTHON_MIN <= version <= PYTHON_MAX)
    if fitting:
        return found[fitting[-1]]
    wanted = f"{'.'.join(map(str, PYTHON_MIN))} to {'.'.join(map(str, PYTHON_MAX))}"
    raise SetupError(
        f"hpml_sim needs Python {wanted}; this is {'.'.join(map(str, running))}, and no other was found.\n"
        "Install one (Debian 12: sudo apt-get install python3 python3-venv), or say which: make demo PYTHON=python3.11"
    )


def torch_attempts(system: str, has_gpu: bool) -> list[list[str]]:
    """The pip arguments to try, in order.

    On PyPI, `torch` for Linux is a CUDA build of several GB. Without a GPU, ask for the CPU build by its full name
    first (found where pip is configured for it, refused within seconds elsewhere), then at PyTorch's own index.
    """
    if has_gpu:
        return [[GPU_TORCH]]
    if system != "Linux":
        return [[CPU_TORCH]]
    quick = ["--timeout", "15", "--retries", "1"]
    return [
        [*quick, f"{CPU_TORCH}+cpu"],
        [*quick, f"{CPU_TORCH}+cpu", "--index-url", TORCH_CPU_INDEX],
        [CPU_TORCH],
    ]


def wheel_cache(environment: dict[str, str], home: Path, python_tag: str, torch: str, machine: str) -> Path:
    """Where wheels built here are kept: a compiled tile fits one Python, one torch and one kind of machine only."""
    base = environment.get("XDG_CACHE_HOME", "")
    cache = Path(base) if base.startswith("/") else home / ".cache"
    return cache / "hpml_sim" / "wheels" / f"{python_tag}-torch{torch}-{machine}"


def blas_header(header: str, text: str) -> str:
    """A `cblas.h` for scipy-openblas32: its library exports `scipy_cblas_x`, its header declares `cblas_x`.

    Args:
        header: path of the package's own cblas.h.
        text: its content.
    """
    names = sorted(set(re.findall(r"\b(?:scipy_)?(cblas_[a-z]\w*)\s*\(", text)))
    if not names:
        raise SetupError(f"no cblas functions are declared in {header}: is scipy-openblas32 complete?")
    defines = "".join(f"#define {name} scipy_{name}\n" for name in names)
    return f'{defines}#include "{header}"\n'


def build_environment(
    environment: dict[str, str], venv: Path, blas: dict[str, str], shim: Path, jobs: int
) -> dict[str, str]:
    """The environment in which aihwkit is compiled against the BLAS in `.venv`, so that no system package is needed."""
    origin = "@loader_path" if blas["library"].endswith(".dylib") else r"\$ORIGIN"  # ninja's shell eats one backslash
    settings = {
        "PATH": f"{venv / 'bin'}{os.pathsep}{environment.get('PATH', '')}",
        "VIRTUAL_ENV": str(venv),  # aihwkit's CMake searches here: another active environment would win
        "CMAKE_ARGS": shlex.join([f"-DOpenBLAS_LIB={blas['library']}", f"-DOpenBLAS_INCLUDE_DIR={shim}"]),
        # found beside aihwkit in site-packages, wherever that is: the wheel can be moved to another clone
        "LDFLAGS": f"-Wl,-rpath,{origin}/../../scipy_openblas32/lib",
        "CMAKE_BUILD_PARALLEL_LEVEL": str(jobs),
    }
    # USE_CUDA and the like would change what is built under the same name in the cache
    dropped = {"USE_CUDA", "AIHWKIT_CUDA_VERSION", "SKBUILD_CONFIGURE_OPTIONS"}
    return {name: value for name, value in environment.items() if name not in dropped} | settings


def build_jobs(cpus: int, memory_bytes: int) -> int:
    """Compilers at a time: a file that includes torch's headers takes up to 1.5 GB."""
    return max(1, min(cpus, int(memory_bytes / 1.5e9)))


def compile_step(line: str) -> tuple[int, int] | None:
    """(done, total) from one of ninja's lines, `[21/41] Building ...`."""
    match = re.match(r"\s*\[(\d+)/(\d+)\] ", line)
    return (int(match[1]), int(match[2])) if match else None


def compiler_advice(missing: list[str], system: str, os_release: str) -> str:
    """What is missing for the source build, and the command that installs it here."""
    if system == "Darwin":
        command = "xcode-select --install"
    elif re.search(r"^ID(_LIKE)?=.*\b(debian|ubuntu)\b", os_release, re.MULTILINE):
        command = "sudo apt-get install g++ python3-dev"
    elif re.search(r"^ID(_LIKE)?=.*\b(fedora|rhel|centos)\b", os_release, re.MULTILINE):
        command = "sudo dnf install gcc-c++ python3-devel"
    else:
        command = "(your system's command for a C++17 compiler and Python's headers)"
    return f"needs {' and '.join(missing)}: {command}"


def short_time(seconds: float) -> str:
    """41 s, or 3 min 05 s."""
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60:02d} s"


def worst_lines(output: str, count: int = 3) -> list[str]:
    """The lines of a failed command's output most likely to say why."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if re.search(r"\berror\b", line, re.IGNORECASE)]
    return (errors or lines)[-count:]


# ---------------------------------------------------------------------------------------------------------------------
# The screen


class Screen:
    """One line a step: live on a terminal, sparse lines elsewhere (a log of a thousand dots helps nobody)."""

    SPARSE_S = 30.0

    def __init__(self, steps: int):
        """`steps`: how many there will be."""
        self.steps, self.number, self.title = steps, 0, ""
        self.live = sys.stdout.isatty()
        self.began = self.step_began = self.last_sparse = time.monotonic()

    def start(self, title: str) -> None:
        """A new step."""
        self.number += 1
        self.title = title
        self.step_began = self.last_sparse = time.monotonic()
        if self.live:
            self.update("")

    def update(self, what: str, force: bool = False) -> None:
        """What the step is doing right now."""
        now = time.monotonic()
        line = f"[{self.number}/{self.steps}] {self.title:<18} {what}"
        if self.live:
            elapsed = short_time(now - self.step_began)
            width = max(20, shutil.get_terminal_size().columns - len(elapsed) - 2)
            print(f"\r\033[K{line[:width]} {elapsed}", end="", flush=True)
        elif force or now - self.last_sparse >= self.SPARSE_S:
            self.last_sparse = now
            print(f"{line} ({short_time(now - self.step_began)})", flush=True)

    def done(self, result: str) -> None:
        """The step's last word."""
        line = f"[{self.number}/{self.steps}] {self.title:<18} {result}"
        clear = "\r\033[K" if self.live else ""
        print(f"{clear}{line} ({short_time(time.monotonic() - self.step_began)})", flush=True)

    def note(self, text: str) -> None:
        """A line of its own."""
        print(("\r\033[K" if self.live else "") + text, flush=True)


# ---------------------------------------------------------------------------------------------------------------------
# The work


class Setup:
    """The steps, each of which first looks whether it is done already."""

    def __init__(self, venv: Path, screen: Screen, torch: str | None = None, rebuild_tiles: bool = False):
        """`torch`: a requirement to install instead of our choice. `rebuild_tiles`: build aihwkit even if it works."""
        self.venv, self.screen, self.torch, self.rebuild_tiles = venv, screen, torch, rebuild_tiles
        self.python = venv / "bin" / "python"
        self.logs = venv / "setup-logs"
        self.constraint = venv / "torch-constraint.txt"
        self.environment = {name: value for name, value in os.environ.items() if name not in MISLEADING}

    # -- running commands

    def run(
        self, command: list[str], log_name: str, *, environment: dict[str, str] | None = None, quiet: bool = False
    ) -> str:
        """Run a command with its output in a log and its progress on the screen; its output.

        Raises:
            SetupError: it failed; the message holds the worst lines and the log's path.
        """
        self.logs.mkdir(parents=True, exist_ok=True)
        log = self.logs / f"{log_name}.log"
        lines: queue.Queue[str | None] = queue.Queue()
        output: list[str] = []
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment or self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # so that Ctrl-C reaches compilers through us, all of them
        )

        def pump() -> None:
            assert process.stdout is not None
            with process.stdout:
                for line in process.stdout:
                    lines.put(line)
            lines.put(None)

        threading.Thread(target=pump, daemon=True).start()
        what = ""
        try:
            with log.open("w", encoding="utf-8") as file:
                file.write(f"$ {shlex.join(command)}\n")
                while True:
                    try:
                        line = lines.get(timeout=1.0)
                    except queue.Empty:
                        self.screen.update(what)
                        continue
                    if line is None:
                        break
                    if not line.startswith("Progress "):  # thousands of them
                        file.write(line)
                        output.append(line)
                    what, milestone = self._progress(line, what)
                    self.screen.update(what, force=milestone)
            status = process.wait()
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            raise
        text = "".join(output)
        if status != 0:
            shown = "" if quiet else "".join(f"\n    {line[:300]}" for line in worst_lines(text))
            raise SetupError(f"{self.screen.title} failed (status {status}).{shown}\n    whole log: {_short(log)}")
        return text

    @staticmethod
    def _progress(line: str, what: str) -> tuple[str, bool]:
        """(what to show now, whether it deserves a line even in a sparse log)."""
        if step := compile_step(line):
            done, total = step
            return f"compiling {done} of {total}", done * 8 // total > (done - 1) * 8 // total
        if match := re.match(r"Progress (\d+) of (\d+)", line):  # pip's raw progress bar
            done, total = int(match[1]), int(match[2])
            if total > 20_000_000:
                return f"{what.partition(':')[0]}: {done / 1e6:.0f} of {total / 1e6:.0f} MB", False
            return what, False
        if line.startswith("Installing collected packages"):
            return "unpacking", False
        if match := re.match(r"\s*(Downloading|Collecting) (\S+)", line):
            return f"{match[1].lower()} {match[2].rpartition('/')[2]}", False
        return what, False

    def pip(
        self, *arguments: str, log_name: str, environment: dict[str, str] | None = None, quiet: bool = False
    ) -> str:
        """`python -m pip ...` of the environment."""
        command = [str(self.python), "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]
        return self.run(command, log_name, environment=environment, quiet=quiet)

    def ask(self, source: str) -> str | None:
        """What a piece of Python prints in the environment; None if it fails."""
        done = subprocess.run(
            [str(self.python), "-P", "-c", source],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.strip() if done.returncode == 0 else None

    # -- the steps

    def make_venv(self) -> None:
        """An environment with a working Python and a pip that knows --group."""
        self.screen.start("Python")
        version = self.ask("import sys; print(sys.version.split()[0])") if self.python.exists() else None
        if version is None or _numbers(version) < PYTHON_MIN or _has_moved(self.venv):
            python = choose_python(sys.version_info[:2], _pythons(), sys.executable)
            self.screen.update(f"making {_short(self.venv)}")
            made = subprocess.run(
                [python, "-m", "venv", "--clear", str(self.venv)],
                env=self.environment,
                capture_output=True,
                text=True,
                check=False,
            )
            if made.returncode != 0:
                shutil.rmtree(self.venv, ignore_errors=True)  # a half-made one would be taken for good
                hint = (
                    "\n    Debian, Ubuntu: sudo apt-get install python3-venv"
                    if "ensurepip" in made.stdout + made.stderr
                    else ""
                )
                why = "\n    ".join(worst_lines(made.stdout + made.stderr))
                raise SetupError(f"{python} cannot make an environment.{hint}\n    {why}")
            version = self.ask("import sys; print(sys.version.split()[0])")
        pip = self.ask("import pip; print(pip.__version__)")
        if pip is None:  # made by a tool that leaves pip out
            self.run([str(self.python), "-m", "ensurepip"], "1-ensurepip")
        if pip is None or _numbers(pip) < PIP_MIN:
            self.pip("install", "--upgrade", f"pip>={'.'.join(map(str, PIP_MIN))}", log_name="1-pip")
        self.screen.done(str(version))

    def install_torch(self) -> str:
        """A torch that works, kept if there is one; its version."""
        self.screen.start("torch")
        version = self._torch_version()
        if version is None or _numbers(version) < TORCH_MIN or self.torch:
            gpu = _has_gpu()
            attempts = [[self.torch]] if self.torch else torch_attempts(platform.system(), gpu)
            for index, arguments in enumerate(attempts):
                last = index == len(attempts) - 1
                if last and index > 0:
                    self.screen.note("    no CPU build found; taking PyPI's default, on Linux a download of several GB")
                try:
                    self.pip("install", "--progress-bar", "raw", *arguments, log_name=f"2-torch-{index + 1}")
                except SetupError:
                    if last:
                        raise
                else:
                    break
            version = self._torch_version()
            if version is None:
                raise SetupError(
                    f"torch was installed but does not import: {_short(self.python)} -c 'import torch' says why"
                )
        self.constraint.write_text(f"torch=={version}\n", encoding="utf-8")
        self.screen.done(version)
        return version

    def install_packages(self) -> None:
        """Everything but aihwkit, with this torch."""
        self.screen.start("packages")
        # the kernels need the CUDA libraries of the same major version as torch
        cuda = self.ask("import torch; print((torch.version.cuda or '').partition('.')[0])")
        extra = [f"numba-cuda[cu{cuda}]"] if cuda else []
        groups = [argument for group in GROUPS for argument in ("--group", group)]
        wanted = ["-e", f".[{EXTRAS}]", *extra, *groups]
        self.pip("install", "--progress-bar", "raw", "-c", str(self.constraint), *wanted, log_name="3-packages")
        self.pip("install", "--no-deps", "--group", GROUP_WITHOUT_DEPENDENCIES, log_name="3-packages-alone")
        count = self.ask("import importlib.metadata as m; print(len({d.name for d in m.distributions()}))")
        self.screen.done(f"{count} installed")

    def install_aihwkit(self, torch: str) -> dict[str, str]:
        """aihwkit with compiled tiles that work, by the shortest way; what the stamp keeps of it.

        Raises:
            SetupError: not even its noise models could be installed.
        """
        self.screen.start("aihwkit")
        tag = f"cp{''.join(map(str, _numbers(self.ask('import sys; print(sys.version.split()[0])') or '')[:2]))}"
        machine = f"{platform.system()}_{platform.machine()}".lower()
        cache = wheel_cache(self.environment, Path.home(), tag, torch, machine)
        log: Path | None = None
        if not self.rebuild_tiles:
            if self._tiles_work():
                return self._tiles_done("was there")
            for wheel in sorted(cache.glob("aihwkit-*.whl"), reverse=True):
                self.screen.update("trying the wheel built here earlier")
                if self._install_wheel(str(wheel)):
                    return self._tiles_done("from a wheel built here earlier")
                wheel.unlink(missing_ok=True)
            self.screen.update("trying the newest ready-made wheel")
            if self._install_wheel("aihwkit"):
                return self._tiles_done("ready-made wheel")
        missing = self._missing_for_build()
        if not missing:
            try:
                return self._build_aihwkit(cache)
            except SetupError as error:
                self.screen.note(str(error))
                log = self.logs / "4-aihwkit-build.log"
        release = Path("/etc/os-release")
        why = (
            compiler_advice(missing, platform.system(), release.read_text() if release.is_file() else "")
            if missing
            else f"the source build failed, see {_short(log)}"
        )
        return self._without_tiles(why, "no compiler" if missing else "build failed")

    # -- aihwkit's details

    def _tiles_work(self) -> bool:
        """The probe, in a process of its own and with the environment's Python."""
        probe = subprocess.run(
            [str(self.python), "-P", "hpml_sim/_aihwkit.py"],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            check=False,
        )
        return probe.returncode == 0

    def _install_wheel(self, what: str) -> bool:
        """Install a wheel (a path, or a name: then the newest), and whether its compiled tiles work."""
        # --no-deps: its list asks for torchvision, which nothing here needs and which would pull another torch
        arguments = ["install", "--no-deps", "--force-reinstall", "--only-binary", ":all:", what]
        try:
            self.pip(*arguments, log_name="4-aihwkit-wheel", quiet=True)
        except SetupError:
            return False
        return self._tiles_work()

    def _missing_for_build(self) -> list[str]:
        """What the source build needs and this machine lacks."""
        missing = []
        compilers = {"CC": ("a C compiler", "cc gcc clang"), "CXX": ("a C++ compiler", "c++ g++ clang++")}
        for variable, (what, usual) in compilers.items():
            named = self.environment.get(variable, "").split()[:1]
            if not any(shutil.which(name) for name in named or usual.split()):
                missing.append(what)
        if (
            self.ask(
                "import sysconfig, os, sys; sys.exit(not os.path.isfile(sysconfig.get_path('include') + '/Python.h'))"
            )
            is None
        ):
            missing.append("Python's headers")
        return missing

    def _build_aihwkit(self, cache: Path) -> dict[str, str]:
        """Build from source, install, probe, keep the wheel."""
        jobs = build_jobs(os.cpu_count() or 1, _memory_bytes())
        self.screen.note(
            "    no wheel of aihwkit has compiled tiles that work with this torch: building it once from source\n"
            f"    ({jobs} compilers at a time; 3 to 4 minutes on 2 cores)"
        )
        self.pip("install", "-c", str(self.constraint), "--group", "aihwkit-build", log_name="4-aihwkit-build-tools")
        found = self.ask(
            "import scipy_openblas32 as blas, json;"
            "library = blas.get_lib_dir() + '/' + blas.get_library(fullname=True);"
            "print(json.dumps({'library': library, 'include': blas.get_include_dir()}))"
        )
        if found is None:
            raise SetupError("scipy-openblas32, the BLAS for the build, does not import")
        blas = json.loads(found)
        with tempfile.TemporaryDirectory(prefix="hpml_sim-aihwkit-") as folder:
            shim, wheels = Path(folder) / "include", Path(folder) / "wheels"
            shim.mkdir()
            header = Path(blas["include"]) / "cblas.h"
            (shim / "cblas.h").write_text(
                blas_header(str(header), header.read_text(encoding="utf-8")), encoding="utf-8"
            )
            environment = build_environment(self.environment, self.venv, blas, shim, jobs)
            # --no-cache-dir: pip may hold a wheel that another `pip install aihwkit` built without these settings
            arguments = [
                "--no-build-isolation",
                "--no-deps",
                "--no-cache-dir",
                "--no-binary",
                "aihwkit",
                "-w",
                str(wheels),
            ]
            self.pip("wheel", "-v", *arguments, AIHWKIT_SOURCE, log_name="4-aihwkit-build", environment=environment)
            (wheel,) = wheels.glob("aihwkit-*.whl")
            if not self._install_wheel(str(wheel)):
                raise SetupError("aihwkit was built, but its compiled tiles do not work")
            # only now: what is in the cache has worked. Renamed into place, as two clones may do this at once
            with contextlib.suppress(OSError):
                cache.mkdir(parents=True, exist_ok=True)
                partial = cache / f".{os.getpid()}-{wheel.name}"
                shutil.copyfile(wheel, partial)
                partial.replace(cache / wheel.name)
        return self._tiles_done("built from source")

    def _tiles_done(self, how: str) -> dict[str, str]:
        version = self.ask("import aihwkit; print(aihwkit.__version__)")
        self.screen.done(f"{version}, compiled tiles work ({how})")
        return {"tiles": "ok"}

    def _without_tiles(self, why: str, state: str) -> dict[str, str]:
        """Go on with what of aihwkit works without compiled code, and say what is missing."""
        noise = "from aihwkit.inference import PCMLikeNoiseModel"
        if self.ask(noise) is None:
            self._install_wheel("aihwkit")
        if self.ask(noise) is None:
            raise SetupError(
                f"aihwkit could not be installed: there is no ready-made wheel for this machine, and building it {why}"
            )
        self.screen.done("noise models only: NO COMPILED TILES")
        return {
            "tiles": state,
            "note": f"aihwkit runs without its compiled tiles (no in-memory training). Building them {why}",
        }

    def _torch_version(self) -> str | None:
        return self.ask("import torch; torch.ones(2) @ torch.ones(2); print(torch.__version__)")


def _numbers(version: str) -> tuple[int, ...]:
    """(2, 13) of "2.13.0+cpu"."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def _short(path: Path | None) -> str:
    """Relative to the working directory where that is shorter."""
    text = str(path)
    relative = os.path.relpath(text) if path else text
    return relative if len(relative) < len(text) else text


def _has_moved(venv: Path) -> bool:
    """Whether the environment was made in another folder: its scripts and our package would point there."""
    try:
        return str(venv) not in (venv / "bin" / "pip").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


def _pythons() -> dict[tuple[int, int], str]:
    """Interpreters on PATH by version. They are asked: a pyenv shim may name a version that is not installed."""
    found = {}
    for minor in range(PYTHON_MIN[1], PYTHON_MAX[1] + 1):
        path = shutil.which(f"python3.{minor}")
        if path and subprocess.run([path, "-c", ""], capture_output=True, check=False).returncode == 0:
            found[3, minor] = path
    return found


def _has_gpu() -> bool:
    """Whether an NVIDIA driver lists a GPU."""
    if shutil.which("nvidia-smi") is None:
        return False
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return listed.returncode == 0 and "GPU " in listed.stdout


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _stamp_path(venv: Path) -> Path:
    return venv / "hpml_sim-setup.json"


def _read_stamp(venv: Path) -> dict[str, str]:
    """The record of the last complete set-up; empty if there is none."""
    try:
        stamp = json.loads(_stamp_path(venv).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def _current_key(venv: Path) -> str | None:
    """The key that a stamp must have to be trusted now; None if there is no environment."""
    try:
        configuration = (venv / "pyvenv.cfg").read_text(encoding="utf-8")
    except OSError:
        return None
    if not (venv / "bin" / "python").exists():  # False too for a link to a Python that is gone
        return None
    match = re.search(r"^version(?:_info)?\s*=\s*(\S+)", configuration, re.MULTILINE)
    return stamp_key({name: (ROOT / name).read_bytes() for name in STAMPED}, match[1] if match else "", str(ROOT))


@contextlib.contextmanager
def _one_at_a_time(screen: Screen):
    """`make demo` and `make test` at once must not install into each other. Needs no file: the folder is locked."""
    folder = os.open(ROOT, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            screen.note("another set-up is at work in this folder; waiting for it")
            fcntl.flock(folder, fcntl.LOCK_EX)
        except OSError:
            pass  # some network file systems cannot lock
        yield
    finally:
        os.close(folder)


def is_ready(venv: Path) -> bool:
    """Whether the last set-up is complete and still fits; says so once more if it had to go without compiled tiles."""
    stamp = _read_stamp(venv)
    if not stamp or stamp.get("key") != _current_key(venv):
        return False
    if stamp.get("tiles") == "no compiler" and (shutil.which("c++") or shutil.which("g++")):
        return False  # there is one now
    if "note" in stamp:
        print(f"note: {stamp['note']}\n      then: make tiles", flush=True)
    return True


def main(arguments: list[str] | None = None) -> int:
    """0 when `.venv` is ready."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="look at every part again, even if a set-up was completed")
    parser.add_argument("--tiles", action="store_true", help="build aihwkit from source even if it works")
    parser.add_argument("--torch", metavar="REQUIREMENT", help="install this torch, e.g. on a login node without a GPU")
    options = parser.parse_args(arguments)
    if sys.platform == "win32":
        print("hpml_sim's set-up runs on Linux and macOS; on Windows use WSL", file=sys.stderr)
        return 1
    venv = ROOT / ".venv"
    if not (options.check or options.tiles or options.torch) and is_ready(venv):
        return 0
    screen = Screen(steps=4)
    for number in (signal.SIGTERM, signal.SIGHUP):  # as Ctrl-C: compilers in sessions of their own must end with us
        signal.signal(number, signal.default_int_handler)
    try:
        with _one_at_a_time(screen):
            if not (options.check or options.tiles or options.torch) and is_ready(venv):
                return 0  # the one we waited for did it
            return _set_up(venv, screen, options.torch, options.tiles)
    except SetupError as error:
        screen.note(f"\nSet-up stopped: {error}\nRun the same command again to go on from there.")
        return 1
    except KeyboardInterrupt:
        screen.note("\nSet-up interrupted. Run the same command again to go on from there.")
        return 130


def _set_up(venv: Path, screen: Screen, torch: str | None, rebuild_tiles: bool) -> int:
    first = "" if venv.exists() else " (the first time takes 5 to 10 minutes)"
    screen.note(f"Setting up {_short(venv)}{first}")
    setup = Setup(venv, screen, torch, rebuild_tiles)
    setup.make_venv()
    _stamp_path(venv).unlink(missing_ok=True)  # from here on nothing is complete until all of it is
    version = setup.install_torch()
    setup.install_packages()
    result = setup.install_aihwkit(version)
    stamp = {"key": _current_key(venv) or "", "root": str(ROOT), "torch": version, **result}
    partial = _stamp_path(venv).with_suffix(".partial")
    partial.write_text(json.dumps(stamp, indent=1), encoding="utf-8")
    partial.replace(_stamp_path(venv))
    if "note" in result:
        screen.note(f"note: {result['note']}\n      then: make tiles")
    screen.note(f"Ready in {short_time(time.monotonic() - screen.began)}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
