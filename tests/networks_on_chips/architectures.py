"""Small networks of many kinds, most of which let rows of the batch meet: name -> (network, arguments)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class Calls(nn.Module):
    """Layers, and a function of them."""

    def __init__(self, function: Callable[..., Any], **layers: nn.Module):
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(self, *args, **kwargs)


def mlp(*sizes: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i, o in pairwise(sizes):
        layers += [nn.Linear(i, o), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def graph(s: Any, x: Tensor, edges: Tensor) -> Tensor:
    spread = lambda h: torch.zeros_like(h).index_add(0, edges[1], h[edges[0]])  # noqa: E731
    return spread(s.b(spread(s.a(x)).relu()))


def siamese(s: Any, one: Tensor, two: Tensor) -> Tensor:
    a, b = s.tower(torch.cat([one, two])).chunk(2)
    return F.cosine_similarity(a, b)


def contrastive(s: Any, x: Tensor) -> Tensor:
    z = F.normalize(s.tower(x), dim=-1)
    return z @ z.T  # every sample with every other


def few_shot(s: Any, support: Tensor, labels: Tensor, query: Tensor) -> Tensor:
    prototypes = torch.stack([s.tower(support)[labels == i].mean(0) for i in range(3)])
    return -torch.cdist(s.tower(query), prototypes)


def augmented(s: Any, x: Tensor) -> Tensor:
    return s.net(torch.cat([x, x.flip(-1), 0.9 * x])).unflatten(0, (3, -1)).mean(0)


def experts(s: Any, x: Tensor) -> Tensor:
    """A loop over experts, each on the samples that chose it: shapes depend on values."""
    choice = s.gate(x).argmax(-1)
    y = torch.zeros_like(x)
    for i, expert in enumerate((s.one, s.two, s.three)):
        rows = (choice == i).nonzero().flatten()
        y[rows] = expert(x[rows])
    return y


def writes(s: Any, x: Tensor) -> Tensor:
    """Writes what chips compute into tensors of its own: zeros, a copy of the input, a sum."""
    y = torch.zeros(len(x), 3, 6)
    total = x.new_zeros(len(x), 6)
    for i, layer in enumerate((s.one, s.two, s.three)):
        y[:, i] = layer(x)
        total += y[:, i]
    marked = x.clone()
    marked[:, 0] = total[:, 0]
    return s.one(marked) + y.mean(1) + total


def dense_experts(s: Any, x: Tensor) -> Tensor:
    weights = s.gate(x).softmax(-1)
    return (torch.stack([s.one(x), s.two(x), s.three(x)], -1) * weights.unsqueeze(1)).sum(-1)


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.middle = nn.Conv2d(1, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 1, 1)
        self.up, self.time = nn.Conv2d(5, 1, 3, 1, 1), nn.Linear(8, 4)
        self.norm = nn.GroupNorm(2, 4)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        angles = time[:, None] * torch.arange(1, 5) / 4
        h = self.norm(self.down(x)) + self.time(torch.cat([angles.sin(), angles.cos()], -1))[..., None, None]
        h = F.interpolate(self.middle(F.silu(h)), scale_factor=2)
        return self.up(torch.cat([h, x], 1))


def tied(s: Any, x: Tensor) -> Tensor:
    h = s.a(x)
    for _ in range(3):
        h = torch.tanh(s.b(h))
    return h


def packed(s: Any, x: Tensor, lengths: Tensor) -> Tensor:
    steps, _ = s.recurrent(pack_padded_sequence(s.embed(x), lengths, batch_first=True, enforce_sorted=False))
    padded, _ = pad_packed_sequence(steps._replace(data=s.out(steps.data)), batch_first=True)
    return padded


def cell_loop(s: Any, x: Tensor) -> Tensor:
    h = x.new_zeros(len(x), 8)
    for step in x.unbind(1):
        h = s.cell(step, h)
    return s.out(h)


@dataclass
class Output:
    logits: Tensor
    loss: Tensor
    hidden: tuple[Tensor, ...] = ()
    note: str = ""


def returns_dataclass(s: Any, x: Tensor) -> Output:
    h = s.a(x).relu()
    y = s.b(h)
    return Output(y, y.square().mean(), (x, h), "fine")


def returns_list(s: Any, x: Tensor) -> list[Any]:
    return [row.sum() for row in s.a(x)] + [{"all": s.a(x).mean(0), "count": len(x)}, None]


def prompts(s: Any, ids: Tensor) -> Tensor:
    positions = s.project(torch.arange(5).float().unsqueeze(-1))  # no batch
    prompt = s.prompt(torch.eye(3)).expand(len(ids), -1, -1)  # the same for all samples
    h = torch.cat([prompt, s.table(ids) + positions], 1)
    return s.out(s.block(h))[:, 3:]


def ranked(s: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    scores = s.score(x).squeeze(-1)
    best = scores.topk(4)
    return s.head(x[best.indices]), x[scores.argsort()] @ s.head.weight.detach().T.mean(1)


def recursion(s: Any, x: Tensor) -> Tensor:
    """A scan over samples: each sees those before it."""
    return s.b(torch.cumsum(s.a(x), 0) / torch.arange(1, len(x) + 1).unsqueeze(-1))


def whitening(s: Any, x: Tensor) -> Tensor:
    h = s.a(x)
    return s.b((h - h.mean(0)) / (h.var(0) + 1e-3).sqrt())


def own_vmap(s: Any, x: Tensor) -> Tensor:
    """A vmap over the samples."""
    return torch.vmap(lambda row: s.b(s.a(row).relu()))(x)


def state_space(s: Any, x: Tensor) -> Tensor:
    decay, drive = s.decay(x).sigmoid(), s.drive(x)
    h, found = torch.zeros_like(drive[:, 0]), []
    for t in range(x.shape[1]):
        h = decay[:, t] * h + drive[:, t]
        found.append(h)
    return s.out(torch.stack(found, 1))


def vision_transformer(s: Any, x: Tensor) -> Tensor:
    tokens = s.patch(x).flatten(2).mT
    return s.head(s.block(tokens).mean(1))


def build() -> dict[str, tuple[nn.Module, tuple[Any, ...]]]:
    """The networks, from one seed."""
    torch.manual_seed(0)
    encoder = {"dropout": 0.0, "dim_feedforward": 16}
    return {
        "sequence-first transformer": (
            nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, **encoder), 2, enable_nested_tensor=False),
            (torch.randn(6, 5, 8),),
        ),
        "sequence-first decoder": (
            nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, **encoder), 1),
            (torch.randn(4, 5, 8), torch.randn(6, 5, 8)),
        ),
        "siamese": (Calls(siamese, tower=mlp(6, 8, 4)), (torch.randn(5, 6), torch.randn(5, 6))),
        "contrastive": (Calls(contrastive, tower=mlp(6, 8, 4)), (torch.randn(5, 6),)),
        "few shot": (
            Calls(few_shot, tower=mlp(6, 8, 4)),
            (torch.randn(6, 6), torch.tensor([0, 1, 2, 0, 1, 2]), torch.randn(4, 6)),
        ),
        "graph, edges as an argument": (
            Calls(graph, a=nn.Linear(6, 8), b=nn.Linear(8, 3)),
            (torch.randn(7, 6), torch.randint(7, (2, 20))),
        ),
        "batch statistics": (
            nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8, track_running_stats=False), nn.Linear(8, 3)),
            (torch.randn(5, 6),),
        ),
        "whitening": (Calls(whitening, a=nn.Linear(6, 8), b=nn.Linear(8, 3)), (torch.randn(5, 6),)),
        "test-time augmentation": (
            Calls(augmented, net=nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))),
            (torch.rand(4, 1, 6, 6),),
        ),
        "experts in a loop": (
            Calls(experts, gate=nn.Linear(6, 3), one=nn.Linear(6, 6), two=nn.Linear(6, 6), three=nn.Linear(6, 6)),
            (torch.randn(12, 6),),
        ),
        "results written into zeros": (
            Calls(writes, one=nn.Linear(6, 6), two=nn.Linear(6, 6), three=nn.Linear(6, 6)),
            (torch.randn(12, 6),),
        ),
        "experts, all computed": (
            Calls(dense_experts, gate=nn.Linear(6, 3), one=nn.Linear(6, 6), two=nn.Linear(6, 6), three=nn.Linear(6, 6)),
            (torch.randn(12, 6),),
        ),
        "U-Net of a diffusion model": (UNet(), (torch.randn(3, 1, 8, 8), torch.rand(3))),
        "tied layers": (
            Calls(tied, a=nn.Linear(6, 8), b=nn.Linear(8, 8)),
            (torch.randn(5, 6),),
        ),
        "LSTM, two directions": (nn.LSTM(6, 4, 2, bidirectional=True), (torch.randn(7, 3, 6),)),
        "cell in a loop": (Calls(cell_loop, cell=nn.GRUCell(6, 8), out=nn.Linear(8, 3)), (torch.randn(4, 5, 6),)),
        "packed sequence": (
            Calls(packed, embed=nn.Embedding(9, 6), recurrent=nn.LSTM(6, 4, bidirectional=True), out=nn.Linear(8, 3)),
            (torch.randint(9, (3, 5)), torch.tensor([2, 5, 4])),
        ),
        "a dataclass": (Calls(returns_dataclass, a=nn.Linear(6, 8), b=nn.Linear(8, 3)), (torch.randn(5, 6),)),
        "a list of scalars and a dict": (Calls(returns_list, a=nn.Linear(6, 8)), (torch.randn(5, 6),)),
        "prompts and positions without a batch": (
            Calls(
                prompts,
                table=nn.Embedding(9, 8),
                project=nn.Linear(1, 8),
                prompt=nn.Linear(3, 8),
                block=nn.TransformerEncoderLayer(8, 2, batch_first=True, **encoder),
                out=nn.Linear(8, 9),
            ),
            (torch.randint(9, (4, 5)),),
        ),
        "sorted samples": (Calls(ranked, score=nn.Linear(6, 1), head=nn.Linear(6, 3)), (torch.randn(9, 6),)),
        "a sum over the samples before": (
            Calls(recursion, a=nn.Linear(6, 8), b=nn.Linear(8, 3)),
            (torch.randn(9, 6),),
        ),
        "a vmap of its own": (Calls(own_vmap, a=nn.Linear(6, 8), b=nn.Linear(8, 3)), (torch.randn(9, 6),)),
        "state space": (
            Calls(state_space, decay=nn.Linear(6, 8), drive=nn.Linear(6, 8), out=nn.Linear(8, 3)),
            (torch.randn(4, 7, 6),),
        ),
        "vision transformer": (
            Calls(
                vision_transformer,
                patch=nn.Conv2d(1, 8, 2, 2),
                block=nn.TransformerEncoderLayer(8, 2, batch_first=True, **encoder),
                head=nn.Linear(8, 3),
            ),
            (torch.rand(3, 1, 8, 8),),
        ),
        "grouped and dilated convolutions": (
            nn.Sequential(nn.Conv1d(4, 8, 3, groups=2), nn.ReLU(), nn.Conv1d(8, 3, 3, dilation=2)),
            (torch.randn(4, 4, 12),),
        ),
        "no batch": (
            nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(0), nn.Linear(64, 3)),
            (torch.rand(1, 6, 6),),
        ),
    }


CHIP_BY_CHIP = {"experts in a loop"}
"""What vmap cannot carry."""
