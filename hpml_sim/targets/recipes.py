"""Published recipes of hardware-aware training: a target's options and those of `fit`, as their authors set them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from hpml_sim.cards import CrossbarCard
from hpml_sim.errors import HpmlError, UnknownNameError
from hpml_sim.targets.analog import Analog
from hpml_sim.targets.cards import card_named


@dataclass(frozen=True)
class Recipe:
    """A published way to train a network for analog hardware.

    Attributes:
        name: what `hs.load_recipe` takes.
        noise_model: noise model on which its authors evaluate; a card must have it.
        card: the card that has it.
        options: options of `hs.Analog`.
        training: options of `hs.fit`, beside the network, the data and the teacher.
        source: the publication, and where in it the figures stand.

    Example:
        >>> import hpml_sim as hs
        >>> recipe = hs.load_recipe("analog-foundation-models")
        >>> analog = hs.convert(hs.models.mlp(64, 32, 10), recipe.target())
        >>> recipe.target("pcm-hermes")
        Traceback (most recent call last):
        hpml_sim.errors.HpmlError: recipe 'analog-foundation-models': card 'pcm-hermes' has the noise ...
    """

    name: str
    noise_model: str
    card: str
    options: Mapping[str, Any]
    training: Mapping[str, Any]
    source: str

    def target(self, card: str | None = None, **changes: Any) -> Analog:
        """The target of the recipe.

        Args:
            card: name or path of a card with the recipe's noise model; None takes the recipe's own.
            changes: options of `hs.Analog` that differ from the recipe's.

        Raises:
            UnknownNameError: no card has this name.
            HpmlError: a card of another noise model, or an option that `hs.Analog` refuses.
        """
        chosen = self.card if card is None else card
        found = card_named(chosen, CrossbarCard).noise.model
        if found != self.noise_model:
            raise HpmlError(
                f"recipe {self.name!r}: card {chosen!r} has the noise model {found!r}, and its figures are for "
                f"{self.noise_model!r}; take card {self.card!r}, or give its options to hs.Analog yourself"
            )
        return Analog(chosen, **{**self.options, **changes})


def _adam(betas: tuple[float, float], eps: float, weight_decay: float) -> Any:
    """AdamW with other settings than torch's; torch is imported where it is used."""

    def make(parameters: Any, lr: float) -> Any:
        from torch.optim import AdamW

        return partial(AdamW, betas=betas, eps=eps, weight_decay=weight_decay)(parameters, lr=lr)

    return make


_RECIPES: Mapping[str, Recipe] = {
    "analog-foundation-models": Recipe(
        name="analog-foundation-models",
        noise_model="analog-foundation-models",
        card="pcm-afm",
        options={
            "training_noise": 0.03,
            "weight_clip": 2.5,
            "weight_clip_by": "channel",
            "output_noise": 0.0,
            "dac_bits": 8,
            "adc_bits": 8,
            "adc_bound": 14.0,
            "input_range": {"name": "learned", "sigmas": 18.0, "batches": 500, "decay": 0.01},
        },
        training={
            "epochs": 2,
            "batch_size": 8,
            "lr": 5e-7,
            "optimizer": _adam((0.9, 0.98), 1e-6, 0.01),
            "schedule": "linear",
            "warmup": 0.016,
            "max_grad_norm": 1.0,
            "temperature": 1.0,
            "alpha": 1.0,
        },
        source=(
            "J. Buechel et al., Analog Foundation Models, arXiv:2505.09663; config.yaml of Llama-3.2-1B-Instruct in "
            "github.com/IBM/analog-foundation-models (one sample on each of 8 GPUs)"
        ),
    )
}


def load_recipe(name: str) -> Recipe:
    """A published recipe of hardware-aware training by name.

    Args:
        name: "analog-foundation-models": weight noise of 3 % of a channel's largest weight, weights clipped at 2.5
            standard deviations of their channel, inputs and outputs of 254 levels, input ranges that begin at 18
            standard deviations and are learned with a decay, and distillation from the digital network alone, on its
            own samples (`hs.sample_text`) or on text.

    Raises:
        UnknownNameError: no recipe has this name.

    Source: the attribute `source` of the recipe.

    Example:
        >>> import hpml_sim as hs
        >>> recipe = hs.load_recipe("analog-foundation-models")
        >>> recipe.target().weight_clip_by
        'channel'
        >>> net = hs.models.mlp(64, 32, 10)
        >>> analog = hs.convert(net, recipe.target())
        >>> _ = hs.fit(analog, "digits", teacher=net, **{**recipe.training, "epochs": 1, "lr": 1e-3})
    """
    if name not in _RECIPES:
        raise UnknownNameError("recipe", str(name), _RECIPES)
    return _RECIPES[name]
