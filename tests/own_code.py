"""A network and a data set of somebody's own, small enough for tests to run them hundreds of times."""

import multiprocessing
import os
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import TensorDataset


def net(width=8):
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 3))


def data():
    x = torch.rand(60, 4, generator=torch.Generator().manual_seed(0))
    split = TensorDataset(x, (3 * x[:, 0]).long().clamp(max=2))
    return split, split


def tanh():
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))


class Diverges(nn.Module):
    def forward(self, x):
        return x * float("inf") * 0


def diverging():
    return nn.Sequential(*net(), Diverges())


def in_a_worker():
    return multiprocessing.parent_process() is not None or "LOKY_WORKER" in os.environ


def fatal():
    """Ends the worker process that it is made in, like a lack of memory would; not the process that asks."""
    if in_a_worker():
        os._exit(9)
    return net()


def fatal_once():
    if in_a_worker() and not Path("died").exists():
        Path("died").touch()
        os._exit(9)
    return net()
