"""For the tests of this folder."""

from __future__ import annotations

import pytest

from hpml_sim.errors import HpmlError
from hpml_sim.experiments import timing


@pytest.fixture
def no_clock(monkeypatch):
    """Nothing is timed: each measurement starts a process of its own."""

    def refused(*args, **options):
        raise HpmlError("not timed here")

    monkeypatch.setattr(timing, "measure_in_own_process", refused)
