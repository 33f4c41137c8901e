"""Models of Hugging Face, saved to a folder, run unchanged; their own loss says what the scores must be."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import hpml_sim as hs
from hpml_sim.cli import main
from hpml_sim.errors import HpmlError
from hpml_sim.experiments import plan

transformers = pytest.importorskip("transformers", reason="the extra hf is not installed: pip install transformers")

FILE = Path(__file__).parent / "task_cases.py"
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


def bert():
    config = transformers.BertConfig(vocab_size=50, max_position_embeddings=32, **SMALL)
    return transformers.BertForSequenceClassification(config)


def vit():
    return transformers.ViTForImageClassification(
        transformers.ViTConfig(image_size=16, patch_size=4, num_channels=1, num_labels=2, **SMALL)
    )


def gpt2():
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 32}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=50, bos_token_id=0, eos_token_id=0, **sizes))


def llama():
    config = transformers.LlamaConfig(vocab_size=50, num_key_value_heads=2, max_position_embeddings=32, **SMALL)
    return transformers.LlamaForCausalLM(config)


CASES = {
    "bert": (bert, "text_class_items", "accuracy", 14),
    "vit": (vit, "image_items", "accuracy", 14),
    "gpt2": (gpt2, "text_items", "perplexity", 9),
    "llama": (llama, "text_items", "perplexity", 15),
}
"""Model, data, metric, and how many products with weights it has: layers, and the head."""


@pytest.fixture
def saved(request, tmp_path):
    """A folder that `save_pretrained` wrote."""
    torch.manual_seed(0)
    CASES[request.param][0]().save_pretrained(tmp_path / request.param)
    return tmp_path / request.param


@pytest.mark.parametrize("saved", CASES, indirect=True)
def test_a_saved_folder_by_the_command_line(saved, tmp_path, no_clock, capsys):
    _, data, metric, products = CASES[saved.name]
    named = ["--model", str(saved), "--data", f"{FILE}:{data}", "--targets", "cpu", "pcm-hermes"]
    options = ["--chips", "2", "--epochs", "1", "--times", "1 day", "--out", str(tmp_path / "run"), "--json"]
    with pytest.raises(SystemExit) as left:
        main(["compare", *named, *options])
    assert not left.value.code
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["target"] for row in rows] == ["cpu", "cpu, fine-tuned", "pcm-hermes"]
    assert {row["scores"][0]["metric"] for row in rows} == {metric}
    assert sum(layer["became"].startswith("Analog") for layer in rows[-1]["layers"]) == products

    network = hs.load_network(str(saved))
    (held,) = (tmp_path / "run" / "networks").glob("*.safetensors")
    network.load_state_dict(load_file(held))
    test = hs.load_data(f"{FILE}:{data}").test
    batch = torch.utils.data.default_collate([test[i] for i in range(len(test))])
    with torch.no_grad():
        given = network(**batch)
    right = (
        math.exp(given.loss) if metric == "perplexity" else (given.logits.argmax(1) == batch["labels"]).float().mean()
    )
    assert rows[0]["scores"][0]["mean"] == pytest.approx(float(right), rel=1e-5)


@pytest.mark.parametrize("saved", CASES, indirect=True)
def test_a_model_itself_is_not_changed(saved):
    _, data, metric, _ = CASES[saved.name]
    model = hs.load_network(str(saved))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    result = hs.compare(
        model,
        hs.load_data(f"{FILE}:{data}"),
        ["h200", "pcm-hermes"],
        chips=2,
        epochs=0,
        finetune_epochs=0,
        times=["1 day"],
    )
    assert [row.score.metric for row in result.rows] == [metric, metric]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("saved", ["gpt2"], indirect=True)
def test_weights_are_read_once_a_run(saved, monkeypatch):
    read = []

    def counted(name, **options):
        read.append(name)
        return hs.load_network(name, **options)

    monkeypatch.setattr(plan, "load_network", counted)
    result = hs.compare(
        str(saved),
        hs.load_data(f"{FILE}:text_items"),
        ["h200", "pcm-hermes"],
        chips=2,
        epochs=1,
        times=["1 day", "1 year"],
    )
    assert read == [str(saved)]
    assert {row.model for row in result.rows} == {str(saved)}


@pytest.mark.parametrize("saved", ["gpt2"], indirect=True)
def test_without_transformers_one_line_says_what_to_install(saved, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(HpmlError, match=r"hpml_sim\[hf\]") as found:
        hs.compare(str(saved), hs.load_data(f"{FILE}:text_items"), ["h200"], out=tmp_path / "run")
    assert "\n" not in str(found.value)
    assert not (tmp_path / "run").exists()
