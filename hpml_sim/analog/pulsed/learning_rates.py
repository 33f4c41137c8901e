"""Learning rates for in-memory training, one a pair of device and rule.

Found on 2026-11-26 by `python benchmarks/in_memory_training.py --find` with aihwkit 1.2.0: of 0.03, 0.1, 0.3, 1 and 3
the one with the smallest training loss after ten epochs from new weights (64-32-10 on digits, batch 64, cosine
schedule, card `pcm`), one training each. So they are right within a factor of three or so, for networks of that kind.
Spiking networks want a tenth or less: their gradients add up over the steps.

Those of reram-sb and idealized, of gokmen-vlasov from tiki-taka on, of capacitor from chopped-tiki-taka-v2 on, of
ecram-mo under agad and of reram-es under tiki-taka come from the same search with ReLU and with new weights on 0.3 of
the devices' range (0.125 now). `benchmarks/results/in_memory_training.json` has what was tried and what came of it.
"""

from __future__ import annotations

from hpml_sim.targets import PulsedDevice, TrainingRule

MEASURED_ON = "digits, 64-32-10, batch 64"
"""What data, network and batch the rates were measured with."""

_RULES: tuple[TrainingRule, ...] = (
    "sgd",
    "mixed-precision",
    "tiki-taka",
    "tiki-taka-v2",
    "chopped-tiki-taka-v2",
    "agad",
)
_RATES: dict[PulsedDevice, tuple[float, ...]] = {
    "reram-es": (1.0, 3.0, 1.0, 3.0, 1.0, 3.0),
    "reram-sb": (1.0, 3.0, 1.0, 3.0, 1.0, 3.0),
    "capacitor": (1.0, 1.0, 3.0, 1.0, 3.0, 3.0),
    "ecram": (1.0, 3.0, 3.0, 3.0, 1.0, 3.0),
    "ecram-mo": (1.0, 3.0, 1.0, 3.0, 0.3, 3.0),
    "idealized": (1.0, 3.0, 1.0, 3.0, 0.1, 3.0),
    "gokmen-vlasov": (1.0, 3.0, 1.0, 1.0, 1.0, 1.0),
    "pcm": (0.03, 0.1),
    "reram-array-om": (0.3, 0.3, 1.0, 0.03, 0.03, 0.03),
    "reram-array-hfo2": (0.1, 1.0, 0.3, 0.03, 0.1, 0.03),
}
"""By device, in the order of `_RULES`."""


def learning_rate(device: PulsedDevice, rule: TrainingRule) -> float:
    """The measured learning rate of a device under a rule."""
    return _RATES[device][_RULES.index(rule)]
