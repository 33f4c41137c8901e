"""Export to NIR, the exchange format of spiking networks: an export that proves itself."""

from __future__ import annotations

import textwrap
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hpml_sim.conversion.cloning import clone
from hpml_sim.conversion.modules import check_network
from hpml_sim.errors import ConversionError, HpmlError, check_real, shown
from hpml_sim.spiking.batch_norm_folding import fold_batch_norms
from hpml_sim.spiking.fused_network import FusedNetwork
from hpml_sim.spiking.interop.nir_graph import NirGraph, is_layer, spikes_of
from hpml_sim.spiking.interop.nir_import import from_nir
from hpml_sim.spiking.interop.nir_package import nir
from hpml_sim.spiking.model import SpikingModel
from hpml_sim.spiking.time_loop import prepare_pass
from hpml_sim.units.display import WIDTH, html_table


@dataclass(frozen=True, repr=False)
class NirReport:
    """What an export is worth; printed, it is a line and its notes.

    Attributes:
        graph: the `nir.NIRGraph`.
        mismatch: share of output spikes that differ after export and import, 0 to 1.
        spikes: output spikes of the example.
        steps: time steps of the example.
        notes: what the graph does not hold.

    Example:
        >>> import torch, hpml_sim as hs
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 3), hs.spiking.LeakyNeurons(0.9, reset="zero"))
        >>> hs.spiking.to_nir(net, torch.zeros(10, 2, 4)).notes
        ('dt = 0.0001 s, in the metadata: NIR has no time step',)
    """

    graph: Any
    mismatch: float
    spikes: int
    steps: int
    notes: tuple[str, ...]

    def __repr__(self) -> str:
        notes = [textwrap.fill(note, WIDTH, initial_indent="  ", subsequent_indent="    ") for note in self.notes]
        return "\n".join([self._line(), *notes])

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return html_table(self._line(), [("note", note) for note in self.notes])

    def _line(self) -> str:
        return (
            f"NIR: {len(self.graph.nodes)} nodes; {100 * self.mismatch:.3g} % of output spikes differ after import "
            f"({self.spikes} spikes in {self.steps} steps)"
        )


@torch.no_grad()
def to_nir(
    network: nn.Module,
    example: Tensor,
    path: str | Path | None = None,
    *,
    dt: float = 1e-4,
    allowed_mismatch: float = 0.0,
) -> NirReport:
    """Export a network to NIR, import it again, run both on an example and compare the spikes.

    Layers with a node in NIR, sums (residual connections), recurrent neurons and batch norms behind a layer, which are
    folded into it, can be exported. So can neurons that reset to zero; NIR knows no reset by subtraction. Everything
    else is refused by name.

    Source: J. E. Pedersen et al., Nat. Commun. 15:8122 (2024) (NIR).

    Args:
        network: a `SpikingModel`, a `FusedNetwork`, or a module of layers and neurons whose forward() can be traced
            (`torch.fx`); time is folded into its batch.
        example: (steps, batch, ...): what enters the first layer at each step. An encoder is no part of the graph: for
            a `SpikingModel` give `model.encoder(x).unflatten(0, (steps, -1))`.
        path: also write this file (.nir).
        dt: seconds of a step, > 0; snnTorch's importer takes 1e-4 whatever the file says.
        allowed_mismatch: largest share of spikes that may differ, 0 to 1.

    Returns:
        The graph, how many spikes differ, and what the graph does not hold.

    Raises:
        ConversionError: a layer, a reset or an option that NIR cannot hold, or too many spikes differ; then no file is
            written.
        HpmlError: an argument of the wrong type or out of its range, an example of another shape, or the package nir is
            missing.

    Example:
        >>> import torch, hpml_sim as hs
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 3), hs.spiking.LeakyNeurons(0.9, reset="zero"))
        >>> report = hs.spiking.to_nir(net, torch.rand(10, 2, 4))
        >>> report.mismatch, sorted(report.graph.nodes)
        (0.0, ['0', '1', 'input', 'output'])
        >>> again = hs.spiking.from_nir(report.graph)
        >>> again(torch.rand(10, 2, 4)).shape
        torch.Size([10, 2, 3])
    """
    check_network("to_nir: network", network)
    check_real("to_nir: dt", dt, above=0, hint="it is in seconds")
    check_real("to_nir: allowed_mismatch", allowed_mismatch, low=0, high=1)
    if not isinstance(example, Tensor):
        raise HpmlError(f"to_nir: example={shown(example)}: must be a tensor (steps, batch, ...)")
    if example.dim() < 3 or 0 in example.shape[:2]:
        raise HpmlError(f"to_nir: example of shape {tuple(example.shape)}; expected (steps, batch, ...)")
    package = nir()
    notes = [f"dt = {dt:g} s, in the metadata: NIR has no time step"]
    if isinstance(network, SpikingModel):
        notes.append(f"encoder {type(network.encoder).__name__} is not in the graph")
    original = clone(_root(network)).eval()
    x = example.flatten(0, 1)
    prepare_pass(original, example.shape[0])
    folded, pairs = fold_batch_norms(original, x)
    notes += [f"layer {norm!r}: batch norm, folded into {layer!r}" for layer, norm in pairs.items()]
    drawn = NirGraph(folded, example, dt)
    metadata = {"producer": "hpml_sim", "dt": dt, "reset": "zero", "neurons": "; ".join(drawn.settings)}
    # nir takes the channels of a grouped convolution for those of one group
    grouped = any(getattr(module, "groups", 1) > 1 for module in folded.modules())
    graph = package.NIRGraph(drawn.nodes, drawn.edges, metadata=metadata, type_check=not grouped)
    again = from_nir(graph)
    want, got = spikes_of(FusedNetwork(original)(example)), again(example)
    mismatch = float((want != got).double().mean())
    if mismatch > allowed_mismatch:
        raise ConversionError(
            f"to_nir: {100 * mismatch:.3g} % of the output spikes differ after export and import; nothing was written "
            "(allowed_mismatch= lets it pass)"
        )
    if path is not None:
        package.write(str(path), graph)
    notes += drawn.notes
    return NirReport(graph, mismatch, int(torch.count_nonzero(want)), example.shape[0], tuple(notes))


def _root(network: nn.Module) -> nn.Module:
    """What to trace: a module with the layers below it."""
    if isinstance(network, SpikingModel):
        if network.chips != 1:
            raise ConversionError(f"to_nir: a model with {network.chips} chips; export one")
        return nn.Sequential(OrderedDict(network=network.network, spikes=network.output))
    if isinstance(network, FusedNetwork):
        return _root(network.network)
    if is_layer(network):
        return nn.Sequential(OrderedDict(layer=network))
    return network
