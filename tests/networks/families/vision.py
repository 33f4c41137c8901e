"""Networks on images, volumes and points."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .case import Calls, Case, encoder, mlp


class UNet(nn.Module):
    """Of a diffusion model: the time is an input."""

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


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3, 2, 1, bias=False), nn.Conv2d(6, 6, 3, 1, 1, bias=False)
        self.short, self.head = nn.Conv2d(3, 6, 1, 2, bias=False), nn.Linear(6, 5)
        self.norms = nn.ModuleList(nn.BatchNorm2d(6) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norms[1](self.b(F.relu(self.norms[0](self.a(x)), inplace=True)))
        h += self.norms[2](self.short(x))
        return self.head(F.adaptive_avg_pool2d(F.relu(h), 1).flatten(1))


class InvertedResidual(nn.Module):
    """With squeeze and excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Sequential(
            nn.Conv2d(4, 8, 1), nn.Hardswish(), nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.Hardswish()
        )
        self.squeeze = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 2, 1), nn.ReLU(), nn.Conv2d(2, 8, 1))
        self.narrow = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.wide(x)
        return x + self.narrow(h * F.hardsigmoid(self.squeeze(h)))


def vision_transformer(s: Any, x: Tensor) -> Tensor:
    tokens = torch.cat([s.token(x.new_ones(len(x), 1)).unsqueeze(1), s.patch(x).flatten(2).mT], 1)
    return s.head(s.block(tokens)[:, 0])


def mixer(s: Any, x: Tensor) -> Tensor:
    h = s.embed(x)
    h = h + s.tokens(s.one(h).mT).mT
    return (h + s.channels(s.two(h))).mean(1)


def dense(s: Any, x: Tensor) -> Tensor:
    for layer in (s.a, s.b, s.c):
        x = torch.cat([x, F.relu(layer(x))], 1)
    return x


def pyramid(s: Any, x: Tensor) -> list[dict[str, Tensor]]:
    """A detector: boxes and scores at two scales, the best of each."""
    levels = [s.stem(x)]
    levels.append(s.down(levels[0]))
    levels[0] = s.side(levels[0]) + F.interpolate(levels[1], scale_factor=2)
    found = []
    for level in levels:
        scores, boxes = s.score(level).flatten(1), s.box(level).unflatten(1, (4, 1)).flatten(2).mT
        best = scores.topk(3)
        boxes = boxes.gather(1, best.indices.unsqueeze(-1).expand(-1, -1, 4))
        found.append({"scores": best.values.sigmoid(), "boxes": boxes.exp()})
    return found


