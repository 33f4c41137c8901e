"""One summary a target: accuracy at each time, estimated and measured cost at each batch, aggregated over seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from hpml_sim.cost import Estimate, Term
from hpml_sim.errors import HpmlError
from hpml_sim.measurement import Measurement
from hpml_sim.results import CardInfo, Row
from hpml_sim.tasks.score import SHARE, Score
from hpml_sim.units.bands import ZERO, Band

WHOLE_MACHINE = "whole machine"
"""Where energy belongs to no layer."""
SCOPES = ("core", "chip", "board", "system")
"""Scopes from the smallest to the largest: the order in which groups are shown."""


@dataclass(frozen=True)
class AccuracySummary:
    """Accuracy of one target at one time, over all seeds.

    Attributes:
        mean: share in [0, 1] of the test samples classified right: the mean over the values of the one seed, or over
            the means of the seeds where there are several (a seed trains its own network: chips of one seed are not
            independent samples of the whole method).
        std: sample standard deviation over the same; 0 for a single value.
        n: how many values or seeds.
        ci95: 95 % interval of the mean; of a single value over the test samples.
        over: what `n` counts: "chips", "seeds", or "test samples" for a single value.
        values: every single accuracy, all chips of all seeds.
        samples: size of the test set.
        seeds: how many seeds.
        metric: name of what was measured.
        unit: of mean, std, ci95 and values, as of an `hs.Score`.
        higher_is_better: whether a larger value is the better one.
    """

    mean: float
    std: float
    n: int
    ci95: tuple[float, float]
    over: str
    values: tuple[float, ...]
    samples: int
    seeds: int
    metric: str = "accuracy"
    unit: str = SHARE
    higher_is_better: bool = True

    @property
    def spread(self) -> str:
        """What the figure after the ± runs over, in words."""
        if self.over == "seeds":
            chips = len(self.values) // self.seeds
            each = f" of {chips} chips" if chips > 1 else ""
            return f"{self.n} seeds{each}"
        return f"{self.n} chips" if self.over == "chips" else f"{self.samples} test samples"


@dataclass(frozen=True)
class Cost:
    """Energy, time and area of one target at one batch size, either estimated or measured.

    Of estimates the nominal value is the mean over seeds, and the bounds are the outermost. Of measurements the bounds
    of the latency are its 10th and 90th percentile.

    Attributes:
        provenance: "estimated" or "measured".
        origin: the full mark: "estimated:h200", "measured:clock".
        scope: what the figures include.
        batch: samples processed together.
        energy_j: joules an inference; None where the card has no energy or the machine no power meter.
        latency_s: seconds a batch.
        throughput_hz: inferences a second.
        area_mm2: silicon of all chips; None where the card has none.
        device: where it was measured; "" for an estimate.
        energy_reason: why there is no energy; "" where there is one.
        phase: of a language model, "prefill" or "decode": energy and throughput are then by the token; "" of others.
        tokens: that an inference reads or makes; 0 of other networks.
        context: tokens in the cache of each sequence that makes one.
    """

    provenance: Literal["estimated", "measured"]
    origin: str
    scope: str
    batch: int
    energy_j: Band | None
    latency_s: Band
    throughput_hz: Band
    area_mm2: Band | None
    device: str = ""
    energy_reason: str = ""
    phase: str = ""
    tokens: int = 0
    context: int = 0


@dataclass(frozen=True)
class Part:
    """What one component, or one layer, takes of the energy of one inference at batch 1.

    Attributes:
        name: of the component or layer.
        energy_j: joules an inference.
        share: of the whole energy, in [0, 1].
        sources: keys of the card's sources that the figure rests on.
    """

    name: str
    energy_j: Band
    share: float
    sources: tuple[str, ...]


@dataclass(frozen=True)
class TargetSummary:
    """Everything the rows say of one target.

    Attributes:
        name: label in this run.
        card: the device card.
        config: the target's configuration with its class.
        seeds: in order.
        accuracy: time (None: does not drift) -> figures, or None where the device model has no data.
        reasons: time -> why there is no accuracy.
        costs: batch 1 and the best batch, estimated before measured.
        estimates: all estimates of the first seed, by batch.
        systems: the same at system scope; of a language model with energy and throughput by the token.
        decodes: of a language model that makes text: cost of a token that is made, at batch 1 and the best batch.
        decode_systems: the same at system scope.
        components: energy at batch 1 by component, from the largest.
        layer_parts: energy at batch 1 by layer, in the order of the network.
        layers: the conversion report.
        notes: what holds for the whole target.
        accuracy_model: what was simulated to get the accuracy, and where it comes from.
        floating_point: the score in floating point, where `accuracy` is in the machine's own integers; None elsewhere.
        index: place of the target in the run, from 0; it decides color and marker.
    """

    name: str
    card: CardInfo
    config: dict[str, Any]
    seeds: tuple[int, ...]
    accuracy: dict[float | None, AccuracySummary | None]
    reasons: dict[float | None, tuple[str, ...]]
    costs: tuple[Cost, ...]
    estimates: tuple[Estimate, ...]
    components: tuple[Part, ...]
    layer_parts: tuple[Part, ...]
    layers: tuple[dict[str, Any], ...]
    notes: tuple[str, ...]
    accuracy_model: str = ""
    systems: tuple[Estimate, ...] = ()
    decodes: tuple[Cost, ...] = ()
    decode_systems: tuple[Estimate, ...] = ()
    floating_point: AccuracySummary | None = None
    index: int = field(default=0)

    @property
    def drifts(self) -> bool:
        """True for a target whose accuracy depends on the time since programming."""
        return any(time is not None for time in self.accuracy)

    @property
    def supported(self) -> list[tuple[float | None, AccuracySummary]]:
        """The times with data, in order."""
        return [(time, figure) for time, figure in self.accuracy.items() if figure is not None]

    def at(self, time_s: float | None) -> AccuracySummary | None:
        """Accuracy at `time_s` since programming; a target that does not drift has the same at all times."""
        return self.accuracy.get(time_s) if self.drifts else self.accuracy.get(None)

    def cost(self, provenance: str, batch: int | None = 1) -> Cost | None:
        """The cost at one batch size, or None where there is none.

        Args:
            provenance: "estimated" or "measured".
            batch: samples processed together; None takes the best batch.
        """
        found = [c for c in self.costs if c.provenance == provenance and (batch is None or c.batch == batch)]
        return found[-1] if found else None


def summarize(rows: Sequence[Row], only: Collection[str] | None = None) -> list[TargetSummary]:
    """One summary a target, in the order in which the targets first appear.

    Args:
        rows: results of one run.
        only: names of the targets that are wanted; their `index` stays that of the whole run. None: all.

    Raises:
        HpmlError: there are no rows.
    """
    if not rows:
        raise HpmlError("no result rows to show: the run has not finished its first row; run it (again, with --resume)")
    names = list(dict.fromkeys(row.target for row in rows))
    return [
        _summarize([r for r in rows if r.target == name], index)
        for index, name in enumerate(names)
        if only is None or name in only
    ]


def times_of(targets: Sequence[TargetSummary]) -> list[float]:
    """Every time since programming in the run of `targets`, seconds, in order."""
    return sorted({time for target in targets for time in target.accuracy if time is not None})


def _summarize(rows: list[Row], index: int) -> TargetSummary:
    first = rows[0]
    times = sorted({r.time_s for r in rows}, key=lambda t: -1.0 if t is None else t)
    by_seed = {r.seed: r for r in reversed(rows) if r.estimates or r.measurements}  # the first such row of each seed
    leading = [by_seed[seed] for seed in sorted(by_seed)]
    general = _unique(note for r in rows if r.score is not None for note in r.notes)
    estimates = leading[0].estimates if leading else []
    first_batches = [e.per_token() for r in leading for e in r.estimates if e.batch == 1]
    components = _parts(first_batches, lambda term: term.component)
    return TargetSummary(
        name=first.target,
        card=first.card,
        config=first.config,
        seeds=tuple(sorted({r.seed for r in rows})),
        accuracy={t: _accuracy([r.score for r in rows if r.time_s == t and r.score]) for t in times},
        reasons={
            t: _unique(n for r in rows if r.time_s == t and r.score is None for n in r.notes if n not in general)
            for t in times
            if any(r.time_s == t and r.score is None for r in rows)
        },
        costs=(*_estimated(leading, lambda row: row.estimates), *_measured(leading)),
        estimates=tuple(estimates),
        components=tuple(sorted(components, key=lambda part: -part.energy_j.nominal)),
        layer_parts=tuple(
            sorted(
                _parts(first_batches, lambda term: layer_label(term.layer, first.layers)),
                key=lambda part: part.name == WHOLE_MACHINE,
            )
        ),
        layers=tuple(first.layers),
        notes=general,
        accuracy_model=first.simulated,
        systems=tuple(e.per_token() for e in leading[0].systems) if leading else (),
        decodes=tuple(_estimated(leading, lambda row: row.decodes)),
        decode_systems=tuple(leading[0].decode_systems if leading else ()),
        floating_point=_accuracy([r.floating_point for r in rows if r.floating_point]),
        index=index,
    )


def _unique(items: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(items))


def pooled(found: Sequence[Score]) -> AccuracySummary:
    """Scores of one metric at one time over all seeds.

    Args:
        found: one a seed, at least one.
    """
    values = tuple(v for a in found for v in a.values)
    first = found[0]
    said = {"metric": first.metric, "unit": first.unit, "higher_is_better": first.higher_is_better}
    if len(found) == 1:
        return AccuracySummary(
            first.mean, first.std, first.n, first.ci95, first.over, values, first.samples, seeds=1, **said
        )
    means = Score.of([a.mean for a in found], first.samples, **said)
    return AccuracySummary(
        means.mean, means.std, means.n, means.ci95, "seeds", values, first.samples, seeds=len(found), **said
    )


def _accuracy(found: Sequence[Score]) -> AccuracySummary | None:
    return pooled(found) if found else None


def _band(bands: Sequence[Band | None]) -> Band | None:
    """Mean of the nominal values, outermost bounds; None unless every seed has the figure."""
    present = [b for b in bands if b is not None]
    if not present or len(present) < len(bands):
        return None
    nominal = math.fsum(b.nominal for b in present) / len(present)
    low, high = min(b.low for b in present), max(b.high for b in present)
    return Band(low=min(low, nominal), nominal=nominal, high=max(high, nominal))


def _must(band: Band | None) -> Band:
    if band is None:
        raise AssertionError("the format of a row guarantees this figure")
    return band


def _one_and_best(batches: dict[int, Band]) -> list[int]:
    """Batch 1 (or the smallest) and the batch of the highest throughput."""
    best = max(batches, key=lambda b: (batches[b].nominal, -b))
    return sorted({min(batches), best})


_Costed = TypeVar("_Costed", Estimate, Measurement)


def _by_batch(items: Iterable[_Costed]) -> dict[int, list[_Costed]]:
    groups: dict[int, list[_Costed]] = {}
    for item in items:
        groups.setdefault(item.batch, []).append(item)
    return groups


def _estimated(rows: list[Row], of: Callable[[Row], Sequence[Estimate]]) -> list[Cost]:
    groups = _by_batch(e.per_token() for r in rows for e in of(r))
    if not groups:
        return []
    rates = {batch: _must(_band([e.throughput_hz for e in group])) for batch, group in groups.items()}
    return [
        Cost(
            provenance="estimated",
            origin=groups[batch][0].provenance,
            scope=groups[batch][0].scope,
            batch=batch,
            energy_j=_band([e.energy_j for e in groups[batch]]),
            latency_s=_must(_band([e.latency_s for e in groups[batch]])),
            throughput_hz=rates[batch],
            area_mm2=_band([e.area_mm2 for e in groups[batch]]),
            phase=groups[batch][0].phase,
            tokens=groups[batch][0].tokens,
            context=round(groups[batch][0].mapping.get("context", 0.0)),
        )
        for batch in _one_and_best(rates)
    ]


def _measured(rows: list[Row]) -> list[Cost]:
    groups = _by_batch(m for r in rows for m in r.measurements)
    if not groups:
        return []
    tokens = max((e.tokens for r in rows for e in r.estimates), default=0)
    each = float(max(tokens, 1))  # an inference is a sample, of a language model with so many tokens
    rates = {
        batch: _must(_band([Band.exact(each * m.throughput_hz) for m in group])) for batch, group in groups.items()
    }
    costs = []
    for batch in _one_and_best(rates):
        group = groups[batch]
        latency = [
            Band(
                low=min(m.latency_p10_s, m.latency_s),
                nominal=m.latency_s,
                high=max(m.latency_p90_s, m.latency_s),
            )
            for m in group
        ]
        energy = [Band.exact(m.energy_j / each) if m.energy_j is not None else None for m in group]
        origins = _unique([group[0].provenance, *([group[0].energy_provenance] if group[0].energy_provenance else [])])
        costs.append(
            Cost(
                provenance="measured",
                origin=", ".join(origins),
                scope="this machine",
                batch=batch,
                energy_j=_band(energy),
                latency_s=_must(_band(latency)),
                throughput_hz=rates[batch],
                area_mm2=None,
                device=group[0].device,
                energy_reason="; ".join(_unique(m.energy_reason for m in group if m.energy_j is None)),
                phase="prefill" if tokens else "",
                tokens=tokens,
            )
        )
    return costs


def layer_label(name: str, layers: Sequence[dict[str, Any]]) -> str:
    """A layer as the conversion report names it, with its former class: "network.1" is "1 Linear".

    Args:
        name: in the counts; "" for what belongs to no layer.
        layers: the conversion report.
    """
    if not name:
        return WHOLE_MACHINE
    name = name.removeprefix("network.")  # where a converted model keeps the network
    was = next((str(layer.get("was") or "") for layer in layers if layer.get("layer") == name), "")
    return f"{name} {was}".strip()


def _parts(estimates: list[Estimate], key: Callable[[Term], str]) -> tuple[Part, ...]:
    """Energies at batch 1 summed by a key, averaged over seeds, in the order of the terms."""
    per_seed: list[dict[str, Band]] = []
    sources: dict[str, tuple[str, ...]] = {}
    for estimate in estimates:
        sums: dict[str, Band] = {}
        for term in estimate.terms:
            name = key(term)
            sums[name] = sums.get(name, ZERO) + term.energy_j
            sources[name] = _unique([*sources.get(name, ()), *term.sources])
        per_seed.append(sums)
    bands = {name: _must(_band([sums.get(name, ZERO) for sums in per_seed])) for name in sources}
    total = math.fsum(b.nominal for b in bands.values())
    return tuple(Part(n, b, b.nominal / total if total else 0.0, sources[n]) for n, b in bands.items())
