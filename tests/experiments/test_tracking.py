"""MLflow: a store of its own in a folder, every row once, whatever is run again."""

import warnings
from pathlib import Path

import pytest

import hpml_sim as hs
from hpml_sim.errors import HpmlError
from hpml_sim.experiments import experiment
from hpml_sim.experiments.tracking import EXPERIMENT

OWN = Path(__file__).parents[1] / "own_code.py"
MODEL, DATA = f"{OWN}:net", f"{OWN}:data"
SMALL = {"epochs": 1, "finetune_epochs": 0, "chips": 1, "times": ["1 s"], "jobs": 1}


def logged(store):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of MLflow's database, about itself
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=f"sqlite:///{store}/mlflow.db")
        experiment = client.get_experiment_by_name(EXPERIMENT)
        runs = client.search_runs([experiment.experiment_id], max_results=1000)
        parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
        children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
        artifacts = [file.path for file in client.list_artifacts(parents[0].info.run_id)]
    return parents, children, artifacts


def test_each_row_is_a_run_with_its_options_and_figures_and_none_is_there_twice(tmp_path):
    options = {
        "search_space": {"adc_bits": [4, 6]},
        **SMALL,
        "out": tmp_path / "run",
        "mlflow": str(tmp_path / "store"),
    }
    found = hs.sweep(MODEL, DATA, ["pcm-hermes", "loihi"], **options)
    hs.sweep(MODEL, DATA, ["pcm-hermes", "loihi"], **options, resume=True)
    parents, children, artifacts = logged(tmp_path / "store")
    assert len(parents) == 1
    assert parents[0].data.tags["hpml_sim.run"] == found.plan.hash
    assert set(artifacts) == {"run.json", "table.csv", "report.html"}
    assert {run.data.params["target"] for run in children} == {row.target for row in found.rows}
    assert len(children) == len(found.rows) == 3
    for run in children:
        row = next(row for row in found.rows if row.target == run.data.params["target"])
        assert run.data.metrics["accuracy_mean"] == row.score.mean
        assert run.data.metrics["energy_j_nominal.batch_1"] == row.estimates[0].energy_j.nominal
        assert run.data.params.get("adc_bits") == (str(row.options["adc_bits"]) if row.options else None)
        assert run.info.status == "FINISHED"


def test_a_store_that_cannot_be_reached_at_the_end_is_said_and_the_rows_are_safe(tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "check_store", lambda where: None)  # it was there when the run began
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(HpmlError, match=r"rows themselves are safe.*--resume"):
        hs.compare(MODEL, DATA, ["loihi"], **SMALL, out=tmp_path / "run", mlflow=str(tmp_path / "file"))
    assert len(hs.load_results(tmp_path / "run").rows) == 2  # of the machine, and of its integer twin
