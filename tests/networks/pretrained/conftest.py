"""The pretrained networks, loaded once a session. Set-up fetches them: a test of one that is missing fails."""

from __future__ import annotations

import pytest
from torch import nn

from hpml_sim.networks.loading import load_network


@pytest.fixture(scope="session")
def smollm2() -> nn.Module:
    return load_network("smollm2-135m")


@pytest.fixture(scope="session")
def minilm() -> nn.Module:
    return load_network("minilm-l6")


@pytest.fixture(scope="session")
def g2p() -> nn.Module:
    return load_network("g2p")


@pytest.fixture(scope="session")
def silero() -> nn.Module:
    return load_network("silero-vad")
