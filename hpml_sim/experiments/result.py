"""`Comparison`: the rows of a run, and what people make of them; `load_results` reads one from its folder."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import TypeAdapter, ValidationError

from hpml_sim.errors import HpmlError, shown
from hpml_sim.experiments.plan import Plan
from hpml_sim.results import ResultFile, Row, to_frame
from hpml_sim.units.display import html_table, text_table

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from hpml_sim.experiments.ranking import Criterion, Ranking

# The report is imported where it is needed: it would make `import hpml_sim` slower.

_log = logging.getLogger(__name__)

_MAX_LINES, _MAX_HTML_LINES = 12, 40
"""Targets that a terminal and a notebook list; `table()` has all."""


@dataclass(frozen=True, repr=False)
class Comparison:
    """The rows of a comparison or sweep, and what people make of them.

    `compare` and `sweep` return one, `load_results` reads one again.

    Attributes:
        rows: one a (target, seed, time), by target in the order of the run, then by seed, then by time.
        plan: what the run was asked to do; None where the rows lie without the `run.json` of their run.
        folder: of the run; None where the rows are in memory only.

    Example:
        >>> import hpml_sim as hs
        >>> result = hs.compare("mlp", "digits", ["h200", "a100"], epochs=0)  # 0: an untrained network
        >>> isinstance(result, hs.Comparison), len(result.rows)
        (True, 2)
        >>> sorted(result.rank("energy")["target"])
        ['a100', 'h200']
    """

    rows: tuple[Row, ...]
    plan: Plan | None
    folder: Path | None

    def __post_init__(self) -> None:
        rows: Any = self.rows
        right = isinstance(rows, (tuple, list)) and all(isinstance(row, Row) for row in rows)
        if not right or not isinstance(self.plan, (Plan, type(None))):
            raise HpmlError(f"Comparison(rows={shown(rows)}, ...): a Comparison is what hs.compare(...) gives")

    @property
    def hash(self) -> str:
        """Twelve hex digits that name the run; "" without rows."""
        return self.plan.hash if self.plan is not None else self.rows[0].run if self.rows else ""

    def table(self) -> pd.DataFrame:
        """One line a (target, seed, time, batch); units in the column names and in `attrs["units"]`."""
        return to_frame(self.rows)

    def rank(
        self,
        by: Criterion = "energy",
        *,
        batch: int | None = 1,
        scope: Literal["system", "own"] = "system",
        phase: Literal["prefill", "decode"] | None = None,
    ) -> Ranking:
        """The targets in order, the best first, and how sure the order is.

        Args:
            by: "energy", "latency", "throughput" or "area", as estimated; "score", the task's first metric, or a metric
                by its name, at the earliest time since programming.
            batch: samples processed together; None takes the best batch of each target. Scores do not depend on it.
            scope: "system", which every machine has: what a card excludes is added from components; or "own" for that
                of the cards, which may differ.
            phase: of a language model, whose energy and throughput are by the token: "decode" (a token that is made) or
                "prefill" (of a prompt that is read); None takes "decode" where there is one.

        Returns:
            A DataFrame with one line a target: `place`, `target`, `scope` and `batch` (not for a score), the
            figure with its bounds (`_low`, `_nominal`, `_high`; those of a score are its 95 % interval), and
            `order`: "apart", or "overlaps" where the bounds overlap those of the target before. Of estimates also
            `ratio` to the target before, the `probability` that the two are in this order (low and high as the 5th and
            95th percentile of a lognormal; components that both have vary together), the part that `decides` it, and
            `projection` for systems that were never built. Targets without the figure are left out.

        Raises:
            ScopeError: the estimates have different scopes, which are not ranked against each other.
            HpmlError: a criterion that does not exist, or that no target has a figure for.
        """
        from hpml_sim.experiments.ranking import ranked

        return ranked(self.rows, by, batch=batch, scope=scope, phase=phase)

    def plot(self, scope: Literal["system", "own"] = "own") -> Figure:
        """Energy of one inference against the score; a notebook shows it as a picture.

        Args:
            scope: "system" draws all machines in one panel, everything around them included; "own" has a panel for each
                scope of the cards.
        """
        from hpml_sim.report.plots import energy_against_accuracy

        rows = self.rows
        if scope == "system":
            rows = tuple(row.model_copy(update={"estimates": row.systems, "measurements": []}) for row in rows)
        return energy_against_accuracy(rows)

    def report(self, path: str | Path) -> Path:
        """Write the one-file HTML report to `path` and return its path.

        Raises:
            HpmlError: there are no rows, or the file cannot be written.
        """
        from hpml_sim.report.html import write_report

        return write_report(self.rows, path, run=None if self.plan is None else asdict(self.plan))

    def __repr__(self) -> str:
        from hpml_sim.report.overview import overview

        heads, lines = overview(self.rows)
        return text_table(heads, lines[:_MAX_LINES], title=self._title(), note=self._note(len(lines), _MAX_LINES))

    def _repr_html_(self) -> str:
        """What a notebook shows: the comparison's table."""
        from hpml_sim.report.overview import overview

        heads, lines = overview(self.rows, every_time=True)
        note = self._note(len(lines), _MAX_HTML_LINES)
        return html_table(self._title(), lines[:_MAX_HTML_LINES], columns=heads, note=note)

    def _title(self) -> str:
        if not self.rows:
            return "Comparison without rows"
        first, targets = self.rows[0], len({row.target for row in self.rows})
        return f"Comparison of {targets} target{'s'[: targets != 1]}: {first.model} on {first.data}"

    def _note(self, lines: int, most: int) -> str:
        from hpml_sim.report.overview import remark

        more = f"{lines - most} more lines in .table(). " if lines > most else ""
        said = remark(self.rows) if self.rows else ""
        line = f"{more}{len(self.rows)} rows: .table() .rank(by) .plot() .report(path)"
        return f"{said}\n{line}" if said else line


