#!/usr/bin/env python3
"""Compile every numba-CUDA kernel for real GPUs, without one, and read in the machine code what it will keep busy.

    python tools/compile_kernels.py [--capability 9.0] [--table] [--out DIR]

The functions that launch kernels are called with tensors on the CPU; their launch compiles instead of running: numba
and NVVM make PTX of each kernel, with the types, layouts and constants that it has on a GPU, and `ptxas` of the CUDA
toolkit makes machine code of that. Nothing is executed, no GPU or driver is needed.

It fails if
- a kernel does not compile: one that types only in the simulator is a bug;
- numbers meant for registers lie in memory: a spill, or an array whose index the compiler does not know;
- a block asks for more registers than there are;
- some `@cuda.jit` of the package was never reached, so that nothing can be left out here;
- a kernel that memory limits (`STREAMING`) keeps less on its way than Little's law asks for: bandwidth x latency, on an
  H200 4.8 TB/s x 0.7 us / 132 multiprocessors = 25 kB each. `nvdisasm` lists the machine code, and what counts are the
  loads from global memory that stand before the first use of one of them, times the bytes of a number, times the
  threads that fit a multiprocessor by their registers.

Needs the dependency group `kernels`: NVIDIA's wheels of NVVM (with libdevice), NVRTC, ptxas and nvdisasm, 180 MB, Linux
only.
"""

from __future__ import annotations

import argparse
import ast
import math
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ["NUMBA_ENABLE_CUDASIM"] = "0"  # before numba is first imported

import torch
from torch import nn

from hpml_sim.kernels.common import cuda_launch

ROOT = Path(__file__).resolve().parent.parent
CAPABILITIES = ("8.0", "9.0", "10.0")
"""Ampere (A100), Hopper (H100, H200), Blackwell (B200)."""
REGISTERS, MAX_THREADS = 65536, 2048  # of a multiprocessor; the same for all of these
STREAMING = ("adc", "backward", "copy_kernel", "dac", "forward", "total_kernel")
"""Kernels that read everything once and do little with it."""
IN_FLIGHT = {"9.0": 24e3}
"""Bytes that those need on their way in each multiprocessor, by capability. `copy_kernel` has 24.6 kB, and reached 0.83
of torch's copy on an H200."""


@dataclass(frozen=True)
class Compiled:
    """A kernel for arguments of certain types.

    Attributes:
        name: of the function, with what tells it from the function's other variants.
        library: numba's, which makes PTX for any capability.
        threads: threads of a block.
        max_registers: limit on a thread's registers; None where the kernel sets none.
    """

    name: str
    library: Any
    threads: int
    max_registers: int | None


@dataclass(frozen=True)
class Assembled:
    """Machine code.

    Attributes:
        kernel: what was assembled.
        capability: compute capability of the GPU, "9.0" for instance.
        registers: registers of a thread.
        local_bytes: bytes of a thread's stack and spills.
        listing: the instructions, one a line; empty unless they were wanted.
    """

    kernel: Compiled
    capability: str
    registers: int
    local_bytes: int
    listing: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The kernel, and for which GPUs."""
        return f"{self.kernel.name}, {self.capability}"

    @property
    def resident(self) -> int:
        """Threads of a multiprocessor, as far as registers decide (they are given out by 8 a thread)."""
        blocks = REGISTERS // (-(-self.registers // 8) * 8 * self.kernel.threads)
        return min(blocks * self.kernel.threads, MAX_THREADS)

    @property
    def in_flight(self) -> int:
        """Bytes that a multiprocessor can have on their way from memory."""
        return loads_on_their_way(self.listing) * (8 if "float64" in self.kernel.name else 4) * self.resident


class CompileError(RuntimeError):
    """A kernel that would not run on a GPU."""


# --------------------------------------------------------------------------------------------------- numba's part: PTX


class Recorder:
    """Takes the place of `cuda_launch.launch`: compiles what it is asked to run.

    Attributes:
        compiled: the kernels, by function and types of the arguments.
        code: (file, name) of their Python functions.
        label: put behind the names of the kernels that follow.
    """

    def __init__(self) -> None:
        self.compiled: dict[tuple[Any, ...], Compiled] = {}
        self.code: set[tuple[str, str]] = set()
        self.label = ""

    def launch(
        self, kernel: Any, blocks: int | tuple[int, ...], threads: int | tuple[int, ...], *arguments: Any
    ) -> None:
        """As `cuda_launch.launch`, but the arguments' types are all that counts."""
        from numba.cuda import compiler as imported

        compiler: Any = imported  # type checkers do not see its underscored names

        kinds = tuple([cuda_launch._flatten(argument, []) for argument in arguments])
        if (kernel, kinds) in self.compiled:
            return
        function = kernel.py_func
        name = f"{function.__name__} {self.label}".strip()
        try:
            library, _ = compiler._compile_pyfunc_with_fixup(
                function, cuda_launch.signature(kinds), device=False, abi="numba", cc=(9, 0)
            )
        except Exception as error:  # whatever numba raises: a type that it cannot find, code that it does not know
            raise CompileError(f"{name}: numba cannot compile it for {kinds}: {error}") from error
        count = threads if isinstance(threads, int) else math.prod(threads)
        limit = kernel.targetoptions.get("max_registers")
        self.compiled[kernel, kinds] = Compiled(name, library, count, limit)
        self.code.add((function.__code__.co_filename, function.__name__))