def queries(s: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """A detector with learned queries."""
    memory = s.backbone(x).flatten(2).mT
    h = s.decoder(s.query.weight.expand(len(x), -1, -1), memory)
    return s.classes(h), s.boxes(h).sigmoid()


def pointnet(s: Any, points: Tensor) -> Tensor:
    """A transform that is computed from the points, then layers shared by them."""
    frame = s.frame(points.mT).amax(-1)
    moved = torch.bmm(points, s.turn(frame).unflatten(1, (3, 3)))
    return s.head(s.each(moved.mT).amax(-1))


def variational(s: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    mean, log_variance = s.encode(x).chunk(2, -1)
    z = mean + torch.randn_like(mean) * (log_variance / 2).exp() if s.training else mean
    return s.decode(z).sigmoid(), mean, log_variance


def spectral(s: Any, x: Tensor) -> Tensor:
    return s.out(F.leaky_relu(s.conv(x), 0.2).flatten(1))


def augmented(s: Any, x: Tensor) -> Tensor:
    return s.net(torch.cat([x, x.flip(-1), 0.9 * x])).unflatten(0, (3, -1)).mean(0)


class Capsules(nn.Module):
    """Dynamic routing: parts vote for wholes by matrices of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.votes = nn.Conv2d(1, 4, 2, 2), nn.Parameter(torch.randn(16, 2, 3, 4))

    def forward(self, x: Tensor) -> Tensor:
        parts = self.conv(x).flatten(2).mT  # (batch, 16, 4)
        votes = torch.einsum("bpi,pwoi->bpwo", parts, self.votes)
        logits = votes.new_zeros(votes.shape[:3])
        wholes = votes
        for _ in range(2):
            wholes = (logits.softmax(-1).unsqueeze(-1) * votes).sum(1)
            wholes = wholes / (1 + wholes.norm(dim=-1, keepdim=True))
            logits = logits + (votes * wholes.unsqueeze(1)).sum(-1)
        return wholes.norm(dim=-1)


def radiance(s: Any, points: Tensor, directions: Tensor) -> Tensor:
    """A field of density and color, summed along each ray."""
    waves = torch.cat([f(points * 2**k) for k in range(2) for f in (torch.sin, torch.cos)], -1)
    density, feature = s.trunk(waves).split([1, 8], -1)
    color = s.color(torch.cat([feature, directions.unsqueeze(1).expand(-1, feature.shape[1], -1)], -1)).sigmoid()
    opacity = 1 - (-F.softplus(density)).exp()
    left = torch.cumprod(torch.cat([torch.ones_like(opacity[:, :1]), 1 - opacity[:, :-1]], 1), 1)
    return (left * opacity * color).sum(1)


def fourier(s: Any, x: Tensor) -> Tensor:
    """A Fourier layer: weights act on a few frequencies."""
    waves = torch.fft.rfft(s.lift(x), dim=1)
    low = torch.view_as_real(waves[:, :3]).flatten(2)
    mixed = torch.view_as_complex(s.mix(low).unflatten(2, (4, 2)).contiguous())
    waves = torch.cat([mixed, torch.zeros_like(waves[:, 3:])], 1)
    return s.out(torch.fft.irfft(waves, n=x.shape[1], dim=1) + s.skip(s.lift(x)))


def spectral_net() -> nn.Module:
    conv = nn.utils.parametrizations.spectral_norm(nn.Conv2d(1, 4, 3, 2, 1))
    return Calls(spectral, conv=conv, out=nn.Linear(64, 1))


def image(batch: int, channels: int, size: int) -> Tensor:
    return torch.rand(batch, channels, size, size)


CASES = {
    "residual convolutions": Case(
        lambda: (Residual(), (image(3, 3, 8),)), 16 * 9 * 3 * 6 + 16 * 9 * 6 * 6 + 16 * 3 * 6 + 6 * 5
    ),
    "inverted residual": Case(
        lambda: (InvertedResidual(), (image(3, 4, 6),)), 36 * 4 * 8 + 36 * 9 * 8 + 8 * 2 + 2 * 8 + 36 * 8 * 4
    ),
    "convolutions that see all before": Case(
        lambda: (
            Calls(dense, a=nn.Conv2d(2, 3, 3, 1, 1), b=nn.Conv2d(5, 3, 3, 1, 1), c=nn.Conv2d(8, 3, 3, 1, 1)),
            (image(3, 2, 5),),
        ),
        25 * 9 * 3 * (2 + 5 + 8),
    ),
    "U-Net of a diffusion model": Case(
        lambda: (UNet(), (image(3, 1, 8), torch.rand(3))), 16 * 9 * 4 + 8 * 4 + 16 * 9 * 4 * 4 + 64 * 9 * 5
    ),
    "segmentation with transposed convolutions": Case(
        lambda: (
            nn.Sequential(
                nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU(), nn.ConvTranspose2d(4, 4, 2, 2), nn.ReLU(), nn.Conv2d(4, 3, 1)
            ),
            (image(3, 1, 8),),
        ),
        16 * 9 * 4 + 16 * 4 * 4 * 4 + 64 * 4 * 3,
    ),
    "vision transformer": Case(
        lambda: (
            Calls(
                vision_transformer,
                token=nn.Linear(1, 8, bias=False),
                patch=nn.Conv2d(1, 8, 2, 2),
                block=nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True),
                head=nn.Linear(8, 3),
            ),
            (image(3, 1, 8),),
        ),
        8 + 16 * 4 * 8 + encoder(17, 8, 16) + 8 * 3,
    ),
    "mixer": Case(
        lambda: (
            Calls(
                mixer,
                embed=nn.Linear(4, 8),
                tokens=mlp(5, 7, 5),
                channels=mlp(8, 16, 8),
                one=nn.LayerNorm(8),
                two=nn.LayerNorm(8),
            ),
            (torch.randn(3, 5, 4),),
        ),
        5 * 4 * 8 + 8 * 2 * 5 * 7 + 5 * 2 * 8 * 16,
    ),
    "depthwise 7 x 7 and pointwise": Case(
        lambda: (
            nn.Sequential(
                nn.Conv2d(4, 4, 7, padding=3, groups=4),
                nn.GroupNorm(1, 4),
                nn.Conv2d(4, 8, 1),
                nn.GELU(),
                nn.Conv2d(8, 4, 1),
            ),
            (image(2, 4, 6),),
        ),
        36 * 49 * 4 + 2 * 36 * 4 * 8,
    ),
    "detection at two scales": Case(
        lambda: (
            Calls(
                pyramid,
                stem=nn.Conv2d(1, 4, 3, 2, 1),
                down=nn.Conv2d(4, 4, 3, 2, 1),
                side=nn.Conv2d(4, 4, 1),
                score=nn.Conv2d(4, 1, 1),
                box=nn.Conv2d(4, 4, 1),
            ),
            (image(3, 1, 8),),
        ),
        16 * 9 * 4 + 4 * 9 * 4 * 4 + 16 * 4 * 4 + (16 + 4) * 4 * (1 + 4),
    ),
    "detection with learned queries": Case(
        lambda: (
            Calls(
                queries,
                backbone=nn.Conv2d(1, 8, 2, 2),
                query=nn.Embedding(5, 8),
                decoder=nn.TransformerDecoderLayer(8, 2, 16, 0.0, batch_first=True),
                classes=nn.Linear(8, 3),
                boxes=nn.Linear(8, 4),
            ),
            (image(3, 1, 8),),
        ),
        16 * 4 * 8
        + (2 * 5 * 8**2 + 2 * 5 * 8**2 + 2 * 5 * 5 * 8)
        + (2 * 5 * 8**2 + 2 * 16 * 8**2 + 2 * 5 * 16 * 8)
        + 2 * 5 * 8 * 16
        + 5 * 8 * 7,
    ),
    "points": Case(
        lambda: (
            Calls(
                pointnet,
                frame=nn.Sequential(nn.Conv1d(3, 6, 1), nn.ReLU()),
                turn=nn.Linear(6, 9),
                each=nn.Sequential(nn.Conv1d(3, 8, 1), nn.ReLU(), nn.Conv1d(8, 8, 1)),
                head=nn.Linear(8, 4),
            ),
            (torch.randn(3, 10, 3),),
        ),
        10 * 3 * 6 + 6 * 9 + 10 * 3 * 3 + 10 * 3 * 8 + 10 * 8 * 8 + 8 * 4,
    ),
    "variational autoencoder": Case(
        lambda: (Calls(variational, encode=mlp(12, 8, 6), decode=mlp(3, 8, 12)), (torch.rand(4, 12),)),
        12 * 8 + 8 * 6 + 3 * 8 + 8 * 12,
    ),
    "discriminator with spectral norm": Case(lambda: (spectral_net(), (image(3, 1, 8),)), 16 * 9 * 4 + 64 + 40),
    "test-time augmentation": Case(
        lambda: (
            Calls(augmented, net=nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))),
            (image(4, 1, 6),),
        ),
        3 * (16 * 9 * 4 + 64 * 3),
    ),
    "capsules": Case(lambda: (Capsules(), (image(3, 1, 8),)), 16 * 4 * 4 + 16 * 2 * 3 * 4),
    "radiance field": Case(
        lambda: (
            Calls(radiance, trunk=mlp(12, 16, 9), color=mlp(11, 8, 3)),
            (torch.randn(3, 6, 3), torch.randn(3, 3)),
        ),
        6 * (12 * 16 + 16 * 9 + 11 * 8 + 8 * 3),
    ),
    "Fourier layer": Case(
        lambda: (
            Calls(
                fourier,
                lift=nn.Linear(2, 4),
                mix=nn.Linear(8, 8),
                skip=nn.Linear(4, 4),
                out=nn.Linear(4, 1),
            ),
            (torch.randn(3, 10, 2),),
        ),
        2 * 10 * 2 * 4 + 3 * 8 * 8 + 10 * 4 * 4 + 10 * 4,
        unseen=2,  # the Fourier transform and back
    ),
    "volumes": Case(
        lambda: (
            nn.Sequential(nn.Conv3d(1, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(81, 2)),
            (torch.rand(2, 1, 4, 4, 4),),
        ),
        27 * 8 * 3 + 81 * 2,
    ),
    "no batch": Case(
        lambda: (nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(0), nn.Linear(64, 3)), (torch.rand(1, 6, 6),)),
        16 * 9 * 4 + 64 * 3,
    ),
}
