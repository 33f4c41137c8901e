"""NIR, imported on first use."""

from __future__ import annotations

from types import ModuleType

from hpml_sim.errors import needs


def nir() -> ModuleType:
    """The package nir.

    Raises:
        HpmlError: it is not installed, with the command that installs it.
    """
    with needs("NIR", "hpml_sim[snn]"):
        import nir
    return nir
