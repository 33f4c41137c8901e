"""Whole rows, columns or tiles of crossbars that go: a crossbar saves nothing on a single zero."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from hpml_sim.cards import CrossbarCard
from hpml_sim.compress.matrices import Matrix, groups_of
from hpml_sim.compress.partial_layer import partial_layer
from hpml_sim.conversion.mapping import cells_per_weight
from hpml_sim.conversion.references import replace_references
from hpml_sim.errors import HpmlError

CrossbarPattern = Literal["rows", "columns", "tiles"]


def cut_layers(
    where: str, model: nn.Module, found: list[Matrix], scores: list[Tensor], pattern: CrossbarPattern, share: float,
    card: CrossbarCard | None,
) -> nn.Module:  # fmt: skip
    """Replace layers by smaller ones, in place.

    Args:
        where: the function that the caller called, which begins a message.
        model: a private copy of the network.
        found: its matrices.
        scores: how much each weight matters, (outputs, inputs).
        pattern: what goes.
        share: of the rows or columns of each layer, or of the tiles of all layers.
        card: whose tiles are meant, for "tiles".

    Returns:
        The model, or what stands for it where it was a layer itself.

    Raises:
        HpmlError: no layer that can be cut.
    """
    chosen = [
        (own, score.square().reshape((*own.weight.shape[:2], -1)).sum(2))
        for own, score in zip(found, scores, strict=True)
        if isinstance(own.module, (nn.Linear, nn.Conv1d, nn.Conv2d)) and groups_of(own.module) == 1
    ]
    if pattern == "columns":  # an output of the last layer is one of the network's
        chosen = chosen[:-1]
    if not chosen:
        raise HpmlError(
            f"{where}: pattern={pattern!r}: takes linear layers and convolutions without groups, and the network has "
            "none (of columns: none before the last one); take pattern='unstructured'"
        )
    if pattern == "tiles":
        assert card is not None
        blocks = _tiles(where, chosen, share, card)
    else:
        blocks = [[_lines(score, pattern, share)] for _, score in chosen]
    new = {
        id(own.module): partial_layer(own.module, kept)
        for (own, _), kept in zip(chosen, blocks, strict=True)
        if kept is not None
    }
    if id(model) in new:
        return new[id(model)]
    replace_references(model, new)
    return model


def _lines(score: Tensor, pattern: CrossbarPattern, share: float) -> tuple[Tensor, Tensor]:
    """The inputs and outputs of a layer that stay, at least one of each."""
    outputs, inputs = score.shape
    dim = 0 if pattern == "rows" else 1
    whole = score.sum(dim)
    stay = max(1, len(whole) - round(share * len(whole)))
    kept = whole.argsort(descending=True, stable=True)[:stay].sort().values
    return (kept, torch.arange(outputs)) if pattern == "rows" else (torch.arange(inputs), kept)


def _tiles(
    where: str, chosen: list[tuple[Matrix, Tensor]], share: float, card: CrossbarCard
) -> list[list[tuple[Tensor, Tensor]] | None]:
    """The blocks of each layer that stay; None for a layer that is left as it is."""
    height, width = int(card.array.rows), max(1, int(card.array.cols) // cells_per_weight(card))
    cuts = [_cut(own, height, width) for own, _ in chosen]
    norms = []  # of each tile: mean importance of its weights, layer, row tile, column tile
    for layer, ((_, score), (rows, columns)) in enumerate(zip(chosen, cuts, strict=True)):
        if len(rows) * len(columns) > 1:
            norms += [
                (float(score[b][:, a].mean()), layer, i, j) for i, a in enumerate(rows) for j, b in enumerate(columns)
            ]
    if not norms:
        raise HpmlError(
            f"{where}: pattern='tiles': no layer takes more than one tile of {height} x {width} weights of card "
            f"{card.name!r}; take pattern='rows' or 'columns', or a card with smaller tiles"
        )
    left = [len(rows) * len(columns) for rows, columns in cuts]
    gone: set[tuple[int, int, int]] = set()
    for _, layer, i, j in sorted(norms):
        if len(gone) < round(share * len(norms)) and left[layer] > 1:  # a layer keeps one tile
            gone.add((layer, i, j))
            left[layer] -= 1
    kept: list[list[tuple[Tensor, Tensor]] | None] = []
    for layer, (rows, columns) in enumerate(cuts):
        if not any(place[0] == layer for place in gone):
            kept.append(None)
            continue
        blocks = []
        for j, outputs in enumerate(columns):
            stay = [a for i, a in enumerate(rows) if (layer, i, j) not in gone]
            blocks.append((torch.cat(stay) if stay else torch.empty(0, dtype=torch.long), outputs))
        kept.append(blocks)
    return kept


def _cut(own: Matrix, height: int, width: int) -> tuple[list[Tensor], list[Tensor]]:
    """Features or channels of each row tile and of each column tile; rows are cut evenly, as crossbars do."""
    outputs, inputs = own.weight.shape[:2]
    taps = math.prod(own.weight.shape[2:])
    pieces = math.ceil(inputs / max(1, height // taps))
    rows = torch.arange(inputs).split(math.ceil(inputs / pieces))
    return list(rows), list(torch.arange(outputs).split(width))
