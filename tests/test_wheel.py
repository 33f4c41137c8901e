import json
import os
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest

PACKAGED = {"hpml_sim": "hpml_sim", "devices": "hpml_sim/devices", "baselines": "hpml_sim/baselines"}


@pytest.fixture(scope="module")
def wheel(repository, tmp_path_factory) -> Path:
    """A wheel of the tree as git sees it: what is ignored or left over from another build must not slip in."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in files_of_tree(repository, ".", links=True):
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (repository / name).is_symlink():
            target.symlink_to((repository / name).readlink())
        else:
            target.write_bytes((repository / name).read_bytes())
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (built,) = out.glob("*.whl")
    return built


def files_of_tree(repository: Path, *folders: str, links: bool = False) -> list[str]:
    """Files that git tracks or would track, relative to the root."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *folders]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True)
    names = [name for name in done.stdout.split("\0") if name and os.path.lexists(repository / name)]
    return [name for name in names if links or not (repository / name).is_symlink()]


def test_wheel_holds_the_tree_and_nothing_else(repository, wheel):
    wanted = set()
    for name in files_of_tree(repository, *PACKAGED):
        folder, _, rest = name.partition("/")
        wanted.add(f"{PACKAGED[folder]}/{rest}")
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == wanted, f"not in the wheel: {sorted(wanted - held)}; only in the wheel: {sorted(held - wanted)}"
    assert any(name.startswith("hpml_sim/devices/") and name.endswith(".toml") for name in held)
    assert "hpml_sim/baselines/__init__.py" in held
    assert "hpml_sim/py.typed" in held


def test_links_are_committed_as_links(repository):
    for name in ("devices", "baselines"):
        link = repository / "hpml_sim" / name
        assert link.is_symlink(), f"hpml_sim/{name} must be a link to ../{name}"
        assert link.readlink() == Path("..") / name


def test_wheel_runs_in_an_empty_environment(repository, wheel, tmp_path):
    """Cards are listed from an unrelated folder, with nothing of the clone in reach."""
    environment = tmp_path / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True, timeout=120)
    (packages,) = (environment / "lib").glob("python3.*/site-packages")
    python = environment / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # Third-party packages are borrowed from here instead of downloading them again. A line of a .pth file adds a folder
    # but does not read the .pth files in it, so that the editable install of the clone stays out of reach.
    outer = Path(torch_folder()).parent
    (packages / "borrowed.pth").write_text(f"{outer}\n")

    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    where = (
        "import hpml_sim, hpml_sim.baselines, hpml_sim.devices, json;"
        "print(json.dumps([m.__file__ for m in (hpml_sim, hpml_sim.baselines, hpml_sim.devices)]))"
    )
    done = subprocess.run([python, "-c", where], cwd=tmp_path, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for path in json.loads(done.stdout):
        assert Path(path).is_relative_to(environment), f"taken from the clone: {path}"

    done = subprocess.run(
        [environment / "bin" / "hpml-sim", "cards"],
        cwd=tmp_path,
        env=clean,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for card in (repository / "devices").glob("*.toml"):
        assert card.stem in done.stdout


def torch_folder() -> str:
    import torch

    return str(Path(torch.__file__).parent)


def test_baselines_refuse_their_short_name(repository):
    """`import baselines` from the clone would make a second copy of every class."""
    done = subprocess.run(
        [sys.executable, "-c", "import baselines"], cwd=repository, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "import hpml_sim.baselines, not baselines" in done.stderr


def test_import_loads_little_beside_torch():
    """Whatever is loaded, every command waits for: a package more is a decision, to be written down here."""
    code = """
        import torch, sys
        before = set(sys.modules)
        import hpml_sim
        found = {name.partition(".")[0] for name in set(sys.modules) - before}
        print(*found - before - set(sys.stdlib_module_names))
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    settings = {"annotated_types", "docstring_parser", "pydantic", "pydantic_core", "tyro", "typing_inspection"}
    workers = {"cloudpickle", "joblib", "psutil"}
    assert set(done.stdout.split()) <= {"hpml_sim", *settings, *workers}


def test_import_leaves_the_heavy_ones_alone():
    heavy = {"aihwkit", "matplotlib", "numba", "sklearn", "snntorch"}
    code = f"import sys, hpml_sim; print(*sorted(set(sys.modules) & {heavy}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == []
