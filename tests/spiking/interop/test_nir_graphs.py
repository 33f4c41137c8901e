"""Graphs as other tools write them, each held against the equations of NIR in float64 numpy."""

from __future__ import annotations

import logging

import nir
import numpy as np
import pytest
import torch

from hpml_sim.errors import ConversionError, HpmlError
from hpml_sim.spiking import from_nir

N = 5
ONES = np.ones(N)


def drive(steps: int = 60, scale: float = 1.0) -> torch.Tensor:
    """Currents in sixteenths, so that float32 and float64 see the same ones."""
    generator = torch.Generator().manual_seed(0)
    return scale * torch.randint(0, 16, (steps, 2, N), generator=generator).float() / 16


def matrix() -> np.ndarray:
    return np.random.default_rng(0).integers(-8, 8, (N, N)) / 16.0


def graph(neurons, *ways, between=()):
    """input -> neurons -> output; each way is a list of nodes from the neurons back to themselves."""
    nodes = {
        "input": nir.Input({"input": np.array([N])}),
        "n": neurons,
        "output": nir.Output({"output": np.array([N])}),
    }
    edges = [("input", "n"), ("n", "output")]
    for k, way in enumerate(ways):
        names = [f"w{k}{i}" for i in range(len(way))]
        nodes |= dict(zip(names, way, strict=True))
        edges += list(zip(["n", *names], [*names, "n"], strict=True))
    return nir.NIRGraph(nodes, edges)


def reference(node, x, dt, back=lambda s: 0.0):
    """Spikes by one forward Euler step of dt, in float64: feedback one step late."""
    v = np.zeros(x.shape[1:])
    i, s, out = np.zeros_like(v), np.zeros_like(v), []
    for current in x.double().numpy():
        given = current + back(s)
        if isinstance(node, nir.CubaLIF):
            i = i + dt / node.tau_syn * (-i + node.w_in * given)
            v = v + dt / node.tau_mem * (node.v_leak - v + node.r * i)
        elif isinstance(node, nir.LIF):
            v = v + dt / node.tau * (node.v_leak - v + node.r * given)
        else:
            v = v + dt * node.r * given
        s = (v > node.v_threshold).astype(float)
        v = np.where(s > 0, node.v_reset, v)
        out.append(s)
    return np.array(out)


def lif(**changes):
    return nir.LIF(
        **{"tau": 0.02 * ONES, "r": 8 * ONES, "v_leak": 0 * ONES, "v_threshold": ONES, "v_reset": 0 * ONES} | changes
    )


def neuron_if(**changes):
    return nir.IF(**{"r": 100 * ONES, "v_threshold": 1.013 * ONES, "v_reset": 0 * ONES} | changes)


def cuba():
    return nir.CubaLIF(
        tau_syn=0.01 * ONES, tau_mem=0.02 * ONES, r=6 * ONES, v_leak=0 * ONES, v_threshold=ONES, w_in=1.5 * ONES,
        v_reset=0 * ONES,
    )  # fmt: skip


W = matrix()
CASES = {
    "LIF through a matrix": (lif, [[nir.Linear(W)]], lambda s: s @ W.T),
    "LIF with gains of its own for each neuron": (
        lambda: lif(r=np.linspace(4, 12, N)), [[nir.Linear(W)]], lambda s: s @ W.T
    ),
    "CubaLIF through a matrix": (cuba, [[nir.Linear(W)]], lambda s: s @ W.T),
    "CubaLIF through a bias as well": (cuba, [[nir.Affine(W, ONES / 8)]], lambda s: s @ W.T + 1 / 8),
    "IF through a matrix": (neuron_if, [[nir.Linear(W)]], lambda s: s @ W.T),
    "LIF through a scale": (lif, [[nir.Scale(np.linspace(-1, 1, N))]], lambda s: s * np.linspace(-1, 1, N)),
    "IF through a scale": (neuron_if, [[nir.Scale(-0.5 * ONES)]], lambda s: -0.5 * s),
    "LIF straight back": (lif, [[]], lambda s: s),
    "LIF through a matrix and a scale": (
        lif, [[nir.Linear(W), nir.Scale(np.linspace(0, 2, N))]], lambda s: (s @ W.T) * np.linspace(0, 2, N)
    ),
    "LIF on two ways": (lif, [[nir.Linear(W)], [nir.Scale(-0.25 * ONES)]], lambda s: s @ W.T - 0.25 * s),
    "LIF that leaks to another potential": (lambda: lif(v_leak=0.25 * ONES), [[nir.Linear(W)]], lambda s: s @ W.T),
    "LIF with a reset below 0": (lambda: lif(v_reset=-0.5 * ONES), [], lambda s: 0.0),
    "LIF with a reset and a leak below 0": (
        lambda: lif(v_reset=-0.5 * ONES, v_leak=-0.25 * ONES), [], lambda s: 0.0
    ),
    "IF with a reset below 0": (lambda: neuron_if(v_reset=-1.0 * ONES), [], lambda s: 0.0),
}  # fmt: skip


@pytest.mark.parametrize("dt", [1e-3, 2.5e-3, 1e-2])
@pytest.mark.parametrize("name", CASES)
def test_graphs_of_other_tools_give_the_spikes_of_their_equations(name, dt):
    make, ways, back = CASES[name]
    x = drive(scale=2.0)
    got = from_nir(graph(make(), *ways), dt=dt)(x).detach().numpy()
    want = reference(make(), x, dt, back)
    # float32 against float64: a membrane within rounding of its threshold may go the other way, and then the sequel
    assert (got != want).mean() < 0.01
    assert 0.005 < want.mean() < 1


