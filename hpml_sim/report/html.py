"""The report: one HTML file that works offline, contains its own data, and loads nothing."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from markupsafe import Markup

from hpml_sim.errors import HpmlError, shown
from hpml_sim.errors.files import write_file
from hpml_sim.report import findings
from hpml_sim.report.inference_words import words_of_inference
from hpml_sim.report.metric_words import words_of
from hpml_sim.report.other_metrics import other_lines, other_words
from hpml_sim.report.page_plots import page_plots, swatch
from hpml_sim.report.plots import layer_points
from hpml_sim.report.ranking_words import answers
from hpml_sim.report.sections import (
    COMPONENT_WORDS,
    SCOPE_WORDS,
    beside,
    conversions,
    downloads,
    limits,
    linked,
    origins,
    setting,
    settings,
    sources,
    stated_once,
)
from hpml_sim.report.summary import SCOPES, TargetSummary, summarize, times_of
from hpml_sim.report.table_cells import COST_HEADS, Notes, table_lines
from hpml_sim.report.wording import distinct, figure, listing, names, percent, ranges, si_page, span_page, time_label
from hpml_sim.results import Row
from hpml_sim.units.formatting import digits

_log = logging.getLogger(__name__)

MAX_BYTES = 1_000_000
"""What a report may weigh, so that it can be sent by mail."""


def write_report(
    rows: Sequence[Row], path: str | Path, *, title: str | None = None, run: dict[str, Any] | None = None
) -> Path:
    """Write the report of a run.

    Args:
        rows: results of one run.
        path: the file to write; folders on the way are made.
        title: heading; None says network, data set and number of machines.
        run: settings of the run (the contents of `run.json`), shown under "How it was run".

    Returns:
        The path.

    Raises:
        HpmlError: there are no rows, or the file cannot be written.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise HpmlError(f"report: path={shown(path)}: must be the file to write, such as 'report.html'")
    path = Path(path)
    page = render_report(rows, title=title, run=run)
    with contextlib.suppress(OSError):  # `write_file` says what is wrong
        path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, page, safe="the results themselves are safe")
    return path


def render_report(rows: Sequence[Row], *, title: str | None = None, run: dict[str, Any] | None = None) -> str:
    """The report as text: the same rows give the same characters.

    Args:
        rows: results of one run.
        title: heading; None says network, data set and number of machines.
        run: settings of the run (the contents of `run.json`), shown under "How it was run".

    Raises:
        HpmlError: there are no rows.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    targets = summarize(rows)
    environment = Environment(
        loader=PackageLoader("hpml_sim", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        si=si_page,
        span=span_page,
        digits=digits,
        percent=percent,
        figure=figure,
        swatch=swatch,
        ranges=ranges,
        names=names,
    )
    template = environment.get_template("report.html.j2")
    page = template.render(_context(rows, targets, title, run))
    if len(page.encode()) > MAX_BYTES:
        _log.warning("the report takes %.1f MB, more than a mail likes; fewer rows make it smaller", len(page) / 1e6)
    return page


def _context(
    rows: Sequence[Row], targets: list[TargetSummary], title: str | None, run: dict[str, Any] | None
) -> dict[str, Any]:
    times: list[float | None] = [*times_of(targets)] or [None]
    cited = sources(targets)
    notes = Notes()
    words, inference = words_of(targets), words_of_inference(targets)
    lines = [line for target in targets for line in table_lines(target, times, words, notes, cited)]
    models, data = distinct(r.model for r in rows), distinct(r.data for r in rows)
    components = distinct(part.name for target in targets for part in target.components)
    tail = f", {words.sign}" if words.sign else ""
    resources = files("hpml_sim.report")
    return {
        "title": title or f"{listing(models)} on {listing(data)}, {_machines(targets)} compared",
        "compared": _compared(rows, targets, models, data),
        "findings": findings.findings(targets),
        "targets": targets,
        "metric": words,
        "time_heads": [words.title if t is None else time_label(t) for t in times],
        "cell_heads": [*(words.named if t is None else f"{time_label(t)}{tail}" for t in times), *COST_HEADS],
        "lines": lines,
        "other_words": other_words(rows),
        "other_lines": other_lines(rows, targets),
        "notes": notes.texts,
        "scopes": sorted({line.scope for line in lines}, key=_scope_order),
        "provenances": distinct(line.provenance for line in lines),
        "answers": answers(targets),
        "inference": inference,
        "plots": page_plots(rows, targets),
        "sources": cited.values(),
        "source_numbers": {key: source.number for key, source in cited.items()},
        "scope_words": [(s, SCOPE_WORDS[s], names([t.name for t in targets if s in _scopes_of(t)])) for s in SCOPES],
        "conversions": conversions(targets),
        "glossary": [(c, COMPONENT_WORDS[c]) for c in components if c in COMPONENT_WORDS],
        "beside": beside(targets),
        "layer_points": [point for target in targets for point in layer_points(target)],
        "limits": stated_once((t.name, limits(t)) for t in targets),
        "simulated": stated_once((t.name, linked(t.accuracy_model)) for t in targets if t.accuracy_model),
        "gaps": stated_once((t.name, findings.gaps_of(t)) for t in targets if findings.gaps_of(t)),
        "origins": origins(targets),
        "settings": settings(rows, run),
        "configs": [(t, [(k.replace("_", " "), setting(v)) for k, v in t.config.items()]) for t in targets],
        "downloads": downloads(rows),
        "css": Markup((resources / "report.css").read_text(encoding="utf-8")),
        "js": Markup((resources / "report.js").read_text(encoding="utf-8")),
    }


def _machines(targets: list[TargetSummary]) -> str:
    """How many machines, and in how many configurations if those are more."""
    cards = len({t.card.name for t in targets})
    machines = f"{cards} machine{'s'[: cards != 1]}"
    return machines if cards == len(targets) else f"{len(targets)} configurations of {machines}"


def _scope_order(scope: str) -> int:
    return SCOPES.index(scope) if scope in SCOPES else len(SCOPES)


def _scopes_of(target: TargetSummary) -> set[str]:
    return {c.scope for c in target.costs if c.provenance == "estimated"} or {target.card.scope}


def _compared(rows: Sequence[Row], targets: list[TargetSummary], models: list[str], data: list[str]) -> str:
    samples = distinct(f"{a.samples:,}" for r in rows if (a := r.score))
    tokens = max((e.tokens for r in rows for e in r.estimates), default=0)
    each = f" of {tokens:,} tokens" if tokens else ""
    tested = f", {listing(samples)} test samples{each}" if samples else ""
    seeds = sorted({r.seed for r in rows})
    chips = sorted({a.n for r in rows if (a := r.score) and a.over == "chips"})
    where = names([t.name for t in targets])
    text = f"One network ({listing(models)}) and one data set ({listing(data)}{tested}) on {where}"
    if chips:
        text += f"; {listing([str(c) for c in chips])} programmed chips of each analog machine"
    many = f"{len(seeds)} seeds ({listing([str(s) for s in seeds])})" if len(seeds) > 1 else f"seed {seeds[0]}"
    return f"{text}; {many}."
