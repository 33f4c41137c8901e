"""Whole systems: nothing is lost, nothing is counted twice, and what is added can be worked out by hand."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hpml_sim as hs
from hpml_sim.cards import load_card, load_component
from hpml_sim.cost import estimate
from hpml_sim.cost.crossbar import place
from hpml_sim.cost.crossbar.traffic import crossings
from hpml_sim.counting import LayerCount, Workload
from hpml_sim.errors import HpmlError, ScopeError
from hpml_sim.units.bands import ZERO, Band

from ..machines import crossbar, digital, linear, mlp, neuromorphic, snn

CARDS = ("pcm-hermes", "pcm-34tile-chip", "isaac", "neurosim-rram-22", "h200", "cpu", "jetson-orin")
SPIKING = ("loihi", "xylo", "spinnaker-1")
sizes = st.lists(st.integers(1, 600), min_size=2, max_size=5)
few = settings(max_examples=15, deadline=None, derandomize=True)


def networks(shape):
    yield from ((mlp(*shape), name) for name in CARDS)
    yield from ((snn(*shape, steps=4), name) for name in SPIKING)


def figures(band: Band):
    return pytest.approx((band.low, band.nominal, band.high))


@few
@given(sizes, st.sampled_from([1, 7]))
def test_the_total_is_the_sum_and_each_part_is_added_once(shape, batch):
    for counts, name in networks(shape):
        whole, own = (estimate(counts, name, batch=batch, scope=scope) for scope in ("system", None))
        total = sum((term.energy_j for term in whole.terms), ZERO)
        assert (total.low, total.nominal, total.high) == figures(whole.energy_j)
        assert sum(whole.by_component().values(), ZERO).nominal == pytest.approx(whole.energy_j.nominal)
        added = [(term.layer, term.component) for term in whole.added]
        assert len(added) == len(set(added)), f"{name}: something was added twice"
        # what the card itself charges is the same at both scopes, but for power that flows for as long as it takes
        kept = {(t.layer, t.component): t.energy_j.nominal for t in whole.terms if not t.origin}
        assert set(kept) == {(t.layer, t.component) for t in own.terms}
        for term in own.terms:
            assert kept[term.layer, term.component] >= term.energy_j.nominal * (1 - 1e-9)
        assert {t.component for t in whole.added}.isdisjoint({t.component for t in own.terms})
        assert whole.energy_j.low >= own.energy_j.low
        assert whole.energy_j.nominal > own.energy_j.nominal
        assert whole.scope == "system"
        assert all(any(key.startswith(f"{t.origin.split('-')[0]}") for key in t.sources) for t in whole.added)


@few
@given(sizes)
def test_twice_the_work_takes_twice_the_dynamic_energy(shape):
    """Every layer with two vectors in place of one: what counts events doubles, in each part that was added."""
    once = mlp(*shape)
    twice = Workload(
        tuple(
            replace(
                y,
                vectors=2 * y.vectors,
                macs=2 * y.macs,
                input_elements=2 * y.input_elements,
                output_elements=2 * y.output_elements,
            )
            for y in once.layers
        ),
        input_elements=2 * once.input_elements,
        output_elements=2 * once.output_elements,
    )
    card = load_card("pcm-hermes")
    first, second = (estimate(w, card, scope="system", replicate=False).by_component() for w in (once, twice))
    for part in ("mvm", "digital", "link"):
        assert second[part].nominal == pytest.approx(2 * first[part].nominal)


def test_conversion_of_power_by_hand():
    """A made-up board: (idle + compute + host) x fans x supply x data center, from the components' own numbers."""
    card = digital().model_copy(update={"host": "server", "scope": "board"})
    counts = mlp(1000, 1000)
    own, whole = estimate(counts, card), estimate(counts, card, scope="system")
    seconds = own.latency_s.nominal
    ratios = [load_component(n).ratio.si for n in ("fans", "power-supply", "facility")]
    before = own.energy_j.nominal + 125 * seconds + whole.by_component()["input-output"].nominal
    assert whole.energy_j.nominal == pytest.approx(before * math.prod(ratios))
    assert whole.reported_separately["idle_w"].nominal == pytest.approx((10 + 75) * math.prod(ratios))
    assert [t.component for t in whole.added] == ["input-output", "host", "fans", "supply", "cooling"]


