"""Which single weights become zero: a share of all of them, or two of each four that follow each other."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from hpml_sim.compress.calibration_data import CalibrationData, collect
from hpml_sim.compress.matrices import Matrix
from hpml_sim.conversion.compression import note
from hpml_sim.errors import HpmlError

Granularity = Literal["network", "layer", "output"]
"""Among which weights the least ones are looked for: all, those of a layer, or those of one output."""


def scores(where: str, model: nn.Module, found: list[Matrix], data: CalibrationData | None) -> list[Tensor]:
    """How much each weight matters: |w|, with data times the norm of what it is multiplied with.

    Args:
        where: the function that the caller called, which begins a message.
        model: the network.
        found: its matrices.
        data: calibration data; None: magnitudes alone.

    Returns:
        For each matrix, (outputs, inputs).

    Source: M. Sun et al., "A simple and effective pruning approach for large language models" (Wanda),
    arXiv:2306.11695, 2023, equation 1.
    """
    squares: dict[str, Tensor] = {}

    def take(own: Matrix, vectors: Tensor) -> None:
        squares[own.name] = squares.get(own.name, torch.zeros(())) + vectors.double().square().sum(0)

    if data is not None:
        collect(where, model, found, data, take)
    magnitudes = [own.read().abs() for own in found]
    return [
        w if own.name not in squares else w * squares[own.name].sqrt().to(w.dtype)
        for own, w in zip(found, magnitudes, strict=True)
    ]


def prune_unstructured(found: list[Matrix], importance: list[Tensor], share: float, granularity: Granularity) -> None:
    """Set the least important weights to zero, in place, and note that they stay.

    Args:
        found: the matrices.
        importance: of each weight, (outputs, inputs).
        share: of the weights, in (0, 1).
        granularity: among which the least ones are looked for.
    """
    if granularity == "network":
        whole = torch.cat([own.flatten() for own in importance])
        keep = _kept(whole[None], share)[0].split([own.numel() for own in importance])
        masks = [mask.view_as(own) for mask, own in zip(keep, importance, strict=True)]
    else:
        masks = [
            _kept(own, share) if granularity == "output" else _kept(own.reshape(1, -1), share).view_as(own)
            for own in importance
        ]
    for own, mask in zip(found, masks, strict=True):
        own.write(own.read() * mask)
        note(own.module, own.parameter, zeros=True)


def _kept(importance: Tensor, share: float) -> Tensor:
    """Which weights of each row stay; exactly so many, also where several matter alike."""
    count = round(share * importance.shape[1])
    least = importance.argsort(dim=1, stable=True)[:, :count]
    return torch.ones_like(importance, dtype=torch.bool).scatter_(1, least, False)


def check_two_four(where: str, found: list[Matrix]) -> list[Matrix]:
    """The matrices that can have two zeros in four.

    Args:
        where: the function that the caller called, which begins a message.
        found: the matrices.

    Raises:
        HpmlError: none can.
    """
    fitting = [own for own in found if own.weight.dim() > 1 and own.weight.shape[0 if own.inputs_first else 1] % 4 == 0]
    if not fitting:
        sizes = ", ".join(f"{own.name or 'the layer'} has {own.read().shape[1]}" for own in found[:3])
        raise HpmlError(
            f"{where}: pattern='2:4': takes inputs in fours (of a convolution: channels), and no layer has a multiple "
            f"of 4 ({sizes}); take pattern='unstructured'"
        )
    return fitting


def prune_two_four(found: list[Matrix], importance: list[Tensor]) -> None:
    """Keep the two more important of each four weights that follow each other, in place.

    Along the inputs of a linear layer, along the channels of a convolution.

    Args:
        found: matrices whose inputs come in fours.
        importance: of each weight, (outputs, inputs).

    Source: A. Mishra et al., "Accelerating sparse deep neural networks", arXiv:2104.08378, 2021, section 3.
    """
    for own, score in zip(found, importance, strict=True):
        weight, ranked = own.read_by_channel(), score
        if not own.inputs_first and own.weight.dim() > 2:
            ranked = score.reshape(own.weight.shape).movedim(1, -1).flatten(1)
        fours = ranked.unflatten(1, (-1, 4))
        best = fours.argsort(dim=2, descending=True, stable=True)[..., :2]
        mask = torch.zeros_like(fours, dtype=torch.bool).scatter_(2, best, True).flatten(1)
        own.write_by_channel(weight * mask)
        note(own.module, own.parameter, zeros=True)


def keep_present_zeros(found: list[Matrix]) -> None:
    """Note that training keeps the zeros that are there, in every matrix that has some.

    Args:
        found: the matrices.
    """
    for own in found:
        if not bool(own.read().all()):
            note(own.module, own.parameter, zeros=True)
