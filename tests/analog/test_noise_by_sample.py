"""`evaluate` gives each sample the same noise, whatever batch it comes in."""

import logging

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import hpml_sim as hs
from hpml_sim.analog.sample_noise import RowOrder, _row_order
from hpml_sim.kernels.common.noise_keys import NoiseKeys
from hpml_sim.kernels.crossbar_product.noise import fill_noise
from hpml_sim.kernels.random.reference import stream


class SequenceFirst(nn.Module):
    """Time comes before the samples, as in torch's transformers by default."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Linear(8, 12), nn.Linear(12, 10)

    def forward(self, x):
        steps = self.embed(x.view(len(x), 8, 8).transpose(0, 1))
        return self.head(torch.relu(steps)).mean(0)


class Windows(nn.Module):
    """Cuts each sample into windows, which become rows of the batch."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Linear(16, 16), nn.Linear(64, 10)

    def forward(self, x):
        windows = x.view(-1, 2, 4, 2, 4).permute(0, 1, 3, 2, 4).reshape(-1, 16)
        return self.head(torch.relu(self.embed(windows)).view(len(x), -1))


def cnn():
    convolutions = [nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2, groups=2)]
    return nn.Sequential(nn.Unflatten(1, (1, 8, 8)), *convolutions, nn.Flatten(), nn.Linear(72, 10))


NETWORKS = {"rows": lambda: nn.Linear(64, 10), "sequence first": SequenceFirst, "windows": Windows, "cnn": cnn}