def all_kernels() -> set[tuple[str, str]]:
    """(file, name) of each function under `@cuda.jit` in the package that is a kernel, not a device function."""
    found = set()
    for path in [*ROOT.glob("hpml_sim/kernels/**/*.py"), *ROOT.glob("baselines/*.py")]:
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(function, ast.FunctionDef):
                marks = [ast.unparse(mark) for mark in function.decorator_list]
                if any(mark.startswith("cuda.jit") and "device=True" not in mark for mark in marks):
                    found.add((str(path), function.name))
    return found


def compile_all() -> list[Compiled]:
    """Every kernel of the package as a GPU would get it: all types, all variants.

    Raises:
        CompileError: a kernel that does not compile, or one that nothing here reaches.
    """
    from numba.cuda import dispatcher as imported

    from hpml_sim.baselines import cuda_launch as baselines_launch

    recorder = Recorder()
    cuda_launch.launch = recorder.launch  # before the modules below take it by name
    # numba asks for the device where a kernel calls a function of ours; PTX is made for other capabilities later
    dispatcher: Any = imported
    dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=(9, 0))
    # modules choose their blocks and tiles when they are imported: as on a GPU; tensors are looked for on the CPU
    baselines_launch.cuda_backend = lambda: "gpu"
    from hpml_sim.baselines import cuda_conv, cuda_elementwise, cuda_network, cuda_softmax, cuda_trainer  # noqa: F401

    baselines_launch.cuda_backend = lambda: "simulator"
    _baselines(recorder)
    for double in (False, True):
        _converters(recorder, torch.float64 if double else torch.float32)
        _neurons(recorder, torch.float64 if double else torch.float32)
    known = {(os.path.realpath(file), name) for file, name in recorder.code}
    if missed := {(os.path.realpath(file), name) for file, name in all_kernels()} - known:
        raise CompileError(f"never reached, add a call in {Path(__file__).name}: {sorted(missed)}")
    return list(recorder.compiled.values())


def _baselines(recorder: Recorder) -> None:
    from hpml_sim.baselines.cuda_elementwise import bias_relu, copy
    from hpml_sim.baselines.cuda_linear import linear
    from hpml_sim.baselines.cuda_matmul import GPU_LARGE, GPU_SMALL, fused_product, matmul_naive, matmul_tiled
    from hpml_sim.baselines.cuda_network import onto_kernels
    from hpml_sim.baselines.cuda_trainer import MlpTrainer
    from hpml_sim.networks.models import mlp

    a, bias = torch.zeros(8, 8), torch.zeros(8)
    copy(a)
    bias_relu(a, bias)
    for left, layout_left in ((a, "rows"), (a.t(), "columns")):
        for right, layout_right in ((a, "rows"), (a.t(), "columns")):
            recorder.label = f"{layout_left} x {layout_right}"
            matmul_naive(left, right)
            matmul_tiled(left, right)
            for size, tiling in (("large", GPU_LARGE), ("small", GPU_SMALL)):
                recorder.label = f"{size}, {layout_left} x {layout_right}"
                fused_product(left, right, tiling=tiling)
    for size, tiling in (("large", GPU_LARGE), ("small", GPU_SMALL)):
        for relu in (False, True):
            recorder.label = f"{size}, rows x columns, bias{' and ReLU' if relu else ''}"
            fused_product(a, a.t(), bias=bias, relu=relu, tiling=tiling)
    recorder.label = ""
    x = torch.zeros(2, 1, 8, 8, requires_grad=True)
    layers = [nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(32, 4)]
    network, _ = onto_kernels(nn.Sequential(*layers), lambda _name, _layer: True)
    network(x).sum().backward()
    linear(a.requires_grad_(), a).sum().backward()
    MlpTrainer(mlp(8, 8, 4)).step(torch.zeros(2, 8), torch.zeros(2, dtype=torch.int64))  # type: ignore[arg-type]


