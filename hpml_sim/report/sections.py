"""The texts of the page's sections, table and plots aside; the template escapes all of them."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from markupsafe import Markup, escape

from hpml_sim.report.summary import TargetSummary
from hpml_sim.report.wording import distinct, listing, names, percent, si_page, time_label
from hpml_sim.results import Row, line_of, to_frame
from hpml_sim.units.bands import Band
from hpml_sim.units.formatting import digits

SCOPE_WORDS = {
    "core": "one computing core or macro: array and converters, no transport, no memory outside",
    "chip": "the whole die, its static power included; nothing beside it",
    "board": "the accelerator card: chip, its memory, its power conversion",
    "system": "the machine that answers: host, memory and accelerator",
}
COMPONENT_WORDS = {
    "adc": "analog-to-digital conversion",
    "array": "the crossbar itself",
    "attention": "digital products of two activations",
    "buffer": "on-chip buffers of activations",
    "clocks": "running clocks, above idle",
    "cooling": "cooling and power of the data center",
    "compute": "arithmetic with its operands' traffic on chip",
    "dac": "digital-to-analog conversion",
    "digital": "digital arithmetic beside the crossbars",
    "fans": "fans of a server",
    "hop": "packets from core to core",
    "host": "the processor that manages the chip",
    "idle": "what the machine draws while it does nothing, for the time of the inference",
    "input-output": "input from the host and result back",
    "kv-cache": "keys and values of earlier tokens, read and written",
    "leakage": "leakage of all powered chips",
    "link": "transport between tiles",
    "memory": "traffic of layers that memory limits",
    "memory-idle": "what memory beside the chips draws without traffic",
    "mvm": "matrix-vector products in the array, converters included",
    "off-chip": "transport between chips",
    "regulator": "loss of voltage regulators",
    "reset": "clearing the neurons between inferences",
    "sop": "synaptic operations: a spike arriving at a synapse",
    "spike": "sending spikes",
    "static": "what the chip draws without events, for the time of the inference",
    "supply": "loss of a power supply, adapter or battery",
    "update": "updates of neurons at each time step",
    "waiting": "idle power between inferences",
    "weights": "weights of digital layers, read from memory",
}
_APART_WORDS = {
    "arithmetic_only_j": "arithmetic alone: additions at 45 nm, a bound that leaves out the rest",
    "average_power_w": "power on average at the rate asked for",
    "dynamic_j": "events alone, without static power",
    "energy_without_idle_j": "without the machine's idle power",
    "idle_w": "power while it waits",
    "programming_j": "writing all weights once",
    "recalibration_j": "one calibration against drift",
    "recalibration_w": "calibrating against drift, on average",
}
_LINK = re.compile(r"https?://[^\s<>\"']+[^\s<>\"'.,;)]|doi:\s?(10\.\S+[^\s.,;)])|arXiv[:\s]\s?(\d{4}\.\d{4,5})")
_PLAIN_BYTES = 150_000
"""Results up to this size are embedded as they are, larger ones compressed."""


@dataclass(frozen=True)
class Source:
    """One entry of the list of sources.

    Attributes:
        number: in the list, from 1.
        key: in the card.
        cite: the citation, with its addresses as links.
        used: which targets and components rest on it.
    """

    number: int
    key: str
    cite: Markup
    used: str


def sources(targets: list[TargetSummary]) -> dict[tuple[str, str], Source]:
    """(key, citation) -> numbered source; two cards may use one key for different texts, so both make the identity."""
    used: dict[tuple[str, str], dict[str, list[str]]] = {}
    for target in targets:
        for estimate in target.estimates:
            for key, cite in estimate.sources.items():
                parts = [t.component for t in estimate.terms if key in t.sources]
                used.setdefault((key, cite), {}).setdefault(target.name, []).extend(parts)
    found = {}
    for number, (identity, by_target) in enumerate(used.items(), start=1):
        parts = stated_once((name, ", ".join(distinct(parts))) for name, parts in by_target.items())
        words = [f"{names(who)} ({what})" if what else names(who) for who, what in parts]
        found[identity] = Source(number, identity[0], linked(identity[1]), "; ".join(words))
    return found


T = TypeVar("T")


def stated_once(pairs: Iterable[tuple[str, T]]) -> list[tuple[list[str], T]]:
    """Texts about several targets, each once, with the names of all the targets that it is about.

    Args:
        pairs: (name of a target, what is true of it).

    Returns:
        (names of targets, what is true of all of them), in the order of first appearance.
    """
    found: dict[str, tuple[list[str], T]] = {}
    for name, stated in pairs:
        found.setdefault(repr(stated), ([], stated))[0].append(name)
    return list(found.values())


def limits(target: TargetSummary) -> list[str]:
    """What the figures of a target leave out, what they take for granted, and notes."""
    left_out = [sentence for e in target.estimates for sentence in e.excluded]
    assumed = [f"Assumed: {sentence}" for e in target.estimates for sentence in e.assumptions]
    return distinct([*left_out, *assumed, *target.notes])


def beside(targets: list[TargetSummary]) -> list[tuple[TargetSummary, str, Band, str, str]]:
    """(target, words, figure, unit, ratio to the total) for what is no part of the energy of one inference."""
    found = []
    for target in targets:
        first = min(target.estimates, key=lambda e: e.batch, default=None)
        if first is None:
            continue
        total = first.energy_j.nominal if first.energy_j else 0.0
        for name, band in first.reported_separately.items():
            head, _, unit = name.rpartition("_")
            unit = _UNITS.get(unit, "")
            ratio = _ratio(band.nominal / total) if unit == "J" and total else "—"
            found.append((target, _APART_WORDS.get(name, (head or name).replace("_", " ")), band, unit, ratio))
    return found


def _ratio(value: float) -> str:
    return f"{digits(value)} times" if value >= 1 else f"{digits(100 * value, 2)} %"


def linked(text: str) -> Markup:
    """Text with its addresses, DOIs and arXiv numbers as links; everything else is escaped."""
    pieces, end = [], 0
    for match in _LINK.finditer(text):
        doi, arxiv = match[1], match[2]
        address = f"https://doi.org/{doi}" if doi else f"https://arxiv.org/abs/{arxiv}" if arxiv else match[0]
        pieces += [
            escape(text[end : match.start()]),
            Markup('<a href="{}" rel="noreferrer">{}</a>').format(address, match[0]),
        ]
        end = match.end()
    return Markup("").join([*pieces, escape(text[end:])])


def conversions(targets: list[TargetSummary]) -> list[dict[str, Any]]:
    """The conversion reports with what the mapping took; targets with the same of either share it."""
    found: dict[str, dict[str, Any]] = {}
    for target in targets:
        columns = list(dict.fromkeys(name for layer in target.layers for name in layer))
        kept = [c for c in columns if any(layer.get(c) not in (None, "") for layer in target.layers)]
        body = [[_value(name, layer.get(name)) for name in kept] for layer in target.layers]
        digital = sum(str(layer.get("became", "")) == "digital" for layer in target.layers)
        report = {"heads": kept, "body": body, "digital": digital, "open": len(body) <= 12, "names": [], "mappings": []}
        entry = found.setdefault(repr((kept, body)), report)
        entry["names"].append(target.name)
        first = min(target.estimates, key=lambda e: e.batch, default=None)
        if first is not None and first.mapping:
            entry["mappings"].append((target.name, [_named_value(n, v) for n, v in first.mapping.items()]))
    for entry in found.values():
        entry["mappings"] = stated_once(entry["mappings"])
    return list(found.values())


_UNITS = {"w": "W", "j": "J", "s": "s", "hz": "Hz", "bytes": "B", "m": "m"}


def _named_value(name: str, value: float) -> tuple[str, str]:
    """A number of the mapping in words: its unit is the end of its name ("mean_power_w")."""
    head, _, unit = name.rpartition("_")
    if name == "weights_cached":
        return "weights stay in the cache", "yes" if value else "no"
    if head and unit in _UNITS:
        return head.replace("_", " "), si_page(value, _UNITS[unit])
    if unit in ("share", "utilization"):
        return name.replace("_", " "), f"{percent(value, 1)} %"
    return name.replace("_", " "), _value(name, value)


def _value(name: str, value: Any) -> str:
    if value is None or value == "":
        return "—"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if "utilization" in name:
        return f"{percent(value, 1)} %"
    return f"{value:,.0f}" if float(value).is_integer() else digits(value)


def origins(targets: list[TargetSummary]) -> dict[str, str]:
    """Cards of the estimates, instruments and machine of the measurements in this run, in words."""
    estimated = distinct(c.origin for t in targets for c in t.costs if c.provenance == "estimated")
    measured = distinct(c.origin for t in targets for c in t.costs if c.provenance == "measured")
    devices = distinct(c.device for t in targets for c in t.costs if c.device)
    return {
        "estimated": listing([provenance.removeprefix("estimated:") for provenance in estimated]),
        "measured": ", ".join(measured),
        "device": listing(devices),
    }


_SHOWN_ELSEWHERE = frozenset({"run", "hash", "targets", "card_versions"})
"""Entries of `run.json` that the page has in a better form: the configurations, the cards, the run's hash."""


