"""NIR, the exchange format of spiking networks: export that proves itself, import that refuses what it would change.

NIR (J. E. Pedersen et al., Nat. Commun. 15:8122, 2024) describes neurons in continuous time: no time step, no reset by
subtraction, no surrogate. A leaky neuron with reset "zero" is its LIF with tau = dt / (1 - beta), r = tau / dt,
v_reset = 0 (forward Euler gives beta and an input of weight 1 back); beta = 1 is its IF with r = 1 / dt. Everything
else would spike otherwise in another system, so it is refused.
"""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from hpml_sim.errors import ConversionError, HpmlError
from hpml_sim.spiking.fuse import FusedNetwork, FusedNeurons
from hpml_sim.spiking.model import SpikingModel
from hpml_sim.spiking.neurons import LeakyNeurons

if TYPE_CHECKING:
    from types import ModuleType

_TRANSPARENT = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d)


@dataclass(frozen=True)
class NirReport:
    """What an export is worth.

    Attributes:
        graph: the `nir.NIRGraph`. mismatch: share of output spikes that differ after export and import, in [0, 1].
        spikes: output spikes of the example. steps: its time steps. notes: what the graph does not hold.
    """

    graph: Any
    mismatch: float
    spikes: int
    steps: int
    notes: tuple[str, ...]

    def __str__(self) -> str:
        head = f"NIR: {100 * self.mismatch:.3g} % of output spikes differ after import ({self.spikes} spikes)"
        return "\n".join([head, *(f"  {note}" for note in self.notes)])


def _nir() -> ModuleType:
    try:
        import nir
    except ImportError as error:
        raise HpmlError(f"nir cannot be imported ({error}); install it with: pip install nir nirtorch") from error
    return nir


@torch.no_grad()
def to_nir(
    network: nn.Module,
    example: Tensor,
    path: str | Path | None = None,
    *,
    dt: float = 1e-4,
    allowed_mismatch: float = 0.0,
) -> NirReport:
    """Export a chain of layers, import it again, run both on an example and compare the spikes.

    Args:
        network: a `SpikingModel`, a `FusedNetwork`, or `nn.Sequential` of layers and `LeakyNeurons`, reset "zero".
        example: (steps, batch, ...): what enters the first layer at each step. An encoder is no part of the graph: for
            a `SpikingModel` give `model.encoder(x).unflatten(0, (steps, -1))`.
        path: also write this file (.nir).
        dt: seconds of a step, > 0; snnTorch's importer takes 1e-4 whatever the file says.
        allowed_mismatch: largest share of spikes that may differ.

    Raises:
        ConversionError: a layer, a reset or an option that NIR cannot hold, or too many spikes differ; then no file is
            written. HpmlError: dt, or the example's shape.
    """
    nir = _nir()
    if not dt > 0:
        raise HpmlError(f"to_nir: dt={dt!r} must be > 0 seconds")
    if example.dim() < 3 or 0 in example.shape[:2]:
        raise HpmlError(f"to_nir: example of shape {tuple(example.shape)}; expected (steps, batch, ...)")
    chain = _chain(network)
    for name, layer in chain:
        if isinstance(layer, nn.Flatten) and layer.start_dim < 1:
            raise ConversionError(
                f"to_nir: layer {name!r}: Flatten from dimension {layer.start_dim}: it would flatten time and batch"
            )
    original = FusedNetwork(nn.Sequential(*(copy.deepcopy(layer) for _, layer in chain))).eval()
    nodes: dict[str, Any] = {"input": nir.Input({"input": np.array(example.shape[2:])})}
    notes = [f"dt = {dt:g} s, in the metadata: NIR has no time step"]
    if isinstance(network, SpikingModel):
        notes.append(f"encoder {type(network.encoder).__name__} is not in the graph")
    x = example.flatten(0, 1)
    original(example)  # tells the neurons the steps
    settings: dict[str, str] = {}
    for (name, layer), runs in zip(chain, original.network.children(), strict=True):
        before, x = x, runs(x)
        x = x[0] if isinstance(x, tuple) else x
        node = _node(nir, name, layer, tuple(before.shape[1:]), tuple(x.shape[1:]), dt)
        if node is None:
            notes.append(f"layer {name!r}: {type(layer).__name__} does nothing in evaluation and is left out")
            continue
        if isinstance(layer, LeakyNeurons):
            settings[name] = f"reset=zero reset_delay={layer.reset_delay} surrogate={layer.surrogate}"
        nodes[name.replace(".", "_")] = node
    nodes["output"] = nir.Output({"output": np.array(x.shape[1:])})
    metadata = {"producer": "hpml_sim", "dt": dt, "reset": "zero", "neurons": "; ".join(settings.values())}
    keys = list(nodes)
    graph = nir.NIRGraph(nodes, list(itertools.pairwise(keys)), metadata=metadata)
    again = from_nir(graph, dt=dt)
    want, got = _spikes(original(example)), _spikes(again(example))
    mismatch = float((want != got).double().mean())
    if mismatch > allowed_mismatch:
        raise ConversionError(
            f"to_nir: {100 * mismatch:.3g} % of the output spikes differ after export and import; nothing was written "
            "(allowed_mismatch= lets it pass)"
        )
    if path is not None:
        nir.write(str(path), graph)
    return NirReport(graph, mismatch, int(torch.count_nonzero(want)), example.shape[0], tuple(notes))


