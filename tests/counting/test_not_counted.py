"""What cannot be counted is named, and what is counted once is not counted twice."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from hpml_sim.counting import product, register_counter, workload
from tests.counting.networks import rows


def test_a_kernel_of_its_own_is_named() -> None:
    class InNumpy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(x.numpy() @ self.weight.detach().numpy())

    class WithoutWeights(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(x.numpy() * 2)

    model = nn.Sequential(nn.Linear(4, 4), InNumpy(), nn.ReLU(), WithoutWeights())
    counts = workload(model, data=torch.randn(3, 4))
    assert counts.not_counted == ("1 (InNumpy)", "3 (WithoutWeights)")
    assert counts.total("macs") == 16
    assert counts.extra["parameters"] == 20 + 16


def test_unknown_products_are_named() -> None:
    class Spread(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x[:, :, None] * self.weight).sum(1)

    class Buried(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 4))
            self.bias = nn.Parameter(torch.zeros(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(x.numpy() @ self.weight.detach().numpy()) + self.bias

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pair = nn.Bilinear(4, 4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.pair(x, x)

    for samples in (1, 3):
        x = torch.randn(samples, 4)
        spread = workload(Spread(), data=x)
        assert (spread.not_counted, spread.total("macs")) == ((), 4 * 3)  # a product in disguise
        assert workload(Both(), data=x).not_counted == ("pair (Bilinear): aten._trilinear.default",)
        assert workload(Buried(), data=x).not_counted == ("Buried (Buried): parameter weight was not seen in use",)


def test_elementwise_modules_are_seen() -> None:
    class RMSNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5) * self.weight

    counts = workload(nn.Sequential(nn.Linear(4, 4), RMSNorm()), data=torch.randn(3, 4))
    assert counts.not_counted == ()
    layer = rows(counts)["1", "elementwise"]
    assert (layer.weight_count, layer.macs, layer.calls) == (4, 0, 6)


def test_register_counter() -> None:
    class Packed(nn.Module):
        """Weights in a form that only its kernel reads."""

        def __init__(self) -> None:
            super().__init__()
            self.packed = nn.Linear(6, 5, bias=False).weight.detach().numpy()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(x.numpy() @ self.packed.T)

    model, x = nn.Sequential(Packed(), nn.ReLU()), torch.randn(3, 6)
    assert workload(model, data=x).not_counted == ("0 (Packed)",)

    @register_counter(Packed)
    def count_packed(module, inputs, output):
        return [product(inputs[0][None], 5)]

    class Derived(Packed):
        pass

    for layer in (Packed(), Derived()):
        counts = workload(nn.Sequential(layer, nn.ReLU()), data=x)
        assert counts.not_counted == ()
        assert (counts.layers[0].macs, counts.layers[0].module) == (30, type(layer).__name__)


def test_products_of_derived_weights_are_matrices() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(5, 6))
            self.mask = nn.Buffer(torch.eye(5, 6))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.linear(x, self.weight * self.mask)

    layer = rows(workload(Masked(), data=torch.ones(3, 6)))["weight", "linear"]
    assert (layer.rows, layer.cols, layer.zero_weights, layer.sops, layer.effective_acs) == (6, 5, 25, 30, 5)


def test_tied_weights_are_stored_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.head = nn.Embedding(20, 4), nn.Linear(4, 20, bias=False)
            self.head.weight = self.words.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.words(x))

    counts = workload(Tied(), data=torch.randint(0, 20, (3, 5)))
    assert counts.total("weight_count") == counts.extra["parameters"] == 80
    assert counts.total("weights_read") == 5 * 4 + 80


def test_aihwkit_layers_count_their_tiles_once() -> None:
    import aihwkit.nn
    from aihwkit.simulator import configs

    for config in (configs.InferenceRPUConfig(), configs.TorchInferenceRPUConfig()):
        counts = workload(aihwkit.nn.AnalogLinear(6, 5, rpu_config=config), data=torch.rand(3, 6))
        (layer,) = counts.layers
        assert (layer.op, layer.rows, layer.cols, layer.macs, layer.weight_count) == ("linear", 6, 5, 30, 35)
        assert counts.extra["parameters"] == 35
