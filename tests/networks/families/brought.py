"""Networks written as the libraries of their fields write them; each had found a fault."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence
from torch.utils.checkpoint import checkpoint

from .case import Case, decoder, encoder, lstm, mlp


class ClipVision(nn.Module):
    """Projects with a bare parameter, as OpenAI's CLIP does, resamples its positions, and checkpoints its block."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 4, stride=4, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(16))
        self.positional_embedding = nn.Parameter(torch.randn(1 + 4, 16))
        self.attn = nn.MultiheadAttention(16, 4)  # sequence first, as in the original
        self.ln_1, self.ln_2, self.ln_post = nn.LayerNorm(16), nn.LayerNorm(16), nn.LayerNorm(16)
        self.c_fc, self.c_proj = nn.Linear(16, 32), nn.Linear(32, 16)
        self.proj = nn.Parameter(16**-0.5 * torch.randn(16, 8))

    def positions(self, side: int) -> Tensor:
        grid = self.positional_embedding[1:].reshape(1, 2, 2, 16).permute(0, 3, 1, 2)
        grid = F.interpolate(grid, size=(side, side), mode="bicubic", align_corners=False)
        return torch.cat([self.positional_embedding[:1], grid.permute(0, 2, 3, 1).reshape(-1, 16)])

    def block(self, x: Tensor) -> Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        y = self.c_fc(self.ln_2(x))
        return x + self.c_proj(y * torch.sigmoid(1.702 * y))

    def forward(self, image: Tensor) -> Tensor:
        x = self.conv1(image)
        side = x.shape[-1]
        x = x.reshape(x.shape[0], 16, -1).permute(0, 2, 1)
        cls = self.class_embedding + torch.zeros(x.shape[0], 1, 16, dtype=x.dtype, device=x.device)
        x = torch.cat([cls, x], dim=1) + self.positions(side)
        x = x.permute(1, 0, 2)  # NLD -> LND
        x = checkpoint(self.block, x, use_reentrant=False)
        x = self.ln_post(x.permute(1, 0, 2)[:, 0, :])
        x = x @ self.proj
        return x / x.norm(dim=-1, keepdim=True)


def clip_vision() -> tuple[nn.Module, tuple[Any, ...]]:
    return ClipVision(), (torch.randn(3, 3, 12, 12),)


CLIP = 9 * 16 * 48 + encoder(10, 16, 32) + 16 * 8


class DetrHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.input_proj = nn.Conv2d(8, 16, 1)
        self.transformer = nn.Transformer(16, 2, 1, 1, 32, dropout=0.0)
        self.query_embed = nn.Embedding(5, 16)
        self.row_embed = nn.Parameter(torch.rand(50, 8))
        self.col_embed = nn.Parameter(torch.rand(50, 8))
        self.class_embed = nn.Linear(16, 4)
        self.bbox_embed = mlp(16, 16, 4)

    def forward(self, images: Tensor) -> dict[str, Tensor | list[dict[str, Tensor]]]:
        features = self.input_proj(self.backbone(images))
        h, w = features.shape[-2:]
        columns = self.col_embed[:w].unsqueeze(0).repeat(h, 1, 1)
        rows = self.row_embed[:h].unsqueeze(1).repeat(1, w, 1)
        pos = torch.cat([columns, rows], dim=-1).flatten(0, 1).unsqueeze(1)
        source = pos + 0.1 * features.flatten(2).permute(2, 0, 1)
        queries = self.query_embed.weight.unsqueeze(1).repeat(1, images.shape[0], 1)
        hs = self.transformer(source, queries).transpose(0, 1)
        logits, boxes = self.class_embed(hs), self.bbox_embed(hs).sigmoid()
        return {"pred_logits": logits, "pred_boxes": boxes, "aux_outputs": [{"pred_logits": logits * 2}]}


