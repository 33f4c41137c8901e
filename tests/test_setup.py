"""The decisions of tools/setup_env.py. The set-up itself is what brought these tests here."""

import gc
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def setup_env(repository) -> ModuleType:
    spec = importlib.util.spec_from_file_location("setup_env", repository / "tools" / "setup_env.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ---- when an earlier set-up may be trusted


def test_stamp_key_changes_with_everything_it_depends_on(setup_env):
    files = {"pyproject.toml": b"a", "tools/setup_env.py": b"b"}
    key = setup_env.stamp_key(files, "3.11.7", "/home/ada/clone")
    assert key == setup_env.stamp_key(dict(reversed(files.items())), "3.11.7", "/home/ada/clone")
    others = {
        setup_env.stamp_key(files | {"pyproject.toml": b"c"}, "3.11.7", "/home/ada/clone"),
        setup_env.stamp_key(files | {"another": b""}, "3.11.7", "/home/ada/clone"),
        setup_env.stamp_key(files, "3.12.1", "/home/ada/clone"),
        setup_env.stamp_key(files, "3.11.7", "/home/ada/moved"),
        # bytes that move from one file to its neighbour
        setup_env.stamp_key({"pyproject.toml": b"", "tools/setup_env.py": b"ab"}, "3.11.7", "/home/ada/clone"),
    }
    assert key not in others
    assert len(others) == 5


def fake_venv(setup_env: ModuleType, folder: Path, **stamp: str) -> Path:
    """An environment as far as `is_ready` looks."""
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to(sys.executable)
    (folder / "pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.11.7\n")
    record = {"key": setup_env._current_key(folder), "tiles": "ok"} | stamp
    (folder / "hpml_sim-setup.json").write_text(json.dumps(record))
    return folder


def test_complete_set_up_is_trusted(setup_env, tmp_path, capsys):
    assert setup_env.is_ready(fake_venv(setup_env, tmp_path / "venv"))
    assert capsys.readouterr().out == ""


def test_no_stamp_an_old_one_or_half_a_one_is_not_trusted(setup_env, tmp_path):
    assert not setup_env.is_ready(tmp_path / "absent")
    assert not setup_env.is_ready(fake_venv(setup_env, tmp_path / "old", key="0" * 64))
    cut = fake_venv(setup_env, tmp_path / "cut")
    stamp = cut / "hpml_sim-setup.json"
    stamp.write_text(stamp.read_text()[:20])
    assert not setup_env.is_ready(cut)


def test_python_that_is_gone_is_noticed(setup_env, tmp_path):
    venv = fake_venv(setup_env, tmp_path / "venv")
    (venv / "bin" / "python").unlink()
    (venv / "bin" / "python").symlink_to(tmp_path / "removed-by-an-upgrade")
    assert not setup_env.is_ready(venv)


def test_missing_tiles_are_said_again_and_built_once_there_is_a_compiler(setup_env, tmp_path, monkeypatch, capsys):
    venv = fake_venv(setup_env, tmp_path / "venv", tiles="no compiler", note="needs a C++ compiler: sudo x")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert setup_env.is_ready(venv)
    said = capsys.readouterr().out
    assert "sudo x" in said
    assert "make tiles" in said
    compiler = tmp_path / "g++"
    compiler.write_text("#!/bin/sh\n")
    compiler.chmod(0o755)
    assert not setup_env.is_ready(venv)


def test_environment_of_another_folder_is_noticed(setup_env, tmp_path):
    for name in ("here", "moved"):
        (tmp_path / name / "bin").mkdir(parents=True)
        (tmp_path / name / "bin" / "pip").write_text(f"#!{tmp_path / 'here' / 'bin' / 'python'}\n")
    assert not setup_env._has_moved(tmp_path / "here")
    assert setup_env._has_moved(tmp_path / "moved")
    assert not setup_env._has_moved(tmp_path / "without pip")


# ---- which Python, which torch


def test_running_python_is_taken_if_it_fits(setup_env):
    assert setup_env.choose_python((3, 12), {(3, 11): "/usr/bin/python3.11"}, "/usr/bin/python3") == "/usr/bin/python3"


@pytest.mark.parametrize("running", [(3, 10), (3, 15)])
def test_newest_fitting_python_otherwise(setup_env, running):
    found = {(3, 11): "/usr/bin/python3.11", (3, 13): "/usr/bin/python3.13"}
    assert setup_env.choose_python(running, found, "/usr/bin/python3") == "/usr/bin/python3.13"


def test_no_fitting_python_says_what_to_do(setup_env):
    with pytest.raises(
        setup_env.SetupError, match=r"needs Python 3\.11 to 3\.14; this is 3\.9.*\n.*PYTHON=python3\.11"
    ):
        setup_env.choose_python((3, 9), {}, "/usr/bin/python3")


def test_oldest_python_agrees_with_the_package(setup_env, repository):
    text = (repository / "pyproject.toml").read_text()
    assert f'requires-python = ">={".".join(map(str, setup_env.PYTHON_MIN))}"' in text


def test_cpu_build_is_asked_for_before_the_large_one(setup_env):
    first, second, last = setup_env.torch_attempts("Linux", has_gpu=False)
    assert "torch==2.13.0+cpu" in first
    assert "--index-url" not in first
    assert second[-2:] == ["--index-url", "https://download.pytorch.org/whl/cpu"]
    assert last == ["torch==2.13.0"]
    for quick in (first, second):
        assert quick[quick.index("--timeout") + 1] == "15", "an index that is out of reach must not hold anyone up"
        assert quick[quick.index("--retries") + 1] == "1"


def test_gpu_and_mac_take_the_default_build(setup_env):
    assert setup_env.torch_attempts("Linux", has_gpu=True) == [["torch>=2.11"]]
    assert setup_env.torch_attempts("Darwin", has_gpu=False) == [["torch==2.13.0"]]


@pytest.mark.parametrize(
    ("listing", "status", "has"), [("GPU 0: NVIDIA H200", 0, True), ("", 0, False), ("GPU 0", 9, False)]
)
def test_gpu_counts_only_if_the_driver_lists_one(setup_env, tmp_path, monkeypatch, listing, status, has):
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\necho '{listing}'\nexit {status}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/bin")
    assert setup_env._has_gpu() is has


# ---- aihwkit


def test_wheel_cache_is_kept_apart_by_what_a_tile_depends_on(setup_env):
    home = Path("/home/ada")
    path = setup_env.wheel_cache({}, home, "cp311", "2.13.0+cpu", "linux_x86_64")
    assert path == Path("/home/ada/.cache/hpml_sim/wheels/cp311-torch2.13.0+cpu-linux_x86_64")
    there = setup_env.wheel_cache({"XDG_CACHE_HOME": "/scratch"}, home, "cp312", "2.11.0", "linux_aarch64")
    assert there == Path("/scratch/hpml_sim/wheels/cp312-torch2.11.0-linux_aarch64")
    # the XDG rules: a relative path is ignored
    assert setup_env.wheel_cache({"XDG_CACHE_HOME": "x"}, home, "cp311", "2.13.0+cpu", "linux_x86_64") == path


def test_blas_header_renames_every_function(setup_env):
    text = """
    void cblas_dgemm(const enum CBLAS_ORDER o, int m);
    float  scipy_cblas_snrm2 (int n);
    int scipy_openblas_get_num_threads(void);
    CBLAS_INDEX cblas_isamax(int n); /* cblas_sgemm in a comment */
    """
    header = setup_env.blas_header("/x/cblas.h", text)
    assert header == (
        "#define cblas_dgemm scipy_cblas_dgemm\n"
        "#define cblas_isamax scipy_cblas_isamax\n"
        "#define cblas_snrm2 scipy_cblas_snrm2\n"
        '#include "/x/cblas.h"\n'
    )
    with pytest.raises(setup_env.SetupError, match=r"no cblas functions .* /x/cblas\.h"):
        setup_env.blas_header("/x/cblas.h", "int x;")


def test_build_environment(setup_env):
    blas = {"library": "/a b/lib/libscipy_openblas.so", "include": "/a b/include"}
    outer = {"PATH": "/bin", "VIRTUAL_ENV": "/another", "USE_CUDA": "1", "HOME": "/home/ada"}
    built = setup_env.build_environment(outer, Path("/c/.venv"), blas, Path("/t/include"), 2)
    assert built["PATH"] == "/c/.venv/bin:/bin"
    assert built["VIRTUAL_ENV"] == "/c/.venv"
    assert "'-DOpenBLAS_LIB=/a b/lib/libscipy_openblas.so'" in built["CMAKE_ARGS"], "a path with a space is quoted"
    # with the backslash: ninja hands the flag to a shell, for which a bare $ORIGIN is an empty variable
    assert built["LDFLAGS"] == r"-Wl,-rpath,\$ORIGIN/../../scipy_openblas32/lib"
    assert "USE_CUDA" not in built
    assert built["HOME"] == "/home/ada"
    mac = setup_env.build_environment({}, Path("/c/.venv"), {"library": "/l/x.dylib", "include": "/i"}, Path("/t"), 2)
    assert "@loader_path/.." in mac["LDFLAGS"]


@pytest.mark.parametrize(("cpus", "gigabytes", "jobs"), [(2, 23, 2), (64, 16, 10), (8, 1, 1), (1, 64, 1)])
def test_compilers_fit_into_memory(setup_env, cpus, gigabytes, jobs):
    assert setup_env.build_jobs(cpus, int(gigabytes * 1e9)) == jobs


@pytest.mark.parametrize(
    ("line", "step"),
    [
        ("  [21/41] Building CXX object CMakeFiles/RPU_CPU.dir/rpu.cpp.o", (21, 41)),
        ("[41/41] Linking CXX shared module", (41, 41)),
        ("warning: [21/41] is not at the start", None),
        ("[notice] a new release of pip", None),
    ],
)
def test_ninja_lines(setup_env, line, step):
    assert setup_env.compile_step(line) == step


def test_compile_progress_is_sparse_where_nobody_watches(setup_env):
    shown = [setup_env.Setup._progress(f"[{n}/41] Building", "")[1] for n in range(1, 42)]
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
def test_missing_compiler_names_the_command(setup_env, system, release, command):
    advice = setup_env.compiler_advice(["a C++ compiler", "Python's headers"], system, release)
    assert advice.startswith("needs a C++ compiler and Python's headers: ")
    assert command in advice


# ---- what is shown


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s")])
def test_times(setup_env, seconds, text):
    assert setup_env.short_time(seconds) == text


def test_worst_lines_prefer_errors(setup_env):
    output = "a\nERROR: No matching distribution found for x\nb\n\nrpu.cpp:3: error: no such file\nc\n"
    assert setup_env.worst_lines(output) == [
        "ERROR: No matching distribution found for x",
        "rpu.cpp:3: error: no such file",
    ]
    assert setup_env.worst_lines("one\ntwo\nthree\nfour\n") == ["two", "three", "four"]
    assert setup_env.worst_lines("") == []


def runner(setup_env: ModuleType, folder: Path):
    screen = setup_env.Screen(steps=1)
    screen.start("packages")
    return setup_env.Setup(folder, screen)


def test_failed_command_shows_the_reason_and_the_log(setup_env, tmp_path):
    work = runner(setup_env, tmp_path)
    code = "import sys; print('fine'); print('ERROR: disk full'); sys.exit(3)"
    with pytest.raises(setup_env.SetupError, match=r"packages failed \(status 3\)\.\n    ERROR: disk full\n") as caught:
        work.run([sys.executable, "-c", code], "step")
    assert "step.log" in str(caught.value)
    assert "fine\nERROR: disk full\n" in (tmp_path / "setup-logs" / "step.log").read_text()
    gc.collect()  # a pipe left open would warn here, and warnings are errors


def test_half_made_environment_is_removed(setup_env, tmp_path, monkeypatch):
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nmkdir -p "$4/bin"; touch "$4/bin/python"; echo ensurepip is not available; exit 1\n')
    python.chmod(0o755)
    monkeypatch.setattr(setup_env, "choose_python", lambda *_: str(python))
    work = runner(setup_env, tmp_path / "venv")
    with pytest.raises(setup_env.SetupError, match="sudo apt-get install python3-venv"):
        work.make_venv()
    assert not (tmp_path / "venv").exists()


def test_make_lists_its_targets(repository):
    done = subprocess.run(["make"], cwd=repository, capture_output=True, text=True, check=True, env=plain_environment())
    for target in ("demo", "test", "lint", "types", "doctor", "setup", "tiles", "clean"):
        assert f"make {target} " in done.stdout


def test_make_passes_arguments_on(repository):
    command = ["make", "--dry-run", "test", "ARGS=-k card", "PYTHON=true"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True, env=plain_environment())
    assert "-m pytest -k card" in done.stdout


def plain_environment() -> dict[str, str]:
    """Without the variables through which an outer make would speak to this one."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
