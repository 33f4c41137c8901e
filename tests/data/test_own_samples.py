"""`hs.sample_text`: what it draws comes from the model, after the start token."""

import pytest
import torch
from torch import nn

import hpml_sim as hs
from hpml_sim.networks.pretrained.language_model import LanguageModel, LlamaSizes


class _Chain(nn.Module):
    """A Markov chain: the next token depends on the last one alone."""

    def __init__(self, shares, wrapped=False):
        super().__init__()
        self.table, self.wrapped = nn.Parameter(torch.tensor(shares).log()), wrapped

    def forward(self, ids):
        logits = self.table[ids]
        return type("Output", (), {"logits": logits})() if self.wrapped else logits


SHARES = [[0.1, 0.7, 0.2], [0.5, 0.25, 0.25], [0.9, 0.05, 0.05]]


@pytest.mark.parametrize("wrapped", [False, True])
def test_tokens_follow_the_models_shares(wrapped):
    """10,000 transitions; each share within 4.5 of its standard deviations: a false alarm in 1 of 10,000 seeds."""
    data = hs.sample_text(_Chain(SHARES, wrapped), windows=100, length=100, start=2, seed=1)
    x, y = data.tensors
    assert x.shape == y.shape == (100, 100)
    assert torch.equal(x[:, 1:], y[:, :-1])
    assert (x[:, 0] == 2).all()
    for token, shares in enumerate(SHARES):
        after = y[x == token]
        for following, share in enumerate(shares):
            spread = (share * (1 - share) / len(after)) ** 0.5
            assert abs(float((after == following).double().mean()) - share) < 4.5 * spread


def test_temperature_sharpens():
    # softmax(log p / T) is p^(1/T) / sum
    data = hs.sample_text(_Chain([[0.25, 0.75], [0.25, 0.75]]), windows=50, length=100, start=0, temperature=0.5)
    share = 0.75**2 / (0.75**2 + 0.25**2)
    found = float((data.tensors[1] == 1).double().mean())
    assert abs(found - share) < 4.5 * (share * (1 - share) / 5000) ** 0.5


def _language_model():
    torch.manual_seed(0)
    sizes = LlamaSizes(20, width=16, depth=1, heads=2, kv_heads=1, hidden=16, longest=40, rotary_base=1e4, eps=1e-5)
    model = LanguageModel(sizes)
    with torch.no_grad():
        model.words.weight.mul_(0.3)  # torch's own embedding mostly repeats a token
    return model


def test_a_seed_gives_the_same_and_leaves_all_as_it_was():
    model = _language_model().train()
    torch.manual_seed(5)
    state = torch.get_rng_state()
    one, two = (hs.sample_text(model, windows=20, length=8, start=3, seed=7).tensors[0] for _ in range(2))
    assert torch.equal(one, two)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert not torch.equal(hs.sample_text(model, windows=20, length=8, start=3, seed=8).tensors[0], one)
    assert len(one.unique(dim=0)) > 5
    by_threes = hs.sample_text(model, windows=20, length=8, start=3, seed=7, batch_size=3).tensors[0]
    assert by_threes.shape == one.shape


def test_distillation_on_own_samples():
    model = _language_model()
    analog = hs.convert(model, "pcm-hermes", skip="head")
    data = hs.sample_text(model, windows=8, length=8, start=0)
    history = hs.fit(analog, data, task="language_model", epochs=3, teacher=model, temperature=1.0, alpha=1.0)
    assert history.loss[-1] < history.loss[0]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda m: hs.sample_text(m, windows=0, start=0), "sample_text: windows=0"),
        (lambda m: hs.sample_text(m, length=0, start=0), "sample_text: length=0"),
        (lambda m: hs.sample_text(m, temperature=0, start=0), "sample_text: temperature=0"),
        (lambda m: hs.sample_text(m, batch_size=0), "sample_text: batch_size=0"),
        (lambda m: hs.sample_text(m), "start=None: the model has no tokenizer"),
        (lambda m: hs.sample_text(m, start=-1), "sample_text: start=-1"),
        (lambda m: hs.sample_text("gpt"), "sample_text: model='gpt'"),
        (lambda m: hs.sample_text(nn.Identity(), windows=1, length=1, start=0), "must be logits"),
        (lambda m: hs.sample_text(m, windows=1, length=41, start=0), "at most 40"),
    ],
)
def test_mistakes_are_one_line(call, says):
    with pytest.raises(hs.HpmlError, match=says) as caught:
        call(_language_model())
    assert "\n" not in str(caught.value)
