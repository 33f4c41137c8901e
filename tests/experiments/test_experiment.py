"""The one chain from settings to rows: a dry run refuses what the run refuses, and networks are copied no more than
they must be."""

import collections
import copy
import sys
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

import hpml_sim as hs
from hpml_sim.errors import HpmlError
from hpml_sim.experiments.running import dry_run, run

OWN = Path(__file__).parents[1] / "own_code.py"
MODEL, DATA = f"{OWN}:net", f"{OWN}:data"


# ------------------------------------------------------------------------------------------- what a dry run refuses


def settings(tmp_path, **tables):
    compare = {"model": MODEL, "data": DATA, "targets": ["loihi"], "epochs": 1, **tables.pop("compare", {})}
    return {"compare": compare, "run": {"out": tmp_path / "run", "jobs": 1, **tables.pop("run", {})}, **tables}


BAD = {
    "no machine": ({"compare": {"targets": []}}, "at least one machine"),
    "unknown card": ({"compare": {"targets": ["loihee"]}}, "Did you mean 'loihi'"),
    "a machine twice": ({"compare": {"targets": ["loihi", "loihi"]}}, "stands twice"),
    "impossible target": ({"compare": {"targets": {"a": {"card": "pcm", "adc_bits": 99}}}}, "adc_bits=99"),
    "unknown model": ({"compare": {"model": "mpl"}}, "Did you mean 'mlp'"),
    "a file as a model": ({"compare": {"model": str(OWN)}}, "own_code.py:net"),
    "unknown data": ({"compare": {"data": "digitz"}}, "Did you mean 'digits'"),
    "a file as data": ({"compare": {"data": str(OWN)}}, "own_code.py:net"),
    "code that is not there": ({"compare": {"model": "nowhere:net"}}, "nowhere"),
    "network and data that do not fit": ({"compare": {"data": "digits"}}, "batch of two samples"),
    "seeds": ({"compare": {"seeds": [1, 1]}}, "none twice"),
    "times": ({"compare": {"times": []}}, "at least one time"),
    "a time": ({"compare": {"times": ["1 fortnight"]}}, "1 fortnight"),
    "chips": ({"compare": {"chips": 0}}, "chips=0"),
    "epochs": ({"compare": {"epochs": -1}}, "epochs=-1"),
    "an unknown setting": ({"compare": {"chipz": 1}}, "did you mean 'chips'"),
    "a layer that cannot be converted": ({"compare": {"model": f"{OWN}:tanh"}}, "Tanh"),
    "what aihwkit's tiles cannot hold": (
        {"compare": {"targets": {"a": {"card": "pcm-hermes", "engine": "aihwkit", "levels": 4}}}},
        "aihwkit has no levels",
    ),
    "an option with which it cannot be converted": (
        {
            "compare": {"targets": ["pcm-hermes"]},
            "sweep": {"search_space": {"engine": ["fused", "aihwkit"], "ir_drop": [1]}},
        },
        "aihwkit's torch tiles have no ir_drop",
    ),
    "nothing to sweep": ({"sweep": {}}, "nothing to vary"),
    "an unknown option": ({"sweep": {"search_space": {"stepz": [1]}}}, "Did you mean 'steps'"),
    "a value that a target refuses": ({"sweep": {"search_space": {"steps": [0]}}}, "steps=0"),
    "a range without trials": ({"sweep": {"search_space": {"steps": {"low": 1, "high": 9}}}}, "trials="),
    "sweep and search": ({"sweep": {}, "search": {}}, "exclude each other"),
    "two machines to search": (
        {"compare": {"targets": ["loihi", "cpu"]}, "search": {"search_space": {"steps": [1, 2]}}},
        "one machine",
    ),
    "no objective": ({"search": {"search_space": {"steps": [1, 2]}, "objectives": []}}, "at least one"),
    "an objective without a figure": (
        {"compare": {"targets": ["pcm"]}, "search": {"search_space": {"adc_bits": [4, 6]}}},
        "objective 'energy': pcm has no such figure",
    ),
    "resume and force": ({"run": {"resume": True, "force": True}}, "exclude each other"),
    "no scheduler": ({"run": {"dask": "nonsense://nowhere"}}, "no scheduler answers"),
    "no tracking server": ({"run": {"mlflow": "http://127.0.0.1:9"}}, "no server answers"),
}


