"""`History`: what a training did, epoch by epoch."""

from __future__ import annotations

from dataclasses import dataclass

from hpml_sim.conversion.training_sessions import Writes
from hpml_sim.units.display import html_table


@dataclass(frozen=True)
class History:
    """What a training did, epoch by epoch.

    Attributes:
        loss: mean training loss of each epoch.
        accuracy: share of the training samples classified right in each epoch, as they came, in [0, 1].
        writes: pulses that in-memory training sent to the devices; None where weights are not pulsed devices.

    Example:
        >>> import hpml_sim as hs
        >>> hs.fit(hs.models.mlp(64, 10), "digits", epochs=0)
        <History: no epochs>
    """

    loss: tuple[float, ...]
    accuracy: tuple[float, ...]
    writes: Writes | None = None

    def __repr__(self) -> str:
        if not self.loss:
            return "<History: no epochs>"
        epochs = f"{len(self.loss)} epoch{'s' if len(self.loss) > 1 else ''}"
        sent = f", {self.writes.total:.2g} write pulses" if self.writes is not None else ""
        loss, accuracy = self._way(self.loss, 1, ".3f"), self._way(self.accuracy, 100, ".1f", " %")
        return f"<History: {epochs}, loss {loss}, accuracy {accuracy}{sent}>"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        rows = [
            ("epochs", len(self.loss)),
            ("training loss", self._way(self.loss, 1, ".3f")),
            ("training accuracy", self._way(self.accuracy, 100, ".1f", " %")),
            *([("written", str(self.writes))] if self.writes is not None else []),
        ]
        return html_table("History of a training", rows)

    @staticmethod
    def _way(values: tuple[float, ...], scale: float, form: str, unit: str = "") -> str:
        """From the first epoch to the last."""
        ends = values[:1] if len(values) == 1 else (values[0], values[-1]) if values else ()
        return " -> ".join(f"{scale * value:{form}}" for value in ends) + unit * bool(ends)
