"""MiniLM, g2p and Silero against other implementations of the same equations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import hpml_sim as hs
from hpml_sim.errors import HpmlError
from hpml_sim.networks.packages import files_of
from hpml_sim.networks.pretrained.entries import PRETRAINED

SENTENCES = ["A man is eating food.", "Somebody is having a meal right now, at a table.", "Prices fell."]


def file_of(name: str, ending: str) -> Path:
    files = files_of(PRETRAINED[name].package, what=name, get="")
    return next(path for path in files.values() if path.name.endswith(ending))


@pytest.mark.parametrize("name", sorted(PRETRAINED))
def test_entries_say_how_many_parameters_there_are(name, request):
    network = request.getfixturevalue(
        {"smollm2-135m": "smollm2", "minilm-l6": "minilm", "silero-vad": "silero"}.get(name, name)
    )
    assert sum(p.numel() for p in network.parameters()) == PRETRAINED[name].parameters
    assert not any(p.is_meta for p in network.parameters())
    assert {p.dtype for p in network.parameters()} == {torch.float32}


@torch.no_grad()
def test_minilm_is_torchs_transformer_encoder(minilm):
    from safetensors.torch import load_file

    held = load_file(file_of("minilm-l6", "safetensors"))
    layer = nn.TransformerEncoderLayer(384, 12, 1536, activation="gelu", layer_norm_eps=1e-12, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 6, enable_nested_tensor=False).eval()
    for number, block in enumerate(encoder.layers):
        of = {
            name.removeprefix(f"encoder.layer.{number}."): w for name, w in held.items() if f"layer.{number}." in name
        }
        parts = [of[f"attention.self.{part}.weight"] for part in ("query", "key", "value")]
        biases = [of[f"attention.self.{part}.bias"] for part in ("query", "key", "value")]
        block.self_attn.in_proj_weight.copy_(torch.cat(parts))
        block.self_attn.in_proj_bias.copy_(torch.cat(biases))
        for ours, theirs in (
            (block.self_attn.out_proj, "attention.output.dense"),
            (block.linear1, "intermediate.dense"),
            (block.linear2, "output.dense"),
            (block.norm1, "attention.output.LayerNorm"),
            (block.norm2, "output.LayerNorm"),
        ):
            ours.weight.copy_(of[f"{theirs}.weight"])
            ours.bias.copy_(of[f"{theirs}.bias"])
    ids = minilm.token_ids(SENTENCES)
    x = held["embeddings.word_embeddings.weight"][ids] + held["embeddings.position_embeddings.weight"][: ids.shape[1]]
    x = x + held["embeddings.token_type_embeddings.weight"][0]
    x = F.layer_norm(x, (384,), held["embeddings.LayerNorm.weight"], held["embeddings.LayerNorm.bias"], 1e-12)
    y = encoder(x, src_key_padding_mask=ids == 0)
    mean = torch.stack([row[: int((sentence != 0).sum())].mean(0) for row, sentence in zip(y, ids, strict=True)])
    torch.testing.assert_close(minilm(ids), F.normalize(mean, dim=1), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_minilm_tells_related_sentences_from_others(minilm):
    vectors = minilm(
        minilm.token_ids(["A man is eating food.", "A man is eating a piece of bread.", "Prices fell today."])
    )
    assert vectors[0] @ vectors[1] > 0.6
    assert vectors[0] @ vectors[2] < 0.2


@torch.no_grad()
def test_filling_up_a_sentence_changes_nothing(minilm):
    alone = torch.cat([minilm(minilm.token_ids([sentence])) for sentence in SENTENCES])
    torch.testing.assert_close(minilm(minilm.token_ids(SENTENCES)), alone, rtol=1e-4, atol=1e-5)


def test_g2p_is_the_published_recurrence(g2p):
    """The equations of a GRU in float64 numpy, one word at a time, up to the end that it says."""
    w = np.load(file_of("g2p", "npz"))

    def cell(x, h, part):
        a, b = (w[f"{part}_w_{g}"].astype(float) @ v + w[f"{part}_b_{g}"] for g, v in (("ih", x), ("hh", h)))
        r, z = (1 / (1 + np.exp(-(a[i : i + 256] + b[i : i + 256]))) for i in (0, 256))
        n = np.tanh(a[512:] + r * b[512:])
        return (1 - z) * n + z * h

    words = ["activationist", "hello", "zq"]
    with torch.no_grad():
        said = g2p.phonemes(g2p(g2p.letters(words)))
    from hpml_sim.networks.pretrained.pronunciation import PHONEMES

    for word, phonemes in zip(words, said, strict=True):
        h = np.zeros(256)
        for letter in [*(ord(c) - ord("a") + 3 for c in word), 2]:
            h = cell(w["enc_emb"][letter].astype(float), h, "enc")
        number, expected = 2, []
        for _ in range(20):
            h = cell(w["dec_emb"][number].astype(float), h, "dec")
            number = int(np.argmax(w["fc_w"].astype(float) @ h + w["fc_b"]))
            if number == 3:
                break
            expected.append(PHONEMES[number])
        assert phonemes == expected
    assert said[0][:5] == ["AE2", "K", "T", "IH0", "V"]


def test_letters_are_no_logits(g2p):
    with pytest.raises(HpmlError, match=r"phonemes: logits of shape \(1, 4\): must be what the network gives"):
        g2p.phonemes(g2p.letters(["cat"]))


@torch.no_grad()
def test_g2p_predicts_from_the_right_phonemes_where_they_are_given(g2p):
    letters = g2p.letters(["cat"])
    free = g2p(letters)
    torch.testing.assert_close(g2p(letters, free.argmax(-1)), free)
    wrong = free.argmax(-1)
    wrong[0, 0] = 5
    assert not torch.allclose(g2p(letters, wrong)[0, 1], free[0, 1])


@torch.no_grad()
def test_silero_hears_chunk_by_chunk(silero):
    """One chunk at a time with its state and the 64 samples before it, as its authors run it."""
    sound = 0.1 * torch.randn(2, 2000, generator=torch.Generator().manual_seed(0))
    padded = F.pad(sound, (64, 4 * 512 - 2000))
    state, expected = None, []
    for begin in range(0, 4 * 512, 512):
        x = F.pad(padded[:, begin : begin + 576], (0, 64), mode="reflect")[:, None]
        x = F.conv1d(x, silero.spectrum.weight, stride=128)
        x = (x[:, :129] ** 2 + x[:, 129:] ** 2).sqrt()
        for layer in (silero.conv1, silero.conv2, silero.conv3, silero.conv4):
            x = F.relu(F.conv1d(x, layer.weight, layer.bias, layer.stride, padding=1))
        state = silero.memory(x[:, :, 0], state)
        expected.append(F.conv1d(state[0].relu()[..., None], silero.head.weight, silero.head.bias)[:, :, 0])
    torch.testing.assert_close(silero(sound), torch.cat(expected, dim=1), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_silero_takes_noise_and_a_tone_for_no_speech(silero):
    noise = 0.1 * torch.randn(1, 16_000, generator=torch.Generator().manual_seed(0))
    tone = 0.3 * torch.sin(2 * torch.pi * 440 / 16_000 * torch.arange(16_000))[None]
    assert torch.sigmoid(silero(noise)).max() < 0.05  # the package's own code gave 0.035 and 0.008 for such sounds
    assert torch.sigmoid(silero(tone)).max() < 0.02


def test_workloads_are_those_counted_by_hand(g2p, silero):
    letters, steps, width = 7, 20, 256
    recurrent = 2 * 3 * width * width
    expected = letters * recurrent + steps * (recurrent + 74 * width)
    assert hs.workload(g2p, data=g2p.letters(["abcdef"])).total("macs") == expected
    chunks, frames = 4, 4
    convolutions = frames * (258 * 256 + 128 * 129 * 3) + 2 * 64 * 128 * 3 + 1 * (64 * 64 * 3 + 128 * 64 * 3)
    expected = chunks * (convolutions + 8 * 128 * 128 + 128)
    assert hs.workload(silero, data=torch.zeros(1, 2048)).total("macs") == expected


@pytest.mark.parametrize("name", ["g2p", "silero", "minilm"])
def test_no_layer_stays_digital_in_silence(name, request):
    network = request.getfixturevalue(name)
    report = hs.convert(network, "pcm-hermes").report
    products = report[report["was"].isin(["Linear", "Conv1d", "GRU", "GRUCell", "LSTMCell"])]
    assert len(products)
    assert products["became"].str.startswith("Analog").all(), report.to_string()
