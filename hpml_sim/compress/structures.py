"""Channels, heads and blocks that go: the network is smaller afterwards, on every machine."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hpml_sim.compress.calibration_data import CalibrationData, inputs_of
from hpml_sim.compress.matrices import groups_of
from hpml_sim.compress.partial_layer import part_of
from hpml_sim.conversion.modes import eval_mode
from hpml_sim.conversion.modules import running
from hpml_sim.conversion.network_call import as_arguments, call_network, tensors_in
from hpml_sim.conversion.references import replace_references
from hpml_sim.data.batches import cut
from hpml_sim.errors import HpmlError, needs

_PRUNABLE = (nn.Linear, nn.modules.conv._ConvNd, nn.modules.batchnorm._BatchNorm)
_HEADS = ("heads", "num_heads", "num_attention_heads", "n_heads")
_KV_HEADS = ("kv_heads", "num_key_value_heads", "n_kv_heads")
_PARTS = (
    ("query", "q_proj", "q_lin", "wq"),
    ("key", "k_proj", "k_lin", "wk"),
    ("value", "v_proj", "v_lin", "wv"),
    ("out", "o_proj", "out_proj", "out_lin", "wo"),
)
_NEXT = "take pattern='unstructured', or prune by hand"


def example_of(where: str, pattern: str, data: CalibrationData | None) -> Any:
    """A batch of inputs to follow a network with.

    Args:
        where: the function that the caller called, which begins a message.
        pattern: which needs it.
        data: calibration data.

    Raises:
        HpmlError: there is none.
    """
    if data is None:
        raise HpmlError(
            f"{where}: pattern={pattern!r}: the network is run to find what depends on what; give data=, a batch of "
            "its inputs or a data set by name"
        )
    return next(iter(inputs_of(where, data)))


def prune_channels(where: str, model: nn.Module, share: float, example: Any, kept: set[nn.Module]) -> None:
    """Take out the channels (features) with the smallest weights, and all that depends on them, in place.

    Groups of layers that must shrink together are found by torch-pruning. Channels that reach the network's outputs
    stay, and so do the width of a transformer and the heads of attention.

    Args:
        where: the function that the caller called, which begins a message.
        model: a private copy.
        share: of the channels of each group, in (0, 1).
        example: a batch of inputs.
        kept: layers whose outputs stay as many.

    Raises:
        HpmlError: torch-pruning is missing, dependencies cannot be followed, or nothing can go.

    Source: G. Fang et al., "DepGraph: towards any structural pruning", CVPR 2023 (arXiv:2301.12900).
    """
    with needs("prune: pattern='channels'", "hpml_sim[prune]"):
        import torch_pruning as tp
    example = cut(example, 1)  # what depends on what, a single sample tells
    before = _shapes(where, model, example)
    args, kwargs = as_arguments(example)
    ignored = kept | _attention_layers(model) | _last_layers(model, example)
    pruned = 0
    try:
        with torch.enable_grad(), warnings.catch_warnings():
            # of norms that the library does not know; what depends on them stays
            warnings.filterwarnings("ignore", message="Unwrapped parameters detected", category=UserWarning)
            graph = tp.DependencyGraph().build_dependency(model, example_inputs=kwargs or args)
        importance = tp.importance.GroupMagnitudeImportance(p=2)
        roots = [nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d]
        groups: list[Any] = list(graph.get_all_groups(ignored_layers=list(ignored), root_module_types=roots))
        for group in groups:
            modules = [dep.target.module for dep, _ in group]
            known = all(isinstance(m, _PRUNABLE) or not any(True for _ in m.parameters()) for m in modules)
            inside = not any(m in ignored and _as_output(dep) for (dep, _), m in zip(group, modules, strict=True))
            score = importance(group) if known and inside else None
            if score is None or len(score) < 2 or any(groups_of(m) > 1 for m in modules):
                continue
            count = min(round(share * len(score)), len(score) - 1)
            least = score.argsort(stable=True)[:count].tolist()
            first = group[0].dep
            own = graph.get_pruning_group(first.target.module, first.handler, idxs=least)
            if count and graph.check_pruning_group(own):
                own.prune()
                pruned += count
    except HpmlError:
        raise
    except Exception as error:  # whatever a library raises on a network that it cannot follow
        raise HpmlError(
            f"{where}: pattern='channels': torch-pruning cannot follow this network ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:150]}); {_NEXT}"
        ) from error
    if not pruned:
        raise HpmlError(f"{where}: pattern='channels': no channel can go without changing the outputs; {_NEXT}")
    if _shapes(where, model, example) != before:
        raise HpmlError(f"{where}: pattern='channels': the outputs would have another shape; {_NEXT}")


def _as_output(dep: Any) -> bool:
    """Whether a dependency is on what a layer gives out, and not on what it takes in."""
    return "out" in dep.handler.__name__


def _shapes(where: str, model: nn.Module, example: Any) -> list[tuple[int, ...]]:
    with eval_mode(model), running(where, model, list(tensors_in(example))):
        return [tuple(t.shape) for t in tensors_in(call_network(model, example))]


def _last_layers(model: nn.Module, example: Any) -> set[nn.Module]:
    """The layer with weights that ran last, and all of its width whose output the network gives back as it is."""
    ran: list[tuple[nn.Module, Tensor]] = []

    def hook(module: nn.Module, _args: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            ran.append((module, output))

    layers = [m for m in model.modules() if isinstance(m, (nn.Linear, nn.modules.conv._ConvNd))]
    handles = [m.register_forward_hook(hook) for m in layers]
    try:
        with eval_mode(model):
            outputs = {id(t) for t in tensors_in(call_network(model, example))}
    finally:
        for handle in handles:
            handle.remove()
    return {m for k, (m, output) in enumerate(ran) if id(output) in outputs or k == len(ran) - 1}


# ---------------------------------------------------------------------------------------------------------------- heads


def _child(module: nn.Module, names: tuple[str, ...]) -> nn.Linear | None:
    found = next((module._modules[name] for name in names if name in module._modules), None)
    return found if isinstance(found, nn.Linear) else None


def _attention(module: nn.Module) -> tuple[nn.Linear, ...] | None:
    """Query, key, value and output layers of an attention that is written with four linear layers."""
    parts = [_child(module, names) for names in _PARTS]
    return None if any(part is None for part in parts) else tuple(part for part in parts if part is not None)


def _attention_layers(model: nn.Module) -> set[nn.Module]:
    packed: set[nn.Module] = {m.out_proj for m in model.modules() if isinstance(m, nn.MultiheadAttention)}
    return packed | {layer for m in model.modules() for layer in _attention(m) or ()}


def prune_heads(where: str, model: nn.Module, share: float, example: Any) -> None:
    """Take out the attention heads with the smallest weights in value and output, in place.

    Heads that share keys and values (grouped queries) go together.

    Args:
        where: the function that the caller called, which begins a message.
        model: a private copy.
        share: of the heads of each attention, in (0, 1); one stays.
        example: a batch of inputs.

    Raises:
        HpmlError: no attention of a known layout, or heads that cannot go.

    Source: P. Michel et al., "Are sixteen heads really better than one?", arXiv:1905.10650, 2019.
    """
    before, found = _shapes(where, model, example), 0
    for module in list(model.modules()):
        layers = _attention(module)
        heads = next((n for n in _HEADS if isinstance(vars(module).get(n), int)), None)
        if layers is None or heads is None:
            continue
        query, key, value, out = layers
        count = vars(module)[heads]
        kv = next((n for n in _KV_HEADS if isinstance(vars(module).get(n), int)), None)
        groups = vars(module)[kv] if kv is not None else count
        score = value.weight.detach().square().unflatten(0, (groups, -1)).sum((1, 2))
        score = score * out.weight.detach().square().unflatten(1, (groups, -1)).sum((0, 2))
        stay = max(1, groups - round(share * groups))
        if stay == groups:
            continue
        kept = score.argsort(descending=True, stable=True)[:stay].sort().values
        new = {}
        for layer, is_out in ((query, False), (key, False), (value, False), (out, True)):
            size = layer.in_features if is_out else layer.out_features
            chosen = torch.arange(size).unflatten(0, (groups, -1))[kept].flatten()
            inputs = chosen if is_out else torch.arange(layer.in_features)
            new[id(layer)] = part_of(layer, inputs, torch.arange(layer.out_features) if is_out else chosen)
        replace_references(module, new)
        vars(module)[heads] = count // groups * stay
        if kv is not None:
            vars(module)[kv] = stay
        found += 1
    if not found:
        raise HpmlError(
            f"{where}: pattern='heads': no attention of several heads that is written with four linear layers (query, "
            "key, value, out); take pattern='channels'"
        )
    try:
        same = _shapes(where, model, example) == before
    except HpmlError as error:
        raise HpmlError(f"{where}: pattern='heads': the network does not run with fewer heads ({error})") from error
    if not same:
        raise HpmlError(f"{where}: pattern='heads': the outputs would have another shape; {_NEXT}")


# --------------------------------------------------------------------------------------------------------------- blocks


def prune_blocks(where: str, model: nn.Module, share: float, example: Any) -> None:
    """Take out the blocks that change their input least, in place.

    A block is a member of an `nn.ModuleList` or `nn.Sequential` with weights whose output has the shape of its input
    and resembles it: the cosine of the two says how little the block does.

    Args:
        where: the function that the caller called, which begins a message.
        model: a private copy.
        share: of the blocks, in (0, 1); one stays.
        example: a batch of inputs.

    Raises:
        HpmlError: fewer than two blocks, or a network that does not run without them.

    Source: X. Men et al., "ShortGPT", arXiv:2403.03853, 2024, equation 1 (block influence).
    """
    places = [
        (parent, name, child)
        for parent in model.modules()
        if isinstance(parent, (nn.ModuleList, nn.Sequential))
        for name, child in parent.named_children()
        if any(True for _ in child.parameters()) and any(True for _ in child.children())
    ]
    cosines: dict[nn.Module, float] = {}

    def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        given = output[0] if isinstance(output, tuple) else output
        if args and isinstance(args[0], Tensor) and isinstance(given, Tensor) and args[0].shape == given.shape:
            cosines[module] = float(F.cosine_similarity(args[0].flatten(1), given.flatten(1)).mean())

    handles = [child.register_forward_hook(hook) for _, _, child in places]
    try:
        before = _shapes(where, model, example)
    finally:
        for handle in handles:
            handle.remove()
    blocks = [place for place in places if place[2] in cosines]
    count = min(round(share * len(blocks)), len(blocks) - 1)
    if len(blocks) < 2 or count < 1:
        raise HpmlError(
            f"{where}: pattern='blocks': the network has {len(blocks)} blocks whose output has their input's shape, "
            f"and share={share:g} of them is none; take a larger share, or pattern='channels'"
        )
    for parent, name, child in sorted(blocks, key=lambda place: -cosines[place[2]])[:count]:
        if isinstance(parent, nn.Sequential):
            parent._modules[name] = nn.Identity()
            continue
        rest = [m for m in parent if m is not child]
        parent._modules.clear()
        parent.extend(rest)
    try:
        same = _shapes(where, model, example) == before
    except HpmlError as error:
        raise HpmlError(f"{where}: pattern='blocks': the network does not run without them ({error})") from error
    if not same:
        raise HpmlError(f"{where}: pattern='blocks': the outputs would have another shape; {_NEXT}")
