"""Networks on sequences: transformers, recurrent networks, state spaces, convolutions in time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from .case import Calls, Case, attention, decoder, encoder, lstm, mlp


def rotated(x: Tensor) -> Tensor:
    """Rotary positions on (batch, heads, length, width)."""
    half = x.shape[-1] // 2
    angles = torch.arange(x.shape[-2]).unsqueeze(-1) * 0.1 ** torch.arange(half)
    a, b = x.split(half, -1)
    return torch.cat([a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos()], -1)


class Generative(nn.Module):
    """A language model: rotary positions, grouped queries, gated units, a head tied to the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(11, 8), nn.Linear(8, 11, bias=False)
        self.head.weight = self.table.weight
        self.q, self.kv, self.o = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)
        self.gate, self.up, self.down = (nn.Linear(i, o, bias=False) for i, o in ((8, 12), (8, 12), (12, 8)))
        self.norms = nn.ModuleList(nn.RMSNorm(8) for _ in range(3))

    def forward(self, ids: Tensor) -> dict[str, Any]:
        h = self.table(ids)
        x = self.norms[0](h)
        q = rotated(self.q(x).unflatten(-1, (4, 2)).transpose(1, 2))
        k, v = self.kv(x).unflatten(-1, (2, 2, 2)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, rotated(k), v, is_causal=True, enable_gqa=True)
        h = h + self.o(mixed.transpose(1, 2).flatten(2))
        x = self.norms[1](h)
        h = h + self.down(F.silu(self.gate(x)) * self.up(x))
        return {"logits": self.head(self.norms[2](h)), "hidden": (h,)}


def cached(s: Any, ids: Tensor) -> Tensor:
    """Decodes three tokens, each from the keys and values of all before."""
    keys: list[Tensor] = []
    values: list[Tensor] = []
    found, token = [], ids
    for _ in range(3):
        q, k, v = s.qkv(s.table(token)).chunk(3, -1)
        keys.append(k)
        values.append(v)
        seen, kept = torch.stack(keys, 1), torch.stack(values, 1)
        h = s.out((torch.bmm(seen, q.unsqueeze(-1)) / 3).softmax(1).mT @ kept).squeeze(1)
        found.append(h)
        token = h.argmax(-1)
    return torch.stack(found, 1)


