"""`llm_serving.csv`: language models served by vLLM, as the ML.ENERGY leaderboard measured them.

Each row is estimated from the network's sizes, the GPUs, the mean batch and the mean answer, and gives four figures:
the mean step (mean batch / tokens a second), the median time between tokens, joules an output token, and power.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hpml_sim.cards import DigitalCard
from hpml_sim.cost.serving.operations import Split, Widths
from hpml_sim.cost.serving.scheduling import Load, Served, serve
from hpml_sim.cost.serving.splits import problem
from hpml_sim.cost.serving.step import StepModel
from hpml_sim.cost.validation.records.machines import machine
from hpml_sim.cost.validation.records.reading import number, rows, whole
from hpml_sim.cost.validation.records.record import Quantity, Record, Skipped
from hpml_sim.networks.language import TransformerShape, language_model

FILE = "llm_serving.csv"
COLUMNS = (
    "model", "weights", "gpu", "gpus", "tensor_parallel", "expert_parallel", "data_parallel", "mean_batch",
    "mean_output_tokens", "median_itl_ms", "energy_per_token_j", "power_w_all_gpus", "tokens_per_s",
)  # fmt: skip
PROMPT_TOKENS = 257
"""Tokens of a prompt of the task lm-arena-chat. The leaderboard does not say; fitted with the H100's constants."""
_WEIGHTS = {"bfloat16": 2.0, "bf16": 2.0, "float16": 2.0, "fp16": 2.0, "fp8": 1.0}


@dataclass(frozen=True)
class ServedRow:
    """A row of the file.

    Attributes:
        name: the network as the file has it.
        shape: its sizes.
        card: of one GPU.
        split: over GPUs.
        weight_bytes: of a weight.
        batch: sequences that are answered at a time, on average.
        output: tokens of an answer, on average.
        step_s: mean seconds of a step.
        between_s: median seconds between tokens.
        token_j: joules an output token.
        power_w: of all GPUs.
    """

    name: str
    shape: TransformerShape
    card: DigitalCard
    split: Split
    weight_bytes: float
    batch: float
    output: float
    step_s: float
    between_s: float
    token_j: float
    power_w: float

    @property
    def dense(self) -> bool:
        """Whether the network has no experts."""
        return self.shape.experts is None

    def model(self, card: DigitalCard | None = None) -> StepModel:
        """The network on its GPUs.

        Args:
            card: another card in place of the row's.
        """
        precision = "fp8" if self.weight_bytes == 1 else "bf16"
        return StepModel(
            card or self.card,
            self.shape,
            self.split,
            precision,
            Widths(self.weight_bytes, values_rounded=self.weight_bytes == 1),
        )

    def served(self, card: DigitalCard | None = None, *, prompt: float = PROMPT_TOKENS) -> Served:
        """The estimate.

        Args:
            card: another card in place of the row's.
            prompt: tokens of a prompt.
        """
        return serve(self.model(card), Load(self.batch, prompt, self.output))


def read(path: Path) -> Iterator[ServedRow | Skipped]:
    """The rows of the file, and those that cannot be estimated, with the reason.

    Args:
        path: of the file.
    """
    for line, row in enumerate(rows(path, COLUMNS), start=2):
        yield _row(path, row, line)


def _row(path: Path, row: dict[str, str], line: int) -> ServedRow | Skipped:
    where, name, gpu = f"{path.name}:{line}", row["model"], row["gpu"].lower()
    gpus, ways, experts, copies = (
        whole(path, row, column, line) for column in ("gpus", "tensor_parallel", "expert_parallel", "data_parallel")
    )
    batch, output, rate, between, joules, watts = (
        number(path, row, column, line)
        for column in ("mean_batch", "mean_output_tokens", "tokens_per_s", "median_itl_ms", "energy_per_token_j",
                       "power_w_all_gpus")
    )  # fmt: skip
    shape, card = language_model(name), machine(gpu)
    if shape is None:
        return Skipped(where, gpu, f"{name}: no such network among the known ones")
    if card is None:
        return Skipped(where, gpu, f"no card of {gpu}")
    if card.kernels is None:
        return Skipped(where, gpu, f"card {card.name} has no table [kernels]")
    if row["weights"] not in _WEIGHTS:
        return Skipped(where, gpu, f"weights {row['weights']!r}: known are {', '.join(_WEIGHTS)}")
    if _WEIGHTS[row["weights"]] == 1 and "fp8" not in card.peak:
        return Skipped(where, gpu, f"card {card.name} has no fp8")
    # the engine counts GPUs twice where they share attention by heads and experts by number
    split = Split(tensor=ways if experts == 1 else max(gpus // experts // copies, 1), expert=experts, data=copies)
    why = f"{gpus} GPUs are not {split}" if split.devices != gpus else problem(shape, split)
    if why is None and split.sharing > 1 and not card.links:
        why = f"card {card.name} has no links between GPUs"
    if why is not None:
        return Skipped(where, gpu, f"{name}: {why}")
    return ServedRow(
        name,
        shape,
        card,
        split,
        _WEIGHTS[row["weights"]],
        batch / copies,
        output,
        batch / rate,
        between / 1e3,
        joules,
        watts,
    )


def read_serving(path: Path) -> Iterator[Record | Skipped]:
    """Four figures of each row beside ours, with bounds.

    Args:
        path: of the file.
    """
    for row in read(path):
        if isinstance(row, Skipped):
            yield row
            continue
        found, serving = row.served(), row.card.serving
        times = energies = (0.6, 1.6)
        if serving is not None and serving.time_within is not None and serving.energy_within is not None:
            bands = serving.time_within.band(), serving.energy_within.band()
            times, energies = ((band.low, band.high) for band in bands)
        kind = "dense" if row.dense else "experts"
        figures: tuple[tuple[str, Quantity, float, float, tuple[float, float]], ...] = (
            ("step", "time", row.step_s, found.step_s, times),
            ("between tokens", "time", row.between_s, found.between_s, times),
            ("joules a token", "energy", row.token_j, found.token_j, energies),
            ("power", "power", row.power_w, found.power_w * row.split.devices, energies),
        )
        name = f"{row.name} x{row.split.devices}, batch {row.batch:g}"
        for what, quantity, measured, estimate, (low, high) in figures:
            yield Record(
                gpu=row.card.name,
                name=name,
                group=f"{kind}, {what}",
                quantity=quantity,
                measured=measured,
                estimate=estimate,
                low=estimate * low,
                high=estimate * high,
            )
