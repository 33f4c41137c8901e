"""A few samples of a training, on which it is looked at before it begins what the hardware will do with the network."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from hpml_sim.conversion.network_call import Inputs, call_network, copied_tensors, samples_in
from hpml_sim.conversion.training_sessions import FewSamples
from hpml_sim.tasks.tally import Tally
from hpml_sim.tasks.task import Task
from hpml_sim.training.history import score_text

_FEW = 8


def few_samples(inputs: Inputs, labels: Any, task: Task, *, large: bool) -> FewSamples:
    """Samples with what their outputs are worth.

    Args:
        inputs: (samples, ...), on the model's device.
        labels: as the data have them.
        task: what is learned and measured.
        large: whether the network is large.
    """
    metric, count = task.metric, samples_in(inputs)
    # of few samples that are right or wrong, a share of them says little
    by_loss = metric.right_or_wrong and count < _FEW
    name, unit = ("loss", "") if by_loss else (metric.name, metric.unit)

    def call(network: nn.Module) -> Any:
        return call_network(network, copied_tensors(inputs))

    def value(outputs: Any) -> float:
        read = task.read("fit", outputs, "network").detach()
        known = task.labels("fit", labels, count, read)
        if by_loss:
            return float(task.loss(read, known))
        tally = Tally(metric, spread=False)
        tally.add([read], known)
        return tally.values()[0]

    def worse(outputs: Any, others: Any, share: float) -> str | None:
        one, other = value(outputs), value(others)
        lost = one - other if metric.higher_is_better and not by_loss else other - one
        of = max(abs(one), 1.0) if by_loss else abs(one)
        if math.isfinite(one) and (not math.isfinite(other) or lost > share * of):
            samples = f"{count} sample{'s' if count > 1 else ''}"
            return f"{name} from {score_text(one, unit)} to {score_text(other, unit)} on {samples}"
        return None

    return FewSamples(call, large, worse)