def slopes(s: Any, x: Tensor) -> Tensor:
    """Attention with a penalty on the distance in place of positions (ALiBi)."""
    q, k, v = s.qkv(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
    place = torch.arange(x.shape[1])
    far = (place[:, None] - place).abs() * torch.tensor([0.5, 0.25])[:, None, None]
    return s.out(((q @ k.mT / 2 - far).softmax(-1) @ v).transpose(1, 2).flatten(2))


def latents(s: Any, x: Tensor) -> Tensor:
    """Few learned queries look at a long input."""
    h, _ = s.cross(s.latent.weight.unsqueeze(0).expand(len(x), -1, -1), x, x)
    return s.head(s.block(h).mean(1))


def prompts(s: Any, ids: Tensor) -> Tensor:
    positions = s.project(torch.arange(5).float().unsqueeze(-1))  # no batch
    prompt = s.prompt(torch.eye(3)).expand(len(ids), -1, -1)  # the same for all samples
    h = torch.cat([prompt, s.table(ids) + positions], 1)
    return s.out(s.block(h))[:, 3:]


def linear_attention(s: Any, x: Tensor) -> Tensor:
    """Causal, without softmax: a sum over the products of keys and values before."""
    q, k, v = s.qkv(x).chunk(3, -1)
    q, k = F.elu(q) + 1, F.elu(k) + 1
    state = (k.unsqueeze(-1) * v.unsqueeze(-2)).cumsum(1)
    return s.out((q.unsqueeze(-1) * state).sum(-2) / (q * k.cumsum(1)).sum(-1, keepdim=True))


def waves(s: Any, x: Tensor) -> Tensor:
    """Tokens are mixed by Fourier transforms alone."""
    h = s.norm(x + torch.fft.fft2(x).real)
    return s.head((h + s.each(h)).mean(1))


def packed(s: Any, x: Tensor, lengths: Tensor) -> Tensor:
    steps, _ = s.recurrent(pack_padded_sequence(s.embed(x), lengths, batch_first=True, enforce_sorted=False))
    padded, _ = pad_packed_sequence(steps._replace(data=s.out(steps.data)), batch_first=True)
    return padded


def cell_loop(s: Any, x: Tensor) -> Tensor:
    h = x.new_zeros(len(x), 8)
    for step in x.unbind(1):
        h = s.cell(step, h)
    return s.out(h)


def translation(s: Any, source: Tensor, target: Tensor) -> Tensor:
    """Encoder and decoder with additive attention, the decoder a cell in a loop."""
    memory, state = s.encoder(s.table(source))
    h, keys, found = state[0], s.key(memory), []
    for token in s.table(target).unbind(1):
        scores = s.score((keys + s.query(h).unsqueeze(1)).tanh()).squeeze(-1)
        context = (scores.softmax(1).unsqueeze(-1) * memory).sum(1)
        h = s.cell(torch.cat([token, context], -1), h)
        found.append(s.out(h))
    return torch.stack(found, 1)


def pointer(s: Any, points: Tensor) -> tuple[Tensor, Tensor]:
    """Visits every point once; the next one is that with the highest score."""
    memory, (h, c) = s.encoder(points)
    h, c, token = h[0], c[0], torch.zeros_like(points[:, 0])
    left, order, scores = torch.ones(points.shape[:2], dtype=torch.bool), [], []
    for _ in range(3):
        h, c = s.decoder(token, (h, c))
        score = s.score((s.reference(memory) + s.query(h).unsqueeze(1)).tanh()).squeeze(-1)
        score = score.masked_fill(~left, -1e9)
        best = score.argmax(-1, keepdim=True)
        left = left & ~F.one_hot(best.squeeze(-1), points.shape[1]).bool()
        token = points.gather(1, best.unsqueeze(-1).expand(-1, -1, 2)).squeeze(1)
        order.append(best)
        scores.append(score.log_softmax(-1))
    return torch.cat(order, 1), torch.stack(scores, 1)


def state_space(s: Any, x: Tensor) -> Tensor:
    decay, drive = s.decay(x).sigmoid(), s.drive(x)
    h, found = torch.zeros_like(drive[:, 0]), []
    for t in range(x.shape[1]):
        h = decay[:, t] * h + drive[:, t]
        found.append(h)
    return s.out(torch.stack(found, 1))


def selective(s: Any, x: Tensor) -> Tensor:
    """As in Mamba: a causal convolution, and a scan whose steps depend on the input."""
    h, gate = s.inside(x).chunk(2, -1)
    h = F.silu(s.conv(h.mT)[..., : x.shape[1]].mT)
    step, b, c = s.parts(h).split([1, 3, 3], -1)
    step = F.softplus(s.step(step))
    decay = torch.exp(-step.unsqueeze(-1) * torch.arange(1, 4))
    drive = (step * h).unsqueeze(-1) * b.unsqueeze(-2)
    state, found = torch.zeros_like(drive[:, 0]), []
    for t in range(x.shape[1]):
        state = decay[:, t] * state + drive[:, t]
        found.append((state @ c[:, t].unsqueeze(-1)).squeeze(-1))
    return s.out(torch.stack(found, 1) * F.silu(gate))


def minimal_gates(s: Any, x: Tensor) -> Tensor:
    """A recurrent unit without products with its state, all steps at once in logarithms."""
    keep, new = s.gate(x), s.new(x)
    log_keep, log_new = -F.softplus(keep), -F.softplus(-keep) + F.logsigmoid(new)
    past = log_keep.cumsum(1)
    return s.out((past + (log_new - past).logcumsumexp(1)).exp())


def receptance(s: Any, x: Tensor) -> Tensor:
    """As in RWKV: each step is mixed with the one before, and past values fade."""
    shifted = F.pad(x, (0, 0, 1, -1))
    key, value, gate = s.key((x + shifted) / 2), s.value(0.3 * x + 0.7 * shifted), s.gate(x).sigmoid()
    above, below, found = torch.zeros_like(value[:, 0]), torch.zeros_like(value[:, 0]), []
    for t in range(x.shape[1]):
        weight = key[:, t].exp()
        above, below = 0.9 * above + weight * value[:, t], 0.9 * below + weight
        found.append(above / below)
    return s.out(gate * torch.stack(found, 1))


def dilated(s: Any, x: Tensor) -> Tensor:
    """Causal convolutions with gates, as in WaveNet."""
    total: Any = 0
    for k, layer in enumerate(s.layers):
        value, gate = layer(F.pad(x, (2**k, 0))).chunk(2, 1)
        h = value.tanh() * gate.sigmoid()
        total, x = total + s.skip(h), x + s.back(h)
    return s.out(F.relu(total))


def whole() -> nn.Module:
    return nn.Transformer(8, 2, 1, 1, 16, 0.0, batch_first=True)


CASES = {
    "sequence-first encoder": Case(
        lambda: (
            nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, 0.0), 2, enable_nested_tensor=False),
            (torch.randn(6, 5, 8),),
        ),
        2 * encoder(6, 8, 16),
        batch_dim=1,
    ),
    "sequence-first decoder": Case(
        lambda: (
            nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 16, 0.0), 1),
            (torch.randn(4, 5, 8), torch.randn(6, 5, 8)),
        ),
        decoder(4, 6, 8, 16),
        batch_dim=1,
    ),
    "encoder and decoder": Case(
        lambda: (whole(), (torch.randn(3, 6, 8), torch.randn(3, 4, 8))), encoder(6, 8, 16) + decoder(4, 6, 8, 16)
    ),
    "language model": Case(
        lambda: (Generative(), (torch.randint(11, (3, 5)),)),
        5 * (3 * 8 * 8 + 3 * 8 * 12 + 8 * 11) + 2 * 5 * 5 * 8,
    ),
    "decoding with a cache": Case(
        lambda: (
            Calls(cached, table=nn.Embedding(8, 8), qkv=nn.Linear(8, 24), out=nn.Linear(8, 8)),
            (torch.randint(8, (4,)),),
        ),
        3 * (8 * 24 + 8 * 8) + 2 * 8 * (1 + 2 + 3),
    ),
    "attention with distances": Case(
        lambda: (Calls(slopes, qkv=nn.Linear(8, 24), out=nn.Linear(8, 8)), (torch.randn(3, 5, 8),)),
        5 * 8 * 32 + 2 * 5 * 5 * 8,
    ),
    "learned queries on a long input": Case(
        lambda: (
            Calls(
                latents,
                latent=nn.Embedding(4, 8),
                cross=nn.MultiheadAttention(8, 2, batch_first=True),
                block=nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True),
                head=nn.Linear(8, 3),
            ),
            (torch.randn(3, 9, 8),),
        ),
        attention(4, 9, 8) + encoder(4, 8, 16) + 8 * 3,
    ),
    "prompts and positions without a batch": Case(
        lambda: (
            Calls(
                prompts,
                table=nn.Embedding(9, 8),
                project=nn.Linear(1, 8),
                prompt=nn.Linear(3, 8),
                block=nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True),
                out=nn.Linear(8, 9),
            ),
            (torch.randint(9, (4, 5)),),
        ),
        5 * 8 + 3 * 3 * 8 + encoder(8, 8, 16) + 8 * 8 * 9,
    ),
    "linear attention": Case(
        lambda: (Calls(linear_attention, qkv=nn.Linear(6, 24), out=nn.Linear(8, 3)), (torch.randn(3, 5, 6),)),
        5 * (6 * 24 + 8 * 3),
    ),
    "Fourier mixing": Case(
        lambda: (Calls(waves, norm=nn.LayerNorm(8), each=mlp(8, 12, 8), head=nn.Linear(8, 3)), (torch.randn(3, 5, 8),)),
        5 * 2 * 8 * 12 + 8 * 3,
        unseen=1,  # the Fourier transform
    ),
    "LSTM, two layers, two directions": Case(
        lambda: (nn.LSTM(6, 4, 2, bidirectional=True), (torch.randn(7, 3, 6),)),
        2 * (lstm(7, 6, 4) + lstm(7, 8, 4)),
        batch_dim=1,
    ),
    "GRU cell in a loop": Case(
        lambda: (Calls(cell_loop, cell=nn.GRUCell(6, 8), out=nn.Linear(8, 3)), (torch.randn(4, 5, 6),)),
        lstm(5, 6, 8, 3) + 8 * 3,
    ),
    "packed sequences": Case(
        lambda: (
            Calls(packed, embed=nn.Embedding(9, 6), recurrent=nn.LSTM(6, 4, bidirectional=True), out=nn.Linear(8, 3)),
            (torch.randint(9, (3, 5)), torch.tensor([2, 5, 4])),
        ),
        (2 + 5 + 4) / 3 * (2 * lstm(1, 6, 4) + 8 * 3),
    ),
    "translation with attention": Case(
        lambda: (
            Calls(
                translation,
                table=nn.Embedding(9, 6),
                encoder=nn.GRU(6, 8, batch_first=True),
                key=nn.Linear(8, 8),
                query=nn.Linear(8, 8),
                score=nn.Linear(8, 1),
                cell=nn.GRUCell(14, 8),
                out=nn.Linear(8, 9),
            ),
            (torch.randint(9, (3, 5)), torch.randint(9, (3, 4))),
        ),
        lstm(5, 6, 8, 3) + 5 * 8 * 8 + 4 * (8 * 8 + 5 * 8 + lstm(1, 14, 8, 3) + 8 * 9),
    ),
    "pointer": Case(
        lambda: (
            Calls(
                pointer,
                encoder=nn.LSTM(2, 6, batch_first=True),
                decoder=nn.LSTMCell(2, 6),
                reference=nn.Linear(6, 6),
                query=nn.Linear(6, 6),
                score=nn.Linear(6, 1),
            ),
            (torch.rand(3, 5, 2),),
        ),
        lstm(5, 2, 6) + 3 * (lstm(1, 2, 6) + 5 * 6 * 6 + 6 * 6 + 5 * 6),
    ),
    "state space": Case(
        lambda: (
            Calls(state_space, decay=nn.Linear(6, 8), drive=nn.Linear(6, 8), out=nn.Linear(8, 3)),
            (torch.randn(4, 7, 6),),
        ),
        7 * (2 * 6 * 8 + 8 * 3),
    ),
    "selective state space": Case(
        lambda: (
            Calls(
                selective,
                inside=nn.Linear(6, 16),
                conv=nn.Conv1d(8, 8, 3, padding=2, groups=8),
                parts=nn.Linear(8, 7),
                step=nn.Linear(1, 8),
                out=nn.Linear(8, 6),
            ),
            (torch.randn(3, 5, 6),),
        ),
        5 * (6 * 16 + 8 * 7 + 8 + 8 * 3 + 8 * 6) + 7 * 3 * 8,
    ),
    "gates without a state": Case(
        lambda: (
            Calls(minimal_gates, gate=nn.Linear(6, 8), new=nn.Linear(6, 8), out=nn.Linear(8, 3)),
            (torch.randn(3, 5, 6),),
        ),
        5 * (2 * 6 * 8 + 8 * 3),
    ),
    "past values that fade": Case(
        lambda: (
            Calls(receptance, key=nn.Linear(6, 8), value=nn.Linear(6, 8), gate=nn.Linear(6, 8), out=nn.Linear(8, 6)),
            (torch.randn(3, 5, 6),),
        ),
        5 * 4 * 6 * 8,
    ),
    "dilated convolutions with gates": Case(
        lambda: (
            Calls(
                dilated,
                layers=nn.ModuleList(nn.Conv1d(4, 8, 2, dilation=2**k) for k in range(3)),
                skip=nn.Conv1d(4, 3, 1),
                back=nn.Conv1d(4, 4, 1),
                out=nn.Conv1d(3, 2, 1),
            ),
            (torch.randn(2, 4, 9),),
        ),
        9 * (3 * (2 * 4 * 8 + 4 * 3 + 4 * 4) + 3 * 2),
    ),
    "grouped and dilated convolutions": Case(
        lambda: (
            nn.Sequential(nn.Conv1d(4, 8, 3, groups=2), nn.ReLU(), nn.Conv1d(8, 3, 3, dilation=2)),
            (torch.randn(4, 4, 12),),
        ),
        10 * 2 * 6 * 4 + 6 * 24 * 3,
    ),
}
