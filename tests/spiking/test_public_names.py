"""What `hpml_sim.spiking` offers is what its list says."""

from __future__ import annotations

import types

import hpml_sim.spiking


def test_every_listed_name_is_there_and_every_public_name_is_listed():
    listed = hpml_sim.spiking.__all__
    assert len(set(listed)) == len(listed)
    public = {
        name
        for name, value in vars(hpml_sim.spiking).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    assert public == set(listed)


def test_no_module_hides_behind_a_public_name():
    for name in hpml_sim.spiking.__all__:
        assert not isinstance(getattr(hpml_sim.spiking, name), types.ModuleType)
