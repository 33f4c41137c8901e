"""`hs.assign`: the search against all assignments there are, energies against those of conversions, and its answers."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import hpml_sim as hs
from hpml_sim.errors import HpmlError
from hpml_sim.experiments.assignment_search import Search, greedy_steps
from hpml_sim.experiments.assignment_trials import Costs


class Known:
    """Trials of layers whose losses and energies add up, so that the best assignment is known."""

    def __init__(self, losses, saved, budget, cross=None):
        self.losses, self.saved, self.budget, self.cross = losses, saved, budget, cross or {}
        self.asked = []

    @property
    def left(self):
        return self.budget - len(self.asked)

    def energy_j(self, choice):
        return 100.0 - sum(self.saved[layer][k] for layer, k in choice.items())

    def total(self, choice):
        pairs = sum(more for pair, more in self.cross.items() if set(pair) <= set(choice))
        return sum(self.losses[layer][k] for layer, k in choice.items()) + pairs

    def lost(self, choice, purpose):
        assert self.left > 0
        self.asked.append((purpose, dict(choice)))
        return self.total(choice)

    def lost_alone(self, layer, candidate):
        return self.lost({layer: candidate}, f"{layer} alone")

    def best(self, allowed):
        """The least energy of all assignments that hold."""
        layers = list(self.saved)
        count = len(next(iter(self.saved.values())))
        energies = []
        for taken in itertools.product([None, *range(count)], repeat=len(layers)):
            choice = {layer: k for layer, k in zip(layers, taken, strict=True) if k is not None}
            if self.total(choice) <= allowed:
                energies.append(self.energy_j(choice))
        return min(energies)


def case(seed, layers=8, candidates=1):
    rng = np.random.default_rng(seed)
    names = [f"layer{k}" for k in range(layers)]
    saved = {n: sorted(rng.lognormal(0, 1, candidates).tolist(), reverse=True) for n in names}
    losses = {n: sorted(rng.lognormal(0, 1, candidates).tolist(), reverse=True) for n in names}
    return Known(losses, saved, budget=30)


def searched(trials, allowed, measure=None):
    candidates = len(next(iter(trials.saved.values())))
    return Search(trials, trials.saved, [f"candidate {k}" for k in range(candidates)], allowed).run(
        trials.losses, measure=measure
    )


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("candidates", [1, 2])
def test_within_thirty_evaluations_the_search_finds_nearly_the_best_of_all(seed, candidates):
    trials = case(seed, layers=6 if candidates == 2 else 8, candidates=candidates)
    allowed = 0.3 * sum(each[0] for each in trials.losses.values())
    found = searched(trials, allowed)
    assert len(trials.asked) <= 30
    assert found.choice is not None
    assert trials.total(found.choice) <= allowed
    best, got = trials.best(allowed), trials.energy_j(found.choice)
    assert (100 - got) >= 0.97 * (100 - best)


def test_the_exact_best_is_found_where_the_greedy_order_is_wrong():
    # by loss for each joule "a" comes first and then neither of the others fits; "b" and "c" together save more
    saved = {"a": [3.0], "b": [4.0], "c": [4.0]}
    trials = Known({"a": [0.3], "b": [0.5], "c": [0.5]}, saved, budget=30)
    assert searched(trials, 1.0).choice == {"b": 0, "c": 0}


def test_layers_that_spoil_each_other_are_not_taken_together_on_the_word_of_a_sum():
    saved = {"a": [3.0], "b": [2.0], "c": [1.0]}
    losses = {"a": [0.1], "b": [0.1], "c": [0.1]}
    trials = Known(losses, saved, budget=30, cross={("a", "b"): 5.0})
    found = searched(trials, 0.5)
    assert found.choice == {"a": 0, "c": 0}
    assert trials.energy_j(found.choice) == trials.best(0.5)


def test_one_evaluation_is_enough_where_everything_holds_and_layers_that_save_nothing_stay():
    trials = Known({"a": [0.1], "b": [0.1]}, {"a": [3.0], "b": [-1.0]}, budget=30)
    assert searched(trials, 0.2).choice == {"a": 0}
    assert len(trials.asked) == 1


@pytest.mark.parametrize("budget", [1, 2, 5, 9])
def test_no_budget_is_exceeded(budget):
    trials = case(3, layers=20)
    trials.budget = budget
    searched(trials, 1.0)
    assert len(trials.asked) == budget


def test_sensitivities_from_converters_cost_no_evaluation():
    trials = case(5, layers=40)
    found = searched(trials, 0.5 * sum(each[0] for each in trials.losses.values()))
    assert not found.measured
    assert not any(purpose.endswith("alone") for purpose, _ in trials.asked)
    assert found.choice


def test_steps_lie_on_the_convex_hull_of_each_layer_and_rise_in_loss_for_each_joule():
    rng = np.random.default_rng(0)
    options = {f"{n}": [(k, *rng.uniform(0.1, 1, 2)) for k in range(4)] for n in range(30)}
    steps = greedy_steps(options)
    ratios = [step.lost / step.saved_j for step in steps]
    assert ratios == sorted(ratios)
    for layer, given in options.items():
        points = {k: (j, loss) for k, j, loss in given}
        own = [step for step in steps if step.layer == layer]
        saved = np.cumsum([step.saved_j for step in own])
        lost = np.cumsum([step.lost for step in own])
        assert np.array([points[step.candidate] for step in own]) == pytest.approx(np.array([saved, lost]).T)
        assert saved[-1] == pytest.approx(max(j for j, _ in points.values()))
        corners = [(0.0, 0.0), *zip(saved, lost, strict=True)]
        for j, loss in points.values():  # no point lies below the hull
            below = np.interp(j, *zip(*corners, strict=True))
            assert loss >= below - 1e-12


# ---------------------------------------------------------------------------------------------------- on networks


@pytest.fixture(scope="module")
def network():
    """A network that is large enough for crossbars to pay, with its data: which of 8 directions a vector is nearest."""
    torch.manual_seed(0)
    directions = torch.randn(8, 48)

    def samples(count):
        x = torch.randn(count, 48)
        return TensorDataset(x, (x @ directions.T).argmax(1))

    data = (samples(4000), samples(300))
    model = hs.models.mlp(48, 256, 256, 256, 8)
    hs.fit(model, data=data[0], epochs=5, lr=3e-3, seed=0, show_progress=False)
    return model.eval(), data


COARSE, FINE = hs.Analog("pcm-hermes", adc_bits=4), hs.Analog("pcm-hermes")
LESS = 0.006
"""What may be lost of the accuracy: less than all layers lose with the coarse converters."""


def test_energies_are_those_of_networks_that_are_converted_so(network):
    model, data = network
    inputs = data[0].tensors[0][:16]
    costs = Costs(model, [FINE, COARSE], inputs, only=None, skip=None)
    for choice in ({"1": 0}, {"3": 1}, {"1": 0, "3": 1, "7": 0}):
        layers = {layer: costs.candidates[k] for layer, k in choice.items()}
        expected = hs.estimate(hs.convert(model, layers), data=inputs, scope="system")
        assert costs.of(choice).energy_j.nominal == pytest.approx(expected.energy_j.nominal, rel=1e-6)
    counted = hs.workload(model, data=inputs)
    digital = hs.estimate(
        counted, "pcm-hermes", digital_layers=[layer.name for layer in counted.layers], scope="system"
    )
    assert costs.digital().energy_j.nominal == pytest.approx(digital.energy_j.nominal, rel=1e-6)


@pytest.mark.parametrize("card", ["pcm-hermes", "pcm-design-study"])
def test_the_assignment_of_least_energy_is_that_of_all_assignments(card):
    model = hs.models.cnn((1, 8, 8), 10, width=4)  # most of its layers take less energy in digital
    costs = Costs(model, [hs.Analog(card)], torch.rand(8, 1, 8, 8), only=None, skip=None)

    def energy(choice):
        return costs.of(choice).energy_j.nominal

    every = [dict.fromkeys(taken, 0) for n in range(5) for taken in itertools.combinations(costs.layers, n)]
    assert len(every) == 16
    found = costs.least_energy()
    assert energy(found) == min(map(energy, every))
    savings = costs.savings()
    assert all((savings[layer][0] > 0) == (layer in found) for layer in costs.layers)


def test_an_assignment_is_a_target_and_its_scores_are_those_of_its_chips(network):
    model, data = network
    found = hs.assign(model, data, COARSE, loses_at_most=LESS, times=["1 day", "1 month"], chips=3, seed=4)
    assert 0 < len(found) < 4
    assert len(found.evaluations) <= 30
    assert found.lost <= LESS
    analog = hs.convert(model, found)
    assert [row.layer for row in analog.layers if row.tiles] == list(found)
    hs.calibrate(analog, data[0].tensors[0][:128])
    chips = hs.program(analog, chips=3, seed=4)
    for time_s, score in found.scores.items():
        assert hs.evaluate(chips.at(time_s), data=data).values == score.values
    assert set(found.sensitivity) == {"1", "3", "5"}
    assert found.estimate.energy_j.nominal < found.digital_estimate.energy_j.nominal
    assert hs.compare(model, data, [found], times=["1 day"], chips=2, epochs=0).rows[0].score.n == 2


def test_each_layer_takes_the_candidate_that_suits_it(network):
    model, data = network
    all_coarse = hs.assign(model, data, [COARSE, FINE], loses_at_most=0.5, times=["1 day"], chips=2)
    assert all(target == COARSE for target in all_coarse.values())
    assert len(all_coarse.evaluations) == 1
    found = hs.assign(model, data, [COARSE, FINE], loses_at_most=LESS, times=["1 day"], chips=2)
    assert FINE in found.values()
    assert found.lost <= LESS


def test_what_it_shows(network):
    model, data = network
    found = hs.assign(model, data, COARSE, loses_at_most=LESS, times=["1 day"], chips=2)
    text, page = str(found), found._repr_html_()
    assert all(len(line) <= 80 for line in text.splitlines())
    for layer in found.layers:
        assert layer.why.split()[0] in text
        assert layer.why in page
    assert list(found.table()["layer"]) == ["1", "3", "5", "7"]
    table = found.evaluations_table()
    assert max(table["number"]) == len(found.evaluations)
    assert table.loc[table["holds"].eq(True), "lost"].max() <= LESS


# --------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"floor": 1.0}, "the nearest floor that works is 0."),
        ({"loses_at_most": -0.1}, "loses_at_most=-0.1: must be a finite number >= 0"),
        ({"loses_at_most": 0.1, "floor": 0.5}, "say the same; give one of them"),
        ({"target": "h200"}, "must be crossbars that are programmed"),
        ({"target": [COARSE, COARSE]}, "none twice"),
        ({"evaluations": 0}, "evaluations=0: must be a whole number >= 1"),
        ({"times": "1 day"}, "must be a list of times"),
        ({"sensitivity": "gradient"}, "sensitivity='gradient': must be one of 'chips', 'converters'"),
    ],
)
def test_what_is_refused(network, options, said):
    model, data = network
    with pytest.raises(HpmlError, match=r"^assign: ") as refused:
        hs.assign(model, data, **{"target": COARSE, **options})
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_floor_that_nothing_reaches_names_the_nearest(network):
    model, data = network
    rough = hs.Analog("pcm-hermes", adc_bits=3)
    with pytest.raises(HpmlError, match="nothing that was tried") as refused:
        hs.assign(model, data, rough, loses_at_most=0.0, times=["1 year"], chips=2)
    nearest = float(str(refused.value).partition("loses_at_most=")[2].split(",")[0])
    found = hs.assign(model, data, rough, loses_at_most=nearest, times=["1 year"], chips=2)
    assert found.lost <= nearest


def test_layers_too_small_to_save_anything():
    data = TensorDataset(torch.rand(40, 4), torch.arange(40) % 2)
    with pytest.raises(HpmlError, match="crossbars take no less energy than digital there"):
        hs.assign(nn.Linear(4, 2), (data, data), "pcm-hermes")


def test_a_converted_network_is_refused(network):
    model, data = network
    with pytest.raises(HpmlError, match="model is converted already"):
        hs.assign(hs.convert(model, COARSE), data, COARSE)
