"""`hs.prune`: a network with fewer weights."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from torch import nn

from hpml_sim.cards import CrossbarCard
from hpml_sim.compress.calibration_data import CalibrationData
from hpml_sim.compress.crossbar_patterns import cut_layers
from hpml_sim.compress.matrices import matrices
from hpml_sim.compress.structures import example_of, prune_blocks, prune_channels, prune_heads
from hpml_sim.compress.zero_patterns import (
    Granularity,
    check_two_four,
    keep_present_zeros,
    prune_two_four,
    prune_unstructured,
    scores,
)
from hpml_sim.conversion import Converted
from hpml_sim.conversion.cloning import clone
from hpml_sim.conversion.converting import LayerChoice, layer_chooser
from hpml_sim.conversion.modules import check_network
from hpml_sim.errors import HpmlError, check_choice, check_real, check_whole, shown
from hpml_sim.targets.cards import card_named

Pattern = Literal["unstructured", "2:4", "channels", "heads", "blocks", "rows", "columns", "tiles", "present"]


def prune(
    model: nn.Module,
    pattern: Pattern = "unstructured",
    share: float | None = None,
    *,
    data: CalibrationData | None = None,
    granularity: Granularity = "layer",
    card: str | Path | None = None,
    only: LayerChoice = None,
    skip: LayerChoice = None,
) -> nn.Module:
    """A network with fewer weights: an ordinary one, that every function and every target takes. The argument stays.

    Which machine saves something depends on the pattern:

    - "unstructured": single weights become zero. Neuromorphic chips whose cards say so save memory and synaptic
      operations; crossbars, GPUs and CPUs nothing.
    - "2:4": two of each four weights. GPUs with sparse tensor cores save weights and time, in bf16 and below;
      neuromorphic chips as above.
    - "channels", "heads", "blocks": whole parts of the network go, with all that depends on them; every machine saves.
    - "rows", "columns", "tiles": whole inputs, outputs or tiles of the matrix of a layer go, which becomes smaller
      layers (the last one keeps its columns, the network's outputs); crossbars save tiles, other machines products.

    `hs.fit` trains the result on and keeps its zeros. Pruning may be done in steps, each with a larger share and a
    short training behind it: `gradual_shares` has the shares.

    Args:
        model: the network.
        pattern: what goes; "present" takes nothing, and has `hs.fit` keep the zeros that are there.
        share: of the weights, channels, heads, blocks, rows, columns or tiles that goes, in (0, 1); None takes 0.5. Of
            "2:4" it is always 0.5.
        data: a batch of inputs, a data set by name, or samples. With it, a weight counts by its magnitude times the
            norm of what it is multiplied with; "channels", "heads" and "blocks" need it to run the network.
        granularity: for "unstructured", among which weights the least ones go: of the whole "network", of each "layer",
            or of each "output".
        card: for "tiles": name or path of the crossbar card whose tiles are meant.
        only: prune these layers only, by name or by a predicate (name, module) -> bool; None: all.
        skip: leave these layers as they are; None: none.

    Returns:
        A new network.

    Raises:
        UnknownNameError: no layer or card has this name.
        HpmlError: a share out of (0, 1), a pattern that no layer allows, a network that cannot be followed, or data
            that are missing.

    Example:
        >>> import hpml_sim as hs
        >>> net = hs.models.mlp(64, 32, 10)
        >>> sparse = hs.prune(net, "2:4")
        >>> round(hs.workload(sparse, input_shape=(64,)).connection_sparsity, 2)
        0.5
        >>> hs.prune(net, share=1.5)
        Traceback (most recent call last):
        hpml_sim.errors.HpmlError: prune: share=1.5: must be a finite number > 0 and < 1; try 0.5
    """
    check_network("prune: model", model)
    check_choice("prune: pattern", pattern, get_args(Pattern))
    check_choice("prune: granularity", granularity, get_args(Granularity))
    share = _share(pattern, share)
    crossbar = _crossbar(pattern, card)
    if isinstance(model, Converted):
        raise HpmlError(f"prune: the network is converted for {model.target!r}; prune the original, and convert that")
    if pattern in ("channels", "heads", "blocks"):
        example = example_of("prune", pattern, data)
        network = clone(model)
        chosen = layer_chooser("prune", network, only, skip)
        kept = {module for name, module in network.named_modules() if not chosen(name, module)}
        if pattern == "channels":
            prune_channels("prune", network, share, example, kept)
        elif kept:
            raise HpmlError(f"prune: pattern={pattern!r}: takes no only= or skip=; leave them out")
        elif pattern == "heads":
            prune_heads("prune", network, share, example)
        else:
            prune_blocks("prune", network, share, example)
        return network
    network = clone(model)
    found = matrices("prune", network, only, skip)
    if pattern == "2:4":
        found = check_two_four("prune", found)
    if pattern == "present":
        keep_present_zeros(found)
        return network
    importance = scores("prune", network, found, data)
    if pattern == "unstructured":
        prune_unstructured(found, importance, share, granularity)
    elif pattern == "2:4":
        prune_two_four(found, importance)
    else:
        return cut_layers("prune", network, found, importance, pattern, share, crossbar)
    return network


def gradual_shares(share: float, steps: int) -> list[float]:
    """Shares of weights for pruning in steps: fast at first, slowly towards the end.

    share_k = share (1 - (1 - k / steps)^3), k = 1 .. steps

    Args:
        share: at the end, in (0, 1).
        steps: how many, >= 1.

    Raises:
        HpmlError: a number out of range.

    Source: M. Zhu, S. Gupta, "To prune, or not to prune", arXiv:1710.01878, 2017, equation 1.

    Example:
        >>> import hpml_sim as hs
        >>> [round(share, 3) for share in hs.compress.gradual_shares(0.8, 4)]
        [0.463, 0.7, 0.788, 0.8]
    """
    share = check_real("gradual_shares: share", share, above=0, below=1, hint="try 0.5")
    steps = check_whole("gradual_shares: steps", steps, low=1)
    return [share * (1 - (1 - k / steps) ** 3) for k in range(1, steps + 1)]


def _share(pattern: Pattern, share: float | None) -> float:
    if pattern in ("2:4", "present"):
        if share is not None and (pattern == "present" or share != 0.5):
            raise HpmlError(f"prune: share={shown(share)}: pattern={pattern!r} has a share of its own; leave it out")
        return 0.5
    return 0.5 if share is None else check_real("prune: share", share, above=0, below=1, hint="try 0.5")


def _crossbar(pattern: Pattern, card: str | Path | None) -> CrossbarCard | None:
    if pattern != "tiles":
        if card is not None:
            raise HpmlError(f"prune: card={shown(card)}: is for pattern='tiles'; leave it out")
        return None
    if card is None:
        raise HpmlError("prune: pattern='tiles': give card=, the crossbars whose tiles are meant, such as 'pcm-hermes'")
    return card_named(card, CrossbarCard)
