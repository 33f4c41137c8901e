"""`Digital`: the network as it is, on a CPU or GPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, model_validator
from pydantic_core import ArgsKwargs

from hpml_sim.cards import DigitalCard
from hpml_sim.errors import HpmlError
from hpml_sim.targets.cards import CardName, card_named, card_of_kind
from hpml_sim.targets.checking import Switch, config_class

Engine = Literal["torch", "torch-compile", "cuda-graph", "numba-cuda"]
"""What runs a digital network."""
EstimatedEngine = Literal["torch", "torch-compile", "cuda-graph", "numba-cuda", "fused"]
"""What an estimate can be of: also "fused", an inference runtime such as TensorRT, which does not run here."""


@config_class
class Digital:
    """The network as it is, in ordinary arithmetic on a CPU or GPU.

    Attributes:
        card: name of a digital card, or the path of one.
        precision: arithmetic of weights and activations; inputs and outputs stay float32. "tf32" rounds the factors of
            matrix products and convolutions to 10 bits and exists on NVIDIA GPUs only; "fp32" switches it off. "bf16"
            and "fp16" cast the weights once and are for inference. "int8" is torchao's and for inference: weights have
            a scale for each channel, activations a scale for each sample, and only linear layers are quantized. Of a
            card without fp32 (accelerators of integers) it is "int8" where nothing else is said.
        engine: "torch" runs operator by operator. "torch-compile" runs through `torch.compile`; the first call
            compiles. "cuda-graph" replays the recorded launches (NVIDIA GPUs, inference). "numba-cuda" runs on the
            kernels of `hpml_sim.baselines` (fp32, on a CUDA device or numba's simulator).
        channels_last: keep images and convolution weights with the channel innermost, as tensor cores and oneDNN like
            them.

    Raises:
        UnknownNameError: no card has this name.
        HpmlError: a card of another kind, a value out of its list, or options that exclude each other.

    Example:
        >>> import hpml_sim as hs
        >>> hs.Digital("h200", precision="bf16").engine
        'torch'
        >>> hs.Digital("h200", precision="bf17")
        Traceback (most recent call last):
        hpml_sim.errors.HpmlError: Digital: precision='bf17': unknown; did you mean 'bf16'?
    """

    card: Annotated[CardName, BeforeValidator(card_of_kind(DigitalCard))] = "cpu"
    _: KW_ONLY
    precision: Literal["fp32", "tf32", "bf16", "fp16", "int8"] = "fp32"
    engine: Engine = "torch"
    channels_last: Switch = False

    @model_validator(mode="before")
    @classmethod
    def _without_fp32(cls, given: Any) -> Any:
        """A card of integers named alone means its integers: nobody asked it for fp32."""
        args, options = (given.args or (), given.kwargs or {}) if isinstance(given, ArgsKwargs) else ((), given)
        if not isinstance(options, Mapping) or "precision" in options:
            return given
        named = args[0] if args else options.get("card")
        card = None if named is None or len(args) > 1 else _lenient(named)
        if card is None or "fp32" in card.peak or "int8" not in card.peak:
            return given
        options = {**options, "precision": "int8"}
        return ArgsKwargs(args, options) if isinstance(given, ArgsKwargs) else options

    @model_validator(mode="after")
    def _possible(self) -> Digital:
        card = card_named(self.card, DigitalCard)
        if self.precision == "fp32" and "fp32" not in card.peak:
            raise HpmlError(
                f"Digital({self.card!r}, precision='fp32'): the card has a peak for {', '.join(card.peak)} only; leave "
                "precision out"
            )
        for option, needs_gpu in (("precision", "tf32"), ("engine", "cuda-graph")):
            if card.device != "cuda" and getattr(self, option) == needs_gpu:
                whose = "a CPU's" if card.device == "cpu" else "another GPU's"
                raise HpmlError(
                    f"Digital({self.card!r}, {option}={needs_gpu!r}): only NVIDIA GPUs have it, and this card is "
                    f"{whose}; name a GPU's card, such as 'h200'"
                )
        if self.engine == "numba-cuda" and self.precision != "fp32":
            raise HpmlError(
                f"Digital(engine='numba-cuda', precision={self.precision!r}): its kernels compute in float32; take "
                "precision='fp32' or another engine"
            )
        if self.engine == "numba-cuda" and self.channels_last:
            raise HpmlError(
                "Digital(engine='numba-cuda', channels_last=True): its kernels take the channel outermost; leave "
                "channels_last out"
            )
        return self

    @property
    def asks_nothing(self) -> bool:
        """Whether `precision` is what the card computes in where nobody says anything: fp32, or its integers."""
        return self.precision == ("fp32" if "fp32" in card_named(self.card, DigitalCard).peak else "int8")


def _lenient(card: object) -> DigitalCard | None:
    """The digital card of a name; None where it has none, which the field's own check says."""
    if not isinstance(card, (str, Path)):
        return None
    try:
        return card_named(card, DigitalCard)
    except HpmlError:
        return None
