"""Rows -> one summary a target: seeds, gaps, batches, components."""

import math
import statistics
from dataclasses import replace

import pytest

from hpml_sim.errors import HpmlError
from hpml_sim.report import findings
from hpml_sim.report.summary import summarize, times_of
from hpml_sim.units.bands import Band
from tests.report.example_rows import DAY, HOUR, TARGETS, TIMES, YEAR, example_rows


def test_targets_keep_their_order_and_times() -> None:
    targets = summarize(example_rows())
    assert [t.name for t in targets] == list(TARGETS)
    assert times_of(targets) == list(TIMES)
    assert [t.drifts for t in targets] == [False, False, True, True, False]


def test_no_rows_is_refused_with_the_next_step() -> None:
    with pytest.raises(HpmlError, match="--resume"):
        summarize([])


def test_one_seed_is_taken_as_it_is() -> None:
    rows = example_rows(targets=("pcm-hermes",))
    shown = summarize(rows)[0].at(1.0)
    written = rows[0].score
    assert shown is not None
    assert written is not None
    assert (shown.mean, shown.std, shown.n, shown.ci95) == (written.mean, written.std, 25, written.ci95)
    assert shown.spread == "25 chips"


def test_several_seeds_are_the_units_not_their_chips() -> None:
    rows = [r for r in example_rows(targets=("pcm-hermes",), seeds=(0, 1, 2)) if r.time_s == 1.0]
    shown = summarize(rows)[0].at(1.0)
    assert shown is not None
    means = [statistics.fmean(r.score.values) for r in rows if r.score]
    assert shown.mean == pytest.approx(statistics.fmean(means))
    assert shown.std == pytest.approx(statistics.stdev(means))
    half = 4.302652729911275 * statistics.stdev(means) / math.sqrt(3)  # Student's t, 97.5 %, 2 degrees of freedom
    assert shown.ci95 == pytest.approx((shown.mean - half, min(1.0, shown.mean + half)))
    assert (shown.n, shown.seeds, len(shown.values), shown.spread) == (3, 3, 75, "3 seeds of 25 chips")


def test_a_gap_stays_a_gap_and_keeps_its_reason() -> None:
    target = summarize(example_rows(targets=("reram-neurram",)))[0]
    assert target.at(HOUR) is None
    assert "not extrapolated to 1 h" in target.reasons[HOUR][0]
    assert set(target.reasons) == {HOUR, YEAR}
    assert target.notes == ()
    assert [t for t, _ in target.supported] == [1.0, DAY]
    assert findings.gaps_of(target) == ["1 h", "1 year"]


def test_costs_of_batch_one_and_the_best_batch_measured_apart() -> None:
    cpu = summarize(example_rows())[0]
    assert [(c.provenance, c.batch) for c in cpu.costs] == [
        ("estimated", 1),
        ("estimated", 16384),
        ("measured", 1),
        ("measured", 16384),
    ]
    measured = cpu.cost("measured")
    assert measured is not None
    assert measured.energy_j is None
    assert "RAPL" in measured.energy_reason
    assert measured.scope == "this machine"


def test_seeds_widen_the_band_of_an_estimate() -> None:
    rows = example_rows(targets=("loihi",), seeds=(0, 1, 2, 3))
    cost = summarize(rows)[0].cost("estimated")
    assert cost is not None
    assert cost.energy_j is not None
    single = [e.energy_j for r in rows for e in r.estimates]
    assert cost.energy_j.low == min(e.low for e in single if e)
    assert cost.energy_j.high == max(e.high for e in single if e)
    assert cost.energy_j.nominal == pytest.approx(statistics.fmean(e.nominal for e in single if e))


def test_components_add_up_and_come_largest_first() -> None:
    for target in summarize(example_rows(seeds=(0, 1))):
        shares = [c.share for c in target.components]
        assert sum(shares) == pytest.approx(1)
        assert shares == sorted(shares, reverse=True)
        cost = target.cost("estimated")
        assert cost is not None
        assert cost.energy_j is not None
        assert sum(c.energy_j.nominal for c in target.components) == pytest.approx(cost.energy_j.nominal)


def test_energy_is_ranked_within_a_scope_only() -> None:
    text = " ".join(findings.energy(summarize(example_rows())))
    assert "Scope chip, lowest first: reram-neurram 2.08 nJ" in text
    assert "pcm-hermes takes about 24 times the energy of reram-neurram" in text
    assert "times the energy of cpu" not in text
    assert "Scope board: h200" in text
    assert "not ranked against each other" in text


def test_overlapping_bands_are_not_ordered() -> None:
    rows = example_rows(targets=("pcm-hermes",), times=(1.0,))
    more = [replace(e, energy_j=e.energy_j * 1.01) for e in rows[0].estimates if e.energy_j is not None]
    twin = rows[0].model_copy(update={"target": "twin", "estimates": more})
    assert "the bands of pcm-hermes and twin overlap, so their order is uncertain" in " ".join(
        findings.energy(summarize([*rows, twin]))
    )


def test_who_overtakes_whom_at_the_best_batch_is_said_where_the_bands_allow_it() -> None:
    rows = example_rows(targets=("cpu", "loihi"))
    one, best = rows[0].estimates[0].energy_j, rows[0].estimates[1].energy_j

    def at(nominal: float) -> list[str]:
        """What is said if loihi's energy is `nominal`, known within a factor of 1.5 either way."""
        energy = Band(low=nominal / 1.5, nominal=nominal, high=nominal * 1.5)
        changed = [replace(e, energy_j=energy, scope=rows[0].estimates[0].scope) for e in rows[1].estimates]
        return findings.batches(summarize([rows[0], rows[1].model_copy(update={"estimates": changed})]))

    assert at((one.nominal * best.nominal) ** 0.5)[1:] == [
        f"At its best batch cpu takes less energy than loihi, which takes less at batch 1 "
        f"(scope {rows[0].estimates[0].scope})."
    ]
    assert at(one.nominal * 2)[1:] == []  # dearer already at batch 1
    assert at(best.high)[1:] == []  # the bands overlap at the best batch


def test_a_missing_energy_is_none_not_zero() -> None:
    rows = example_rows(targets=("cpu",))
    target = summarize([rows[0].model_copy(update={"estimates": []})])[0]
    assert [c.provenance for c in target.costs] == ["measured", "measured"]
    assert all(c.energy_j is None for c in target.costs)
    assert target.components == ()
    assert findings.energy([target]) == []


def test_many_targets_do_not_make_endless_sentences() -> None:
    rows = [r for k in range(8) for r in example_rows(rename={t: f"{t}-{k}" for t in TARGETS})]
    for subject, paragraphs in findings.findings(summarize(rows)):
        assert len(" ".join(paragraphs)) < 1500, subject


def test_what_does_not_change_stays() -> None:
    first, *_, last = example_rows(targets=("pcm-hermes",))
    rows = [first, last.model_copy(update={"scores": first.scores})]
    assert first.score is not None
    assert findings.drift(summarize(rows)) == [
        f"pcm-hermes stays at {100 * first.score.mean:.1f} % from 1 s to 1 year."
    ]
