"""Device cards: one TOML file for each piece of hardware, with value, unit and source for every number.

Read them with `hpml_sim.load_card(name)` and `hpml_sim.list_cards()`. The format is described in README.md beside them.
"""