def test_a_card_that_holds_its_surroundings_gets_none_of_them_again():
    counts = mlp(300, 200, 10)
    parts = set(estimate(counts, "isaac", scope="system").by_component())
    assert parts.isdisjoint({"digital", "link", "buffer"})
    full = crossbar().model_copy(update={"includes": ["digital", "buffers", "links"]})
    assert {t.component for t in estimate(counts, full, scope="system").added} == {
        "leakage", "host", "input-output", "regulator", "supply",
    }  # fmt: skip


def test_broadcasts_and_partial_sums_from_chip_to_chip_by_hand():
    """200 x 400 on tiles of 100 x 100, two a chip: four strips of two tiles, a strip a chip; then one tile a chip."""
    wide = [place(linear("w", 200, 400), 100, 100, 1)]
    (found,) = crossings(wide, 2, [8])
    assert (found.broadcasts, found.partial_sums, found.outputs) == (200 * 8 * 3, 0, 400 * 8)
    (found,) = crossings(wide, 1, [8])  # a strip is cut over two chips; an input reaches the four that hold its rows
    assert (found.broadcasts, found.partial_sums) == (200 * 8 * 3, 400 * 32)
    (found,) = crossings(wide, 8, [8])
    assert found.total == 0


def decode(context: int, blocks: int = 2) -> Workload:
    layers = []
    for k in range(blocks):
        layers.append(linear(f"qkv{k}", 64, 192))
        layers.append(LayerCount(f"cache{k}", "kv_cache", state_elements=128.0 * (context + 1), output_elements=128.0))
        layers.append(LayerCount(f"att{k}", "attention", macs=128.0 * (context + 1), output_elements=64.0))
    return Workload(tuple(layers), input_elements=1, output_elements=64)


def test_decoding_grows_with_the_cache():
    card = crossbar()
    found = [estimate(decode(n), card, scope="system") for n in (0, 1000, 10000)]
    joules = [e.by_component()["kv-cache"].nominal for e in found]
    bit = load_component("lpddr").transfer.si
    assert joules == pytest.approx([2 * 128 * (n + 1) * 16 * bit for n in (0, 1000, 10000)])
    assert found[0].latency_s.nominal < found[1].latency_s.nominal < found[2].latency_s.nominal
    slope = (found[2].by_component()["attention"].nominal - found[1].by_component()["attention"].nominal) / 9000
    assert slope * 1001 == pytest.approx(found[1].by_component()["attention"].nominal)
    own = estimate(decode(1000), card)
    assert any("keys and values" in sentence for sentence in own.excluded)


@pytest.mark.parametrize("scope", [None, "system"])
def test_one_sequence_cannot_be_pipelined_with_itself(scope):
    card = crossbar()
    one = estimate(decode(0, blocks=6), card, scope=scope)
    assert one.throughput_hz.nominal == pytest.approx(1 / one.latency_s.nominal)
    many = estimate(decode(0, blocks=6), card, scope=scope, batch=4)
    assert many.latency_s.nominal == pytest.approx(one.latency_s.nominal)  # four in flight at once
    assert many.throughput_hz.nominal == pytest.approx(4 * one.throughput_hz.nominal)
    best = estimate(decode(0, blocks=6), card, scope=scope, batch="best")
    assert best.throughput_hz.nominal == pytest.approx(best.batch / best.latency_s.nominal)
    # keys and values of all sequences come through one memory: with many, it sets the pace
    long = estimate(decode(1000, blocks=6), card, scope="system", batch=16)
    seconds = 16 * 6 * 128 * 1001 * 2 / load_component("lpddr").rate.si
    assert long.latency_s.nominal == pytest.approx(seconds)
    # independent images may follow each other: more a second than one after another
    images = estimate(mlp(*[90] * 7), card, scope=scope)
    assert images.throughput_hz.nominal > 1.5 / images.latency_s.nominal


