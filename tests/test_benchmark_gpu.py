"""The one command for a machine with a GPU, as far as it goes without one."""

from __future__ import annotations

import subprocess
import sys


def test_without_a_gpu_it_says_so(repository):
    script = str(repository / "benchmarks" / "gpu.py")
    environment = {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(repository), "PATH": ""}
    ran = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout.startswith("nothing measured: torch finds no NVIDIA GPU")) == (0, True), ran


def test_every_command_takes_the_options_that_it_is_given(repository):
    script = str(repository / "benchmarks" / "gpu.py")
    environment = {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(repository), "PATH": "", "NUMBA_ENABLE_CUDASIM": "1"}
    listed = subprocess.run([sys.executable, script, "--list"], env=environment, capture_output=True, text=True)
    lines = [line.split()[1:] for line in listed.stdout.splitlines()]
    assert len(lines) == 6
    for command in lines[1:]:
        helped = subprocess.run([*command, "--help"], cwd=repository, env=environment, capture_output=True, text=True)
        assert helped.returncode == 0, helped.stderr
        for option in (word for word in command if word.startswith("--")):
            assert option in helped.stdout, (command, option)
