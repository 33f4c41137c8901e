"""Measured image networks: image_networks.csv, by the settings of timm's benchmark tables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hpml_sim.cards import DigitalCard, Precision
from hpml_sim.cost.digital import estimate_digital
from hpml_sim.cost.validation.records.machines import machine
from hpml_sim.cost.validation.records.reading import number, rows, whole
from hpml_sim.cost.validation.records.record import Record, Skipped
from hpml_sim.counting import Workload, workload
from hpml_sim.errors import HpmlError
from hpml_sim.networks.architectures import ARCHITECTURES, shape
from hpml_sim.targets import EstimatedEngine

COLUMNS = ("setting", "model", "image_size", "batch", "images_per_s")
_PRECISIONS: dict[str, Precision] = {
    "amp": "fp16",
    "amp_bf16": "bf16",
    "amp_fp16": "fp16",
    "bf16": "bf16",
    "fp16": "fp16",
    "fp32": "fp32",
    "tf32": "tf32",
}
_ENGINES: dict[str, EstimatedEngine] = {"dynamo": "torch-compile", "inductor": "torch-compile", "tensorrt": "fused"}


@dataclass(frozen=True)
class Setting:
    """What the name of a setting says, such as "amp-nchw-pt240-cu124-rtx4090-dynamo".

    Attributes:
        machine: its name there.
        precision: of arithmetic and activations.
        engine: what ran the network.
        channels_last: whether the channel was innermost.
        fused_attention: whether its PyTorch has attention as one kernel: from 2.0 on.
    """

    machine: str
    precision: Precision
    engine: EstimatedEngine
    channels_last: bool
    fused_attention: bool = True

    @classmethod
    def of(cls, name: str) -> Setting:
        """Read the name of a setting.

        Args:
            name: precision, layout, versions, machine and engine, with "-" between.

        Raises:
            HpmlError: it names no precision or no machine.
        """
        parts = name.split("-")
        engine = _ENGINES.get(parts[-1])
        middle = parts[1:] if engine is None else parts[1:-1]
        machines = [part for part in middle if not re.fullmatch(r"nchw|nhwc|cpu|(pt|cu|trt|rocm)[\d.]+", part)]
        old = any(re.fullmatch(r"pt1\d+", part) for part in parts)
        if parts[0] not in _PRECISIONS or not machines:
            raise HpmlError(
                f"setting {name!r}: must be precision-layout-versions-machine(-engine), such as "
                "amp-nchw-pt240-cu124-rtx4090-dynamo"
            )
        return cls("-".join(machines), _PRECISIONS[parts[0]], engine or "torch", "nhwc" in parts, not old)


@cache
def counts(model: str, size: int) -> Workload:
    """The workload of a known network.

    Args:
        model: its name.
        size: side of the image in pixels.
    """
    network, example = shape(model, image_size=size)
    return workload(network, data=example)


def read_images(path: Path) -> Iterator[Record | Skipped]:
    """The time of one image, in each setting.

    Args:
        path: of the file.
    """
    for line, row in enumerate(rows(path, COLUMNS), start=2):
        name, model = row["setting"], row["model"].split(".")[0]
        size, batch = (whole(path, row, column, line) for column in ("image_size", "batch"))
        rate = number(path, row, "images_per_s", line)
        try:
            setting = Setting.of(name)
        except HpmlError as error:
            yield Skipped(path.name, name, str(error))
            continue
        card = machine(setting.machine)
        if why := _missing(card, setting, model):
            yield Skipped(path.name, name, why)
            continue
        assert card is not None
        found = estimate_digital(
            counts(model, size),
            card,
            batch=batch,
            precision=setting.precision,
            engine=setting.engine,
            channels_last=setting.channels_last,
            fused_attention=setting.fused_attention,
        )
        seconds = found.latency_s / batch
        yield Record(
            gpu=name,
            name=f"{model} {size}",
            measured=1 / rate,
            estimate=seconds.nominal,
            low=seconds.low,
            high=seconds.high,
            quantity="time",
        )


def _missing(card: DigitalCard | None, setting: Setting, model: str) -> str:
    if card is None:
        return f"no card of {setting.machine}"
    if setting.precision not in card.peak:
        return f"card {card.name} has no {setting.precision}"
    if model not in ARCHITECTURES or not ARCHITECTURES[model].image:
        return f"no shape of {model}"
    return ""
