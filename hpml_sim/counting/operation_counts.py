"""Operation counts: what each layer of a network does for one inference, and sums over the network."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from hpml_sim.conversion.mapping import Mapping
from hpml_sim.errors import HpmlError, UnknownNameError, shown
from hpml_sim.units.display import html_table, text_table
from hpml_sim.units.formatting import digits, si

if TYPE_CHECKING:
    import pandas as pd

Convention = Literal["fan-out", "neurobench"]
CONVENTIONS: dict[str, str] = {
    "fan-out": "inputs that are not zero, times their fan-out; weights that are zero included; spikes are 0 or 1",
    "neurobench": "pairs of an input and a weight that are both not zero; an input of -1, 0 or 1 makes an accumulate",
}
"""How synaptic operations may be counted. Padding is no input in either; the bias is never counted."""


FirstLayer = Literal["every step", "once"]
"""How often layers before the first spiking neurons count whose input is no spikes but the same at every step."""


class SynapticOperations(NamedTuple):
    """Synaptic operations of one inference.

    Attributes:
        effective_macs: with real-valued inputs.
        effective_acs: with spikes, where a product is only an addition.
        dense: what they would be if no input and no weight were zero.
        convention: a key of `CONVENTIONS`.
        first_layer: how often layers with a constant input were counted.
    """

    effective_macs: float
    effective_acs: float
    dense: float
    convention: Convention
    first_layer: FirstLayer = "every step"


@dataclass(frozen=True)
class LayerCount:
    """What one layer does for ONE inference (one sample, all its time steps).

    Everything from `sops` to `spikes`, and the fractions, are means over the samples; where nothing was measured
    (`Workload.samples` is 0) every input is taken as active, an upper bound.

    Attributes:
        name: dotted name in the network. A product of a parameter outside a layer bears the parameter's name.
        op: "linear", "conv", "recurrent", "attention", "matmul" (two activations), "embedding", "neuron", "norm",
            "activation", "softmax", "pool", "copy", "encoder", "kv_cache", or "elementwise": all tensor operations
            without a product that a module does itself (residual sums, scaling, functional activations, ...).
        rows: of the weight matrix as a crossbar sees it: inputs summed into an output (fan-in); 0 for layers without
            weights. A transposed convolution has a row an input channel.
        cols: of that matrix: outputs; 0 for layers without weights.
        groups: matrices of this size (grouped convolution, experts); 1 otherwise.
        vectors: input vectors multiplied by each matrix in one inference (positions x time steps); of experts, the mean
            over all of them.
        macs: multiply-accumulates = rows x cols x groups x vectors for a matrix layer, padding included; of complex
            numbers four times as many.
        weight_count: stored parameters; tied ones are counted where they are met first.
        input_elements: values read in one inference, weights left out.
        output_elements: values written in one inference.
        binary_input: every input of this layer was 0 or 1 (spikes), so a MAC is an accumulate.
        active_fraction: share of the input elements that were not zero (1.0 where nothing was measured).
        sops: synaptic operations: inputs that were not zero, times their fan-out (zero weights included).
        neurons: spiking neurons in the layer.
        updates: neuron updates = neurons x steps.
        spikes: spikes sent in one inference, mean over the samples.
        steps: time steps (1 for a network without time).
        module: class of the module, or "" for what happens outside a known one.
        calls: kernels that an eager framework starts for one forward pass, whatever the batch.
        dense_sops: synaptic operations if no input were zero: `macs` less the padding of a convolution.
        effective_macs: synaptic operations with real-valued inputs, as NeuroBench counts them.
        effective_acs: synaptic operations with spikes, as NeuroBench counts them.
        zero_weights: weights of the matrix that are zero.
        zero_outputs: outputs of neurons and activations that were zero.
        state_elements: values kept for the next call (a key-value cache), after this one.
        delay_steps: longest delay of its connections, or of what it passes on, in time steps; 0: none.
        weight_bits: bits of a weight's data type.
        activation_bits: bits of an activation's data type.
        input_mean_square: mean of (x / largest |x|)^2 over the inputs; None where nothing was measured.
        weight_mean_abs: mean of |w| / largest |w|; None where nothing was measured.
        zero_pattern: "2:4" where of each four weights of an output that follow each other at least two are zero (along
            the channels in a convolution); "" otherwise.
        stored_bits: bits of a weight of a quantized network, with its share of a scale; None: those of the data type.
        arithmetic: "int8" or "fp8" where a quantized network rounds the inputs of the product as well; "" otherwise.
    """

    name: str
    op: str
    rows: int = 0
    cols: int = 0
    groups: int = 1
    vectors: float = 0.0
    macs: float = 0.0
    weight_count: int = 0
    input_elements: float = 0.0
    output_elements: float = 0.0
    binary_input: bool = False
    active_fraction: float = 1.0
    sops: float = 0.0
    neurons: int = 0
    updates: float = 0.0
    spikes: float = 0.0
    steps: int = 1
    module: str = ""
    calls: float = 1.0
    dense_sops: float = 0.0
    effective_macs: float = 0.0
    effective_acs: float = 0.0
    zero_weights: int = 0
    zero_outputs: float = 0.0
    state_elements: float = 0.0
    delay_steps: int = 0
    weight_bits: int = 32
    activation_bits: int = 32
    input_mean_square: float | None = None
    weight_mean_abs: float | None = None
    zero_pattern: str = ""
    stored_bits: float | None = None
    arithmetic: str = ""

    def __repr__(self) -> str:
        matrix = f", {self.rows} x {self.cols}" if self.rows else ""
        amounts = ((self.macs, "MACs"), (self.weight_count, "weights"), (self.spikes, "spikes"))
        parts = [f", {_amount(count)} {unit}" for count, unit in amounts if count]
        return f"LayerCount({self.name!r}, {self.op}{matrix}{''.join(parts)})"

    @property
    def zero_share(self) -> float:
        """Share of the weights of the matrix that are zero, 0 to 1."""
        weights = self.rows * self.cols * self.groups
        return min(self.zero_weights / weights, 1.0) if weights else 0.0

    @property
    def weights_read(self) -> float:
        """Weights that one inference touches, each once: of an embedding the rows looked up, of experts those met."""
        if self.op == "embedding":
            return self.output_elements
        if not self.rows * self.cols:
            return float(self.weight_count)
        # of experts that only some vectors meet, no more than there are vectors
        return self.rows * self.cols * self.groups * min(1.0, self.vectors)

    def bytes_moved(self, *, weight_bits: float | None = None, activation_bits: float | None = None) -> float:
        """Bytes read and written in one inference, each weight and activation once.

        Args:
            weight_bits: bits of a weight; None takes those of its data type.
            activation_bits: bits of an activation; None takes those of its data type.
        """
        weights = self.weights_read * (self.weight_bits if weight_bits is None else weight_bits)
        bits = self.activation_bits if activation_bits is None else activation_bits
        return (weights + (self.input_elements + self.output_elements) * bits) / 8


ADDITIVE = (
    "vectors",
    "macs",
    "input_elements",
    "output_elements",
    "sops",
    "updates",
    "spikes",
    "dense_sops",
    "effective_macs",
    "effective_acs",
    "zero_outputs",
    "state_elements",
)
"""Fields that add up over calls and samples."""
_TOTALS = (*ADDITIVE, "weight_count", "zero_weights", "weights_read", "neurons", "calls")
SHOWN_LAYERS = 12
"""Layers that a printed workload shows."""
_NEUROBENCH_ACTIVATIONS = ("ReLU", "Sigmoid")


@dataclass(frozen=True)
class Workload:
    """Operation counts of a network: a row a layer, in order of execution, all for one inference.

    Attributes:
        layers: the layers.
        samples: how many samples the spike and sparsity means rest on (0: shapes only).
        not_counted: layers that the workload does not know, by name and class; never silently zero.
        input_elements: values in one sample.
        output_elements: values in one output.
        kind: "spiking" where there are spiking neurons, else "static".
        mapping: where the matrices lie on crossbars, by the names that the layers have here; None for a network that
            was not converted for crossbars.
        extra: `parameters` of the whole network, used or not; `kv_cache_elements` and `kv_cache_bytes` where there is a
            cache; whatever the caller adds.

    Example:
        >>> import hpml_sim as hs
        >>> counts = hs.workload(hs.models.mlp(784, 128, 10), input_shape=(1, 28, 28))
        >>> counts.total("macs")
        101632.0
        >>> print(counts)
        Workload: 3 layers, 102 k MACs, 102 k parameters, shapes only
        layer  op          matrix       MACs  weights
        1      linear      784 x 128   100 k    100 k
        2      activation
        3      linear      128 x 10   1.28 k   1.29 k
        total                          102 k    102 k
    """

    layers: tuple[LayerCount, ...]
    samples: int = 0
    not_counted: tuple[str, ...] = ()
    input_elements: float = 0.0
    output_elements: float = 0.0
    kind: Literal["static", "spiking"] = "static"
    extra: dict[str, float] = field(default_factory=dict)
    mapping: Mapping | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.layers, tuple) or not all(isinstance(layer, LayerCount) for layer in self.layers):
            raise HpmlError(
                f"Workload: layers={shown(self.layers)}: must be a tuple of layer counts; a Workload is what "
                "hs.workload(network, input_shape=...) gives"
            )

    def __repr__(self) -> str:
        return self._heading()

    def __str__(self) -> str:
        columns, rows = self._rows()
        return text_table(columns, rows, title=self._heading(), note=self._remark())

    def _repr_html_(self) -> str:
        """The same for a notebook."""
        columns, rows = self._rows()
        return html_table(self._heading(), rows, columns=columns, note=self._remark())

    def _heading(self) -> str:
        parameters = self.extra.get("parameters", self.total("weight_count"))
        parts = [
            f"Workload: {len(self.layers)} layers",
            f"{_amount(self.total('macs')) or 0} MACs",
            f"{_amount(parameters) or 0} parameters",
            f"{self.steps} time steps" if self.kind == "spiking" else "",
            f"{self.samples:,} samples" if self.samples else "shapes only",
        ]
        return ", ".join(part for part in parts if part)

    def _remark(self) -> str:
        left = len(self.layers) - SHOWN_LAYERS
        parts = [f"{left} layers with fewer MACs are not shown (.table() has all)"] if left > 0 else []
        parts += [f"not counted: {', '.join(self.not_counted)}"] if self.not_counted else []
        return "; ".join(parts)

    def _rows(self) -> tuple[list[str], list[list[str]]]:
        """Headings and cells of the layers with the most MACs, in order of execution, and of their total."""
        spiking, measured = self.kind == "spiking", self.samples > 0
        columns = ["layer", "op", "matrix", "MACs", "weights"]
        columns += ["active"] * measured + ["spikes"] * spiking
        largest = sorted(range(len(self.layers)), key=lambda k: -self.layers[k].macs)[:SHOWN_LAYERS]
        rows = []
        for k in sorted(largest):
            y = self.layers[k]
            matrix = f"{y.rows} x {y.cols}" + (f" x {y.groups}" if y.groups > 1 else "") if y.rows else ""
            row = [y.name, y.op, matrix, _amount(y.macs), _amount(y.weight_count)]
            rows.append([*row, *[f"{y.active_fraction:.0%}"] * measured, *[_amount(y.spikes)] * spiking])
        total = ["total", "", "", _amount(self.total("macs")), _amount(self.total("weight_count"))]
        rows.append([*total, *[""] * measured, *[_amount(self.total("spikes"))] * spiking])
        return columns, rows

    @property
    def steps(self) -> int:
        """Time steps of one inference (1 for a network without time)."""
        return max((layer.steps for layer in self.layers), default=1)

    def total(self, name: str) -> float:
        """Sum of a field of `LayerCount` over the layers.

        Args:
            name: a field that adds up ("macs", "weight_count", "spikes", ...).

        Raises:
            UnknownNameError: no such field, or one that does not add up (rows, fractions, bits).
        """
        if name not in _TOTALS:
            raise UnknownNameError("count", name, _TOTALS)
        return float(sum(getattr(layer, name) for layer in self.layers))

    def synaptic_operations(
        self, convention: Convention = "fan-out", *, first_layer: FirstLayer = "every step"
    ) -> SynapticOperations:
        """Synaptic operations of one inference under a named convention (`CONVENTIONS` says what each means).

        NeuroBench itself leaves out transposed convolutions, recurrent layers and products outside a layer; here they
        count. Without data (`samples` is 0) both give the dense number.

        Args:
            convention: a key of `CONVENTIONS`.
            first_layer: "once" counts layers before the first spiking neurons, where their input is no spikes (a direct
                encoder's values, the same at every step), for one step instead of all. NeuroBench counts every step.

        Raises:
            UnknownNameError: no such convention, or way to count the first layer.

        Source: J. Yik et al., "The NeuroBench framework", Nature Communications 16:1545 (2025); neurobench 2.3.0,
        `metrics/workload/synaptic_operations.py`.
        """
        if convention not in CONVENTIONS:
            raise UnknownNameError("convention", convention, CONVENTIONS)
        if first_layer not in ("every step", "once"):
            raise UnknownNameError("first_layer", first_layer, ("every step", "once"))
        macs = acs = dense = 0.0
        before_neurons = first_layer == "once"
        for layer in self.layers:
            before_neurons = before_neurons and layer.op != "neuron"
            share = 1 / layer.steps if before_neurons and not layer.binary_input else 1.0
            dense += layer.dense_sops * share
            if convention == "neurobench":
                macs += layer.effective_macs * share
                acs += layer.effective_acs * share
            elif layer.binary_input:
                acs += layer.sops * share
            else:
                macs += layer.sops * share
        return SynapticOperations(macs, acs, dense, convention, first_layer)

    @property
    def activation_sparsity(self) -> float | None:
        """Share of zeros in what spiking neurons, ReLU and Sigmoid modules gave over all steps; None without data.

        Source: neurobench 2.3.0, `metrics/workload/activation_sparsity.py`.
        """
        used = [y for y in self.layers if y.op == "neuron" or y.module in _NEUROBENCH_ACTIVATIONS]
        outputs = sum(layer.output_elements for layer in used)
        return sum(layer.zero_outputs for layer in used) / outputs if self.samples and outputs else None

    @property
    def connection_sparsity(self) -> float | None:
        """Share of the weights of matrix layers that are zero, biases left out; None without such layers.

        Source: neurobench 2.3.0, `metrics/static/connection_sparsity.py` (which rounds to four decimals).
        """
        weights = sum(layer.rows * layer.cols * layer.groups for layer in self.layers)
        return self.total("zero_weights") / weights if weights else None

    def table(self) -> pd.DataFrame:
        """One row a layer, in order of execution; a column for each field of `LayerCount` and `weights_read`."""
        import pandas as pd

        columns = [f.name for f in fields(LayerCount)]
        frame = pd.DataFrame([asdict(layer) for layer in self.layers], columns=columns)
        frame["weights_read"] = [layer.weights_read for layer in self.layers]
        return frame

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings, lists and dicts, for JSON; `Workload.from_dict` reads it."""
        plain = asdict(replace(self, mapping=None))
        mapping = None if self.mapping is None else self.mapping.to_dict()
        layers = [dict(row) for row in plain["layers"]]
        return {**plain, "layers": layers, "not_counted": list(self.not_counted), "mapping": mapping}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Workload:
        """The workload that `to_dict` wrote.

        Args:
            plain: the dict, as `to_dict` or JSON gives it.

        Raises:
            HpmlError: a field that a workload does not have.
        """
        try:
            layers = tuple(LayerCount(**row) for row in plain["layers"])
            mapping = None if plain.get("mapping") is None else Mapping.from_dict(plain["mapping"])
            return cls(**{**plain, "layers": layers, "not_counted": tuple(plain["not_counted"]), "mapping": mapping})
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise HpmlError(
                f"workload: not what Workload.to_dict writes: {type(error).__name__}: {' '.join(str(error).split())}"
            ) from None


def _amount(count: float) -> str:
    """A count with its prefix; "" for none. Below 1 without: "333 m spikes" would read as 333 million."""
    if not count:
        return ""
    return si(count, "") if count >= 1 else digits(count)
