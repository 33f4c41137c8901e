"""The decisions of tools/setup_env. The set-up itself is what brought these tests here."""

import gc
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from setup_env import aihwkit, interpreter, packages, progress, screen, stamp, tile_build, torch
from setup_env.environment import Environment, SetupError

# ---- when an earlier set-up may be trusted


def test_stamp_key_changes_with_everything_it_depends_on():
    files = {"pyproject.toml": b"a", "tools/setup_env/stamp.py": b"b"}
    key = stamp.stamp_key(files, "3.11.7", "/home/ada/clone")
    assert key == stamp.stamp_key(dict(reversed(files.items())), "3.11.7", "/home/ada/clone")
    others = {
        stamp.stamp_key(files | {"pyproject.toml": b"c"}, "3.11.7", "/home/ada/clone"),
        stamp.stamp_key(files | {"another": b""}, "3.11.7", "/home/ada/clone"),
        stamp.stamp_key(files, "3.12.1", "/home/ada/clone"),
        stamp.stamp_key(files, "3.11.7", "/home/ada/moved"),
        # bytes that move from one file to its neighbor
        stamp.stamp_key({"pyproject.toml": b"", "tools/setup_env/stamp.py": b"ab"}, "3.11.7", "/home/ada/clone"),
    }
    assert key not in others
    assert len(others) == 5


def fake_venv(folder: Path, **changed: str) -> Path:
    """An environment as far as `is_ready` looks."""
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to(sys.executable)
    (folder / "pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.11.7\n")
    record = {"key": stamp.current_key(folder), "tiles": "ok"} | changed
    (folder / "hpml_sim-setup.json").write_text(json.dumps(record))
    return folder


def test_complete_set_up_is_trusted(tmp_path, capsys):
    assert stamp.is_ready(fake_venv(tmp_path / "venv"))
    assert capsys.readouterr().out == ""


def test_no_stamp_an_old_one_or_half_a_one_is_not_trusted(tmp_path):
    assert not stamp.is_ready(tmp_path / "absent")
    assert not stamp.is_ready(fake_venv(tmp_path / "old", key="0" * 64))
    cut = fake_venv(tmp_path / "cut")
    record = cut / "hpml_sim-setup.json"
    record.write_text(record.read_text()[:20])
    assert not stamp.is_ready(cut)


def test_python_that_is_gone_is_noticed(tmp_path):
    venv = fake_venv(tmp_path / "venv")
    (venv / "bin" / "python").unlink()
    (venv / "bin" / "python").symlink_to(tmp_path / "removed-by-an-upgrade")
    assert not stamp.is_ready(venv)


def test_missing_tiles_are_said_again_and_built_once_there_is_a_compiler(tmp_path, monkeypatch, capsys):
    venv = fake_venv(tmp_path / "venv", tiles="no compiler", note="needs a C++ compiler: sudo x")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert stamp.is_ready(venv)
    said = capsys.readouterr().out
    assert "sudo x" in said
    assert "make tiles" in said
    compiler = tmp_path / "g++"
    compiler.write_text("#!/bin/sh\n")
    compiler.chmod(0o755)
    assert not stamp.is_ready(venv)


def test_environment_of_another_folder_is_noticed(tmp_path):
    for name in ("here", "moved"):
        (tmp_path / name / "bin").mkdir(parents=True)
        (tmp_path / name / "bin" / "pip").write_text(f"#!{tmp_path / 'here' / 'bin' / 'python'}\n")
    assert not interpreter.has_moved(tmp_path / "here")
    assert interpreter.has_moved(tmp_path / "moved")
    assert not interpreter.has_moved(tmp_path / "without pip")


# ---- which Python, which torch


def test_running_python_is_taken_if_it_fits():
    assert (
        interpreter.choose_python((3, 12), {(3, 11): "/usr/bin/python3.11"}, "/usr/bin/python3") == "/usr/bin/python3"
    )


