"""Converted networks in the loops of others, and programmed chips behind their tools (docs/howto/other_loops.md)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import hpml_sim as hs

PAGE = Path(__file__).parent.parent.parent / "docs" / "howto" / "other_loops.md"
X = torch.rand(96, 6, generator=torch.Generator().manual_seed(0))
Y = (X[:, :3].sum(1) > X[:, 3:].sum(1)).long()
SPLIT = TensorDataset(X, Y)
LR = 0.02


def converted():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2))
    return hs.convert(network, hs.Analog("pcm-hermes", training_noise=0.05)).train()


def batches():
    return DataLoader(SPLIT, batch_size=32)


def weights_of(model):
    return {name: value.detach().clone() for name, value in model.named_parameters()}


@pytest.fixture(scope="module")
def plainly_trained():
    """The weights after a plain loop."""
    model = converted()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    torch.manual_seed(1)
    for _ in range(2):
        for x, y in batches():
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
    return weights_of(model)


def assert_the_same(found, right):
    assert found.keys() == right.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, right[name], msg=lambda text, name=name: f"{name}: {text}")


def test_a_plain_loop_trains_with_noise(plainly_trained):
    """Two loops of other seeds come to other weights; both learn."""
    before = weights_of(converted())
    assert all(not torch.equal(plainly_trained[name], value) for name, value in before.items())
    model = converted()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    torch.manual_seed(2)
    for _ in range(2):
        for x, y in batches():
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
    assert any(not torch.allclose(value, plainly_trained[name]) for name, value in weights_of(model).items())


def test_accelerate_trains_as_a_plain_loop(plainly_trained):
    accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed: pip install 'hpml_sim[loops]'")
    model = converted()
    accelerator = accelerate.Accelerator(cpu=True)
    network, optimizer, loader = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=LR), batches())
    torch.manual_seed(1)
    for _ in range(2):
        for x, y in loader:
            accelerator.backward(nn.functional.cross_entropy(network(x), y))
            optimizer.step()
            optimizer.zero_grad()
    assert accelerator.unwrap_model(network) is model
    assert_the_same(weights_of(model), plainly_trained)


@pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec")  # Lightning's own, with torch 2.13
@pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers")
@pytest.mark.filterwarnings("ignore:GPU available but not used")
def test_lightning_trains_as_a_plain_loop(plainly_trained):
    lightning = pytest.importorskip("lightning", reason="lightning is not installed: pip install 'hpml_sim[loops]'")

    class Training(lightning.LightningModule):
        def __init__(self, network):
            super().__init__()
            self.network = network

        def training_step(self, batch, number):
            x, y = batch
            assert self.network.training
            return nn.functional.cross_entropy(self.network(x), y)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=LR)

    model = converted()
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    loop = lightning.Trainer(max_epochs=2, accelerator="cpu", **quiet)
    module = Training(model)
    torch.manual_seed(1)
    loop.fit(module, batches())
    assert_the_same(weights_of(model), plainly_trained)


def gpt2():
    transformers = pytest.importorskip("transformers", reason="the extra hf is not installed: pip install transformers")
    sizes = {"n_embd": 32, "n_layer": 1, "n_head": 4, "n_positions": 16}
    torch.manual_seed(0)
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=20, bos_token_id=0, eos_token_id=0, **sizes))


IDS = (torch.randint(0, 20, (64, 1), generator=torch.Generator().manual_seed(0)) + torch.arange(10)) % 20


@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set")
def test_the_trainer_of_transformers(tmp_path):
    """It trains the layers of the converted network itself; its loss on test text is that of transformers alone."""
    network = gpt2()
    import transformers

    model = hs.convert(network, "pcm-hermes")
    before = weights_of(model)
    # the Trainer divides by the number of labels, of which the first has no token before it
    items = [{"input_ids": row, "labels": torch.cat([torch.tensor([-100]), row[1:]])} for row in IDS]
    arguments = transformers.TrainingArguments(
        str(tmp_path), num_train_epochs=3, learning_rate=1e-2, save_strategy="no", report_to="none", disable_tqdm=True,
        remove_unused_columns=False, label_names=["labels"],
    )  # fmt: skip
    trainer = transformers.Trainer(model, arguments, train_dataset=items, eval_dataset=items[:16])
    first = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert all(not torch.equal(value, before[name]) for name, value in weights_of(model).items())
    last = trainer.evaluate()["eval_loss"]
    assert last < 0.8 * first
    assert hs.evaluate(model, items[:16]).mean == pytest.approx(float(torch.tensor(last).exp()), rel=1e-3)


class WithLoss(nn.Module):
    """A network of one's own that takes labels, and nothing else by name."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2))

    def forward(self, x, labels=None):
        logits = self.net(x)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set")