def _converters(recorder: Recorder, dtype: torch.dtype) -> None:
    from hpml_sim.kernels.crossbar_product import cuda

    kind = str(dtype).removeprefix("torch.")
    x = torch.zeros(1, 8, 2, 16, dtype=dtype)  # groups, vectors, tiles, height
    y, scale, z = x.new_zeros(1, 2, 8, 12), x.new_zeros(1, 2, 12), x.new_zeros(1, 8, 12)
    recorder.label = kind
    cuda.dac(x, None, 1.0, 127, x.new_zeros(1, 2, 8, 16))
    for noisy in (False, True):
        recorder.label = kind + (", noisy" if noisy else "")
        cuda.adc(y, y, noisy, 0.1, 1.0, 127, scale, None, z)


def _neurons(recorder: Recorder, dtype: torch.dtype) -> None:
    from hpml_sim.kernels.delays import cuda as delays
    from hpml_sim.kernels.lif import cuda as lif
    from hpml_sim.kernels.neurons import DYNAMICS
    from hpml_sim.kernels.neurons import cuda as multistep
    from hpml_sim.kernels.surrogates.reference import ATAN, FAST_SIGMOID, OTHER

    kind = str(dtype).removeprefix("torch.")
    steps, few, many = 3, 4, 1 << 20
    one = torch.ones(1, dtype=dtype)
    for neurons, size in ((few, "few"), (many, "many")):
        x = one.expand(1, steps, neurons).contiguous()
        recorder.label = f"{kind}, {size} neurons"
        lif.forward(x, one, one, "zero", x, x)
        for surrogate, called in ((ATAN, "atan"), (FAST_SIGMOID, "fast_sigmoid"), (OTHER, "other")):
            for direct in (None, x):
                recorder.label = f"{kind}, {size} neurons, {called}{'' if direct is None else ', membrane gradient'}"
                lif.backward(x, direct, x, one, one, "zero", surrogate, 2.0, x)
    x = one.expand(1, steps, few).contiguous()
    whole, share = torch.zeros(few, dtype=torch.int64), one.expand(few).contiguous()
    recorder.label = kind
    delays.forward(x, whole, share, x)
    delays.backward(x, x, whole, share, x, share)
    for name, neuron in DYNAMICS.items():
        states = one.expand(len(neuron.states), 1, steps + 1, few).contiguous()
        parameters = one.expand(len(neuron.parameters), few).contiguous()
        later, grads = x.new_zeros(len(neuron.states) + 1, 1, few), x.new_zeros(len(neuron.parameters), 1, few)
        recorder.label = f"{kind}, {name}"
        multistep.forward(name, x, states, parameters, x)
        for divides in (False, True) if neuron.attached else (False,):
            for direct in (None, states[:, :, 1:].contiguous()):
                ending = (", divides" if divides else "") + ("" if direct is None else ", state gradients")
                recorder.label = f"{kind}, {name}{ending}"
                multistep.backward(name, divides, x, x, direct, states, parameters, later, grads, x)


# --------------------------------------------------------------------------------- the toolkit's part: machine code


def tool(name: str) -> str:
    """Where a program of the CUDA toolkit is.

    Raises:
        CompileError: nowhere.
    """
    from cuda import pathfinder

    path: str | None = pathfinder.find_nvidia_binary_utility(name)
    if path is None:
        raise CompileError(f"{name} is not found; pip install --group kernels (pip >= 25.1), or run: make kernels")
    return path


