"""Networks whose samples meet, graphs and sets, experts, and networks that are solved, generated, or updated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .case import Calls, Case, attention, mlp


def graph(s: Any, x: Tensor, edges: Tensor) -> Tensor:
    spread = lambda h: torch.zeros_like(h).index_add(0, edges[1], h[edges[0]])  # noqa: E731
    return spread(s.b(spread(s.a(x)).relu()))


class BufferedGraph(nn.Module):
    """Edges in a buffer; sums in place."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp, self.out = mlp(6, 8, 8), nn.Linear(8, 3)
        self.register_buffer("edges", torch.randint(7, (2, 20)))

    def forward(self, x: Tensor) -> Tensor:
        edges: Any = self.edges
        h = self.mlp(x)
        return self.out((1.1 * h + torch.zeros_like(h).index_add_(0, edges[1], h[edges[0]])).relu())


def graph_attention(s: Any, x: Tensor, edges: Tensor) -> Tensor:
    h = s.layer(x)
    score = F.leaky_relu(s.source(h)[edges[0]] + s.sink(h)[edges[1]], 0.2).exp()
    total = x.new_zeros(len(x), 1).index_add(0, edges[1], score) + 1e-6
    return s.out(torch.zeros_like(h).index_add(0, edges[1], score / total[edges[1]] * h[edges[0]]))


def adjacency(s: Any, x: Tensor, joined: Tensor) -> Tensor:
    return s.b(joined @ s.a(joined @ x).relu()).mean(1)


def messages(s: Any, x: Tensor, edges: Tensor, kinds: Tensor) -> Tensor:
    """Each edge computes a message, each node takes them up with a cell."""
    for _ in range(2):
        sent = s.message(torch.cat([x[edges[0]], x[edges[1]], kinds], -1)).relu()
        x = s.cell(x.new_zeros(len(x), 5).index_add(0, edges[1], sent), x)
    return s.out(x.sum(0))


def deep_set(s: Any, x: Tensor) -> Tensor:
    return s.all(s.each(x).sum(1))


def siamese(s: Any, one: Tensor, two: Tensor) -> Tensor:
    a, b = s.tower(torch.cat([one, two])).chunk(2)
    return F.cosine_similarity(a, b)


def contrastive(s: Any, x: Tensor) -> Tensor:
    z = F.normalize(s.tower(x), dim=-1)
    return z @ z.T  # every sample with every other