def settings(rows: Sequence[Row], run: dict[str, Any] | None) -> list[tuple[str, str]]:
    """(name, value) of the run's settings, versions and machine, in words.

    Args:
        rows: results of one run.
        run: settings of the run (the contents of `run.json`).
    """
    found = {
        "run": listing(distinct(r.run for r in rows)),
        "seeds": ", ".join(str(s) for s in sorted({r.seed for r in rows})),
    }
    for name, value in (run or {}).items():
        if name == "times_s" and isinstance(value, (list, tuple)):
            found["times"] = ", ".join(time_label(t) for t in value)
        elif name not in _SHOWN_ELSEWHERE:
            found[name.replace("_", " ")] = setting(value)
    return [
        *found.items(),
        ("rows", f"{len(rows):,}"),
        ("cards", ", ".join(distinct(f"{r.card.name} (version {r.card.version})" for r in rows))),
        ("versions", "; ".join(distinct(_pairs(r.versions) for r in rows))),
        ("machine", "; ".join(distinct(_pairs(r.machine) for r in rows))),
    ]


def _pairs(values: dict[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def setting(value: Any) -> str:
    """A `value` of a configuration as people read it."""
    if value is None:
        return "not set"
    if isinstance(value, str):
        return value
    if isinstance(value, (list, tuple)) and not any(isinstance(item, (list, tuple, dict)) for item in value):
        return ", ".join(setting(item) for item in value) or "none"
    return json.dumps(value, default=str, ensure_ascii=False)


def downloads(rows: Sequence[Row]) -> list[dict[str, str]]:
    """The data inside the page: every row as JSON Lines, and the flat table as CSV."""
    lines = b"".join(line_of(row) + b"\n" for row in rows)
    table = to_frame(rows).to_csv(index=False).encode()
    found = []
    for name, kind, content, what in (
        ("results.jsonl", "application/x-ndjson", lines, "every row with all its figures"),
        ("table.csv", "text/csv;charset=utf-8", table, "one line a row and batch, SI units"),
    ):
        size = len(content)
        if size > _PLAIN_BYTES:
            name, kind, content = f"{name}.gz", "application/gzip", gzip.compress(content, 9, mtime=0)
        found.append(
            {
                "name": name,
                "what": what,
                "size": si_page(size, "B"),
                "href": f"data:{kind};base64,{base64.b64encode(content).decode()}",
            }
        )
    return found