class Outputs(nn.Module):
    """Collects what a model gives in an evaluation."""

    def __init__(self, model):
        super().__init__()
        self.model, self.found = model, []
        self.eval()

    def forward(self, x):
        y = self.model(x)
        self.found.append(y)
        return y


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("read_noise", [0.0, 0.05])
def test_any_batch_size_gives_the_same_noise(name, read_noise):
    torch.manual_seed(0)
    x = torch.rand(13, 64)
    data = TensorDataset(x, torch.zeros(13, dtype=torch.int64))
    analog = hs.convert(nn.Sequential(NETWORKS[name]()), hs.Analog("pcm", output_noise=0.3, read_noise=read_noise))
    hs.calibrate(analog, x)
    chips = hs.program(analog, chips=2, seed=0)
    found = []
    for batch_size in (13, 5, 1):
        model = Outputs(chips.at("1 day"))
        hs.evaluate(model, data, batch_size=batch_size)
        batches = -(-13 // batch_size)
        found.append(torch.cat(model.found[-batches:], 1))
    for other in found[1:]:
        # a sum in another order may tip over a step of a converter, in few places
        assert ((found[0] - other).abs() > 1e-4 * found[0].abs().max()).float().mean() < 0.02
    again = Outputs(model.model)
    hs.evaluate(again, data, batch_size=13)
    assert (
        (found[0] - torch.cat(again.found[-1:], 1)).abs() > 1e-3
    ).float().mean() > 0.5  # a new evaluation draws anew


class Shared(nn.Module):
    """Each row holds something of every sample."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(32, 10)

    def forward(self, x):
        return self.head(x + 10 * x.sum(0).flip(0))


def test_mixed_samples_are_said(caplog):
    torch.manual_seed(0)
    analog = hs.convert(Shared(), hs.Analog("pcm", output_noise=0.1))
    x = torch.rand(6, 32)
    hs.calibrate(analog, x)
    with caplog.at_level(logging.WARNING):
        hs.evaluate(hs.program(analog, chips=1, seed=0).at("1 day"), TensorDataset(x, torch.zeros(6).long()))
    assert "1 of 1 analog products mix samples" in caplog.text


@pytest.mark.parametrize(
    ("arrange", "want"),
    [
        (lambda rows: rows, RowOrder("sample", 4)),
        (lambda rows: rows.transpose(0, 1), RowOrder("sample", 1)),
        (lambda rows: rows.unflatten(1, (2, 2)).transpose(0, 1), RowOrder("sample", 2)),
        (lambda rows: rows[0], RowOrder("same")),
        (lambda rows: rows.sum(0), RowOrder("mixed")),  # as many rows, but others
        (lambda rows: rows + rows.sum(0), RowOrder("mixed")),
        (lambda rows: rows.reshape(-1, 5)[1:], RowOrder("mixed")),
    ],
)
def test_row_order_by_hand(arrange, want):
    rows = torch.rand(2, 4, 5, generator=torch.Generator().manual_seed(0))
    assert _row_order(*(arrange(rows[:n]).reshape(-1, 5) for n in (2, 1))) == want


@pytest.mark.parametrize("width", [1, 10, 1000, 1024, 2500])
@pytest.mark.parametrize(("samples", "inner"), [(0, 1), (2, 3), (2, 1), (3, 2)])
def test_noise_is_numbered_by_sample_and_position(width, samples, inner):
    buffer = torch.empty(2, 3, 6, width)
    fill_noise(buffer, NoiseKeys(77, first=5, samples=samples, inner=inner))
    for g, t, row in ((0, 0, 0), (1, 2, 5), (1, 0, 3)):
        if samples == 0:
            sample, position = row, 0
        else:
            outer, rest = divmod(row, samples * inner)
            sample, position = rest // inner, outer * inner + rest % inner
        want = stream(width, 77, 5 + sample, position * 6 + g * 3 + t)
        assert abs(buffer[g, t, row].numpy() - want).max() < 1e-5
    rest = torch.empty(2, 3, 2, width)
    fill_noise(rest, NoiseKeys(77, first=5, samples=samples, inner=inner, row=4))
    assert torch.equal(rest, buffer[:, :, 4:])


def test_streams_are_normal_and_independent():
    buffer = torch.empty(1, 2, 1000, 100)
    fill_noise(buffer, NoiseKeys(3))
    n = buffer.numel()
    # each of the bounds is 5 standard deviations: a false alarm in 1.7 million
    assert abs(float(buffer.mean())) < 5 / n**0.5
    assert abs(float(buffer.var()) - 1) < 5 * (2 / n) ** 0.5
    assert abs(float((buffer**4).mean()) - 3) < 5 * (96 / n) ** 0.5
    for a, b in (
        (buffer[0, 0], buffer[0, 1]),
        (buffer[0, :, 1:], buffer[0, :, :-1]),
        (buffer[..., 50:], buffer[..., :50]),
    ):
        assert abs(float((a * b).mean())) < 5 / a.numel() ** 0.5


def test_how_rows_lie_is_found_once_for_the_chips_at_all_times():
    x, calls = torch.rand(6, 64), []
    data = TensorDataset(x, torch.zeros(6, dtype=torch.int64))
    analog = hs.convert(nn.Sequential(cnn()), hs.Analog("pcm", output_noise=0.3))
    hs.calibrate(analog, x)

    def evaluated(chips, times):
        found = []
        for when in times:
            model = Outputs(chips.at(when))
            hs.evaluate(model, data, batch_size=6)
            calls.append(len(model.found))
            found.append(model.found[-1])
        return found

    first, second = evaluated(hs.program(analog, chips=2, seed=0), ("1 h", "1 day"))
    (alone,) = evaluated(hs.program(analog, chips=2, seed=0), ("1 day",))
    assert calls == [2 + 1, 1, 2 + 1]
    assert torch.equal(second, alone)
    assert not torch.equal(first, second)


def test_samples_of_another_shape_are_looked_at_anew():
    class Steps(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(8, 10)

        def forward(self, x):
            return self.head(x.transpose(0, 1)).mean(0)

    analog = hs.convert(Steps(), hs.Analog("pcm", output_noise=0.3))
    hs.calibrate(analog, torch.rand(20, 4, 8))
    together = hs.program(analog, chips=2, seed=0)
    for steps in (4, 2):
        x = torch.rand(6, steps, 8)
        data, found = TensorDataset(x, torch.zeros(6, dtype=torch.int64)), []
        for chips in (together, hs.program(analog, chips=2, seed=0)):
            model = Outputs(chips.at("1 h"))
            hs.evaluate(model, data, batch_size=6)
            found.append(model.found[-1])
        assert torch.equal(*found)