def test_time_that_a_card_does_not_tell_widens_its_upper_bound_alone():
    counts = Workload(
        (linear("a", 90, 90, vectors=50), LayerCount("act", "activation", output_elements=1e7, module="ReLU"))
    )
    own, whole = (estimate(counts, crossbar(), scope=scope, replicate=False) for scope in (None, "system"))
    assert own.latency_s.nominal == pytest.approx(50 * 100e-9)
    assert own.latency_s.high >= whole.latency_s.high * (1 - 1e-9) > own.latency_s.nominal
    # 1e7 operations on the unit of one tile of this chip
    rate = load_component("datapath").op_rate.si
    assert whole.latency_s.nominal == pytest.approx(own.latency_s.nominal + 1e7 / rate, rel=0.01)
    assert whole.throughput_hz.nominal <= rate / 1e7 * 1.01
    assert own.throughput_hz.low <= whole.throughput_hz.nominal


def test_a_rate_by_hand():
    counts = mlp(100, 50)
    for card in (digital(), crossbar(), "loihi"):
        found = estimate(counts if card != "loihi" else snn(100, 50, steps=2), card, scope="system")
        idle = found.reported_separately["idle_w"].nominal
        slow = estimate(counts if card != "loihi" else snn(100, 50, steps=2), card, scope="system", rate_hz=0.5)
        expected = found.energy_j.nominal + idle * (2 - found.latency_s.nominal)
        assert slow.energy_j.nominal == pytest.approx(expected)
        assert slow.reported_separately["average_power_w"].nominal == pytest.approx(expected / 2)
        assert slow.by_component()["waiting"].nominal == pytest.approx(idle * (2 - found.latency_s.nominal))


def test_always_on_loihi_is_dominated_by_its_static_power():
    """Faults, E5: at one inference a second it takes joules of static power, whatever its events take."""
    found = estimate(snn(200, 100, steps=10), "loihi", rate_hz=1)
    assert found.energy_j.nominal == pytest.approx(0.104 + 0.065, rel=0.1)


def test_machines_change_places_where_their_average_powers_meet():
    a, b = (
        replace(
            estimate(mlp(10, 10), digital()),
            energy_j=Band.exact(joules),
            latency_s=Band.exact(0.1),
            throughput_hz=Band.exact(10.0),
            reported_separately={"idle_w": Band.exact(watts)},
            mapping={},
        )
        for joules, watts in ((1.0, 2.0), (3.0, 0.5))
    )
    rate = hs.crossover_hz(a, b)
    # P_a = 2 + r (1 - 0.2), P_b = 0.5 + r (3 - 0.05)
    assert rate == pytest.approx(1.5 / (2.95 - 0.8))
    assert hs.crossover_hz(a, a) is None
    with pytest.raises(ScopeError, match="scope='system'"):
        hs.crossover_hz(a, estimate(mlp(10, 10), "pcm-hermes"))


def test_projections_are_called_so():
    counts = mlp(100, 50)
    assert estimate(counts, "pcm-hermes", scope="system").projection
    assert estimate(counts, "isaac", scope="system").projection
    assert not estimate(counts, "h200", scope="system").projection
    assert not estimate(snn(100, 50, steps=2), "loihi", scope="system").projection
    assert "a projection" in str(estimate(counts, "pcm-hermes", scope="system"))
    assert not estimate(counts, "pcm-hermes").projection