def two_towers(s: Any, images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
    a, b = F.normalize(s.image(images), dim=-1), F.normalize(s.text(s.table(texts).mean(1)), dim=-1)
    logits = 10 * a @ b.T
    return logits, logits.mT


def few_shot(s: Any, support: Tensor, labels: Tensor, query: Tensor) -> Tensor:
    prototypes = torch.stack([s.tower(support)[labels == i].mean(0) for i in range(3)])
    return -torch.cdist(s.tower(query), prototypes)


class Queue(nn.Module):
    """Momentum contrast: keys of earlier calls in a buffer, which every call moves on."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(6, 4), nn.Linear(6, 4)
        self.register_buffer("queue", torch.randn(10, 4))
        self.register_buffer("place", torch.zeros((), dtype=torch.long))

    def forward(self, x: Tensor) -> Tensor:
        q, k = F.normalize(self.query(x), dim=-1), F.normalize(self.key(x), dim=-1)
        logits = torch.cat([(q * k).sum(-1, keepdim=True), q @ self.queue.T], -1)
        self.queue = torch.cat([k.detach(), self.queue])[:10]
        self.place = (self.place + len(x)) % 10
        return logits


def target_network(s: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    online = s.predict(s.online(x))
    with torch.no_grad():
        target = s.target(x.flip(-1))
    return online, 2 - 2 * F.cosine_similarity(online, target.detach(), dim=-1)


def ranked(s: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    best = s.score(x).squeeze(-1).topk(4)
    return s.head(x[best.indices]), best.values


def running(s: Any, x: Tensor) -> Tensor:
    """A scan over samples: each sees those before it."""
    return s.b(torch.cumsum(s.a(x), 0) / torch.arange(1, len(x) + 1).unsqueeze(-1))


def whitening(s: Any, x: Tensor) -> Tensor:
    h = s.a(x)
    return s.b((h - h.mean(0)) / (h.var(0) + 1e-3).sqrt())


def looped_experts(s: Any, x: Tensor) -> Tensor:
    """Each expert on the samples that chose it: shapes depend on values."""
    choice = s.gate(x).argmax(-1)
    y = torch.zeros_like(x)
    for i, expert in enumerate(s.experts):
        rows = (choice == i).nonzero().flatten()
        y[rows] = expert(x[rows])
    return y


class Stacked(nn.Module):
    """Experts as stacks of weights, gathered or grouped."""

    def __init__(self, grouped: bool) -> None:
        super().__init__()
        self.gate, self.grouped = nn.Linear(8, 4), grouped
        self.up, self.down = nn.Parameter(torch.randn(4, 12, 8)), nn.Parameter(torch.randn(4, 8, 12))

    def forward(self, x: Tensor) -> Tensor:
        share, chosen = self.gate(x).softmax(-1).topk(2, -1)
        if not self.grouped:
            h = torch.einsum("td,tkfd->tkf", x, self.up[chosen]).relu()
            return (torch.einsum("tkf,tkdf->tkd", h, self.down[chosen]) * share[..., None]).sum(1)
        experts, order = chosen.reshape(-1).sort()
        ends = torch.histc(experts.float(), bins=4, min=0, max=3).cumsum(0, dtype=torch.int32)
        h = F.grouped_mm(x[order // 2], self.up.transpose(-2, -1), offs=ends).relu()
        y = F.grouped_mm(h, self.down.transpose(-2, -1), offs=ends) * share.reshape(-1)[order, None]
        return torch.zeros_like(x).index_add(0, order // 2, y)


def dispatched(s: Any, x: Tensor) -> Tensor:
    """Experts with room for as many tokens as there are, filled by a product with a mask."""
    share = s.gate(x).softmax(-1)
    mask = F.one_hot(share.argmax(-1), 3).to(x.dtype)
    place = F.one_hot((mask.cumsum(0) * mask).sum(-1).long() - 1, len(x)).to(x.dtype)
    send = torch.einsum("te,tc->tec", mask, place)
    inside = torch.einsum("tec,td->ecd", send, x)
    outside = torch.stack([expert(part) for expert, part in zip(s.experts, inside, strict=False)])
    return torch.einsum("tec,ecd->td", send * share.unsqueeze(-1), outside)


def written(s: Any, x: Tensor) -> Tensor:
    """Writes what chips compute into tensors of its own: zeros, a copy of the input, a sum."""
    y = torch.zeros(len(x), 3, 6)
    total = x.new_zeros(len(x), 6)
    for i, layer in enumerate((s.one, s.two, s.three)):
        y[:, i] = layer(x)
        total += y[:, i]
    marked = x.clone()
    marked[:, 0] = total[:, 0]
    return s.one(marked) + y.mean(1) + total


def equilibrium(s: Any, x: Tensor) -> Tensor:
    """A fixed point, in a fixed number of steps."""
    z, source = torch.zeros(len(x), 8), s.source(x)
    for _ in range(4):
        z = torch.tanh(0.3 * s.state(z) + source)
    return s.out(z)


def until(s: Any, x: Tensor) -> Tensor:
    """A fixed point, until it stands still: as many steps as the values ask for."""
    z, source = torch.zeros(len(x), 8), s.source(x)
    new = z
    for _ in range(50):
        new = 0.01 * s.state(z) + source
        if (new - z).norm() < 1e-2 * new.norm():
            break
        z = new
    return s.out(new)


def flow(s: Any, x: Tensor) -> Tensor:
    """An ordinary differential equation, by Runge and Kutta."""
    for _ in range(2):
        a = s.slope(x)
        b = s.slope(x + a / 4)
        x = x + s.slope(x + b / 4) / 2
    return s.out(x)


def coupled(s: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """A normalizing flow: two couplings, and the logarithm of the volume."""
    total = x.new_zeros(len(x))
    for net in (s.one, s.two):
        a, b = x.chunk(2, -1)
        scale, shift = net(a).chunk(2, -1)
        x = torch.cat([b * scale.tanh().exp() + shift, a], -1)
        total = total + scale.tanh().sum(-1)
    return x, total


def generated(s: Any, x: Tensor, task: Tensor) -> Tensor:
    """The weights of a layer come out of another network, other ones for every sample."""
    weight, bias = s.hyper(task).split([18, 3], -1)
    return torch.baddbmm(bias.unsqueeze(1), s.base(x).unsqueeze(1), weight.unflatten(1, (6, 3))).squeeze(1)


def remembered(s: Any, x: Tensor) -> Tensor:
    """Reads a memory by content, and what it read beside the input."""
    h = s.inside(x)
    read = (h @ s.memory.weight.T / 3).softmax(-1) @ s.memory.weight
    return s.out(torch.cat([h, read], -1))


def recommended(s: Any, dense: Tensor, ids: Tensor) -> Tensor:
    """Tables and a network for numbers, and the products of all pairs."""
    parts = torch.stack([s.bottom(dense), *(table(ids[:, k : k + 2]) for k, table in enumerate(s.tables))], 1)
    pairs = torch.bmm(parts, parts.mT)
    rows, cols = torch.tril_indices(3, 3, -1)
    return s.top(torch.cat([parts[:, 0], pairs[:, rows, cols]], -1)).sigmoid()


def adapted(s: Any, x: Tensor) -> Tensor:
    """Adapters of low rank beside a layer."""
    return s.out(F.gelu(s.base(x) + 0.5 * s.b(s.a(x))))


def dueling(s: Any, x: Tensor) -> Tensor:
    h = s.trunk(x).relu()
    gain = s.gain(h)
    return s.value(h) + gain - gain.mean(-1, keepdim=True)


def tied(s: Any, x: Tensor) -> Tensor:
    h = s.a(x)
    for _ in range(3):
        h = torch.tanh(s.b(h))
    return h


def slots(s: Any, x: Tensor) -> Tensor:
    """Slots compete for the inputs, and are updated by a cell."""
    keys, values = s.key(x), s.value(x)
    slot = s.start.weight.expand(len(x), -1, -1)
    for _ in range(2):
        share = (s.query(slot) @ keys.mT).softmax(1)
        update = (share / (share.sum(-1, keepdim=True) + 1e-6)) @ values
        slot = s.cell(update.flatten(0, 1), slot.flatten(0, 1)).unflatten(0, (len(x), 2))
    return slot


def splines(s: Any, x: Tensor) -> Tensor:
    """A learned function on every edge: bumps on a grid, and a layer that weighs them."""
    for layer in (s.one, s.two):
        bumps = torch.exp(-((x.unsqueeze(-1) - torch.linspace(-1, 1, 4)) ** 2) * 4)
        x = layer(bumps.flatten(1))
    return x


def own_vmap(s: Any, x: Tensor) -> Tensor:
    """A vmap over the samples."""
    return torch.vmap(lambda row: s.b(s.a(row).relu()))(x)


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
    h = s.a(x)
    return [row.sum() for row in h] + [{"all": h.mean(0), "count": len(x)}, None]


def edges(nodes: int, count: int) -> Tensor:
    return torch.randint(nodes, (2, count))


def three(width: int = 6) -> dict[str, nn.Module]:
    return {"gate": nn.Linear(width, 3), "experts": nn.ModuleList(nn.Linear(width, width) for _ in range(3))}


CASES = {
    "graph, edges as an argument": Case(
        lambda: (Calls(graph, a=nn.Linear(6, 8), b=nn.Linear(8, 3)), (torch.randn(7, 6), edges(7, 20))), 6 * 8 + 8 * 3
    ),
    "graph, edges in a buffer": Case(lambda: (BufferedGraph(), (torch.randn(7, 6),)), 6 * 8 + 8 * 8 + 8 * 3),
    "graph attention": Case(
        lambda: (
            Calls(
                graph_attention,
                layer=nn.Linear(6, 8),
                source=nn.Linear(8, 1),
                sink=nn.Linear(8, 1),
                out=nn.Linear(8, 3),
            ),
            (torch.randn(7, 6), edges(7, 20)),
        ),
        6 * 8 + 2 * 8 + 8 * 3,
    ),
    "graph as a matrix": Case(
        lambda: (
            Calls(adjacency, a=nn.Linear(6, 8), b=nn.Linear(8, 3)),
            (torch.randn(2, 5, 6), torch.rand(2, 5, 5)),
        ),
        5 * 5 * 6 + 5 * 6 * 8 + 5 * 5 * 8 + 5 * 8 * 3,
    ),
    "messages along edges": Case(
        lambda: (
            Calls(messages, message=nn.Linear(13, 5), cell=nn.GRUCell(5, 6), out=nn.Linear(6, 2)),
            (torch.randn(7, 6), edges(7, 21), torch.randn(21, 1)),
        ),
        2 * (3 * 13 * 5 + 3 * 6 * 11) + 12 / 7,
    ),
    "set": Case(lambda: (Calls(deep_set, each=mlp(4, 8, 6), all=mlp(6, 8, 2)), (torch.randn(3, 5, 4),)), 5 * 80 + 64),
    "siamese": Case(lambda: (Calls(siamese, tower=mlp(6, 8, 4)), (torch.randn(5, 6), torch.randn(5, 6))), 2 * 80),
    "contrastive": Case(lambda: (Calls(contrastive, tower=mlp(6, 8, 4)), (torch.randn(5, 6),)), 80 + 5 * 4),
    "two towers": Case(
        lambda: (
            Calls(two_towers, image=mlp(9, 8, 4), table=nn.Embedding(7, 6), text=nn.Linear(6, 4)),
            (torch.randn(5, 9), torch.randint(7, (5, 3))),
        ),
        9 * 8 + 8 * 4 + 6 * 4 + 5 * 4,
    ),
    "few shot": Case(
        lambda: (
            Calls(few_shot, tower=mlp(6, 8, 4)),
            (torch.randn(6, 6), torch.tensor([0, 1, 2, 0, 1, 2]), torch.randn(4, 6)),
        ),
        (3 * 6 * 80 + 4 * 80 + 4 * 3 * 4) / 6,
    ),
    "momentum contrast with a queue": Case(lambda: (Queue(), (torch.randn(4, 6),)), 2 * 6 * 4 + 4 * 10),
    "target network": Case(
        lambda: (
            Calls(target_network, online=mlp(6, 8, 4), predict=nn.Linear(4, 4), target=mlp(6, 8, 4)),
            (torch.randn(5, 6),),
        ),
        2 * 80 + 16,
    ),
    "batch statistics": Case(
        lambda: (
            nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8, track_running_stats=False), nn.Linear(8, 3)),
            (torch.randn(5, 6),),
        ),
        6 * 8 + 8 * 3,
    ),
    "whitening": Case(lambda: (Calls(whitening, a=nn.Linear(6, 8), b=nn.Linear(8, 3)), (torch.randn(5, 6),)), 72),
    "sorted samples": Case(
        lambda: (Calls(ranked, score=nn.Linear(6, 1), head=nn.Linear(6, 3)), (torch.randn(9, 6),)), 6 + 4 / 9 * 18
    ),
    "a sum over the samples before": Case(
        lambda: (Calls(running, a=nn.Linear(6, 8), b=nn.Linear(8, 3)), (torch.randn(9, 6),)), 72
    ),
    "experts in a loop": Case(
        lambda: (Calls(looped_experts, **three()), (torch.randn(12, 6),)), 6 * 3 + 36, together=False
    ),
    "experts, weights gathered": Case(lambda: (Stacked(False), (torch.randn(10, 8),)), 8 * 4 + 2 * 2 * 8 * 12),
    "experts, grouped products": Case(lambda: (Stacked(True), (torch.randn(10, 8),)), 8 * 4 + 2 * 2 * 8 * 12),
    "experts, filled by a mask": Case(
        lambda: (Calls(dispatched, **three()), (torch.randn(5, 6),)), 6 * 3 + 3 * 36 + 2 * 3 * 5 * 6
    ),
    "results written into zeros": Case(
        lambda: (
            Calls(written, one=nn.Linear(6, 6), two=nn.Linear(6, 6), three=nn.Linear(6, 6)),
            (torch.randn(12, 6),),
        ),
        4 * 36,
    ),
    "equilibrium": Case(
        lambda: (
            Calls(equilibrium, source=nn.Linear(6, 8), state=nn.Linear(8, 8), out=nn.Linear(8, 3)),
            (torch.randn(5, 6),),
        ),
        6 * 8 + 4 * 64 + 8 * 3,
    ),
    "equilibrium, until it stands still": Case(
        lambda: (
            Calls(until, source=nn.Linear(6, 8), state=nn.Linear(8, 8), out=nn.Linear(8, 3)),
            (torch.randn(5, 6),),
        ),
        6 * 8 + 2 * 64 + 8 * 3,
        together=False,
    ),
    "differential equation": Case(
        lambda: (Calls(flow, slope=mlp(4, 8, 4), out=nn.Linear(4, 2)), (torch.randn(5, 4),)), 6 * 64 + 8
    ),
    "normalizing flow": Case(lambda: (Calls(coupled, one=mlp(2, 6, 4), two=mlp(2, 6, 4)), (torch.randn(5, 4),)), 72),
    "generated weights": Case(
        lambda: (Calls(generated, hyper=mlp(4, 8, 21), base=nn.Linear(5, 6)), (torch.randn(4, 5), torch.randn(4, 4))),
        4 * 8 + 8 * 21 + 5 * 6 + 6 * 3,
    ),
    "recommendation": Case(
        lambda: (
            Calls(
                recommended,
                bottom=mlp(5, 8, 4),
                tables=nn.ModuleList(nn.EmbeddingBag(9, 4) for _ in range(2)),
                top=mlp(7, 6, 1),
            ),
            (torch.randn(4, 5), torch.randint(9, (4, 3))),
        ),
        5 * 8 + 8 * 4 + 3 * 3 * 4 + 7 * 6 + 6,
    ),
    "adapters of low rank": Case(
        lambda: (
            Calls(adapted, base=nn.Linear(8, 8), a=nn.Linear(8, 2), b=nn.Linear(2, 8), out=nn.Linear(8, 3)),
            (torch.randn(5, 8),),
        ),
        64 + 2 * 16 + 24,
    ),
    "value and advantage": Case(
        lambda: (
            Calls(dueling, trunk=nn.Linear(6, 8), value=nn.Linear(8, 1), gain=nn.Linear(8, 4)),
            (torch.randn(5, 6),),
        ),
        48 + 40,
    ),
    "tied layers": Case(lambda: (Calls(tied, a=nn.Linear(6, 8), b=nn.Linear(8, 8)), (torch.randn(5, 6),)), 48 + 3 * 64),
    "slots": Case(
        lambda: (
            Calls(
                slots,
                key=nn.Linear(6, 4),
                value=nn.Linear(6, 4),
                query=nn.Linear(4, 4),
                start=nn.Embedding(2, 4),
                cell=nn.GRUCell(4, 4),
            ),
            (torch.randn(3, 5, 6),),
        ),
        2 * 5 * 6 * 4 + 2 * (2 * 16 + 2 * 2 * 5 * 4 + 2 * 3 * 4 * 8),
    ),
    "functions on edges": Case(
        lambda: (Calls(splines, one=nn.Linear(12, 5), two=nn.Linear(20, 2)), (torch.randn(4, 3),)), 12 * 5 + 20 * 2
    ),
    "a vmap of its own": Case(
        lambda: (Calls(own_vmap, a=nn.Linear(6, 8), b=nn.Linear(8, 3)), (torch.randn(9, 6),)), 72
    ),
    "attention pooling of a bag": Case(
        lambda: (
            nn.MultiheadAttention(8, 2, batch_first=True),
            (torch.randn(3, 4, 8), torch.randn(3, 6, 8), torch.randn(3, 6, 8)),
        ),
        attention(4, 6, 8),
    ),
    "a dataclass": Case(
        lambda: (Calls(returns_dataclass, a=nn.Linear(6, 8), b=nn.Linear(8, 3)), (torch.randn(5, 6),)), 72
    ),
    "a list of scalars and a dict": Case(lambda: (Calls(returns_list, a=nn.Linear(6, 8)), (torch.randn(5, 6),)), 48),
}
