"""Each network of the families as a command line asks for it: `asked:net_3` on `asked:data_3`, a tensor in and out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import hpml_sim as hs
from hpml_sim.conversion.output_structure import take_apart

from . import brought, relations, sequences, vision
from .case import Case

CASES = vision.CASES | sequences.CASES | relations.CASES | brought.CASES
NAMES = list(CASES)


class Asked(nn.Module):
    """A network of several arguments and results as one of a tensor (batch, ...) and a number a sample.

    It always runs on as many samples as the case has, for its other arguments belong to these: of fewer, some stand
    there several times.
    """

    def __init__(self, case: Case):
        super().__init__()
        net, args = case.made()
        self.net, self.first, self.dim = net, next(i for i, arg in enumerate(args) if _samples(arg)), case.batch_dim
        self.others = [None if isinstance(arg, Tensor) else arg for arg in args]
        for i, arg in enumerate(args):
            if isinstance(arg, Tensor):  # as a buffer: a tensor beside the network would be warned of
                self.register_buffer(f"arg_{i}", arg)
        self.samples = args[self.first].shape[self.dim]

    def forward(self, x: Tensor) -> Tensor:
        args = [getattr(self, f"arg_{i}", arg) for i, arg in enumerate(self.others)]
        some = torch.arange(self.samples, device=x.device) % len(x)
        args[self.first] = x[some].movedim(0, self.dim).to(args[self.first].dtype)
        outputs = [y.abs().float().mean() for y in take_apart(self.net(*args))[0]]
        return sum(outputs, x.reshape(len(x), -1).sum(1, keepdim=True).float() * 0)


def _samples(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() > 0


def data_of(case: Case) -> hs.Data:
    """All samples of a case, to train and to test on, with labels."""
    _, args = case.made()
    x = next(arg for arg in args if _samples(arg)).movedim(case.batch_dim, 0)
    samples = TensorDataset(x, torch.rand(len(x), 1))
    return hs.Data("asked", samples, samples, tuple(x.shape[1:]), task="regression")


def __getattr__(name: str) -> Callable[..., Any]:
    kind, _, number = name.partition("_")
    if kind not in ("net", "data") or not number.isdigit():
        raise AttributeError(name)
    case = CASES[NAMES[int(number)]]
    return (lambda: Asked(case).eval()) if kind == "net" else (lambda: data_of(case))