def test_it_is_written_and_read():
    found = estimate(mlp(100, 50), "pcm-hermes", scope="system", rate_hz=10)
    assert hs.Estimate.from_dict(found.to_dict()) == found
    assert "sram-45nm:HO14" in found.sources
    assert set(found.table()["added_from"]) >= {"", "wire", "battery"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scope": "board"}, "card 'pcm-hermes' is of scope 'core'; leave it out, or take 'system'"),
        ({"scope": "rack"}, "scope='rack'"),
        ({"rate_hz": 0}, "rate_hz=0"),
        ({"rate_hz": float("nan")}, "rate_hz=nan"),
        ({"rate_hz": 1e12}, "pcm-hermes does .* inferences a second at batch 1"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(options, message):
    with pytest.raises(HpmlError, match=message) as raised:
        estimate(mlp(100, 50), "pcm-hermes", **options)
    assert "\n" not in str(raised.value)


def test_several_devices_all_idle():
    """Mutant of faults R9: idle power was not multiplied by the number of devices."""
    counts = Workload((linear("big", 29000, 29000),))
    card = digital()  # 1 GB each
    found = estimate(counts, card, scope="system")
    assert found.mapping["devices"] == 4
    regulator, supply = (load_component(n).ratio.si for n in ("regulator", "power-supply"))
    host = load_component("host-desktop").power_idle.si  # with regulators of its own
    assert found.reported_separately["idle_w"].nominal == pytest.approx((4 * 10 * regulator + host) * supply)
    assert estimate(counts, card).by_component()["idle"].nominal == pytest.approx(
        4 * 10 * estimate(counts, card).latency_s.nominal, rel=0.01
    )


def test_made_up_chips_have_a_small_host_and_neurons_of_their_own():
    found = estimate(snn(100, 50, steps=4), neuromorphic(), scope="system")
    assert {"host", "regulator", "supply", "input-output"} <= {t.component for t in found.added}


def test_keys_and_values_where_the_card_says():
    """By hand: reads of the old and writes of the new, in gain cells, in SRAM and in HBM."""
    for name in ("gain-cell", "sram-cache", "hbm"):
        card = crossbar().model_copy(update={"cache": name})
        found = estimate(decode(1000), card, scope="system")
        memory = load_component(name)
        write = (memory.write or memory.transfer).si
        joules = 2 * 128 * 16 * (1000 * memory.transfer.si + write)
        assert found.by_component()["kv-cache"].nominal == pytest.approx(joules)
        kept = 2 * 128 * 1001 * 2 / 1e6 if name != "hbm" else 1.0  # megabytes on the chip, or one board
        idle = memory.power_idle.si * kept * found.latency_s.nominal
        assert found.by_component()["memory-idle"].nominal == pytest.approx(idle)


def test_of_a_stack_of_tiers_one_works_at_a_time():
    """Four layers of one tile on one stack of four: a quarter of the area; the next inference waits for all four."""
    counts = mlp(90, 90, 90, 90, 90)
    flat, stack = (crossbar(tiles=4), crossbar(tiles=4))
    array = stack.array.model_copy(update={"tiers": stack.array.tiles_per_chip.model_copy(update={"value": 4})})
    stack = stack.model_copy(update={"array": array})
    one, other = (estimate(counts, card, replicate=False) for card in (flat, stack))
    assert one.mapping["tiles"] == other.mapping["tiles"] == 4
    assert other.latency_s.nominal == pytest.approx(one.latency_s.nominal)
    assert one.throughput_hz.nominal == pytest.approx(1 / 100e-9)
    assert other.throughput_hz.nominal == pytest.approx(1 / 400e-9)
    assert other.area_mm2.nominal == pytest.approx(one.area_mm2.nominal / 4)
    assert other.energy_j == one.energy_j


def test_shares_of_a_server_by_hand():
    from hpml_sim.cost.system.hosts import boards, shares

    assert [boards(n) for n in (1, 32, 33, 3200)] == [1, 1, 2, 100]
    assert shares(32) == Band(0.0, 0.0, 0.0)
    assert shares(288) == Band(1.0, 1.0, 8.0)
    assert shares(3232) == Band(1.0, 12.5, 100.0)


def test_a_small_host_does_not_turn_into_a_server_with_the_33rd_chip():
    """One chip more may cost what a chip costs, and its part of a server: 1/256 of 125 W is 0.5 W before cooling."""
    # 8 tiles a chip, one tile a layer
    found = []
    for chips in (31, 32, 33, 34, 64, 288, 289):
        counts = mlp(*[90] * (8 * chips + 1))
        whole = estimate(counts, crossbar(), scope="system")
        assert whole.mapping["chips"] == chips
        found.append(whole)
        assert len({(t.layer, t.component) for t in whole.added}) == len(whole.added)
    watts = [e.energy_j.nominal / e.latency_s.nominal for e in found]
    assert watts[1] < watts[2] < watts[1] + 1.0
    assert watts[2] < watts[3] < watts[2] + 1.0
    assert watts[5] < watts[6] < watts[5] * 1.02
    idle = [e.reported_separately["idle_w"].nominal for e in found]
    assert idle == sorted(idle)
    assert idle[2] < idle[1] + 1.0
    # with a whole share of a server, the small host and its adapter are gone
    last = {t.component: t.origin for t in found[-1].added}
    assert last["host"] == "host-server"
    assert last["supply"] == "power-supply"
    lenders = {key.split(":")[0] for key in found[-1].sources}
    assert lenders.isdisjoint({"host-edge", "battery"})


def test_a_regulator_does_not_feed_a_server():
    """The host's figure is of the whole node, with its regulators: of a chip they convert what the chip draws alone."""
    card = digital().model_copy(update={"host": "server"})  # of scope chip
    counts = mlp(1000, 1000)
    own, whole = estimate(counts, card), estimate(counts, card, scope="system").by_component()
    ratio = load_component("regulator").ratio.si
    assert whole["regulator"].nominal == pytest.approx(
        (own.energy_j.nominal + whole["input-output"].nominal) * (ratio - 1)
    )


def test_leakage_that_the_product_s_figure_holds_is_not_charged_again():
    """A chip of one tile that works all the time: with "static" among what its figure includes, nothing is left."""
    card = crossbar(tiles=1)
    counts = Workload((linear("a", 90, 90, vectors=1e6),))
    whole = estimate(counts, card, scope="system").by_component()["leakage"].nominal
    held = card.model_copy(update={"includes": ["static"]})
    left = estimate(counts, held, scope="system").by_component().get("leakage", ZERO).nominal
    assert left < 0.2 * whole


def test_leakage_goes_with_the_node():
    """By hand: up to 14 nm, from 28 nm on, and at their geometric mean the geometric mean of both."""
    from hpml_sim.cost.breakdown import CostBreakdown
    from hpml_sim.cost.system.lent import Lent

    young, planar = (load_component(n).power_per_mm2 for n in ("leakage", "leakage-28nm"))

    def at(node_nm):
        return Lent(CostBreakdown(crossbar()), node_nm).leakage()

    assert at(7.0) == at(14.0) == young.band()
    assert at(28.0) == at(130.0) == planar.band()
    middle = at(math.sqrt(14 * 28))
    assert middle.nominal == pytest.approx(math.sqrt(young.si * planar.si))
    assert middle.high == pytest.approx(math.sqrt(young.band().high * planar.band().high))
    book = CostBreakdown(crossbar())
    Lent(book, 130.0).leakage()
    assert not any(key.startswith("leakage:") for key in book.used)  # what has no weight is no source
    old, new = (
        estimate(mlp(90, 90), crossbar(node_nm=nm), scope="system").by_component()["leakage"] for nm in (130, 7)
    )
    assert new.nominal / old.nominal == pytest.approx(young.si / planar.si)


def test_inferences_that_overlap_share_what_flows_all_the_time():
    """A pipeline of six tiles at its full pace: the chip's leakage and host are drawn once, however many are inside."""
    counts, card = mlp(*[90] * 7), crossbar(tiles=6)
    one = estimate(counts, card, scope="system")
    most = one.throughput_hz.nominal
    inside = most * one.latency_s.nominal
    assert inside > 3
    full = estimate(counts, card, scope="system", rate_hz=most)
    parts, alone = full.by_component(), one.by_component()
    for name in ("leakage", "host"):
        assert parts[name].nominal == pytest.approx(alone[name].nominal / inside)
    assert parts["mvm"] == alone["mvm"]
    ratio = load_component("battery").ratio.si
    before = sum(band.nominal for name, band in parts.items() if name != "supply")
    assert parts["supply"].nominal == pytest.approx(before * (ratio - 1))
    watts = full.reported_separately["average_power_w"].nominal
    assert watts == pytest.approx(full.energy_j.nominal * most)
    # no step where they begin to overlap
    around = [estimate(counts, card, scope="system", rate_hz=f / one.latency_s.nominal) for f in (0.999, 1.001)]
    low, high = (e.reported_separately["average_power_w"].nominal for e in around)
    assert low == pytest.approx(high, rel=0.01)


@pytest.mark.parametrize("pair", [("jetson-orin", "cpu-laptop"), ("a100", "h200"), ("hailo-8", "pcm-hermes")])
def test_where_they_change_places_both_draw_the_same(pair):
    rate = hs.crossover_hz(*(estimate("resnet18", name, scope="system") for name in pair))
    assert rate is not None
    powers = [
        estimate("resnet18", name, scope="system", rate_hz=rate).reported_separately["average_power_w"].nominal
        for name in pair
    ]
    assert powers[0] == pytest.approx(powers[1], rel=1e-6)
    # on either side of it another one draws less
    ahead = [
        min(pair, key=lambda name: estimate("resnet18", name, scope="system", rate_hz=r).energy_j.nominal)
        for r in (rate / 2, min(1.05 * rate, 380.0))
    ]
    assert len(set(ahead)) == 2


def test_what_a_spiking_network_takes_in_and_gives_back_by_hand():
    """A tenth of 200 inputs spikes in each of 10 steps: an address a spike; and what comes out, in 16 bits."""
    first = linear("w", 200, 50, steps=10, binary_input=True, active_fraction=0.1)
    fires = LayerCount("n", "neuron", neurons=50, updates=500.0, spikes=20.0, steps=10)
    counts = Workload((first, fires), samples=1, kind="spiking", input_elements=200, output_elements=50)
    found = estimate(counts, neuromorphic(), scope="system").by_component()["input-output"]
    bits = 200 * 10 * 0.1 * 32 + 50 * 16
    assert found.nominal == pytest.approx(bits * load_component("chip-link").transfer.si)


def test_crossover_refuses_what_is_no_estimate_or_has_a_rate():
    a = estimate(mlp(10, 10), "pcm-hermes", scope="system")
    for pair in (("h200", a), (a, None)):
        with pytest.raises(HpmlError, match="must be an estimate"):
            hs.crossover_hz(*pair)
    with pytest.raises(HpmlError, match="at 5 inferences a second; leave rate_hz= out"):
        hs.crossover_hz(estimate(mlp(10, 10), "pcm-hermes", scope="system", rate_hz=5), a)


@pytest.mark.parametrize("name", ["pcm-hermes", "isaac", "reram-neurram", "h200", "northpole"])
@pytest.mark.parametrize("options", [{}, {"scope": "system"}, {"scope": "system", "rate_hz": 1.0}])
def test_a_network_without_weights_is_digital_work(name, options):
    counts = Workload((LayerCount("relu", "activation", output_elements=16.0, module="ReLU"),), input_elements=16)
    found = estimate(counts, name, **options)
    assert found.energy_j.low <= found.energy_j.nominal <= found.energy_j.high
    if name in ("pcm-hermes", "isaac", "reram-neurram"):
        assert "no layer of this network has weights that could lie on a crossbar" in found.excluded
        assert found.mapping["tiles"] == 0


def test_no_card_calls_its_own_figures_a_system():
    """Two figures of one scope, one with a host and one without, could not be told apart."""
    from hpml_sim.cards import list_cards

    assert [name for name in list_cards() if load_card(name).scope == "system"] == []