def load_results(path: str | Path) -> Comparison:
    """The comparison or sweep that a run's folder holds, finished or not.

    Args:
        path: a run's folder or its `results.jsonl`.

    Returns:
        What `compare` gave: the same rows, plan and folder.

    Raises:
        HpmlError: no results there, or a file that another version wrote.

    Example:
        >>> import tempfile, hpml_sim as hs
        >>> folder = tempfile.mkdtemp() + "/run"
        >>> result = hs.compare("mlp", "digits", ["h200"], epochs=0, out=folder)
        >>> hs.load_results(folder) == result
        True
    """
    if not isinstance(path, (str, os.PathLike)):
        raise HpmlError(f"load_results: path={shown(path)}: must be the folder of a run or its results.jsonl")
    path = Path(path)
    file = path / "results.jsonl" if path.is_dir() else path
    if not file.exists():
        raise HpmlError(f"{file}: no results there; give the folder of a run or its results.jsonl")
    rows = ResultFile(file).read()
    if not rows:
        raise HpmlError(f"{file}: no result row in it; give the folder of a run or its results.jsonl")
    plan = _plan_in(file.parent / "run.json")
    order = {label: place for place, label in enumerate(plan.targets if plan is not None else ())}
    return Comparison(_in_order(rows, order), plan, file.parent)


def _in_order(rows: list[Row], order: dict[str, int]) -> tuple[Row, ...]:
    """Rows by target in the order given (those that it lacks after the others), then by seed, then by time."""
    places = dict(order)
    for row in rows:
        places.setdefault(row.target, len(places))
    return tuple(sorted(rows, key=lambda r: (places[r.target], r.seed, -1.0 if r.time_s is None else r.time_s)))


def _plan_in(file: Path) -> Plan | None:
    """The plan of a `run.json`; None, said in the log, where there is none that can be read."""
    if not file.exists():
        return None
    try:
        held: Any = json.loads(file.read_text(encoding="utf-8"))
        return TypeAdapter(Plan).validate_python({name: value for name, value in held.items() if name != "hash"})
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        reason = str(error).splitlines()[0] if isinstance(error, ValidationError) else error
        _log.warning("%s cannot be read (%s); the rows are shown without the settings of their run", file, reason)
        return None
