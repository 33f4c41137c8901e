"""`SpikingModel`: a network of spiking neurons with the call of the ReLU network that it was made from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from hpml_sim.analog.layers import has_analog_layers
from hpml_sim.analog.weight_products import ProductWatch
from hpml_sim.conversion import Converted, LayerReport
from hpml_sim.conversion.inputs import check_finite, in_type_of_weights, integers_explained
from hpml_sim.conversion.mapping import Mapping
from hpml_sim.conversion.modes import eval_mode
from hpml_sim.conversion.modules import running
from hpml_sim.conversion.network_call import shapes_of
from hpml_sim.conversion.torch_fast_path import one_attention_path
from hpml_sim.errors import HpmlError, check_whole, shown
from hpml_sim.spiking.encoders import DirectEncoder
from hpml_sim.spiking.neurons.integrators import LeakyIntegrators
from hpml_sim.spiking.neurons.lif import LeakyNeurons
from hpml_sim.spiking.row_wise import is_row_wise
from hpml_sim.spiking.state import StatefulSpikingNetwork
from hpml_sim.spiking.static_input import run_static_input
from hpml_sim.spiking.time_fold_proof import FoldProof
from hpml_sim.spiking.time_folding import TimeFolded
from hpml_sim.spiking.time_loop import run_step_by_step
from hpml_sim.targets import Spiking

_LARGEST_LOGIT = 8.0
_LOOP = "loop over steps"


class SpikingModel(Converted, StatefulSpikingNetwork):
    """A spiking network with the call of the network it came from: (batch, ...) -> logits (batch, classes).

    The encoder turns each sample into `steps` inputs, folded into the batch as (chips x steps x batch, ...); layers
    without memory run once on all of it, neurons run over the steps. A network whose layers mix the rows of a batch
    runs step by step instead, as a loop would: the first call finds out, the log and the report say why. The output
    layer fires as well, since a chip gives
    spikes: a logit is the number of spikes of an output neuron (or of a class's population) over all steps, times
    `logit_scale`. With `readout="membrane"` it never fires, and a logit is its last potential times `logit_scale`.

    Each call starts with all neurons at rest, unless `keep_state` is set or `run_with_state` passes states.

    Args:
        network: the network, its rectifiers replaced by neurons; it takes (chips x steps x batch, ...).
        target: the configuration that it was made for.
        layers: what became of each layer.
        encoder: gives the network its input at every step.
        output: the neurons behind the network, whose spikes are counted, or membranes, whose last potential is read.
        mapping: where the synapses lie on crossbars; None for a target without them.

    Attributes:
        network: the network, its rectifiers replaced by neurons.
        target: the configuration that it was made for.
        layers: what became of each layer.
        encoder: gives the network its input at every step.
        output: the neurons behind the network, whose spikes are counted, or membranes, whose last potential is read.
        population: output neurons of a class.
        chips: simulated chips side by side, outermost in the first dimension of input and output.
        keep_state: whether the next call goes on where the last one ended.
        state: where the last call ended, if `keep_state` is set; None: at rest.

    Example:
        >>> import torch, hpml_sim as hs
        >>> model = hs.convert(hs.models.mlp(64, 32, 10), hs.Spiking("loihi", steps=8)).eval()
        >>> x = torch.rand(5, 1, 8, 8)
        >>> model(x).shape, model.spikes(x).shape  # (batch, classes), (chips, steps, batch, classes)
        (torch.Size([5, 10]), torch.Size([1, 8, 5, 10]))
        >>> torch.equal(model(x), model.spikes(x).sum(dim=1)[0] * model.logit_scale)
        True
    """

    def __init__(
        self,
        network: nn.Module,
        target: Spiking,
        layers: tuple[LayerReport, ...],
        encoder: TimeFolded,
        output: LeakyNeurons | LeakyIntegrators,
        mapping: Mapping | None = None,
    ):
        super().__init__(network, target, layers, mapping)
        self.encoder = encoder
        self.output = output
        self.population = target.population
        self._proof = FoldProof()
        self._products = ProductWatch(self) if has_analog_layers(network) else None
        self._steps = target.steps

    @property
    def steps(self) -> int:
        """Time steps of one call, >= 1; may be set, as accuracy over time needs it."""
        return self._steps

    @steps.setter
    def steps(self, value: int) -> None:
        self._steps = check_whole("SpikingModel.steps", value, low=1)
        for module in self.modules():
            if isinstance(module, TimeFolded):
                module.steps = self._steps

    @property
    def logit_scale(self) -> float:
        """What one output spike adds to its logit: 8 / (steps x population). Of a membrane: what 1 of it stands for.

        Neurons that always fire give logit 8, where cross-entropy trains well. A membrane that takes a constant current
        gives that current: without a leak, 1 of it is 1 / (steps x population). It never changes which class wins.
        """
        if isinstance(self.output, LeakyNeurons):
            return _LARGEST_LOGIT / (self.steps * self.population)
        kept = [float(beta) ** step for beta in self.output.beta.detach().flatten()[:1] for step in range(self.steps)]
        return 1 / (sum(kept) * self.population)

    def neurons(self) -> Iterable[tuple[str, LeakyNeurons]]:
        """Names and layers of spiking neurons, in the order in which they are registered."""
        return ((name, module) for name, module in self.named_modules() if isinstance(module, LeakyNeurons))

    def spikes(self, x: Tensor) -> Tensor:
        """Output spikes, 0 or 1, (chips, steps, batch, classes x population).

        Args:
            x: inputs (chips x batch, ...).

        Raises:
            HpmlError: the output neurons never fire, x is no tensor, the batch does not divide into the chips, an input
                lies outside [0, 1] (rate encoder), is of a type that the network does not take, or the network gives no
                tensor.
            NotFiniteError: an input that holds NaN or infinity.
        """
        if not isinstance(self.output, LeakyNeurons):
            raise HpmlError(
                "SpikingModel.spikes: with readout='membrane' the output neurons never fire; call the model for their "
                "potentials"
            )
        return self._outputs(x)

    def _outputs(self, x: Tensor) -> Tensor:
        """What the output neurons give at every step: spikes or potentials, (chips, steps, batch, ...)."""
        if not isinstance(x, Tensor):
            raise HpmlError(f"SpikingModel: input={shown(x)}: must be a tensor (batch, ...)")
        if x.dim() < 2 or x.shape[0] % self.chips:
            raise HpmlError(
                f"SpikingModel: input of shape {tuple(x.shape)}; expected (batch, ...), the batch a multiple of the "
                f"{self.chips} chip(s) in it"
            )
        x = in_type_of_weights(self, x)
        with (
            one_attention_path(self.network),
            running("SpikingModel", self.network, [x]),
            integers_explained("SpikingModel", x),
        ):
            return self.output.unfold(self.run_from_kept_state(lambda: self.output(self._watched(x))))

    def _watched(self, x: Tensor) -> Tensor:
        """As `_currents`; crossbars compute what the network multiplies with their layers' weights by itself."""
        if self._products is None or torch.compiler.is_compiling():
            return self._currents(x)
        return self._products.run(self, lambda: self._currents(x))

    def _currents(self, x: Tensor) -> Tensor:
        """What reaches the output neurons at every step."""
        currents = self._before_output(x)
        if not isinstance(currents, Tensor):
            raise HpmlError(
                f"SpikingModel: the network gave {shapes_of(currents)}; its output neurons need one tensor (batch, "
                "classes): wrap the network so that its forward() gives the logits alone"
            )
        return currents

    def _before_output(self, x: Tensor) -> Any:
        """What the network gives at every step, before the output neurons."""
        # A chip computes the first layers of a constant input at every step, and so do evaluation and whatever counts
        # there; training computes them once.
        static = self.training and isinstance(self.encoder, DirectEncoder)
        if static and is_row_wise(self.network):
            check_finite("direct encoder", x)  # which need not run
            return run_static_input(self.network, x, self.encoder, LeakyNeurons)
        encoded = self.encoder(x)
        if self._proof.holds(self.network, encoded, self.steps, self.chips):
            return run_static_input(self.network, x, self.encoder, LeakyNeurons) if static else self.network(encoded)
        self._report_loop()
        return run_step_by_step(self.network, encoded, self.steps, self.chips)

    def _report_loop(self) -> None:
        """A row of the report, once, on a network whose steps run one after the other."""
        if self._proof.why_not is not None and all(row.became != _LOOP for row in self.layers):
            row = LayerReport("(network)", type(self.network).__name__, _LOOP, why=self._proof.why_not)
            rows: tuple[LayerReport, ...] = (*self.layers, row)
            self.layers = rows

    def forward(self, x: Tensor) -> Tensor:
        """Logits (chips x batch, classes).

        Args:
            x: inputs (chips x batch, ...).
        """
        self.note_input((x,), {})
        outputs = self._outputs(x)
        counts = outputs.sum(dim=1) if isinstance(self.output, LeakyNeurons) else outputs[:, -1]
        if self.population > 1:
            if counts.shape[-1] % self.population:
                raise HpmlError(
                    f"SpikingModel: {counts.shape[-1]} outputs do not divide into classes of {self.population} neurons "
                    "(hs.Spiking(..., population=)); the network's last layer needs classes x population outputs"
                )
            counts = counts.unflatten(-1, (-1, self.population)).sum(-1)
        return counts.reshape(-1, *counts.shape[2:]) * self.logit_scale


def firing_rates(model: SpikingModel, x: Tensor) -> dict[str, float]:
    """Mean spikes a neuron and step of each layer of neurons.

    Args:
        model: what `hs.convert(network, hs.Spiking(...))` or `hs.spiking.calibrated` gave; run in evaluation mode and
            left as it was.
        x: inputs (chips x batch, ...).

    Returns:
        The name of each layer of neurons -> its rate, 0 to 1.

    Raises:
        HpmlError: another model, or an input that it does not take.

    Example:
        >>> import torch, hpml_sim as hs
        >>> model = hs.convert(hs.models.mlp(64, 32, 10), hs.Spiking("loihi", steps=8))
        >>> rates = hs.spiking.firing_rates(model, torch.rand(5, 1, 8, 8))
        >>> list(rates), all(0 <= rate <= 1 for rate in rates.values())
        (['network.2', 'output'], True)
    """
    if not isinstance(model, SpikingModel):
        raise HpmlError(
            f"firing_rates: model={shown(model)}: must be a spiking network: hs.convert(network, hs.Spiking(...))"
        )
    with eval_mode(model):
        model(x)
    return {
        name: layer.spike_count / max(1, layer.samples * layer.neurons * layer.steps)
        for name, layer in model.neurons()
        if layer.spike_count is not None
    }