def detr() -> tuple[nn.Module, tuple[Any, ...]]:
    with warnings.catch_warnings():  # torch warns of its own default, the sequence first
        warnings.simplefilter("ignore", UserWarning)
        return DetrHead(), (torch.randn(2, 3, 8, 8),)


DETR = 16 * 27 * 8 + 16 * 8 * 16 + encoder(16, 16, 32) + decoder(5, 16, 16, 32) + 5 * (16 * 4 + 16 * 16 + 16 * 4)


class MambaBlock(nn.Module):
    def __init__(self, dim: int, state: int = 4, rank: int = 2):
        super().__init__()
        inner = 2 * dim
        self.inner, self.state, self.rank = inner, state, rank
        self.in_proj = nn.Linear(dim, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, 4, groups=inner, padding=3)
        self.x_proj = nn.Linear(inner, rank + 2 * state, bias=False)
        self.dt_proj = nn.Linear(rank, inner)
        self.A_log = nn.Parameter(torch.log(torch.arange(1, state + 1).float().repeat(inner, 1)))
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, dim, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        _, length, _ = hidden.shape
        x, z = self.in_proj(hidden).chunk(2, dim=-1)
        x = F.silu(self.conv1d(x.transpose(1, 2))[..., :length]).transpose(1, 2)
        dt, b, c = torch.split(self.x_proj(x), [self.rank, self.state, self.state], dim=-1)
        dt, a = F.softplus(self.dt_proj(dt)), -torch.exp(self.A_log.float())
        h = torch.zeros(x.shape[0], self.inner, self.state, device=x.device, dtype=x.dtype)
        ys = []
        for t in range(length):
            da = torch.exp(dt[:, t, :, None] * a)
            h = da * h + dt[:, t, :, None] * b[:, t, None, :] * x[:, t, :, None]
            ys.append((h * c[:, t, None, :]).sum(-1))
        y = torch.stack(ys, dim=1) + x * self.D
        return self.out_proj(y * F.silu(z))


