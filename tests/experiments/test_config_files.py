"""The file of a run: checked by the classes that build the command line, written back, and run."""

import tomllib

import pytest

import hpml_sim as hs
from hpml_sim.errors import HpmlError
from hpml_sim.experiments.config import (
    ExecutionConfig,
    ExperimentConfig,
    RunConfig,
    SearchConfig,
    SweepConfig,
)
from hpml_sim.experiments.config_files import read_config, template, to_toml
from hpml_sim.experiments.search_result import SearchResult
from hpml_sim.experiments.search_space import Range, as_texts, parse_search_space
from hpml_sim.targets.checking import checked


def written(tmp_path, text):
    path = tmp_path / "run.toml"
    path.write_text(text)
    return path


def test_the_template_is_a_run_as_it_is_and_with_its_comments_taken_away(tmp_path):
    plain = read_config(written(tmp_path, template()))
    assert list(plain.compare.targets) == ["cpu", "h200", "pcm-hermes", "reram-neurram", "loihi"]
    assert plain.compare == ExperimentConfig(targets=plain.compare.targets)
    assert (plain.sweep, plain.search) == (None, None)
    lines = template().splitlines()
    start, end = lines.index("# [sweep]"), lines.index("# [search]")
    sweep = [
        line.removeprefix("# ")
        for line in lines[start:end]
        if line.startswith(("# [", "# search_space", "# trial_seed"))
    ]
    with_sweep = read_config(written(tmp_path, "\n".join([*lines[:start], *sweep, *lines[end:]])))
    assert with_sweep.sweep == SweepConfig(search_space={"adc_bits": (4, 6, 8), "model.width": (32, 128)})


def test_the_template_explains_every_setting():
    text = template()
    for kind in (ExperimentConfig, SweepConfig, SearchConfig, ExecutionConfig):
        for name in kind.__dataclass_fields__:
            if name not in ("resume", "force"):
                assert f"\n{name} = " in text or f"\n# {name} =" in text, name


ASKED = RunConfig(
    compare=checked(
        ExperimentConfig,
        {
            "targets": {
                "cpu": "cpu",
                "my 'own'": {"card": "loihi", "steps": 5, "synapses": {"card": "pcm-hermes", "adc_bits": 4}},
                "in place": {"card": "pcm-hermes", "device": "ecram"},
            },
            "seeds": [3, 1],
            "times": ["1 s", 60],
            "epochs": 0,
        },
    ),
    sweep=checked(
        SweepConfig, {"search_space": {"steps": {"low": 2, "high": 9}, "neuron.beta": [0.5, "default"]}, "trials": 3}
    ),
    run=ExecutionConfig(jobs=2),
)


def test_what_is_written_comes_back(tmp_path):
    assert read_config(written(tmp_path, to_toml(ASKED))) == ASKED
    assert tomllib.loads(to_toml(ASKED))["compare"]["targets"]["my 'own'"]["synapses"]["adc_bits"] == 4


def test_cards_as_they_are_stay_a_list(tmp_path):
    text = to_toml(RunConfig(compare=checked(ExperimentConfig, {"targets": ["cpu", "loihi"]})))
    assert 'targets = ["cpu", "loihi"]' in text
    assert list(read_config(written(tmp_path, text)).compare.targets) == ["cpu", "loihi"]


def test_a_list_may_hold_tables_and_a_table_may_hold_names(tmp_path):
    listed = "[compare]\ntargets = ['cpu', { card = 'loihi', steps = 5 }]"
    tabled = "[compare.targets]\ncpu = 'cpu'\nloihi = { card = 'loihi', steps = 5 }"
    assert read_config(written(tmp_path, listed)) == read_config(written(tmp_path, tabled))


def test_options_as_the_command_line_writes_them():
    space = {"a": (1, 2.5, True, "x"), "b": Range(1, 8), "c": Range(1e-3, 0.1, log=True)}
    assert parse_search_space(as_texts(space)) == space
    assert as_texts(space) == ["a=1,2.5,True,x", "b=1..8", "c=0.001..0.1:log"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[compare]\nchipz = 3", r"compare\.chipz: unknown option; did you mean 'chips'"),
        ("[compair]\nchips = 3", "compair: unknown option; did you mean 'compare'"),
        ("[compare]\nchips = 0", r"compare\.chips=0: .*must be a whole number >= 1"),
        ("[compare]\nchips = '3'", r"compare\.chips='3'"),
        ("[compare]\ntargets = 'cpu'", "targets='cpu': must be a list"),
        ("[compare.targets.a]\ncard = 'pcm-hermse'", "Did you mean 'pcm-hermes'"),
        ("[compare.targets.a]\ncard = 'pcm-hermes'\nadc_bit = 4", "did you mean 'adc_bits'"),
        ("[compare.targets.a]\ncard = 'pcm-hermes'\nadc_bits = 99", "adc_bits=99"),
        ("[sweep]\nsearch_space = { adc_bits = [4, 4] }", "none twice"),
        ("[compare]\ntargets = [{ steps = 5 }]", "has no card"),
        ("[compare]\ntargets = ['loihi', { card = 'loihi', steps = 5 }]", "'loihi' stands twice"),
        ("[sweep]\n[search]", "exclude each other"),
        ("[run]\njobs = -1", r"run\.jobs=-1"),
        ("chips = ", "not valid TOML"),
    ],
)
def test_mistakes_are_named_with_the_file(tmp_path, text, said):
    path = written(tmp_path, text)
    with pytest.raises(HpmlError, match=said) as error:
        read_config(path)
    assert "run.toml" in str(error.value)


def test_no_file_there_names_the_verb_that_writes_one(tmp_path):
    with pytest.raises(HpmlError, match="hpml-sim init"):
        read_config(tmp_path / "none.toml")


def test_a_run_leaves_a_file_that_runs_it_again(tmp_path):
    options = {"chips": 1, "epochs": 1, "times": ["1 s"], "out": tmp_path / "one"}
    first = hs.compare("mlp", "digits", {"coarse": hs.Analog(adc_bits=4)}, **options)
    again = hs.run(checked(RunConfig, _elsewhere(read_config(tmp_path / "one" / "run.toml"), tmp_path / "two")))
    assert again.plan == first.plan
    assert again.rows == first.rows


def _elsewhere(asked, folder):
    return {"compare": asked.compare, "run": ExecutionConfig(out=folder)}


def test_the_tables_of_the_file_pick_the_verb(tmp_path):
    head = "[compare]\ntargets = ['loihi']\nepochs = 1\n"
    swept = hs.run(written(tmp_path, head + "[sweep]\nsearch_space = { steps = [2, 3] }\n[run]\njobs = 1"))
    assert [row.options for row in swept.rows] == [{"steps": 2}, {"steps": 3}]
    searched = hs.run(
        written(tmp_path, head + "[search]\nsearch_space = { steps = [2, 3] }\ntrials = 2\n[run]\njobs = 1")
    )
    assert isinstance(searched, SearchResult)
    assert len(searched.trials) == 3
