"""The verbs that look at the machine at hand: `profile` and `roofline`; `machine.py` makes what they show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal, get_args

import tyro

from hpml_sim.cards import Precision
from hpml_sim.cli.arguments import Cards, DataName, InputShape, Json, Model, Number, OptionalModel, option
from hpml_sim.cli.output import say, show


def profile(
    model: tyro.conf.Positional[Model] = "mlp",
    data: DataName = None,
    input_shape: InputShape = None,
    batch: Number = 1,
    device: Annotated[Literal["cpu", "cuda"], option("{cpu,cuda}")] = "cpu",
    calls: Number = 30,
    top: Number = 10,
    trace: Annotated[Path | None, option("FILE")] = None,
    json_output: Json = False,
) -> int:
    """Say where a forward pass spends its time: by layer, and by torch's operators.

    Args:
        model: mlp, cnn, package.module:callable, or file.py:callable.
        data: a data set by name, for its samples.
        input_shape: shape of one sample, for a network of your own without data.
        batch: samples a call.
        device: cpu or cuda.
        calls: forward passes to look at.
        top: operators to show.
        trace: write a trace there (.json or .json.gz); https://ui.perfetto.dev opens it.
        json_output: print it as JSON.
    """
    from hpml_sim.cli import machine as view
    from hpml_sim.measurement.profiling import profile as run

    found = run(*view.network_and_batch(model, data, input_shape, batch, device), calls=calls, trace=trace)
    if json_output:
        print(json.dumps(view.profile_json(found), indent=2))
    else:
        show(view.profile_table(found, model, top))
    if trace is not None:
        say(f"Trace: {trace} (open it at https://ui.perfetto.dev)")
    return 0


def roofline(
    targets: Cards = (),
    model: OptionalModel = None,
    data: DataName = None,
    input_shape: InputShape = None,
    batch: Number = 1,
    precision: Annotated[Precision, option("{" + ",".join(get_args(Precision)) + "}")] = "fp32",
    measure: Annotated[Literal["cpu", "cuda"] | None, option("{cpu,cuda}")] = None,
    write_card: Annotated[Path | None, option("FILE")] = None,
    out: Annotated[Path | None, option("FILE")] = None,
    json_output: Json = False,
) -> int:
    """Show what limits what: roofs of processors, with a network's layers, crossbar tiles and neuromorphic cores.

    Args:
        targets: cards; with none of them and no --measure, h200, cpu, pcm-hermes and loihi.
        model: mlp, cnn, package.module:callable, or file.py:callable: its layers on the first processors.
        data: a data set by name, for the network's input.
        input_shape: shape of one sample, for a network of your own without data.
        batch: samples a call.
        precision: of processors.
        measure: measure the ceilings of the machine at hand (and the layers of the network) on this device.
        write_card: write what was measured as a device card, to estimate this very machine with.
        out: write the plot there (.png, .svg or .pdf).
        json_output: print roofs and points as JSON.
    """
    import dataclasses

    from hpml_sim.cli import machine as view
    from hpml_sim.errors import HpmlError
    from hpml_sim.measurement.ceilings import measure_ceilings
    from hpml_sim.report.plots import machine_roofline
    from hpml_sim.report.plots.notebook_figure import write_figure

    if write_card is not None and measure is None:
        raise HpmlError("--write-card: nothing was measured to write; give --measure cpu or --measure cuda as well")
    if out is not None and out.suffix not in (".png", ".svg", ".pdf"):
        raise HpmlError(f"--out {out}: a plot is a .png, .svg or .pdf file")
    if not targets and measure is None:
        targets = ("h200", "cpu", "pcm-hermes", "loihi")
    network = None
    if model is not None:
        network = view.network_and_batch(model, data, input_shape, batch, measure or "cpu")
    measured = None if measure is None else measure_ceilings(measure)
    if measured is not None and write_card is not None:
        view.write_card(measured, write_card)
        targets = (str(write_card), *targets)
    roofs, points = view.under_the_roofs(targets, network, precision, None if measured is None else measured.name)
    if measured is not None:
        roofs.insert(0, view.machine_roof(measured, precision))
    if json_output:
        print(json.dumps({name: [dataclasses.asdict(x) for x in items] for name, items in
                          (("roofs", roofs), ("points", points))}, indent=2))  # fmt: skip
    else:
        show(view.roofline_table(roofs, points))
    if out is not None:
        title = "" if model is None else f"{model}, batch {batch:,}"
        out.parent.mkdir(parents=True, exist_ok=True)
        write_figure(out, machine_roofline(roofs, points, title=title))
        say(f"Plot: {out}")
    return 0