def test_a_recurrent_convolution_takes_the_gain_of_its_neurons():
    weight = np.random.default_rng(1).integers(-8, 8, (2, 2, 3, 3)) / 32.0
    ones = np.ones((2, 4, 4))
    node = nir.LIF(tau=0.02 * ones, r=8 * ones, v_leak=0 * ones, v_threshold=ones, v_reset=0 * ones)
    conv = nir.Conv2d((4, 4), weight, 1, 1, 1, 1, np.zeros(2))
    ends = {"input": nir.Input({"input": np.array([2, 4, 4])}), "output": nir.Output({"output": np.array([2, 4, 4])})}
    edges = [("input", "n"), ("n", "w"), ("w", "n"), ("n", "output")]
    loop = nir.NIRGraph({"input": ends["input"], "n": node, "w": conv, "output": ends["output"]}, edges)
    x = torch.randint(0, 16, (40, 2, 2, 4, 4), generator=torch.Generator().manual_seed(2)).float() / 8

    def back(s):
        return torch.nn.functional.conv2d(torch.tensor(s), torch.tensor(weight), padding=1).numpy()

    want = reference(node, x, 5e-3, back)
    assert (from_nir(loop, dt=5e-3)(x).detach().numpy() != want).mean() < 0.01
    assert want.mean() > 0.05


def test_integrators_that_hardly_fire_ask_for_their_step(caplog):
    with caplog.at_level(logging.WARNING):
        from_nir(graph(neuron_if(r=ONES)), dt=1e-3)
    assert "adds 0.000987 of the threshold in a step of 0.001 s" in caplog.text  # 0.001 / 1.013
    caplog.clear()
    from_nir(graph(neuron_if(r=ONES)), dt=1.0)
    assert not caplog.records


def broken(change):
    made = graph(lif(), [nir.Linear(matrix())])
    change(made)
    return made


def without_input(made):
    made.nodes.pop("input")


def with_another_layer(made):
    made.nodes["x"] = nir.Linear(np.ones((3, 4)))
    made.edges += [("n", "x"), ("x", "output")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: g.edges.append(("n", "nowhere")), "edge n -> nowhere: no node nowhere"),
        (lambda g: g.edges.append(("n",)), "is no pair"),
        (lambda g: g.edges.append("ab"), "is no pair|no node"),
        (without_input, "no node input"),
        (lambda g: g.nodes.update(n="LIF"), "node 'n' is 'LIF', no node of NIR"),
        (lambda g: setattr(g.nodes["n"], "tau", np.full(N, np.nan)), "node 'n': tau holds NaN"),
        (lambda g: setattr(g.nodes["n"], "r", "much"), "node 'n'"),
        (lambda g: setattr(g.nodes["n"], "tau", np.full(N, -1.0)), "at least dt"),
        (lambda g: setattr(g.nodes["n"], "tau", np.ones(N + 1)), "node 'n'|nodes do not fit"),
        (lambda g: setattr(g.nodes["n"], "v_threshold", np.zeros(N)), "threshold"),
        (lambda g: setattr(g.nodes["w00"], "weight", np.ones((N, N + 1))), "another size|come back"),
        (lambda g: setattr(g.nodes["w00"], "weight", np.ones(N)), "node 'n'|another size|come back|fit"),
        (lambda g: setattr(g.nodes["w00"], "weight", np.ones((N, N, 2))), "another size|node"),
        (lambda g: setattr(g.nodes["w00"], "weight", None), "node 'n'"),
        (with_another_layer, "fit"),
        (lambda g: g.edges.remove(("n", "output")), "nothing reaches"),
        (lambda g: g.nodes.update(more=nir.Input({"input": np.array([2])})), "2 inputs"),
    ],
)  # fmt: skip
def test_wrong_graphs_are_refused_in_one_line(change, message):
    with pytest.raises(HpmlError, match=message) as raised:
        from_nir(broken(change), dt=1e-3)
    assert "\n" not in str(raised.value)


def test_a_loop_without_neurons_has_no_delay():
    made = graph(lif())
    made.nodes |= {"a": nir.Linear(matrix()), "b": nir.Linear(matrix())}
    made.edges += [("n", "a"), ("a", "b"), ("b", "a"), ("b", "output")]
    with pytest.raises(ConversionError, match="nodes 'a', 'b' are in a loop without neurons, which has no delay"):
        from_nir(made, dt=1e-3)


def test_damaged_files_are_named_in_one_line(tmp_path):
    file = tmp_path / "net.nir"
    nir.write(str(file), graph(lif(), [nir.Linear(matrix())]))
    whole = file.read_bytes()
    rng = np.random.default_rng(0)
    refused = []
    for k in range(20):
        damaged = bytearray(whole[: len(whole) // 2] if k % 4 == 0 else whole)
        for place in rng.integers(0, len(damaged), 30):
            damaged[place] = rng.integers(256)
        file.write_bytes(damaged)
        try:
            from_nir(file, dt=1e-3)
        except HpmlError as error:
            refused.append(str(error))
    assert len(refused) > 5
    assert not any("\n" in said for said in refused)
