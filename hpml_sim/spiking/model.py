"""ReLU network -> spiking network: the converter behind `convert(model, Spiking(...))`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from hpml_sim.cards import NeuromorphicCard, load_card
from hpml_sim.conversion import Converted, LayerReport, convert, register_target
from hpml_sim.conversion.modes import eval_mode
from hpml_sim.errors import ConversionError, HpmlError
from hpml_sim.spiking.encoders import ENCODERS, DirectEncoder
from hpml_sim.spiking.folding import BATCH_NORMS
from hpml_sim.spiking.folding import LAYERS as SYNAPSES
from hpml_sim.spiking.functions import with_functions_as_modules
from hpml_sim.spiking.multistep_neurons import AdaptiveNeurons, SynapticNeurons
from hpml_sim.spiking.neurons import LeakyNeurons
from hpml_sim.spiking.snntorch_reset import warn_if_changed
from hpml_sim.spiking.state import StatefulNetwork
from hpml_sim.spiking.static_input import run_static_input
from hpml_sim.spiking.time_folding import TimeFolded, TimeFoldedDropout
from hpml_sim.targets import Adaptive, Spiking, Synaptic

RECTIFIERS = (nn.ReLU, nn.ReLU6)
_WITHOUT_COUNTERPART = (
    nn.CELU,
    nn.ELU,
    nn.GELU,
    nn.GLU,
    nn.Hardshrink,
    nn.Hardsigmoid,
    nn.Hardswish,
    nn.Hardtanh,
    nn.LeakyReLU,
    nn.LogSigmoid,
    nn.Mish,
    nn.PReLU,
    nn.RReLU,
    nn.SELU,
    nn.SiLU,
    nn.Sigmoid,
    nn.Softplus,
    nn.Softshrink,
    nn.Softsign,
    nn.Tanh,
    nn.Tanhshrink,
    nn.Threshold,
)
_SOFTMAX = (nn.Softmax, nn.Softmax2d, nn.Softmin, nn.LogSoftmax)
_MEANS = (
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AvgPool3d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveAvgPool3d,
)
MAXIMA = (
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.MaxPool3d,
    nn.AdaptiveMaxPool1d,
    nn.AdaptiveMaxPool2d,
    nn.AdaptiveMaxPool3d,
)
_CHANNEL_DROPOUTS = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
_LARGEST_LOGIT = 8.0
_SHAPES = (nn.Flatten, nn.Unflatten, nn.Identity)


class SpikingModel(Converted, StatefulNetwork):
    """A spiking network with the call of the network it came from: (batch, ...) -> logits (batch, classes).

    The encoder turns each sample into `steps` inputs, folded into the batch as (chips x steps x batch, ...); layers
    without memory run once on all of it, neurons run over the steps. The output layer fires as well, since a chip gives
    spikes: a logit is the number of spikes of an output neuron (or of a class's population) over all steps, times
    `logit_scale`.

    Each call starts with all neurons at rest, unless `keep_state` is set or `run_with_state` passes states.

    Attributes:
        encoder: one of `ENCODERS`. steps: time steps of one call; may be set, as accuracy over time needs it.
        logit_scale: what one output spike adds to its logit: 8 / (steps x population), so that neurons that always
            fire give logit 8, where cross-entropy trains well. It never changes which class wins.
        chips, keep_state, state: as in `StatefulNetwork`.
    """

    def __init__(
        self,
        network: nn.Module,
        target: Spiking,
        layers: tuple[LayerReport, ...],
        encoder: TimeFolded,
        output: LeakyNeurons,
    ):
        super().__init__(network, target, layers)
        self.encoder = encoder
        self.output = output
        self.population = target.population
        self._steps = target.steps

    @property
    def steps(self) -> int:
        """Time steps of one call."""
        return self._steps

    @steps.setter
    def steps(self, value: int) -> None:
        if value < 1:
            raise HpmlError(f"SpikingModel.steps={value!r} must be >= 1")
        self._steps = value
        for module in self.modules():
            if isinstance(module, TimeFolded):
                module.steps = value

    @property
    def logit_scale(self) -> float:
        """What one output spike adds to its logit."""
        return _LARGEST_LOGIT / (self.steps * self.population)

    def neurons(self) -> Iterable[tuple[str, LeakyNeurons]]:
        """Names and layers of spiking neurons, in the order in which they are registered."""
        return ((name, module) for name, module in self.named_modules() if isinstance(module, LeakyNeurons))

    def spikes(self, x: Tensor) -> Tensor:
        """Output spikes, 0 or 1: (chips x batch, ...) -> (chips, steps, batch, classes).

        Raises:
            HpmlError: the batch does not divide into the chips, or (rate encoder) an input outside [0, 1].
        """
        if x.dim() < 2 or x.shape[0] % self.chips:
            raise HpmlError(
                f"SpikingModel: input of shape {tuple(x.shape)}; expected (batch, ...), the batch a multiple of the "
                f"{self.chips} chip(s) in it"
            )
        return self.output.unfold(self.going_on(lambda: self.output(self._run(x))))

    def _run(self, x: Tensor) -> Tensor:
        """What the network gives at every step, before the output neurons.

        A chip computes the first layers of a constant input at every step, and so do evaluation and whatever counts
        there; training computes them once.
        """
        if self.training and isinstance(self.encoder, DirectEncoder):
            return run_static_input(self.network, x, self.encoder, LeakyNeurons)
        return self.network(self.encoder(x))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (chips x batch, classes) of inputs (chips x batch, ...)."""
        counts = self.spikes(x).sum(dim=1)
        if self.population > 1:
            if counts.shape[-1] % self.population:
                raise HpmlError(
                    f"SpikingModel: {counts.shape[-1]} outputs do not divide into classes of {self.population} neurons "
                    "(Spiking(population=...)); the network's last layer needs classes x population outputs"
                )
            counts = counts.unflatten(-1, (-1, self.population)).sum(-1)
        return counts.reshape(-1, *counts.shape[2:]) * self.logit_scale


@register_target(Spiking)
def to_spiking(model: nn.Module, target: Spiking, chosen: Callable[[str, nn.Module], bool]) -> SpikingModel:
    """Replace every rectifier by spiking neurons and put an encoder before and firing neurons after the network.

    Raises:
        ConversionError: an activation without spiking counterpart, a layer with a memory of its own, or no rectifier.
    """
    warn_if_changed()
    model = with_functions_as_modules(model)
    replaced: dict[int, nn.Module] = {}
    found = 0
    rows: list[LayerReport] = []
    synapses: dict[str, LayerReport] = {}
    scales = scale_weights(model, target.neuron.threshold, chosen) if target.scale_weights else {}
    for name, module in model.named_modules():
        if chosen(name, module):
            _refuse(name, module)
    if target.synapses is not None:
        import hpml_sim.analog  # noqa: F401 - registers the converter for crossbars

        on_crossbars = convert(model, target.synapses, only=chosen)
        model, synapses = on_crossbars.network, {row.layer: row for row in on_crossbars.layers}

    for name, module in list(model.named_modules()):
        inside = any(name.startswith(layer + ".") for layer in synapses) or any(
            name.startswith(row.layer + ".") for row in rows
        )
        opaque = name in synapses or isinstance(module, nn.MultiheadAttention)
        if inside or (not opaque and any(True for _ in module.children())):
            continue
        wanted = chosen(name, module)
        if isinstance(module, RECTIFIERS):
            found += 1
        new, row = _counterpart(name, module, target, wanted, synapses.get(name))
        if name in scales and scales[name] != 1:
            row = replace(
                row,
                why=f"weights x {scales[name]:.3g}, so that they drive neurons up to the threshold"
                + (f"; {row.why}" if row.why else ""),
            )
        if new is not None:
            replaced[id(module)] = new
        rows.append(row)
    if not found:
        if any(type(module).__module__.startswith("snntorch") for module in model.modules()):
            raise ConversionError(
                f"{type(model).__name__} spikes already: its neurons are snnTorch's. hs.spiking.fuse(network) runs "
                "them over all steps at once; hs.convert(hs.spiking.fuse(network), 'pcm-hermes') puts the weights on "
                "crossbars"
            )
        raise ConversionError(
            f"{type(model).__name__}: no nn.ReLU found, so nothing can spike. An activation called as a function "
            "(torch.relu, F.relu) inside a forward() that torch.fx cannot trace is not seen: make it a module "
            "(self.act = nn.ReLU()) and convert again"
        )
    model = replace_modules(model, replaced)
    card = load_card(target.card)
    assert isinstance(card, NeuromorphicCard)  # its target checked it
    kind = target.encoder or card.encoder
    rows.append(LayerReport("(output)", "-", "LeakyNeurons", why="added: a chip gives spikes; logits are their counts"))
    return SpikingModel(model, target, tuple(rows), ENCODERS[kind](target.steps), _neurons(target))


@torch.no_grad()
def scale_weights(
    model: nn.Module, threshold: float, chosen: Callable[[str, nn.Module], bool] = lambda _name, _module: True
) -> dict[str, float]:
    """Scale weights in place, layer by layer, so that the largest expected current of a step equals the threshold.

    A neuron with reset by subtraction fires at a rate of about current / threshold up to 1 spike a step (P. U. Diehl et
    al., IJCNN 2015), so currents beyond the threshold saturate it and cost spikes. Without data at hand the largest
    current is taken as three standard deviations of a sum over inputs that fire with probability 1/2, whose variance
    is 1/4 each: max over neurons of 1.5 * |w| + b; after batch normalization 3 * |gamma| + beta. Weights only shrink.
    A bias shrinks with the weights of all earlier layers as well, because their spikes do.

    Returns:
        The factor of each layer's weights, by name.
    """
    factors: dict[str, float] = {}
    layers = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, (*SYNAPSES, *BATCH_NORMS)) and chosen(name, module)
    ]
    earlier = 1.0
    for index, (name, layer) in enumerate(layers):
        following = layers[index + 1][1] if index + 1 < len(layers) else None
        if layer.weight is None or isinstance(following, BATCH_NORMS):
            continue  # what is normalized next has no scale of its own
        normalized = isinstance(layer, BATCH_NORMS)
        if normalized:
            spread = 3 * layer.weight.abs()
        elif isinstance(layer, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
            spread = 1.5 * layer.weight.flatten(2).norm(dim=(0, 2)).repeat(layer.groups)
        else:
            spread = 1.5 * layer.weight.flatten(1).norm(dim=1)
        if layer.bias is not None and not normalized:
            layer.bias.mul_(earlier)
        largest = float((spread if layer.bias is None else spread + layer.bias).max())
        factor = min(1.0, threshold / largest) if largest > 0 else 1.0
        layer.weight.mul_(factor)
        if layer.bias is not None:
            layer.bias.mul_(factor)
        factors[name] = factor
        earlier = factor if normalized else earlier * factor
    return factors


def _neurons(target: Spiking) -> LeakyNeurons:
    neuron = target.neuron
    options: dict[str, Any] = {"surrogate": neuron.surrogate, "slope": neuron.slope, "steps": target.steps}
    if isinstance(neuron, Adaptive):
        return AdaptiveNeurons(neuron.beta, neuron.threshold, neuron.adaptation_decay, neuron.adaptation, **options)
    options["reset"] = neuron.reset
    if isinstance(neuron, Synaptic):
        return SynapticNeurons(neuron.current_decay, neuron.beta, neuron.threshold, **options)
    return LeakyNeurons(neuron.beta, neuron.threshold, reset_delay=neuron.reset_delay, engine=target.engine, **options)


def _refuse(name: str, module: nn.Module) -> None:
    """Raise where the fold of time into the batch would be wrong, on crossbars or off them."""
    if isinstance(module, nn.RNNBase):
        raise ConversionError(
            f"layer {name!r}: {type(module).__name__} keeps a memory of its own, which would mix with the time steps; "
            "take a network without recurrent layers"
        )
    if isinstance(module, nn.MultiheadAttention) and not module.batch_first:
        raise ConversionError(
            f"layer {name!r}: MultiheadAttention with batch_first=False; time is folded into the first dimension, "
            "which must be the batch: build it with batch_first=True"
        )


def _counterpart(
    name: str, module: nn.Module, target: Spiking, wanted: bool, crossbar: LayerReport | None
) -> tuple[nn.Module | None, LayerReport]:
    """What replaces a module (None: nothing), and its row in the report."""
    was = type(module).__name__

    def row(became: str, why: str = "") -> tuple[None, LayerReport]:
        return None, LayerReport(name, was, became, why=why)

    if crossbar is not None and crossbar.became != "digital":
        return None, crossbar
    if not wanted:
        return row("digital", "left out by only= or skip=")
    if isinstance(module, RECTIFIERS):
        neurons = _neurons(target)
        return neurons, LayerReport(name, was, type(neurons).__name__)
    if isinstance(module, _WITHOUT_COUNTERPART):
        raise ConversionError(
            f"layer {name!r}: {was} has no spiking counterpart (a spike count is never negative and grows with its "
            "input); train the network with nn.ReLU there, or leave the layer digital with skip="
        )
    if isinstance(module, _SOFTMAX):
        raise ConversionError(
            f"layer {name!r}: {was} has no spiking counterpart; remove it: the spiking network gives logits, and "
            "the loss (cross-entropy) applies the softmax"
        )
    if isinstance(module, nn.MultiheadAttention):
        return row("digital", "attention has no spiking counterpart; it runs at every step on what it is given")
    if isinstance(module, (nn.Dropout, *_CHANNEL_DROPOUTS)):
        dropout = TimeFoldedDropout(module.p, channels=isinstance(module, _CHANNEL_DROPOUTS), steps=target.steps)
        return dropout, LayerReport(name, was, "TimeFoldedDropout", why="one mask a sample for all steps; training only")
    if isinstance(module, SYNAPSES):
        return row("synapses", crossbar.why if crossbar is not None else "")
    if isinstance(module, BATCH_NORMS):
        return row(was, "folds into the weights of the layer before it on the chip")
    if isinstance(module, _MEANS):
        return row("synapses", "a mean is a convolution with fixed weights")
    if isinstance(module, MAXIMA):
        return row(was, "of spikes: a logical OR at each step")
    if isinstance(module, _SHAPES):
        return row(was, "moves no data on the chip")
    return row("digital", "no spiking counterpart known; it runs at every step on what it is given")


def replace_modules(model: nn.Module, replaced: dict[int, nn.Module]) -> nn.Module:
    """Put the new modules where the old ones were, wherever they are used; returns the model (or its replacement)."""
    for parent in list(model.modules()):
        for key, child in list(parent._modules.items()):
            if child is not None and id(child) in replaced:
                parent._modules[key] = replaced[id(child)].train(child.training)
    return replaced.get(id(model), model)


def firing_rates(model: SpikingModel, x: Tensor) -> dict[str, float]:
    """Mean spikes a neuron and step, in [0, 1], of each layer of neurons for inputs (batch, ...)."""
    with eval_mode(model):
        model(x)
    return {
        name: layer.spike_count / max(1, layer.samples * layer.neurons * layer.steps)
        for name, layer in model.neurons()
        if layer.spike_count is not None
    }