def assemble(kernel: Compiled, capability: str, folder: Path, *, listed: bool) -> Assembled:
    """PTX to machine code, both left in `folder`; `listed`: with its instructions.

    Raises:
        CompileError: ptxas refuses it, or its blocks would not fit a multiprocessor.
    """
    major, minor = map(int, capability.split("."))
    architecture = (major, minor, "a" if major >= 9 else "")  # what numba asks for on such a device
    arch = f"sm_{major}{minor}{architecture[2]}"
    path = folder / f"{re.sub('[^a-z0-9]+', '-', kernel.name.lower())}-{arch}"
    ptx, cubin = path.with_suffix(".ptx"), path.with_suffix(".cubin")
    ptx.write_text(kernel.library.get_asm_str(cc=architecture))
    limit = [] if kernel.max_registers is None else [f"-maxrregcount={kernel.max_registers}"]
    said = _run(tool("ptxas"), f"-arch={arch}", "-v", *limit, str(ptx), "-o", str(cubin), what=f"{kernel.name}, {arch}")
    registers = max(map(int, re.findall(r"Used (\d+) registers", said)))
    local_bytes = sum(map(int, re.findall(r"(\d+) bytes (?:stack frame|spill stores|spill loads)", said)))
    if registers * kernel.threads > REGISTERS:
        raise CompileError(f"{kernel.name}, {arch}: {registers} registers x {kernel.threads} threads do not fit")
    if not listed:
        return Assembled(kernel, capability, registers, local_bytes)
    text = _run(tool("nvdisasm"), "-c", str(cubin), what=f"{kernel.name}, {arch}")
    path.with_suffix(".sass").write_text(text)
    instructions = re.findall(r"^\s+/\*[0-9a-f]{4,}\*/\s+(.*);", text, re.MULTILINE)
    return Assembled(kernel, capability, registers, local_bytes, tuple(instructions))


def _run(*command: str, what: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CompileError(f"{what}: {Path(command[0]).name} says {(done.stderr or done.stdout).strip()[:500]}")
    return done.stdout + done.stderr


def loads_on_their_way(instructions: tuple[str, ...]) -> int:
    """The most global loads that are issued before one of their results is used, along the code as it is listed."""
    waiting: set[str] = set()
    most = 0
    for line in instructions:
        operation = re.sub(r"^@!?U?P\d+\s+", "", line)
        name, _, operands = operation.partition(" ")
        target, _, rest = operands.partition(",")
        used = set(re.findall(r"\bR\d+\b", rest if name.startswith("LDG") else operands))
        waiting -= used
        if name.startswith("LDG"):
            waiting.add(target.strip())
            most = max(most, len(waiting))
    return most


def main(arguments: list[str] | None = None) -> int:
    """0 where every kernel compiles for every capability."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--capability", nargs="+", default=CAPABILITIES, metavar="N.N", help="of the GPUs (all three)")
    parser.add_argument("--table", action="store_true", help="a line for each kernel")
    parser.add_argument("--only", default="", metavar="PATTERN", help="kernels whose name has this regular expression")
    parser.add_argument("--out", type=Path, help="leave PTX, machine code and listings in this folder")
    given = parser.parse_args(arguments)
    everything = given.table or given.out is not None
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(os.cpu_count()) as pool:
        folder = given.out or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)

        def work(pair: tuple[Compiled, str]) -> Assembled:
            kernel, capability = pair
            return assemble(kernel, capability, folder, listed=everything or needs(kernel, capability) > 0)

        try:
            kernels = [kernel for kernel in compile_all() if re.search(given.only, kernel.name)]
            print(f"{len(kernels)} kernels compile to PTX", flush=True)
            made = list(pool.map(work, [(kernel, c) for c in given.capability for kernel in kernels]))
        except CompileError as error:
            print(error, file=sys.stderr)
            return 1
    if given.table:
        show(made)
    wrong = [f"{m.local_bytes} bytes in memory that were meant for registers: {m.label}" for m in made if m.local_bytes]
    wrong += [
        f"{m.in_flight / 1e3:.1f} kB in flight, {needed / 1e3:.1f} needed: {m.label}"
        for m in made
        if (needed := needs(m.kernel, m.capability)) > m.in_flight
    ]
    print(*wrong, sep="\n", end="\n" if wrong else "", file=sys.stderr)
    print(f"{len(made)} make machine code for {', '.join(given.capability)}; {len(wrong)} not as they are meant")
    return 1 if wrong else 0


def needs(kernel: Compiled, capability: str) -> float:
    """Bytes that it must have in flight; 0 where memory does not limit it, or where the need is not known."""
    return IN_FLIGHT.get(capability, 0.0) if kernel.name.startswith(STREAMING) else 0.0


def show(made: list[Assembled]) -> None:
    """A table: what limits how much a kernel has in flight."""
    print(
        f"{'kernel':<64} {'for':>5} {'registers':>9} {'instr.':>6} {'loads':>5} {'threads/SM':>10} {'kB in flight':>12}"
    )
    for m in sorted(made, key=lambda m: (m.capability, m.kernel.name)):
        print(
            f"{m.kernel.name:<64} {m.capability:>5} {m.registers:>9} {len(m.listing):>6} "
            f"{loads_on_their_way(m.listing):>5} {m.resident:>10} {m.in_flight / 1e3:>12.1f}"
        )


if __name__ == "__main__":
    sys.exit(main())
