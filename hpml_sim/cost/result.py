"""`Estimate`: what a machine would spend on one inference, by component and layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from hpml_sim.cards import Bounds, Scope
from hpml_sim.errors import HpmlError, shown
from hpml_sim.units.bands import ZERO, Band
from hpml_sim.units.display import html_table, plain_lines
from hpml_sim.units.formatting import digits, si, si_band

if TYPE_CHECKING:
    import pandas as pd


_COLUMNS = ("layer", "component", "low_j", "nominal_j", "high_j", "sources", "added_from")


@dataclass(frozen=True)
class Term:
    """One share of the energy of one inference.

    Attributes:
        layer: name of the layer in the network, or "" for what belongs to the whole machine.
        component: what spends it ("adc", "array", "static", "sop", "launch", ...).
        energy_j: joules an inference.
        sources: keys of the card's sources that the figure rests on; of components, "component:key".
        origin: name of the component (`devices/components/`) that the term was added from; "" for the card's own.
    """

    layer: str
    component: str
    energy_j: Band
    sources: tuple[str, ...] = ()
    origin: str = ""

    def __repr__(self) -> str:
        return f"Term({self.layer!r}, {self.component}, {si_band(self.energy_j, 'J')})"


@dataclass(frozen=True)
class LayerWork:
    """What one layer asks of a processor for a whole batch, and how long the roofline gives it.

    Attributes:
        layer: name in the network.
        operations: arithmetic operations (a MAC is two).
        traffic_bytes: bytes to and from DRAM.
        time_s: nominal seconds.
        limit: what takes them: "compute", "memory", "launch" or "power".
    """

    layer: str
    operations: float
    traffic_bytes: float
    time_s: float
    limit: str

    def __repr__(self) -> str:
        return f"LayerWork({self.layer!r}, {si(self.time_s, 's')}, limited by {self.limit})"


@dataclass(frozen=True)
class Roof:
    """The ceilings of a processor and the layers of one network under them: what a roofline plot shows.

    Source: S. Williams, A. Waterman, D. Patterson, Roofline, Communications of the ACM 52(4):65, 2009.

    Attributes:
        operations_hz: operations a second that matrix products reach.
        bandwidth: bytes a second that DRAM delivers.
        layers: in the order of the network.
    """

    operations_hz: Band
    bandwidth: Band
    layers: tuple[LayerWork, ...]

    def __repr__(self) -> str:
        rates = f"{si(self.operations_hz.nominal, 'operations/s')}, {si(self.bandwidth.nominal, 'B/s')}"
        return f"Roof({rates}, {len(self.layers)} layers)"


@dataclass(frozen=True)
class Estimate:
    """What the equations give for one network on one machine.

    Attributes:
        card: name of the card.
        scope: what the figures include ("core", "chip", "board" or "system"); figures of different scope are never
            compared.
        batch: samples processed together.
        energy_j: joules an inference, the sum of `terms`.
        latency_s: seconds from the input of one batch to its output.
        throughput_hz: inferences a second, sustained.
        area_mm2: silicon of all chips used, or None where the card has none.
        terms: the parts of the energy.
        mapping: how the network lies on the machine (tiles, utilization, cores, chips, ...), numbers by name.
        excluded: what the figures leave out, one sentence each: layers, movements, overheads.
        sources: source key -> citation, for every source used.
        assumptions: what was taken for granted, one sentence each; weak figures of the card are named here.
        reported_separately: figures that are not part of `energy_j`, by name with the unit in the name:
            `energy_without_idle_j`, `programming_j` (writing all weights once), `recalibration_j` (one drift
            calibration), `dynamic_j` (events of a spiking machine), `arithmetic_only_j` (fp32 additions at 45 nm: a
            bound that leaves out the rest), ...
        roof: ceilings and layers of a CPU or GPU; None for machines that keep their weights in place.
        projection: whether no such system exists: what is around the chips was added from components, and never built.
        rate_hz: inferences a second that were asked for; None: one after another without a pause.
        bounds: what low and high of the card's own figures are, as the card says: "percentiles" (5th and 95th, of a
            lognormal) or "limits" (any value between them is as likely, by the logarithm).

    Example:
        >>> import hpml_sim as hs
        >>> cost = hs.estimate(hs.workload(hs.models.mlp(784, 128, 10), input_shape=(1, 28, 28)), "pcm-hermes")
        >>> cost.scope, cost.batch, sorted(cost.by_component())
        ('core', 1, ['mvm'])
        >>> print(cost)
        Estimate of one inference on pcm-hermes, core scope, batch 1: nominal (bounds)
          energy      121 nJ (80.8–330)
          latency     1.04 us (1.04–2.70)
          throughput  1.92 M (0.925–1.92) inferences a second
          area        3.145 mm2
          spent by    mvm 100%
          left out    10 (.excluded); assumed: 2 (.assumptions)
    """

    card: str
    scope: Scope
    batch: int
    energy_j: Band
    latency_s: Band
    throughput_hz: Band
    area_mm2: Band | None
    terms: tuple[Term, ...]
    mapping: dict[str, float] = field(default_factory=dict)
    excluded: tuple[str, ...] = ()
    sources: dict[str, str] = field(default_factory=dict)
    assumptions: tuple[str, ...] = ()
    reported_separately: dict[str, Band] = field(default_factory=dict)
    roof: Roof | None = None
    projection: bool = False
    rate_hz: float | None = None
    bounds: Bounds = "percentiles"

    @property
    def added(self) -> tuple[Term, ...]:
        """The terms that were added from components, because the card's own scope excludes them."""
        return tuple(term for term in self.terms if term.origin)

    @property
    def tokens(self) -> int:
        """Tokens that an inference of a language model reads (a prompt) or makes (one); 0 for other networks."""
        return round(self.mapping.get("tokens", 0.0))

    @property
    def phase(self) -> str:
        """What an inference of a language model is: "prefill", "decode" or "serve"; "" for other networks."""
        if "context" in self.mapping:
            return "decode"
        return "" if not self.tokens else "serve" if "time_to_first_token_s" in self.reported_separately else "prefill"

    @property
    def inference(self) -> str:
        """What one inference is, in words."""
        if self.phase == "decode":
            return f"one token, with {self.mapping['context']:,.0f} in the cache"
        if self.phase == "prefill":
            return f"reading a prompt of {self.tokens:,} tokens"
        return "one token of an answer" if self.phase == "serve" else "one inference"

    def per_token(self) -> Estimate:
        """The same with energy and throughput by the token in place of the inference; other networks' as they are."""
        if self.tokens < 2:
            return self
        share = 1.0 / self.tokens
        shared = ("operations",) if "operations" in self.mapping else ()
        return replace(
            self,
            mapping={**self.mapping, **{name: self.mapping[name] * share for name in shared}},
            energy_j=self.energy_j * share,
            throughput_hz=self.throughput_hz * float(self.tokens),
            terms=tuple(replace(term, energy_j=term.energy_j * share) for term in self.terms),
        )

    @property
    def provenance(self) -> str:
        """`estimated:<card>`, the mark that stands beside each figure."""
        return f"estimated:{self.card}"

    def __post_init__(self) -> None:
        bands = (self.energy_j, self.latency_s, self.throughput_hz)
        if (
            not isinstance(self.card, str)
            or not all(isinstance(band, Band) for band in bands)
            or not isinstance(self.terms, tuple)
            or not all(isinstance(term, Term) for term in self.terms)
        ):
            raise HpmlError(
                f"Estimate({shown(self.card)}, ...): its figures must be bands and its terms a tuple of them by layer; "
                "an Estimate is what hs.estimate(workload, target) gives"
            )

    def __repr__(self) -> str:
        figures = f"{si_band(self.energy_j, 'J')}, {si_band(self.latency_s, 's')}"
        return f"Estimate({self.card}, {self.scope} scope, batch {self.batch:,}: {figures})"

    def __str__(self) -> str:
        return plain_lines(self._title(), self._lines())

    def _repr_html_(self) -> str:
        """The same for a notebook."""
        return html_table(self._title(), self._lines())

    def _title(self) -> str:
        kind = ", a projection" if self.projection else ""
        rate = "" if self.rate_hz is None else f", {digits(self.rate_hz)} a second"
        what = f"{self.card}, {self.scope} scope{kind}, batch {self.batch:,}{rate}"
        return f"Estimate of {self.inference} on {what}: nominal (bounds)"

    def _lines(self) -> list[tuple[str, str]]:
        nominal = self.energy_j.nominal or 1.0
        shares = {name: band.nominal / nominal for name, band in self.by_component().items()}
        rate = self.throughput_hz
        # "183 m inferences" would read as 183 million
        a_second = si_band(rate, "") if rate.nominal >= 1 else digits(rate.nominal)
        return [
            ("energy", si_band(self.energy_j, "J")),
            ("latency", si_band(self.latency_s, "s")),
            ("throughput", f"{a_second} inferences a second"),
            ("area", "" if self.area_mm2 is None else f"{self.area_mm2.nominal:,.4g} mm2"),
            ("spent by", ", ".join(f"{name} {share:.0%}" for name, share in shares.items() if share >= 0.01)),
            ("added", ", ".join(dict.fromkeys(term.component for term in self.added))),
            ("left out", f"{len(self.excluded)} (.excluded); assumed: {len(self.assumptions)} (.assumptions)"),
        ]

    def by_component(self) -> dict[str, Band]:
        """Joules an inference for each component, largest first."""
        return self._grouped("component")

    def by_layer(self) -> dict[str, Band]:
        """Joules an inference for each layer, largest first."""
        return self._grouped("layer")

    def _grouped(self, attribute: str) -> dict[str, Band]:
        sums: dict[str, Band] = {}
        for term in self.terms:
            key = getattr(term, attribute)
            sums[key] = sums.get(key, ZERO) + term.energy_j
        return dict(sorted(sums.items(), key=lambda item: -item[1].nominal))

    def table(self) -> pd.DataFrame:
        """One row a term: layer, component, low, nominal, high (joules an inference), sources, added from."""
        import pandas as pd

        rows = [
            {
                "layer": t.layer,
                "component": t.component,
                "low_j": t.energy_j.low,
                "nominal_j": t.energy_j.nominal,
                "high_j": t.energy_j.high,
                "sources": ", ".join(t.sources),
                "added_from": t.origin,
            }
            for t in self.terms
        ]
        frame = pd.DataFrame(rows, columns=[*_COLUMNS])
        frame.attrs["scope"] = self.scope
        return frame

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists, strings and floats, ready for JSON; `from_dict` reads it back."""
        return {
            "card": self.card,
            "scope": self.scope,
            "batch": self.batch,
            "energy_j": _plain(self.energy_j),
            "latency_s": _plain(self.latency_s),
            "throughput_hz": _plain(self.throughput_hz),
            "area_mm2": None if self.area_mm2 is None else _plain(self.area_mm2),
            "terms": [
                {
                    "layer": t.layer,
                    "component": t.component,
                    "energy_j": _plain(t.energy_j),
                    "sources": list(t.sources),
                    "origin": t.origin,
                }
                for t in self.terms
            ],
            "mapping": {name: float(value) for name, value in self.mapping.items()},
            "excluded": list(self.excluded),
            "sources": dict(self.sources),
            "assumptions": list(self.assumptions),
            "reported_separately": {name: _plain(band) for name, band in self.reported_separately.items()},
            "roof": None if self.roof is None else asdict(self.roof),
            "projection": self.projection,
            "rate_hz": self.rate_hz,
            "bounds": self.bounds,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Estimate:
        """The estimate that `to_dict` wrote.

        Args:
            data: the dict, as `to_dict` or JSON gives it.

        Raises:
            HpmlError: a field is missing, unknown, or not what `to_dict` writes.
        """
        known = {f.name for f in fields(cls)}
        if not isinstance(data, Mapping) or set(data) != known:
            given = set(data) if isinstance(data, Mapping) else set()
            raise HpmlError(
                f"not an estimate: missing {sorted(known - given)}, unknown {sorted(map(str, given - known))}; "
                "it was written by another version of hpml_sim"
            )
        try:
            return _read(data)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise HpmlError(
                f"not an estimate: {type(error).__name__}: {' '.join(str(error).split())}; it is damaged, or "
                "was written by another version of hpml_sim"
            ) from None


def _read(data: Mapping[str, Any]) -> Estimate:
    area = data["area_mm2"]
    return Estimate(
        card=data["card"],
        scope=data["scope"],
        batch=data["batch"],
        energy_j=_band(data["energy_j"]),
        latency_s=_band(data["latency_s"]),
        throughput_hz=_band(data["throughput_hz"]),
        area_mm2=None if area is None else _band(area),
        terms=tuple(
            Term(t["layer"], t["component"], _band(t["energy_j"]), tuple(t["sources"]), t["origin"])
            for t in data["terms"]
        ),
        mapping=dict(data["mapping"]),
        excluded=tuple(data["excluded"]),
        sources=dict(data["sources"]),
        assumptions=tuple(data["assumptions"]),
        reported_separately={name: _band(band) for name, band in data["reported_separately"].items()},
        roof=None if data["roof"] is None else _roof(data["roof"]),
        projection=data["projection"],
        rate_hz=data["rate_hz"],
        bounds=data["bounds"],
    )


def _plain(band: Band) -> dict[str, float]:
    return {"low": float(band.low), "nominal": float(band.nominal), "high": float(band.high)}


def _band(data: Mapping[str, float]) -> Band:
    return Band(data["low"], data["nominal"], data["high"])


def _roof(data: Mapping[str, Any]) -> Roof:
    return Roof(
        _band(data["operations_hz"]), _band(data["bandwidth"]), tuple(LayerWork(**layer) for layer in data["layers"])
    )
