"""`python -m hpml_sim.cli` is `hpml-sim`."""

from hpml_sim.cli import main

main()
