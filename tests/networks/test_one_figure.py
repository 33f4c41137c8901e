"""One network on one machine costs the same by every way of asking, to the last digit: here by the command line."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

import hpml_sim as hs
from hpml_sim.cli import main

from .families import asked

pytestmark = pytest.mark.filterwarnings(
    "ignore:calibrate. the converters alone", "ignore:compare. the converters alone"
)
PLACE = "tests.networks.families.asked"
QUICK = ("--chips", "1", "--epochs", "0", "--finetune-epochs", "0", "--times", "1 s")


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """What a command prints as JSON."""
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--targets", "pcm-hermes", "--json"])
    assert not ended.value.code
    found = json.loads(capsys.readouterr().out)
    return found[0] if isinstance(found, list) else found


@pytest.mark.parametrize("number", range(len(asked.NAMES)), ids=asked.NAMES)
def test_compare_and_estimate_give_one_figure(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    net, data = getattr(asked, f"net_{number}")(), getattr(asked, f"data_{number}")()
    x = torch.stack([sample for sample, _ in data.test])
    want = hs.estimate(hs.convert(net, "pcm-hermes"), data=x)
    names = {"model": f"{PLACE}:net_{number}", "data": f"{PLACE}:data_{number}"}
    row = said(capsys, "compare", "--model", names["model"], "--data", names["data"], *QUICK)
    (compared,) = row["estimates"]
    estimated = said(capsys, "estimate", names["model"], "--data", names["data"])
    for found in (compared, estimated):
        for quantity in ("energy_j", "latency_s"):
            band = getattr(want, quantity)
            assert found[quantity] == {"low": band.low, "nominal": band.nominal, "high": band.high}, quantity