def _spikes(out: Any) -> Tensor:
    return out[0] if isinstance(out, tuple) else out


def _chain(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """Names and layers in the order in which they run."""
    if isinstance(network, SpikingModel):
        if network.chips != 1:
            raise ConversionError(f"to_nir: a model with {network.chips} chips; export one")
        return [*_chain(network.network), ("spikes", network.output)]
    if isinstance(network, FusedNetwork):
        return _chain(network.network)
    if isinstance(network, FusedNeurons):
        return [("neurons", network.neurons)]
    if not isinstance(network, nn.Sequential):
        if not any(True for _ in network.children()):
            return [("layer", network)]
        raise ConversionError(
            f"to_nir: {type(network).__name__} is no nn.Sequential: what its forward() does cannot be read from its "
            "layers; build the chain as nn.Sequential"
        )
    found: list[tuple[str, nn.Module]] = []
    for name, child in network.named_children():
        if isinstance(child, nn.Sequential):
            found += [(f"{name}.{inner}", layer) for inner, layer in _chain(child)]
        else:
            found.append((name, child.neurons if isinstance(child, FusedNeurons) else child))
    return found


def _array(value: Any, shape: tuple[int, ...] = ()) -> np.ndarray:
    array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
    return np.ascontiguousarray(np.broadcast_to(array, shape) if shape else array)


def _pair(value: Any) -> tuple[int, int]:
    return (int(value), int(value)) if np.ndim(value) == 0 else (int(value[0]), int(value[1]))


def _node(nir: Any, name: str, layer: Any, before: tuple[int, ...], after: tuple[int, ...], dt: float) -> Any:
    where = f"to_nir: layer {name!r}: {type(layer).__name__}"
    if isinstance(layer, LeakyNeurons):
        return _neuron_node(nir, where, layer, after, dt)
    kind = type(layer)
    if kind is nn.Linear:
        if len(before) != 1:
            raise ConversionError(f"{where} on inputs of shape {before}: NIR's Affine takes one dimension")
        weight = _array(layer.weight)
        return nir.Linear(weight) if layer.bias is None else nir.Affine(weight, _array(layer.bias))
    if kind is nn.Conv2d:
        if layer.padding_mode != "zeros":
            raise ConversionError(f"{where} with padding_mode={layer.padding_mode!r}: NIR's Conv2d pads with zeros")
        padding = layer.padding if isinstance(layer.padding, str) else _pair(layer.padding)
        bias = np.zeros(layer.out_channels, np.float32) if layer.bias is None else _array(layer.bias)
        strides, dilation = _pair(layer.stride), _pair(layer.dilation)
        return nir.Conv2d(before[1:], _array(layer.weight), strides, padding, dilation, layer.groups, bias)
    if kind is nn.AvgPool2d:
        if (
            layer.ceil_mode
            or layer.divisor_override
            or (_pair(layer.padding) != (0, 0) and not layer.count_include_pad)
        ):
            raise ConversionError(f"{where}: ceil_mode, divisor_override and count_include_pad=False have no NIR equal")
        sizes = (np.array(_pair(size)) for size in (layer.kernel_size, layer.stride, layer.padding))
        return nir.AvgPool2d(*sizes)
    if kind is nn.Flatten:
        end = layer.end_dim if layer.end_dim < 0 else layer.end_dim - 1
        return nir.Flatten({"input": np.array(before)}, layer.start_dim - 1, end)
    if isinstance(layer, _TRANSPARENT) or kind.__name__ == "DropoutInTime":
        return None
    hint = "; fold it into the layer before it" if isinstance(layer, nn.modules.batchnorm._BatchNorm) else ""
    raise ConversionError(f"{where} has no NIR node that computes the same{hint}")


def _neuron_node(nir: Any, where: str, layer: LeakyNeurons, shape: tuple[int, ...], dt: float) -> Any:
    if type(layer) is not LeakyNeurons:
        raise ConversionError(f"{where}: only LeakyNeurons have a NIR equal; these would spike otherwise elsewhere")
    if layer.reset != "zero":
        raise ConversionError(
            f"{where} with reset={layer.reset!r}: NIR resets to a value, so other systems would give other spikes "
            "(about a third of them for 'subtract'); train with reset='zero'"
        )
    beta = layer.beta.detach().double().clamp(0, 1).cpu().numpy()
    theta = _array(layer.threshold.float(), shape)
    zero = np.zeros(shape, np.float32)
    if np.all(beta == 1):
        return nir.IF(r=_array(np.float32(1 / dt), shape), v_threshold=theta, v_reset=zero)
    if np.any(beta == 1):
        raise ConversionError(f"{where}: beta = 1 for some neurons and below 1 for others; NIR's LIF needs beta < 1")
    tau = dt / (1 - beta)
    return nir.LIF(
        tau=_array(tau, shape), r=_array(tau / dt, shape), v_leak=zero, v_threshold=theta, v_reset=zero.copy()
    )


def from_nir(graph: Any, *, dt: float | None = None) -> FusedNetwork:
    """A NIR graph as a network over all steps: (steps, batch, ...) -> spikes (or values) of its output.

    Args:
        graph: a `nir.NIRGraph`, or the path of a file.
        dt: seconds of a step; None: what the metadata say.

    Raises:
        ConversionError: branches, recurrence, a node or a value that would be run otherwise than it means.
        HpmlError: no dt.
    """
    nir = _nir()
    if not isinstance(graph, nir.NIRGraph):
        graph = nir.read(str(graph))
    if dt is None:
        said = graph.metadata.get("dt") if graph.metadata else None
        if said is None:
            raise HpmlError("from_nir: the graph does not say how long a step is; give dt= in seconds")
        dt = float(said)
    if not dt > 0:
        raise HpmlError(f"from_nir: dt={dt!r} must be > 0 seconds")
    after: dict[str, str] = {}
    for source, sink in graph.edges:
        if source in after or sink in after.values():
            raise ConversionError(
                f"from_nir: {source!r} -> {sink!r}: only chains can be read, no branches and no loops"
            )
        after[source] = sink
    name = next((key for key, node in graph.nodes.items() if isinstance(node, nir.Input)), "")
    layers: dict[str, nn.Module] = {}
    for _ in graph.nodes:
        name = after.get(name, "")
        if not name or isinstance(graph.nodes[name], nir.Output):
            break
        layers[name.replace(".", "_")] = _layer(nir, name, graph.nodes[name], dt)
    if not name or len(layers) + 2 != len(graph.nodes):
        raise ConversionError("from_nir: the nodes are not one chain from an input to an output")
    sequential = nn.Sequential()
    for key, layer in layers.items():
        sequential.add_module(key, layer)
    return FusedNetwork(sequential).eval()


def _layer(nir: Any, name: str, node: Any, dt: float) -> nn.Module:
    where = f"from_nir: node {name!r}: {type(node).__name__}"
    kind = type(node)
    layer: Any
    if kind in (nir.Affine, nir.Linear):
        rows, columns = node.weight.shape
        layer = nn.Linear(columns, rows, bias=kind is nir.Affine)
    elif kind is nir.Conv2d:
        out, per_group = node.weight.shape[:2]
        padding = node.padding if isinstance(node.padding, str) else _pair(node.padding)
        kernel, stride = _pair(node.weight.shape[2:]), _pair(node.stride)
        layer = nn.Conv2d(per_group * node.groups, out, kernel, stride, padding, _pair(node.dilation), node.groups)
    elif kind is nir.AvgPool2d:
        kernel, stride, padding = (_pair(np.asarray(size)) for size in (node.kernel_size, node.stride, node.padding))
        return nn.AvgPool2d(kernel, stride, padding)
    elif kind is nir.Flatten:
        return nn.Flatten(node.start_dim + 1, node.end_dim if node.end_dim < 0 else node.end_dim + 1)
    elif kind in (nir.LIF, nir.IF):
        return _neurons_of(nir, where, node, dt)
    else:
        raise ConversionError(f"{where} cannot be run here as it is meant")
    with torch.no_grad():
        layer.weight.copy_(torch.as_tensor(node.weight))
        if layer.bias is not None:
            layer.bias.copy_(torch.as_tensor(node.bias))
    return layer


def _neurons_of(nir: Any, where: str, node: Any, dt: float) -> LeakyNeurons:
    leak = np.asarray(getattr(node, "v_leak", 0.0))
    if np.any(leak != 0) or np.any(np.asarray(node.v_reset) != 0):
        raise ConversionError(f"{where}: v_leak and v_reset other than 0 have no equal here")
    if isinstance(node, nir.IF):
        beta, gain = np.ones(node.r.shape), np.asarray(node.r, np.float64) * dt
    else:
        tau = np.asarray(node.tau, np.float64)
        if np.any(tau < dt * (1 - 1e-6)) or not np.all(np.isfinite(tau)):
            raise ConversionError(
                f"{where}: tau must be finite and at least dt = {dt:g} s, or one Euler step overshoots"
            )
        beta, gain = np.clip(1 - dt / tau, 0, 1), np.asarray(node.r, np.float64) * dt / tau
    if not np.allclose(gain, 1, rtol=1e-5):
        raise ConversionError(
            f"{where}: an input of 1 raises the membrane by {float(gain.flat[0]):g} in a step of {dt:g} s; only 1 can "
            "be run as it is meant (is dt right?)"
        )
    threshold = torch.as_tensor(np.asarray(node.v_threshold, np.float32))
    return LeakyNeurons(torch.as_tensor(beta.astype(np.float32)), threshold, reset="zero")
