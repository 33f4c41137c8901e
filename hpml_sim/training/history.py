"""`History`: what a training did, epoch by epoch."""

from __future__ import annotations

from dataclasses import dataclass

from hpml_sim.conversion.training_sessions import Writes
from hpml_sim.tasks.score import RATIO, SHARE
from hpml_sim.units.display import html_table


@dataclass(frozen=True)
class History:
    """What a training did, epoch by epoch.

    Attributes:
        loss: mean training loss of each epoch.
        scores: the task's first metric on the training samples of each epoch, each as it was before the step that the
            sample was used in; of a classification the accuracy, in [0, 1].
        metric: its name.
        unit: of the scores, as of an `hs.Score`.
        higher_is_better: whether a larger score is the better one.
        writes: pulses that in-memory training sent to the devices; None where weights are not pulsed devices.

    Example:
        >>> import hpml_sim as hs
        >>> hs.fit(hs.models.mlp(64, 10), "digits", epochs=0)
        <History: no epochs>
    """

    loss: tuple[float, ...]
    scores: tuple[float, ...]
    metric: str = "accuracy"
    unit: str = SHARE
    higher_is_better: bool = True
    writes: Writes | None = None

    def __repr__(self) -> str:
        if not self.loss:
            return "<History: no epochs>"
        epochs = f"{len(self.loss)} epoch{'s' if len(self.loss) > 1 else ''}"
        sent = f", {self.writes.total:.2g} write pulses" if self.writes is not None else ""
        return f"<History: {epochs}, loss {_way(self.loss, '')}, {self.metric} {_way(self.scores, self.unit)}{sent}>"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        rows = [
            ("epochs", len(self.loss)),
            ("training loss", _way(self.loss, "")),
            (f"training {self.metric}", _way(self.scores, self.unit)),
            *([("written", str(self.writes))] if self.writes is not None else []),
        ]
        return html_table("History of a training", rows)


def score_text(value: float, unit: str) -> str:
    """One score for people: shares in percent, others with their unit.

    Args:
        value: the score.
        unit: as of an `hs.Score`.
    """
    return f"{100 * value:.1f} %" if unit in (SHARE, RATIO) else f"{value:.4g} {unit}".rstrip()


def _way(values: tuple[float, ...], unit: str) -> str:
    """From the first epoch to the last."""
    if not values:
        return ""
    percent = unit in (SHARE, RATIO)
    ends = dict.fromkeys((0, len(values) - 1))
    form = ".1f" if percent else ".3f" if not unit else ".4g"
    shown = " -> ".join(f"{100 * values[i] if percent else values[i]:{form}}" for i in ends)
    return f"{shown} {'%' if percent else unit}".rstrip()