@pytest.mark.parametrize("running", [(3, 10), (3, 15)])
def test_newest_fitting_python_otherwise(running):
    found = {(3, 11): "/usr/bin/python3.11", (3, 13): "/usr/bin/python3.13"}
    assert interpreter.choose_python(running, found, "/usr/bin/python3") == "/usr/bin/python3.13"


def test_no_fitting_python_says_what_to_do():
    with pytest.raises(SetupError, match=r"needs Python 3\.11 to 3\.14; this is 3\.9.*\n.*PYTHON=python3\.11"):
        interpreter.choose_python((3, 9), {}, "/usr/bin/python3")


def test_oldest_python_agrees_with_the_package(repository):
    text = (repository / "pyproject.toml").read_text()
    assert f'requires-python = ">={".".join(map(str, interpreter.PYTHON_MIN))}"' in text


def test_cpu_build_is_asked_for_before_the_large_one():
    first, second, last = torch.torch_attempts("Linux", cuda=None)
    assert "torch==2.13.0+cpu" in first
    assert "--index-url" not in first
    assert second[-2:] == ["--index-url", "https://download.pytorch.org/whl/cpu"]
    assert last == ["torch==2.13.0"]
    for quick in (first, second):
        assert quick[quick.index("--timeout") + 1] == "15", "an index that is out of reach must not hold anyone up"
        assert quick[quick.index("--retries") + 1] == "1"


def test_gpu_and_mac_take_the_default_build():
    assert torch.torch_attempts("Linux", cuda=(13, 0)) == [["torch==2.13.0"]]
    assert torch.torch_attempts("Linux", cuda=(14, 1)) == [["torch==2.13.0"]]
    assert torch.torch_attempts("Darwin", cuda=None) == [["torch==2.13.0"]]


def test_driver_of_cuda_12_gets_a_build_that_it_runs():
    first, last = torch.torch_attempts("Linux", cuda=(12, 4))
    assert first[-3:] == ["torch==2.13.0+cu126", "--index-url", "https://download.pytorch.org/whl/cu126"]
    assert last == ["torch==2.13.0"]


@pytest.mark.parametrize(
    ("listing", "header", "status", "cuda"),
    [
        ("GPU 0: NVIDIA H200", "| Driver Version: 580.159.03     CUDA Version: 13.0     |", 0, (13, 0)),
        ("GPU 0: NVIDIA A100", "| Driver Version: 550.54.15      CUDA Version: 12.4     |", 0, (12, 4)),
        ("GPU 0: NVIDIA H200", "a table that says nothing of CUDA", 0, torch.PYPI_CUDA),
        ("", "| CUDA Version: 13.0 |", 0, None),
        ("GPU 0", "", 9, None),
    ],
)
def test_gpu_counts_only_if_the_driver_lists_one(tmp_path, monkeypatch, listing, header, status, cuda):
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n[ \"$1\" = -L ] && echo '{listing}' || echo '{header}'\nexit {status}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/bin")
    assert torch.driver_cuda() == cuda


