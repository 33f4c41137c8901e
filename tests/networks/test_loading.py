from __future__ import annotations

import shutil
import subprocess

import pytest
import torch

import hpml_sim as hs
from hpml_sim.errors import HpmlError, UnknownNameError
from hpml_sim.networks import packages
from hpml_sim.networks.pretrained import entries


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("smolm2-135m", {}, "unknown network 'smolm2-135m'. Did you mean 'smollm2-135m'?"),
        ("nothing-like-it", {}, "`hpml-sim networks` lists all"),
        (3, {}, "name=3: must be text"),
        ("llama-3-8b", {}, "without weights, for estimates: hpml-sim estimate llama-3-8b"),
        ("mlp", {}, "input_shape and classes missing"),
        ("mlp", {"input_shape": (4,), "classes": 2, "widht": 3}, "Did you mean 'width'"),
        ("g2p", {"width": 3}, "network 'g2p': width: it is trained already and takes no options"),
    ],
)
def test_names_that_give_no_network(name, options, message):
    with pytest.raises(HpmlError) as caught:
        hs.load_network(name, **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_built_in_network_has_its_name():
    for name in sorted(set(hs.list_networks()) - set(entries.PRETRAINED)):
        assert isinstance(hs.load_network(name, input_shape=(1, 8, 8), classes=3), torch.nn.Module)


def test_code_of_the_users_own():
    assert hs.load_network("torch.nn:Linear", in_features=3, out_features=2).weight.shape == (2, 3)


def test_a_package_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("HPML_SIM_PACKAGES", str(tmp_path))
    with pytest.raises(HpmlError) as caught:
        hs.load_network("g2p")
    assert str(caught.value) == (
        "network 'g2p': the package g2p-en==2.1.0 (3.1 MB) is not here; fetch it with: hpml-sim networks get g2p"
    )


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """A cache of the test's own with a copy of g2p's package in it."""
    held = packages.package_folder() / "g2p-en-2.1.0"
    shutil.copytree(held, tmp_path / held.name)
    monkeypatch.setenv("HPML_SIM_PACKAGES", str(tmp_path))
    return tmp_path / held.name / "g2p_en" / "checkpoint20.npz"


def test_a_file_that_was_changed_is_refused_and_fetched_again(copied, monkeypatch):
    original = copied.read_bytes()
    copied.write_bytes(original[:-1] + b"x")
    with pytest.raises(HpmlError, match=r"is not the file of g2p-en==2.1.0 \(SHA-256 .*delete it, then: hpml-sim"):
        hs.load_network("g2p")

    def unpack(package, folder, what):
        (folder / "g2p_en").mkdir(parents=True)
        (folder / "g2p_en" / "checkpoint20.npz").write_bytes(original)

    monkeypatch.setattr(packages, "_install_into", unpack)
    hs.download_network("g2p")
    assert copied.read_bytes() == original
    assert hs.load_network("g2p").head.weight.shape == (74, 256)


@pytest.mark.parametrize(
    ("content", "message"), [(b"other", "is not the one that was published"), (None, "has no file")]
)
def test_nothing_is_kept_of_a_package_that_is_another(tmp_path, monkeypatch, content, message):
    monkeypatch.setenv("HPML_SIM_PACKAGES", str(tmp_path))

    def unpack(package, folder, what):
        (folder / "g2p_en").mkdir(parents=True)
        if content is not None:
            (folder / "g2p_en" / "checkpoint20.npz").write_bytes(content)

    monkeypatch.setattr(packages, "_install_into", unpack)
    with pytest.raises(HpmlError, match=message):
        hs.download_network("g2p")
    assert not list(tmp_path.iterdir())


def test_without_a_network_one_line_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("HPML_SIM_PACKAGES", str(tmp_path))
    failed = subprocess.CompletedProcess([], 1, "", "WARNING: Retrying\nERROR: No matching distribution found\n")
    monkeypatch.setattr(packages.subprocess, "run", lambda *args, **options: failed)
    with pytest.raises(HpmlError) as caught:
        hs.download_network("g2p")
    text = str(caught.value)
    assert "\n" not in text
    assert "could not be fetched from the package index (ERROR: No matching distribution found)" in text
    assert "pip install --no-deps --target" in text
    assert not list(tmp_path.iterdir())


def test_pip_is_asked_for_the_package_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("HPML_SIM_PACKAGES", str(tmp_path))
    monkeypatch.setenv("PIP_TARGET", "/elsewhere")
    seen = {}

    def run(command, env, **options):
        seen.update(command=command, env=env)
        return subprocess.CompletedProcess(command, 1, "", "ERROR: stop here")

    monkeypatch.setattr(packages.subprocess, "run", run)
    with pytest.raises(HpmlError, match="stop here"):
        hs.download_network("silero-vad")
    assert {"--no-deps", "--only-binary", "--target", "silero-vad==6.2.3"} <= set(seen["command"])
    assert "PIP_TARGET" not in seen["env"]


def test_a_name_without_a_package():
    with pytest.raises(UnknownNameError, match="unknown pretrained network 'mlp'"):
        hs.download_network("mlp")