def test_the_trainer_adds_no_argument_that_the_network_does_not_take(tmp_path):
    """Trainer hands `num_items_in_batch` to what takes any name, as the call of a converted network seems to."""
    transformers = pytest.importorskip("transformers", reason="the extra hf is not installed: pip install transformers")
    model = hs.convert(WithLoss(), hs.Analog("pcm-hermes", training_noise=0.05))
    assert not model.accepts_loss_kwargs
    assert hs.convert(gpt2(), "pcm-hermes").accepts_loss_kwargs
    arguments = transformers.TrainingArguments(
        str(tmp_path), num_train_epochs=2, learning_rate=2e-2, save_strategy="no", report_to="none", disable_tqdm=True,
        remove_unused_columns=False, label_names=["labels"],
    )  # fmt: skip
    items = [{"x": x, "labels": y} for x, y in zip(X, Y, strict=True)]
    trainer = transformers.Trainer(model, arguments, train_dataset=items, eval_dataset=items)
    first = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < first


@pytest.fixture(scope="module")
def programmed():
    model = hs.convert(gpt2(), hs.Analog("pcm-hermes", output_noise=0.0))  # so that every call gives the same
    hs.calibrate(model, IDS)
    return hs.program(model, chips=3, seed=0)


def test_chips_take_labels_as_the_network_does(programmed):
    """The loss of each chip is the cross-entropy of its own logits, in plain torch."""
    given = programmed.at("1 day")(IDS[:8], labels=IDS[:8])
    assert given.logits.shape == (3, 8, 10, 20)
    for chip in range(3):
        right = nn.functional.cross_entropy(given.logits[chip, :, :-1].flatten(0, 1), IDS[:8, 1:].flatten())
        torch.testing.assert_close(given.loss[chip], right)
        alone = programmed.at("1 day", only=chip)(IDS[:8], labels=IDS[:8])
        torch.testing.assert_close(alone.logits[0], given.logits[chip], rtol=1e-4, atol=1e-4)


def test_torchmetrics_agrees_on_every_chip(programmed):
    from torchmetrics.text import Perplexity

    chips, metrics = programmed.at("1 day"), [Perplexity() for _ in range(3)]
    for ids in IDS.split(16):
        for metric, logits in zip(metrics, chips(ids).logits, strict=True):
            metric.update(logits[:, :-1], ids[:, 1:])
    items = [{"input_ids": row, "labels": row} for row in IDS]
    assert hs.evaluate(chips, items).values == pytest.approx([float(m.compute()) for m in metrics], rel=1e-5)


def block_with(words):
    """The Python of the page that has these words."""
    return next(code for code in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S) if words in code)


def test_a_class_with_predict_in_scikit_learn():
    session = {"torch": torch, "hs": hs}
    exec(block_with("class OnAChip").partition("X, y =")[0], session)
    from sklearn.model_selection import cross_val_predict

    x = X.numpy()
    names = ["less", "more"]
    said = cross_val_predict(session["OnAChip"](epochs=40), x, [names[y] for y in Y], cv=2)
    assert set(said) <= set(names)
    assert sum(word == names[y] for word, y in zip(said, Y, strict=True)) > 0.8 * len(Y)


def test_a_chip_behind_lm_eval(programmed):
    """The harness' accuracy is the share of texts in which the right answer has more of the chip's probability."""
    lm_eval = pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install 'hpml_sim[loops]'")
    session = {"torch": torch, "hs": hs, "ids": IDS}
    exec(block_with("class OnOneChip"), session)
    exec(block_with("ConfigurableTask(").partition("for number in")[0].replace("ids[192:]", "ids"), session)
    chip = programmed.at("1 day", only=1)
    model = session["OnOneChip"](chip, session["Numbers"]())
    found = lm_eval.simple_evaluate(model, tasks=[session["task"]], bootstrap_iters=0)["results"]["next_number"]
    logits = chip(IDS[:, :6]).logits[0, :, -1]
    right = logits.gather(1, IDS[:, 6:7]) >= logits.gather(1, IDS[:, :1])  # equal ones are common: the ADC's steps
    assert found["sample_len"] == len(IDS)
    assert found["acc,none"] == pytest.approx(float(right.float().mean()))
    assert 0 < found["acc,none"] < 1

    (whole,) = model.loglikelihood_rolling([type("Request", (), {"args": ("3 4 5",)})])
    logits = chip(torch.tensor([[0, 3, 4]])).logits[0, 0].log_softmax(-1)
    assert whole == pytest.approx(float(logits[0, 3] + logits[1, 4] + logits[2, 5]), rel=1e-4)