@pytest.mark.parametrize("name", BAD)
def test_run_and_dry_run_refuse_the_same_in_the_same_words_and_write_nothing(name, tmp_path):
    changes, said = BAD[name]
    config = settings(tmp_path, **copy.deepcopy(changes))
    with pytest.raises(HpmlError, match=said) as of_run:
        run(config)
    with pytest.raises(HpmlError, match=said) as of_dry_run:
        dry_run(config)
    assert str(of_run.value) == str(of_dry_run.value)
    assert type(of_run.value) is type(of_dry_run.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": None}, "model=None: must be a network"),
        ({"model": nn.Linear}, r"this is its class: call it, Linear\(...\)"),
        ({"data": None}, "data=None: give a name"),
        ({"targets": 5}, "targets=5: must be a list"),
        ({"targets": [None]}, "targets: None is no machine"),
        ({"chips": "3"}, "chips='3': must be a whole number >= 1"),
        ({"chips": True}, "chips=True: must be a whole number >= 1"),
        ({"seeds": 2.5}, "seeds=2.5: must be a whole number >= 1 or a list"),
        ({"times": [True]}, "times.0=True"),
        ({"times": [float("nan")]}, "times.0=nan: must be text or a finite number"),
        ({"lr": float("inf")}, "lr=inf: must be a finite number > 0"),
        ({"resume": "yes"}, "resume='yes': must be True or False"),
        ({"out": 5}, "out=5: must be a path or None"),
    ],
)
def test_slips_of_a_call_are_one_line_of_ours(changes, said):
    with pytest.raises(HpmlError, match=said) as raised:
        hs.compare(**{"model": MODEL, "data": DATA, "targets": ["loihi"], "epochs": 0, **changes})
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("config", [None, 5, [], object()])
def test_settings_that_are_none_are_refused(config):
    for call in (run, dry_run):
        with pytest.raises(HpmlError, match="give the path of a TOML file, or its tables"):
            call(config)


def test_numbers_of_numpy_are_numbers():
    options = {"chips": np.int64(1), "lr": np.float32(0.01), "seeds": [np.int64(3)], "epochs": 0, "finetune_epochs": 0}
    assert [row.seed for row in hs.compare(MODEL, DATA, ["pcm-hermes"], times=["1 day"], **options).rows] == [3]


def test_a_folder_with_another_run_and_a_file_in_its_place_are_refused_by_both(tmp_path):
    hs.run(settings(tmp_path))
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()}
    (tmp_path / "file").write_text("no folder")
    for changes, said in (
        ({}, r"--resume.*--force"),
        ({"run": {"resume": True}, "compare": {"chips": 4}}, "chips: 25 there, 4 asked"),
        ({"run": {"out": tmp_path / "file"}}, "is a file"),
        ({"run": {"mlflow": str(tmp_path / "file"), "resume": True}}, "no folder that can be written"),
    ):
        config = settings(tmp_path, **changes)
        for call in (run, dry_run):
            with pytest.raises(HpmlError, match=said):
                call(config)
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()} == before


def test_a_package_that_a_machine_lacks_is_said_before_the_training(tmp_path, monkeypatch):
    def missing(need="compiled"):
        raise ImportError("aihwkit is not installed")

    (module,) = (
        m for name, m in sys.modules.items() if name.startswith("hpml_sim") and name.endswith("aihwkit_import")
    )
    monkeypatch.setattr(module, "require_aihwkit", missing)
    for call in (run, dry_run):
        with pytest.raises(HpmlError, match="pcm-hermes: aihwkit is not installed"):
            call(settings(tmp_path, compare={"targets": ["loihi", "pcm-hermes"]}))
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_counts_what_the_run_computes_and_leaves_no_trace(tmp_path):
    tables = {"sweep": {"search_space": {"steps": [2, 3], "model.width": [4, 8]}}, "compare": {"seeds": 2}}
    said = dry_run(settings(tmp_path, **tables))
    assert list(tmp_path.iterdir()) == []
    assert (said.rows, said.networks, said.workers) == (len(run(settings(tmp_path, **tables)).rows), 4, 1)


# ------------------------------------------------------------------------------------------- copies of the network


class Tagged(nn.Linear):
    """A layer that counts how often it is copied, and who asks for the copy."""

    copies: ClassVar[collections.Counter[str]] = collections.Counter()

    def __deepcopy__(self, memo):
        frame = sys._getframe()
        while not frame.f_code.co_filename.endswith("cloning.py"):
            frame = frame.f_back
        asks = frame.f_back
        Tagged.copies[f"{Path(asks.f_code.co_filename).stem}.{asks.f_code.co_name}"] += 1
        made = type(self)(self.in_features, self.out_features)
        memo[id(self)] = made
        made.load_state_dict(self.state_dict())
        return made


def test_a_network_is_copied_once_for_each_use_that_changes_it(monkeypatch):
    Tagged.copies = collections.Counter()
    net = nn.Sequential(Tagged(4, 8), nn.ReLU(), nn.Linear(8, 3))
    split = torch.utils.data.TensorDataset(torch.rand(60, 4), torch.arange(60) % 3)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    targets, seeds = ["cpu", "h200", "pcm-hermes", "loihi"], 2
    hs.compare(net, (split, split), targets, seeds=seeds, chips=1, times=["1 s"], epochs=1, finetune_epochs=0)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items()), "never changed"
    of_ours = {asks: n for asks, n in Tagged.copies.items() if asks.split(".")[0] in ("checks", "plan", "converting")}
    assert of_ours == {
        # two samples are sent through it, which may leave anything behind
        "checks.try_samples": 1,
        # some more are, to see whether it knows its task already
        "checks.comes_trained": 1,
        # a seed: one is trained; one gets the trained weights, from which every machine is converted
        "plan.own_network": 2 * seeds,
        # each machine, and two with integer twins: converted before anything is trained, so that what cannot be is
        # said; then once a seed
        "converting.convert": (len(targets) + 2) * (1 + seeds),
    }
