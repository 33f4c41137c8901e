"""A network and a data set of somebody's own, small enough for tests to run them hundreds of times."""

import torch
from torch import nn
from torch.utils.data import TensorDataset


def net(width=8):
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 3))


def data():
    x = torch.rand(60, 4, generator=torch.Generator().manual_seed(0))
    split = TensorDataset(x, (3 * x[:, 0]).long().clamp(max=2))
    return split, split


class Diverges(nn.Module):
    def forward(self, x):
        return x * float("inf") * 0


def diverging():
    return nn.Sequential(*net(), Diverges())


def fatal():
    """Ends the worker process that it is made in, like a lack of memory would; not the process that asks."""
    import multiprocessing
    import os

    if multiprocessing.parent_process() is not None or "LOKY_WORKER" in os.environ:
        os._exit(9)
    return net()
