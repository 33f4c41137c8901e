"""The GPU benchmark's neurons compute the same, in the simulator: it is ready when a GPU is at hand."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import torch


def test_ours_and_the_peers_are_the_same_neuron(repository: Path):
    spec = importlib.util.spec_from_file_location("spiking_gpu", repository / "benchmarks" / "spiking_gpu.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    found = script.check((9, 2, 5), device, lambda x: script.fused(x, "torch"))
    assert found["equals_cpu_zero"]
    assert found["equals_cpu_subtract"]
    assert found["peer_spikes_that_differ"] == found["peer_gradient_difference"] == 0
    times = {"copy": np.full(3, 2.0), "forward": np.full(3, 1.0), "backward": np.full(3, 4.0)}
    made = script.results((1 << 10, 1 << 10, 1 << 8), times)
    # 12 bytes a neuron and step in 1 s, against 8 bytes of as many in 2 s
    assert made["forward_of_copy_bandwidth"][0] == 3.0
    assert made["backward_of_copy_bandwidth"][0] == 0.75
