"""A language model through the main job: units are tokens, decode stands beside prefill, and the answer comes first."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import TensorDataset

import hpml_sim as hs
from hpml_sim.errors import HpmlError
from hpml_sim.experiments.result import Comparison
from hpml_sim.networks.pretrained.language_model import LanguageModel, LlamaSizes
from hpml_sim.report.html import render_report
from hpml_sim.report.ranking_words import answers
from hpml_sim.report.summary import summarize
from hpml_sim.report.table import comparison_table

TOKENS = 16


def _texts(count: int, seed: int) -> TensorDataset:
    """Each token is the one before plus one."""
    first = torch.randint(0, 50, (count, 1), generator=torch.Generator().manual_seed(seed))
    ids = (first + torch.arange(TOKENS + 1)) % 50
    return TensorDataset(ids[:, :-1], ids[:, 1:])


@pytest.fixture(scope="module")
def found() -> Comparison:
    torch.manual_seed(0)
    model = LanguageModel(LlamaSizes(50, 32, 2, 4, 2, 48, 64, 1e4, 1e-5))
    data = _texts(256, 0), _texts(32, 1)
    hs.fit(model, data, task="language_model", epochs=8, lr=1e-2)
    targets = ["h200", "pcm-hermes"]
    return hs.compare(model, data, targets, task="language_model", chips=2, times=["1 s", "1 day"])


def test_a_gpu_named_alone_computes_in_bf16_and_the_head_stays_digital(found: Comparison) -> None:
    assert found.rows[0].config["precision"] == "bf16"
    assert found.plan is not None
    assert found.plan.skip == ("head",)
    became = {layer["layer"]: layer["became"] for layer in found.rows[1].layers}
    assert became["head"] == "digital"
    assert became["blocks.0.query"] == "AnalogLinear"


def test_nobody_trains_what_came_trained_and_ranges_are_found_on_training_data(found: Comparison) -> None:
    row = found.rows[1]
    assert row.training is not None
    assert (row.training.came_trained, row.training.epochs, row.training.finetune_epochs) == (True, 0, 0)
    said = next(layer for layer in row.layers if layer["layer"] == "blocks.0.query")
    assert said["converter_db"] is not None  # a calibration knows what the converters lose


def test_figures_of_decode_are_those_of_the_estimator(found: Comparison) -> None:
    row = found.rows[0]
    assert row.decodes[0].phase == "decode"
    assert row.decodes[0].mapping["context"] == TOKENS
    assert row.estimates[0].tokens == TOKENS
    for e in found.rows[1].decodes + found.rows[1].decode_systems:
        assert e.throughput_hz.nominal == pytest.approx(e.batch / e.latency_s.nominal)  # a sequence waits for itself


def test_ranking_and_table_are_by_the_token(found: Comparison) -> None:
    by_token, prompt = found.rank("energy"), found.rank("energy", phase="prefill")
    for ranking, estimates in ((by_token, "decode_systems"), (prompt, "systems")):
        for line in ranking.to_dict("records"):
            row = next(row for row in found.rows if row.target == line["target"])
            e = getattr(row, estimates)[0]
            assert line["energy_j_nominal"] == pytest.approx(e.energy_j.nominal / e.tokens)
    table = found.table()
    assert set(table["phase"]) == {"prefill", "decode"}
    line = table[(table.target == "h200") & (table.phase == "prefill")].iloc[0]
    assert line.energy_per_token_j_nominal == pytest.approx(line.energy_j_nominal / TOKENS)
    assert line.tokens_hz_nominal == pytest.approx(line.throughput_hz_nominal * TOKENS)


def test_the_answer_has_both_phases_and_the_page_speaks_of_perplexity_and_tokens(found: Comparison) -> None:
    decode, prefill = answers(summarize(found.rows))
    assert (decode.name, prefill.name) == ("decode", "prefill")
    assert decode.words.rate == "tokens/s"
    assert [place.name for place in decode.places] == list(found.rank("energy")["target"])
    assert decode.places[1].sure
    page = render_report(found.rows)
    text = page[: page.index("<script>")]
    assert "Making a token, with 16 in the cache" in text
    assert "Reading a prompt of 16 tokens" in text
    assert "accuracy, %" not in text.lower().replace("token accuracy, %", "")
    assert "per inference" not in text
    assert text.index('id="answer"') < text.index('id="findings-head"')
    cells = [str(cell) for column in comparison_table(found.rows, width=120).columns for cell in column.cells]
    assert any("1 token" in cell for cell in cells)
    assert any("1 prompt" in cell for cell in cells)


def test_phases_are_for_language_models_alone(found: Comparison) -> None:
    with pytest.raises(HpmlError, match="must be 'prefill' or 'decode'"):
        found.rank("energy", phase="serve")
    other = hs.compare("mlp", "digits", ["h200"], epochs=0)
    with pytest.raises(HpmlError, match="is for language models, and this run has none"):
        other.rank("energy", phase="decode")


def test_layers_that_stay_digital_are_named_by_the_caller() -> None:
    made = hs.compare("mlp", "digits", ["pcm-hermes"], epochs=0, chips=1, times=["1 s"], skip="3")
    assert {layer["layer"]: layer["became"] for layer in made.rows[0].layers}["3"] == "digital"
    with pytest.raises(HpmlError, match="unknown layer in skip= 'nosuch'"):
        hs.compare("mlp", "digits", ["pcm-hermes"], epochs=0, chips=1, skip=["nosuch"])
