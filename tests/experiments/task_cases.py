"""Networks and data as a user would write them: `--model task_cases.py:regression --data task_cases.py:...`."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset


def _uniform(count: int, *sizes: int, seed: int) -> Tensor:
    return torch.rand(count, *sizes, generator=torch.Generator().manual_seed(seed))


def _pair(make: Callable[[int, int], Dataset]) -> tuple[Dataset, Dataset]:
    return make(64, 0), make(24, 1)


def regression():
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 1))


def regression_data():
    def make(count, seed):
        x = _uniform(count, 8, seed=seed)
        return TensorDataset(x, (x**2).sum(1, keepdim=True))

    return _pair(make)


def flat_regression_data():
    def make(count, seed):
        x = _uniform(count, 8, seed=seed)
        return TensorDataset(x, (x**2).sum(1))

    return _pair(make)


def segmentation():
    return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 3, padding=1))


def segmentation_data():
    def make(count, seed):
        x = _uniform(count, 1, 16, 16, seed=seed)
        return TensorDataset(x, (x[:, 0] > 0.5).long())

    return _pair(make)


class NextToken(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.memory, self.head = nn.Embedding(20, 32), nn.GRU(32, 32, batch_first=True), nn.Linear(32, 20)

    def forward(self, x):
        return self.head(self.memory(self.embed(x))[0])


def next_token_data():
    def make(count, seed):
        first = torch.randint(0, 20, (count, 1), generator=torch.Generator().manual_seed(seed))
        tokens = (first + torch.arange(13)) % 20
        return TensorDataset(tokens[:, :-1], tokens[:, 1:])

    return _pair(make)


def multi_label():
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 5))


def multi_label_data():
    def make(count, seed):
        x = _uniform(count, 8, seed=seed)
        return TensorDataset(x, (x[:, :5] > 0.5).float())

    return _pair(make)


def autoencoder():
    return nn.Sequential(nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 64))


def autoencoder_data():
    def make(count, seed):
        x = _uniform(count, 64, seed=seed)
        return TensorDataset(x, x)

    return _pair(make)


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(8, 16), nn.Linear(16, 2)

    def forward(self, x, y):
        return self.head(self.body(x).relu() + self.body(y).relu())


class Pairs(Dataset):
    def __init__(self, count, seed):
        self.x, self.y = _uniform(2, count, 8, seed=seed)
        self.labels = (self.x.sum(1) > self.y.sum(1)).long()

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        return (self.x[i], self.y[i]), self.labels[i]


def two_inputs_data():
    return _pair(Pairs)


class LogitsInAnObject(nn.Module):
    """As Hugging Face's models: an object with `.logits`, and `.loss` where labels are given."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(8, 2)

    def forward(self, x, labels=None):
        logits = self.body(x)
        return SimpleNamespace(
            logits=logits, loss=None if labels is None else nn.functional.cross_entropy(logits, labels)
        )


def two_classes_data():
    def make(count, seed):
        x = _uniform(count, 8, seed=seed)
        return TensorDataset(x, (x.sum(1) > 4).long())

    return _pair(make)


class Columns(Dataset):
    """Items as Hugging Face's are: mappings of names to tensors."""

    def __init__(self, **columns):
        self.columns = columns

    def __len__(self):
        return len(self.columns["labels"])

    def __getitem__(self, i):
        return {name: column[i] for name, column in self.columns.items()}


def _counting(count, seed):
    first = torch.randint(0, 50, (count, 1), generator=torch.Generator().manual_seed(seed))
    return (first + torch.arange(12)) % 50


def text_items():
    def make(count, seed):
        ids = _counting(count, seed)
        return Columns(input_ids=ids, labels=ids)

    return _pair(make)


def text_class_items():
    def make(count, seed):
        ids = _counting(count, seed)
        return Columns(input_ids=ids, attention_mask=torch.ones_like(ids), labels=(ids[:, 0] > 25).long())

    return _pair(make)


def image_items():
    def make(count, seed):
        images = _uniform(count, 1, 16, 16, seed=seed)
        return Columns(pixel_values=images, labels=(images[:, 0, :8].mean((1, 2)) > 0.5).long())

    return _pair(make)
