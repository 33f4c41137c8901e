"""aihwkit from source, compiled against the BLAS of a Python package: no system package and no root is needed."""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import shutil
from pathlib import Path

from .environment import Environment, SetupError

AIHWKIT_SOURCE = "aihwkit==1.2.0"
BUILD_LOG = "4-aihwkit-build"


def missing_for_build(environment: Environment) -> list[str]:
    """What the source build needs and this machine lacks."""
    missing = []
    compilers = {"CC": ("a C compiler", "cc gcc clang"), "CXX": ("a C++ compiler", "c++ g++ clang++")}
    for variable, (what, usual) in compilers.items():
        named = environment.variables.get(variable, "").split()[:1]
        if not any(shutil.which(name) for name in named or usual.split()):
            missing.append(what)
    headers = "import sysconfig, os, sys; sys.exit(not os.path.isfile(sysconfig.get_path('include') + '/Python.h'))"
    if environment.ask(headers) is None:
        missing.append("Python's headers")
    return missing


def compiler_advice(missing: list[str], system: str | None = None, os_release: str | None = None) -> str:
    """What is missing, and the command that installs it here.

    Args:
        missing: of `missing_for_build`.
        system: of `platform.system()`, this one by default.
        os_release: content of /etc/os-release, this machine's by default.
    """
    if os_release is None:
        path = Path("/etc/os-release")
        os_release = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    if (system or platform.system()) == "Darwin":
        command = "xcode-select --install"
    elif re.search(r"^ID(_LIKE)?=.*\b(debian|ubuntu)\b", os_release, re.MULTILINE):
        command = "sudo apt-get install g++ python3-dev"
    elif re.search(r"^ID(_LIKE)?=.*\b(fedora|rhel|centos)\b", os_release, re.MULTILINE):
        command = "sudo dnf install gcc-c++ python3-devel"
    else:
        command = "(your system's command for a C++17 compiler and Python's headers)"
    return f"{' and '.join(missing)}: {command}"


def build_wheel(environment: Environment, folder: Path) -> Path:
    """Compile aihwkit into a wheel below `folder`, and return its path.

    Raises:
        SetupError: the tools could not be installed, or the build failed.
    """
    jobs = build_jobs(os.cpu_count() or 1, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    environment.screen.note(
        "    no wheel of aihwkit has compiled tiles that work with this torch: building it once from source\n"
        f"    ({jobs} compilers at a time; 3 to 4 minutes on 2 cores)"
    )
    environment.pip("install", "-c", str(environment.constraint), "--group", "aihwkit-build", log=f"{BUILD_LOG}-tools")
    blas = _find_blas(environment)
    shim, wheels = folder / "include", folder / "wheels"
    shim.mkdir()
    header = Path(blas["include"]) / "cblas.h"
    (shim / "cblas.h").write_text(blas_header(str(header), header.read_text(encoding="utf-8")), encoding="utf-8")
    # --no-cache-dir: pip may hold a wheel that another `pip install aihwkit` built without these settings
    alone = ["--no-build-isolation", "--no-deps", "--no-cache-dir", "--no-binary", "aihwkit"]
    environment.pip(
        "wheel", "-v", *alone, "-w", str(wheels), AIHWKIT_SOURCE, log=BUILD_LOG,
        variables=build_variables(environment.variables, environment.folder, blas["library"], shim, jobs),
    )  # fmt: skip
    (wheel,) = wheels.glob("aihwkit-*.whl")
    return wheel


def _find_blas(environment: Environment) -> dict[str, str]:
    """Paths of scipy-openblas32: its "library", and the folder "include" of its headers."""
    found = environment.ask(
        "import scipy_openblas32 as blas, json;"
        "library = blas.get_lib_dir() + '/' + blas.get_library(fullname=True);"
        "print(json.dumps({'library': library, 'include': blas.get_include_dir()}))"
    )
    if found is None:
        raise SetupError("scipy-openblas32, the BLAS for the build, does not import")
    return json.loads(found)


def blas_header(header: str, text: str) -> str:
    """A `cblas.h` for scipy-openblas32: its library exports `scipy_cblas_x`, its header declares `cblas_x`.

    Args:
        header: path of the package's own cblas.h.
        text: its content.

    Raises:
        SetupError: it declares no function.
    """
    names = sorted(set(re.findall(r"\b(?:scipy_)?(cblas_[a-z]\w*)\s*\(", text)))
    if not names:
        raise SetupError(f"no cblas functions are declared in {header}: is scipy-openblas32 complete?")
    defines = "".join(f"#define {name} scipy_{name}\n" for name in names)
    return f'{defines}#include "{header}"\n'


def build_variables(variables: dict[str, str], venv: Path, library: str, include: Path, jobs: int) -> dict[str, str]:
    """The environment variables of the build.

    Args:
        variables: the environment variables of this process.
        venv: the environment whose tools and torch are used.
        library: path of the BLAS.
        include: folder of its header.
        jobs: how many compilers run at a time.
    """
    origin = "@loader_path" if library.endswith(".dylib") else r"\$ORIGIN"  # ninja's shell eats one backslash
    settings = {
        "PATH": f"{venv / 'bin'}{os.pathsep}{variables.get('PATH', '')}",
        "VIRTUAL_ENV": str(venv),  # aihwkit's CMake searches here: another active environment would win
        "CMAKE_ARGS": shlex.join([f"-DOpenBLAS_LIB={library}", f"-DOpenBLAS_INCLUDE_DIR={include}"]),
        # found beside aihwkit in site-packages, wherever that is: the wheel can be moved to another clone
        "LDFLAGS": f"-Wl,-rpath,{origin}/../../scipy_openblas32/lib",
        "CMAKE_BUILD_PARALLEL_LEVEL": str(jobs),
    }
    # USE_CUDA and the like would change what is built under the same name in the cache
    dropped = {"USE_CUDA", "AIHWKIT_CUDA_VERSION", "SKBUILD_CONFIGURE_OPTIONS"}
    return {name: value for name, value in variables.items() if name not in dropped} | settings


def build_jobs(cpus: int, memory_bytes: int) -> int:
    """Compilers at a time: a file that includes torch's headers takes up to 1.5 GB."""
    return max(1, min(cpus, int(memory_bytes / 1.5e9)))