class Mamba(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(17, 8)
        self.layers = nn.ModuleList([MambaBlock(8) for _ in range(2)])
        self.norms = nn.ModuleList([nn.RMSNorm(8) for _ in range(2)])
        self.lm_head = nn.Linear(8, 17, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids)
        for norm, layer in zip(self.norms, self.layers, strict=True):
            x = x + layer(norm(x))
        return self.lm_head(x)


def mamba() -> tuple[nn.Module, tuple[Any, ...]]:
    return Mamba(), (torch.randint(17, (3, 6)),)


MAMBA = 2 * (6 * 8 * 32 + 9 * 16 * 4 + 6 * 16 * 10 + 6 * 2 * 16 + 6 * 16 * 8) + 6 * 8 * 17


class Speech(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.subsample = nn.Conv1d(10, 12, 3, stride=2, padding=1)
        self.rnn = nn.LSTM(12, 8, num_layers=2, bidirectional=True, batch_first=True)
        self.fc = nn.Linear(16, 6)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        x = F.relu(self.subsample(features.transpose(1, 2))).transpose(1, 2)
        lengths = torch.div(lengths - 1, 2, rounding_mode="floor") + 1
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        y, lengths = pad_packed_sequence(self.rnn(packed)[0], batch_first=True)
        said = pad_sequence([one[:length] for one, length in zip(y, lengths.tolist(), strict=True)], padding_value=-1.0)
        return self.fc(said).log_softmax(-1), lengths


def speech() -> tuple[nn.Module, tuple[Any, ...]]:
    return Speech(), (torch.randn(3, 12, 10), torch.tensor([8, 12, 5]))


SPEECH = 6 * 10 * 3 * 12 + 13 / 3 * 2 * (lstm(1, 12, 8) + lstm(1, 16, 8)) + 6 * 16 * 6


class SparseGCN(nn.Module):
    """One adjacency is a buffer of sparse rows, the other is built of the edges."""

    def __init__(self) -> None:
        super().__init__()
        self.lin1, self.lin2 = nn.Linear(8, 12), nn.Linear(12, 4)
        ring = torch.eye(9).roll(1, 0) + torch.eye(9).roll(-1, 0)
        self.register_buffer("ring", ring.to_sparse_csr())

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        n = x.shape[0]
        adj = torch.sparse_coo_tensor(edge_index, torch.ones(edge_index.shape[1]), (n, n), check_invariants=True)
        x = torch.relu(self.ring @ self.lin1(x))
        return torch.sparse.mm(adj, self.lin2(x))


def sparse_gcn() -> tuple[nn.Module, tuple[Any, ...]]:
    with warnings.catch_warnings():  # torch calls its sparse rows a trial
        warnings.simplefilter("ignore", UserWarning)
        return SparseGCN(), (torch.randn(9, 8), torch.randint(9, (2, 20)))


class Critic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = parametrizations.spectral_norm(nn.Conv2d(3, 6, 3, padding=1))
        self.shortcut = parametrizations.weight_norm(nn.Conv2d(3, 6, 1))
        self.fc = parametrizations.orthogonal(nn.Linear(6, 6))
        self.head = nn.Linear(6, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = F.leaky_relu(self.conv(x), 0.2) + self.shortcut(x)
        return self.head(F.leaky_relu(self.fc(h.sum(dim=(2, 3))), 0.2))


def critic() -> tuple[nn.Module, tuple[Any, ...]]:
    return Critic(), (torch.randn(3, 3, 5, 5),)


class LowRankAdapter(nn.Module):
    """A layer with low-rank factors that are bare parameters, in the style of LoRA's own code."""

    def __init__(self, inputs: int, outputs: int, rank: int):
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.linear.weight.requires_grad = False
        self.lora_A = nn.Parameter(torch.randn(rank, inputs) * 0.3)
        self.lora_B = nn.Parameter(torch.randn(outputs, rank) * 0.3)
        self.scaling = 0.5

    def forward(self, x: Tensor) -> Tensor:
        after = F.dropout(x, 0.1, self.training) @ self.lora_A.transpose(0, 1) @ self.lora_B.transpose(0, 1)
        return self.linear(x) + after * self.scaling


def adapters() -> tuple[nn.Module, tuple[Any, ...]]:
    return nn.Sequential(LowRankAdapter(12, 16, 3), nn.ReLU(), LowRankAdapter(16, 5, 2)), (torch.randn(4, 12),)


ADAPTERS = 12 * 16 + 3 * 28 + 16 * 5 + 2 * 21


class VectorQuantizer(nn.Module):
    """The codebook is a buffer; in training its counts move."""

    def __init__(self, codes: int, dim: int):
        super().__init__()
        self.register_buffer("embedding", torch.randn(codes, dim))
        self.register_buffer("cluster_size", torch.zeros(codes))
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        self.calls += 1  # in evaluation as well
        flat = z.permute(0, 2, 3, 1).reshape(-1, z.shape[1])
        distances = flat.pow(2).sum(1, keepdim=True) - 2 * flat @ self.embedding.t() + self.embedding.pow(2).sum(1)
        index = distances.argmin(1)
        if self.training:
            one_hot = F.one_hot(index, len(self.embedding)).type_as(z)
            self.cluster_size.data.mul_(0.9).add_(one_hot.sum(0), alpha=0.1)
        quantized = F.embedding(index, self.embedding).view(len(z), *z.shape[2:], -1).permute(0, 3, 1, 2)
        return z + (quantized - z).detach(), index


class VQVAE(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enc = nn.Sequential(nn.Conv2d(1, 6, 4, stride=2, padding=1), nn.ReLU(), nn.Conv2d(6, 4, 1))
        self.vq = VectorQuantizer(8, 4)
        self.dec = nn.ConvTranspose2d(4, 1, 4, stride=2, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z, index = self.vq(self.enc(x))
        return self.dec(z), index


def vqvae() -> tuple[nn.Module, tuple[Any, ...]]:
    return VQVAE(), (torch.randn(3, 1, 8, 8),)


VQVAE_MACS = 16 * 16 * 6 + 16 * 24 + 16 * 4 * 8 + 16 * 4 * 16


class Byol(nn.Module):
    """The target network is a moving average of the online one; both see both views."""

    momentum: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.online = nn.Sequential(nn.Linear(12, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 8))
        self.target = copy.deepcopy(self.online)
        for parameter in self.target.parameters():
            parameter.requires_grad_(False)
        self.predictor = nn.Linear(8, 8)
        self.register_buffer("momentum", torch.tensor(0.9))

    @torch.no_grad()
    def update_target(self) -> None:
        for online, target in zip(self.online.parameters(), self.target.parameters(), strict=True):
            target.data = target.data * self.momentum + online.data * (1 - self.momentum)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        views = torch.cat([x, x.flip(-1)])
        p = F.normalize(self.predictor(self.online(views)), dim=-1)
        with torch.no_grad():
            if self.training:
                self.update_target()
            z1, z2 = F.normalize(self.target(views), dim=-1).chunk(2)
        return {"loss": 2 - 2 * (p * torch.cat([z2, z1])).sum(-1).mean(), "embedding": p}


def byol() -> tuple[nn.Module, tuple[Any, ...]]:
    return Byol(), (torch.randn(4, 12),)


BYOL = 2 * (2 * (12 * 16 + 16 * 8) + 64)


class SpectralConv1d(nn.Module):
    def __init__(self, width: int, modes: int):
        super().__init__()
        self.modes = modes
        self.weights1 = nn.Parameter(torch.rand(width, width, modes, dtype=torch.cfloat) / width**2)

    def forward(self, x: Tensor) -> Tensor:
        x_ft = torch.fft.rfft(x)
        out = torch.zeros(x.shape[0], x.shape[1], x.size(-1) // 2 + 1, device=x.device, dtype=torch.cfloat)
        out[:, :, : self.modes] = torch.einsum("bix,iox->box", x_ft[:, :, : self.modes], self.weights1)
        return torch.fft.irfft(out, n=x.size(-1))


class FNO(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc0 = nn.Linear(2, 6)
        self.conv0, self.w0 = SpectralConv1d(6, 4), nn.Conv1d(6, 6, 1)
        self.fc1, self.fc2 = nn.Linear(6, 12), nn.Linear(12, 1)

    def forward(self, x: Tensor) -> Tensor:
        grid = torch.linspace(0, 1, x.shape[1]).reshape(1, -1, 1).repeat(x.shape[0], 1, 1)
        x = self.fc0(torch.cat((x, grid), dim=-1)).permute(0, 2, 1)
        x = F.gelu(self.conv0(x) + self.w0(x)).permute(0, 2, 1)
        return self.fc2(F.gelu(self.fc1(x)))


def fno() -> tuple[nn.Module, tuple[Any, ...]]:
    return FNO(), (torch.randn(3, 16, 1),)


CASES = {
    "CLIP's image encoder": Case(clip_vision, CLIP),
    "DETR": Case(detr, DETR),
    "Mamba": Case(mamba, MAMBA),
    "CTC on packed sequences": Case(speech, SPEECH),
    "graph convolution with a sparse adjacency": Case(sparse_gcn, 8 * 12 + 2 * 12 + 12 * 4 + 20 / 9 * 4),
    "normed weights": Case(critic, 25 * (3 * 9 * 6 + 18) + 36 + 6 + 27 * 6 + 6),
    "low-rank factors": Case(adapters, ADAPTERS),
    "VQ-VAE": Case(vqvae, VQVAE_MACS),
    "BYOL": Case(byol, BYOL),
    "Fourier neural operator": Case(fno, 16 * (2 * 6 + 36 + 72 + 12) + 4 * 36 * 4, unseen=2),
}
