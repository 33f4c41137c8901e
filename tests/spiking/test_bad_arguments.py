"""Each public name of hs.spiking refuses what cannot be its argument, on one line that names the argument."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

import hpml_sim as hs
from hpml_sim.errors import HpmlError
from hpml_sim.spiking import (
    AdaptiveNeurons,
    AlphaNeurons,
    DeltaEncoder,
    EventFrames,
    FixedPointNeurons,
    FusedNetwork,
    FusedNeurons,
    IzhikevichNeurons,
    LapicqueNeurons,
    LatencyEncoder,
    LeakyIntegrators,
    LeakyNeurons,
    PopulationEncoder,
    RateEncoder,
    RecurrentNeurons,
    RecurrentSynapticNeurons,
    SynapticNeurons,
    TimeFolded,
    TimeFoldedBatchNorm,
    TimeFoldedDropout,
    TimeFoldedMaxPool,
    calibrated,
    detached,
    firing_rates,
    fixed_point,
    fold_batch_norms,
    from_nir,
    fuse,
    reset,
    run_with_state,
    to_nir,
)

NET = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
X = torch.rand(5, 4)
FRAMES = torch.rand(6, 2, 4)


def spiking(**options):
    return hs.convert(NET, hs.Spiking("loihi", steps=3, encoder="direct", **options))


def test_numbers_that_are_none_and_values_that_are_not_finite():
    for kind in (LeakyNeurons, SynapticNeurons, AdaptiveNeurons, LeakyIntegrators, RecurrentNeurons, AlphaNeurons):
        for name in ("steps", "chips"):
            for value in (True, 2.5, "3", None, math.nan, -1):
                with pytest.raises(HpmlError, match=rf"^{kind.__name__}: {name}=.*must be a whole number >= 1$"):
                    kind(**{name: value})
        for value in (True, "0.9", None, math.nan, math.inf, 1j, torch.tensor(math.nan), torch.tensor([True])):
            with pytest.raises(HpmlError, match=rf"^{kind.__name__}: beta=.*must be"):
                kind(beta=value)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: TimeFolded(steps=True), "TimeFolded: steps=True"),
        (lambda: RateEncoder(steps=2.0), "RateEncoder: steps=2.0"),
        (lambda: RateEncoder(seed="0"), "RateEncoder: seed='0'"),
        (lambda: LatencyEncoder(smallest=math.nan), "LatencyEncoder: smallest=nan"),
        (lambda: DeltaEncoder(threshold=math.inf), "DeltaEncoder: threshold=inf"),
        (lambda: DeltaEncoder(falling=1), "DeltaEncoder: falling=1: must be True or False"),
        (lambda: PopulationEncoder(fields=True), "PopulationEncoder: fields=True"),
        (lambda: PopulationEncoder(width=math.inf), "PopulationEncoder: width=inf"),
        (lambda: TimeFoldedMaxPool("pool"), "TimeFoldedMaxPool: pool='pool'"),
        (lambda: TimeFoldedBatchNorm(None), "TimeFoldedBatchNorm: norm=None"),
        (lambda: TimeFoldedDropout(1.5), "TimeFoldedDropout: p=1.5"),
        (lambda: TimeFoldedDropout(0.5, channels="no"), "TimeFoldedDropout: channels='no'"),
        (lambda: LeakyNeurons(threshold="1"), "LeakyNeurons: threshold='1'"),
        (lambda: LeakyNeurons(threshold=math.inf), "LeakyNeurons: threshold=inf: must be finite"),
        (lambda: LeakyNeurons(reset=0), "LeakyNeurons: reset=0: must be one of 'subtract', 'zero', 'none'"),
        (lambda: LeakyNeurons(reset_delay=1), "LeakyNeurons: reset_delay=1: must be True or False"),
        (lambda: LeakyNeurons(learn_beta=None), "LeakyNeurons: learn_beta=None"),
        (lambda: LeakyNeurons(initial=math.nan), "LeakyNeurons: initial=nan"),
        (lambda: LeakyNeurons(engine=None), "LeakyNeurons: engine=None"),
        (lambda: SynapticNeurons(alpha="a"), "SynapticNeurons: alpha='a'"),
        (lambda: SynapticNeurons(bta=0.9), "unknown option of SynapticNeurons 'bta'. Did you mean"),
        (lambda: AlphaNeurons(learn_alpha=0), "AlphaNeurons: learn_alpha=0"),
        (lambda: LapicqueNeurons(capacitance=math.inf), "LapicqueNeurons: capacitance=inf: must be finite"),
        (lambda: LapicqueNeurons(beta=0.9), "LapicqueNeurons: beta=0.9: these neurons do not have this option"),
        (lambda: RecurrentNeurons("all"), "RecurrentNeurons: recurrent='all'"),
        (lambda: RecurrentNeurons(nn.ReLU()), "RecurrentNeurons: recurrent=<ReLU>: must be a number"),
        (lambda: RecurrentNeurons(learn_recurrent=2), "RecurrentNeurons: learn_recurrent=2"),
        (lambda: RecurrentSynapticNeurons(alpha=math.nan), "RecurrentSynapticNeurons: alpha=nan"),
        (lambda: AdaptiveNeurons(adaptation=math.nan), "AdaptiveNeurons: adaptation=nan: must be finite"),
        (lambda: AdaptiveNeurons(kappa=0.1), "unknown option of AdaptiveNeurons 'kappa'"),
        (lambda: IzhikevichNeurons(a="0.02"), "IzhikevichNeurons: a='0.02'"),
        (lambda: IzhikevichNeurons(c=math.inf), "IzhikevichNeurons: c=inf"),
        (lambda: FixedPointNeurons("leaky"), "FixedPointNeurons: neurons are str"),
        (lambda: FixedPointNeurons(LeakyNeurons(), True), "FixedPointNeurons: resolution=True"),
        (lambda: FusedNeurons(nn.ReLU(), False), "FusedNeurons: neurons=<ReLU>"),
        (lambda: FusedNeurons(LeakyNeurons(), "no"), "FusedNeurons: with_states='no'"),
        (lambda: FusedNetwork("net"), "FusedNetwork: network='net'"),
        (lambda: FusedNetwork(nn.Identity())([1.0]), r"fused network: input=\[1.0\]: must be a tensor"),
        (lambda: EventFrames("data", 3), "EventFrames: recordings='data'"),
        (lambda: EventFrames([], True, sensor_size=(1, 1, 1)), "EventFrames: steps=True"),
        (lambda: EventFrames([], 3, duration_s=math.nan, sensor_size=(1, 1, 1)), "EventFrames: duration_s=nan"),
        (lambda: EventFrames([], 3, sensor_size=5), "EventFrames: sensor_size=5"),
        (lambda: EventFrames([], 3, sensor_size=(1.5, 1, 1)), "EventFrames: sensor_size=1.5"),
        (lambda: fuse("net"), "fuse: module='net'"),
        (lambda: fuse(nn.Linear), "fuse: module=<type>.*its class: call it"),
        (lambda: fold_batch_norms("net", X), "fold_batch_norms: model='net'"),
        (lambda: fold_batch_norms(NET, [1.0]), r"fold_batch_norms: example=\[1.0\]"),
        (lambda: calibrated("mlp", X), "calibrated: model='mlp'"),
        (lambda: calibrated(NET, X, "loihi"), r"calibrated: target='loihi': must be hs.Spiking\(...\)"),
        (lambda: calibrated(NET, X, percentile=math.nan), "calibrated: percentile=nan"),
        (lambda: calibrated(NET, X, percentile="99"), "calibrated: percentile='99'"),
        (lambda: calibrated(NET, X, initial_membrane=True), "calibrated: initial_membrane=True"),
        (lambda: calibrated(NET, X, samples=0), "calibrated: samples=0"),
        (lambda: firing_rates("net", X), "firing_rates: model='net'"),
        (lambda: firing_rates(NET, X), "firing_rates: model=<Sequential>"),
        (lambda: firing_rates(spiking(), "x"), "SpikingModel: input='x': must be a tensor"),
        (lambda: fixed_point(NET), "fixed_point: model=<Sequential>"),
        (lambda: fixed_point(spiking(), weight_bits=True), "fixed_point: weight_bits=True"),
        (lambda: fixed_point(spiking(), resolution=4096.0), "fixed_point: resolution=4096.0"),
        (lambda: reset("net"), "reset: model='net'"),
        (lambda: run_with_state("net", X), "run_with_state: model='net'"),
        (lambda: run_with_state(FusedNetwork(LeakyNeurons()), FRAMES, "rest"), "run_with_state: state='rest'"),
        (lambda: run_with_state(FusedNetwork(LeakyNeurons()), FRAMES, {"network": X}), "run_with_state: state="),
        (lambda: detached(X), "detached: state=<Tensor>"),
        (lambda: to_nir("net", FRAMES), "to_nir: network='net'"),
        (lambda: to_nir(LeakyNeurons(reset="zero"), [1]), r"to_nir: example=\[1\]"),
        (lambda: to_nir(LeakyNeurons(reset="zero"), FRAMES, dt=math.inf), "to_nir: dt=inf"),
        (lambda: to_nir(LeakyNeurons(reset="zero"), FRAMES, dt="1e-4"), "to_nir: dt='1e-4'"),
        (lambda: to_nir(LeakyNeurons(reset="zero"), FRAMES, allowed_mismatch=2), "to_nir: allowed_mismatch=2"),
        (lambda: from_nir(3), "from_nir: graph=3: must be"),
    ],
)
def test_one_line_names_the_argument(build, message):
    with pytest.raises(HpmlError, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)


def test_steps_of_a_model_and_a_refusal_that_changes_nothing():
    model = spiking()
    for value in (True, 0, 2.5, "4", math.nan):
        with pytest.raises(HpmlError, match=r"SpikingModel\.steps="):
            model.steps = value
    assert model.steps == model.output.steps == 3
    model.steps = np.int64(4)
    assert model.steps == model.output.steps == model.encoder.steps == 4


def test_files_that_are_no_graphs(tmp_path):
    path = tmp_path / "net.nir"
    path.write_text("no HDF5")
    with pytest.raises(HpmlError, match="cannot be read as NIR"):
        from_nir(path)
    with pytest.raises(HpmlError, match="no file"):
        from_nir(tmp_path / "other.nir")


def test_numbers_of_numpy_are_numbers():
    neurons = LeakyNeurons(np.float64(0.5), np.float32(0.5), steps=np.int64(3))
    assert neurons(torch.ones(3, 2)).shape == (3, 2)
    assert neurons.beta.dtype == neurons.threshold.dtype == torch.float32