def test_no_gpu_without_the_drivers_tool(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert torch.driver_cuda() is None


def test_every_extra_and_group_is_installed(repository):
    project = tomllib.loads((repository / "pyproject.toml").read_text())
    # aihwkit has a step of its own, and a group for it; `make kernels` installs what it needs
    assert {*packages.EXTRAS.split(","), "analog"} == set(project["project"]["optional-dependencies"])
    groups = {*packages.GROUPS, packages.GROUP_WITHOUT_DEPENDENCIES, "aihwkit-build", "kernels"}
    assert groups == set(project["dependency-groups"])


# ---- aihwkit


def test_wheel_cache_is_kept_apart_by_what_a_tile_depends_on():
    home = Path("/home/ada")
    path = aihwkit.wheel_cache({}, home, "cp311", "2.13.0+cpu", "linux_x86_64")
    assert path == Path("/home/ada/.cache/hpml_sim/wheels/cp311-torch2.13.0+cpu-linux_x86_64")
    there = aihwkit.wheel_cache({"XDG_CACHE_HOME": "/scratch"}, home, "cp312", "2.11.0", "linux_aarch64")
    assert there == Path("/scratch/hpml_sim/wheels/cp312-torch2.11.0-linux_aarch64")
    # the XDG rules: a relative path is ignored
    assert aihwkit.wheel_cache({"XDG_CACHE_HOME": "x"}, home, "cp311", "2.13.0+cpu", "linux_x86_64") == path


def test_blas_header_renames_every_function():
    text = """
    void cblas_dgemm(const enum CBLAS_ORDER o, int m);
    float  scipy_cblas_snrm2 (int n);
    int scipy_openblas_get_num_threads(void);
    CBLAS_INDEX cblas_isamax(int n); /* cblas_sgemm in a comment */
    """
    header = tile_build.blas_header("/x/cblas.h", text)
    assert header == (
        "#define cblas_dgemm scipy_cblas_dgemm\n"
        "#define cblas_isamax scipy_cblas_isamax\n"
        "#define cblas_snrm2 scipy_cblas_snrm2\n"
        '#include "/x/cblas.h"\n'
    )
    with pytest.raises(SetupError, match=r"no cblas functions .* /x/cblas\.h"):
        tile_build.blas_header("/x/cblas.h", "int x;")


def test_build_variables():
    library = "/a b/lib/libscipy_openblas.so"
    outer = {"PATH": "/bin", "VIRTUAL_ENV": "/another", "USE_CUDA": "1", "HOME": "/home/ada"}
    built = tile_build.build_variables(outer, Path("/c/.venv"), library, Path("/t/include"), 2)
    assert built["PATH"] == "/c/.venv/bin:/bin"
    assert built["VIRTUAL_ENV"] == "/c/.venv"
    assert "'-DOpenBLAS_LIB=/a b/lib/libscipy_openblas.so'" in built["CMAKE_ARGS"], "a path with a space is quoted"
    # with the backslash: ninja hands the flag to a shell, for which a bare $ORIGIN is an empty variable
    assert built["LDFLAGS"] == r"-Wl,-rpath,\$ORIGIN/../../scipy_openblas32/lib"
    assert "USE_CUDA" not in built
    assert built["HOME"] == "/home/ada"
    mac = tile_build.build_variables({}, Path("/c/.venv"), "/l/x.dylib", Path("/t"), 2)
    assert "@loader_path/.." in mac["LDFLAGS"]


@pytest.mark.parametrize(("cpus", "gigabytes", "jobs"), [(2, 23, 2), (64, 16, 10), (8, 1, 1), (1, 64, 1)])
def test_compilers_fit_into_memory(cpus, gigabytes, jobs):
    assert tile_build.build_jobs(cpus, int(gigabytes * 1e9)) == jobs


@pytest.mark.parametrize(
    ("line", "step"),
    [
        ("  [21/41] Building CXX object CMakeFiles/RPU_CPU.dir/rpu.cpp.o", (21, 41)),
        ("[41/41] Linking CXX shared module", (41, 41)),
        ("warning: [21/41] is not at the start", None),
        ("[notice] a new release of pip", None),
    ],
)
def test_ninja_lines(line, step):
    assert progress.compile_step(line) == step


def test_compile_progress_is_sparse_where_nobody_watches():
    shown = [progress.what_happens(f"[{n}/41] Building", "")[1] for n in range(1, 42)]
    assert sum(shown) == 8
    assert shown[-1]


@pytest.mark.parametrize(
    ("system", "release", "command"),
    [
        ("Linux", 'NAME="Debian"\nID=debian\n', "sudo apt-get install g++ python3-dev"),
        ("Linux", 'ID=linuxmint\nID_LIKE="ubuntu debian"\n', "sudo apt-get install g++ python3-dev"),
        ("Linux", 'ID="rocky"\nID_LIKE="rhel centos fedora"\n', "sudo dnf install gcc-c++ python3-devel"),
        ("Linux", "ID=fedora\n", "sudo dnf install gcc-c++ python3-devel"),
        ("Darwin", "", "xcode-select --install"),
        ("Linux", "ID=arch\n", "your system's command"),
    ],
)
def test_missing_compiler_names_the_command(system, release, command):
    advice = tile_build.compiler_advice(["a C++ compiler", "Python's headers"], system, release)
    assert advice.startswith("a C++ compiler and Python's headers: ")
    assert command in advice


def test_without_a_compiler_the_noise_models_do_and_the_note_says_what_is_missing(tmp_path, monkeypatch, capsys):
    work = environment(tmp_path / "venv")
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    work.python.write_text('#!/bin/sh\ncase "$*" in *PCMLikeNoiseModel*) exit 0;; *) echo no; exit 1;; esac\n')
    work.python.chmod(0o755)
    work.variables = {"XDG_CACHE_HOME": str(tmp_path)}
    monkeypatch.setattr(tile_build.shutil, "which", lambda _: None)
    kept = aihwkit.install_aihwkit(work, "2.13.0", rebuild=False)
    assert kept["tiles"] == "no compiler"
    assert "Building them needs a C compiler and a C++ compiler and Python's headers: " in kept["note"]
    assert "NO COMPILED TILES" in capsys.readouterr().out


# ---- what is shown


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s")])
def test_times(seconds, text):
    assert screen.short_time(seconds) == text


def test_worst_lines_prefer_errors():
    output = "a\nERROR: No matching distribution found for x\nb\n\nrpu.cpp:3: error: no such file\nc\n"
    assert progress.worst_lines(output) == [
        "ERROR: No matching distribution found for x",
        "rpu.cpp:3: error: no such file",
    ]
    assert progress.worst_lines("one\ntwo\nthree\nfour\n") == ["two", "three", "four"]
    assert progress.worst_lines("") == []


def environment(folder: Path) -> Environment:
    shown = screen.Screen(steps=1)
    shown.start("packages")
    return Environment(folder, shown)


def test_failed_command_shows_the_reason_and_the_log(tmp_path):
    work = environment(tmp_path)
    code = "import sys; print('fine'); print('ERROR: disk full'); sys.exit(3)"
    with pytest.raises(SetupError, match=r"packages failed \(status 3\)\.\n    ERROR: disk full\n") as caught:
        work.run([sys.executable, "-c", code], log="step")
    assert "step.log" in str(caught.value)
    assert "fine\nERROR: disk full\n" in (tmp_path / "setup-logs" / "step.log").read_text()
    gc.collect()  # a pipe left open would warn here, and warnings are errors


def test_half_made_environment_is_removed(tmp_path, monkeypatch):
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nmkdir -p "$4/bin"; touch "$4/bin/python"; echo ensurepip is not available; exit 1\n')
    python.chmod(0o755)
    monkeypatch.setattr(interpreter, "choose_python", lambda *_: str(python))
    work = environment(tmp_path / "venv")
    with pytest.raises(SetupError, match="sudo apt-get install python3-venv"):
        interpreter.make_venv(work)
    assert not (tmp_path / "venv").exists()


def test_make_lists_its_targets(repository):
    done = subprocess.run(["make"], cwd=repository, capture_output=True, text=True, check=True, env=plain_environment())
    for target in ("demo", "test", "lint", "types", "layers", "doctor", "setup", "tiles", "clean"):
        assert f"make {target} " in done.stdout


def test_make_passes_arguments_on(repository):
    command = ["make", "--dry-run", "test", "ARGS=-k card", "PYTHON=true"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True, env=plain_environment())
    assert "-m pytest " in done.stdout
    assert done.stdout.endswith(" -k card\n")


def plain_environment() -> dict[str, str]:
    """Without the variables through which an outer make would speak to this one."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
