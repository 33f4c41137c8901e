"""Step 2: a build of torch that fits the machine: the CPU's, or the GPU driver's version of CUDA."""

from __future__ import annotations

import platform
import re
import shlex
import shutil
import subprocess

from .environment import Environment, SetupError, version_numbers
from .screen import short_path

TORCH = "torch==2.13.0"
TORCH_MIN = (2, 9)
INDEX = "https://download.pytorch.org/whl"
PYPI_CUDA = (13, 0)
"""What PyPI's build of TORCH is made for; a driver of the same major version or a later one runs it."""
OLDER_CUDA = "cu126"
"""At PyTorch's own index: for drivers of CUDA 12. TORCH is not built for older ones."""


def install_torch(environment: Environment, wanted: str | None) -> str:
    """A torch that works, kept if there is one; its version.

    Args:
        environment: where to.
        wanted: what to hand to pip in place of our choice, a requirement and options.

    Raises:
        SetupError: none could be installed, or it does not import.
    """
    environment.screen.start("torch")
    version = _torch_version(environment)
    if version is None or version_numbers(version) < TORCH_MIN or wanted:
        attempts = [shlex.split(wanted)] if wanted else torch_attempts(platform.system(), driver_cuda())
        for number, arguments in enumerate(attempts, start=1):
            if number == len(attempts) > 1:
                environment.screen.note("    taking PyPI's build, on Linux a download of several GB")
            try:
                environment.pip("install", "--progress-bar", "raw", *arguments, log=f"2-torch-{number}")
                break
            except SetupError:
                if number == len(attempts):
                    raise
        version = _torch_version(environment)
        if version is None:
            raise SetupError(
                f"torch was installed but does not import: {short_path(environment.python)} -c 'import torch' says why"
            )
    environment.constraint.write_text(f"torch=={version}\n", encoding="utf-8")
    environment.screen.done(version)
    return version


def torch_attempts(system: str, cuda: tuple[int, int] | None) -> list[list[str]]:
    """The pip arguments to try, in order; the last is PyPI's own build.

    On PyPI, `torch` for Linux is a CUDA build of several GB. Without a GPU, ask for the CPU build by its full name
    first (found where pip is configured for it, refused within seconds elsewhere), then at PyTorch's own index. A
    driver too old for PyPI's build needs another one from there.

    Args:
        system: of `platform.system()`.
        cuda: the version of CUDA that the GPU's driver runs; None without a GPU.
    """
    quick = ["--timeout", "15", "--retries", "1"]
    first: list[list[str]] = []
    if system == "Linux" and cuda is None:
        first = [[*quick, f"{TORCH}+cpu"], [*quick, f"{TORCH}+cpu", "--index-url", f"{INDEX}/cpu"]]
    elif system == "Linux" and cuda is not None and cuda[0] < PYPI_CUDA[0]:
        first = [[*quick, f"{TORCH}+{OLDER_CUDA}", "--index-url", f"{INDEX}/{OLDER_CUDA}"]]
    return [*first, [TORCH]]


def driver_cuda() -> tuple[int, int] | None:
    """The newest CUDA that the NVIDIA driver runs; None if it lists no GPU."""
    if shutil.which("nvidia-smi") is None:
        return None
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    if listed.returncode != 0 or "GPU " not in listed.stdout:
        return None
    table = subprocess.run(["nvidia-smi"], capture_output=True, text=True, check=False).stdout
    match = re.search(r"CUDA[A-Z ]* Version: *(\d+)\.(\d+)", table)
    return (int(match[1]), int(match[2])) if match else PYPI_CUDA


def _torch_version(environment: Environment) -> str | None:
    return environment.ask("import torch; torch.ones(2) @ torch.ones(2); print(torch.__version__)")
