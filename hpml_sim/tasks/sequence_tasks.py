"""Tasks whose labels are sequences: the next token, and transcription."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from hpml_sim.conversion.network_call import shapes_of
from hpml_sim.errors import HpmlError, check_switch, check_whole, shown
from hpml_sim.tasks.class_tasks import OTHER_TASKS, Outputs, whole_numbers
from hpml_sim.tasks.metric import Metric
from hpml_sim.tasks.score import RATIO, SHARE
from hpml_sim.tasks.task import IGNORED, Task, soft_targets


def language_model(*, shift: bool = False, metrics: Any = None, outputs: Outputs = None) -> Task:
    """The next token: cross-entropy of logits (batch, tokens, vocabulary) with labels (batch, tokens), -100 left out.

    Args:
        shift: False: label i is the token that follows input i. True: the labels are the input tokens themselves, as
            for Hugging Face's models, and are moved by one here.
        metrics: what is measured; None takes the perplexity, exp of the mean cross-entropy of a token, and the share of
            tokens that are right.
        outputs: how the logits are read, see `hs.Task`.

    Raises:
        HpmlError: `shift` is no truth value.

    Example:
        >>> import hpml_sim as hs
        >>> hs.tasks.language_model()
        <Task language_model: perplexity, token accuracy>
    """
    check_switch("language_model: shift", shift)
    own = (
        Metric("perplexity", partial(_entropies, shift), _perplexity, higher_is_better=False, bounds=(1.0, math.inf)),
        Metric("token accuracy", partial(_right_tokens, shift), unit=SHARE),
    )
    return Task(
        loss=partial(_next_token_loss, shift),
        metrics=own if metrics is None else metrics,
        outputs=outputs,
        name="language_model",
        labels=_token_labels,
        distillation=partial(_soft_next_tokens, shift),
        layout="(batch, tokens, vocabulary)",
        more_dims=1,
    )


def transcription(
    *,
    tokens: str = "token",
    blank: int | None = 0,
    end: int | None = None,
    metrics: Any = None,
    outputs: Outputs = None,
) -> Task:
    """A sequence for a sequence, such as speech to letters: logits (batch, steps, classes), labels padded with -100.

    Args:
        tokens: what a label is called, such as "phoneme": the metric is then the "phoneme error rate".
        blank: class of CTC's blank: the loss is CTC's, and the largest logits, repetitions and blanks left out, are the
            answer. None: step i answers label i, the loss is cross-entropy, and the largest logits are the answer;
            outputs that are whole numbers (batch, steps), as a generation gives them, are the answer themselves.
        end: class that ends an answer; None: it goes on to the last step.
        metrics: what is measured; None takes the error rate (insertions, deletions and substitutions over labels) and
            the share of sequences without an error.
        outputs: how the logits are read, see `hs.Task`.

    Raises:
        HpmlError: `blank` or `end` is no class.

    Source: the loss is that of A. Graves et al., "Connectionist Temporal Classification", ICML 2006; the error rate is
        V. I. Levenshtein's distance over the number of labels.

    Example:
        >>> import hpml_sim as hs
        >>> hs.tasks.transcription(tokens="phoneme")
        <Task transcription: phoneme error rate, sequence accuracy>
    """
    for name, value in (("blank", blank), ("end", end)):
        if value is not None:
            check_whole(f"transcription: {name}", value, low=0)
    if not isinstance(tokens, str) or not tokens:
        raise HpmlError(f"transcription: tokens={shown(tokens)}: must be a word, such as 'phoneme'")
    own = (
        Metric(f"{tokens} error rate", partial(_edits, blank, end), unit=RATIO, higher_is_better=False),
        Metric("sequence accuracy", partial(_whole_sequences, blank, end), unit=SHARE, right_or_wrong=True),
    )
    return Task(
        loss=partial(_transcription_loss, blank),
        metrics=own if metrics is None else metrics,
        outputs=outputs,
        name="transcription",
        labels=partial(_sequence_labels, blank),
        distillation=_soft_steps if blank is None else _soft_frames,
        layout="(batch, steps, classes)",
    )


# ------------------------------------------------------------------------------------------------------- next token


def _aligned(shift: bool, outputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    return (outputs[:, :-1], labels[:, 1:]) if shift else (outputs, labels)


def _next_token_loss(shift: bool, outputs: Tensor, labels: Tensor) -> Tensor:
    logits, labels = _aligned(shift, outputs, labels)
    return nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)


def _entropies(shift: bool, outputs: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of a sample's tokens, and how many they are."""
    logits, labels = _aligned(shift, outputs, labels)
    each = nn.functional.cross_entropy(
        logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED, reduction="none"
    )
    return torch.stack([each.double().view(labels.shape).sum(1), (labels != IGNORED).sum(1).double()], dim=1)


def _perplexity(sums: Tensor) -> Tensor:
    return (sums[..., 0] / sums[..., 1]).exp()


def _right_tokens(shift: bool, outputs: Tensor, labels: Tensor) -> Tensor:
    logits, labels = _aligned(shift, outputs, labels)
    meant = labels != IGNORED
    return torch.stack([((logits.argmax(-1) == labels) & meant).sum(1), meant.sum(1)], dim=1)


def _soft_next_tokens(shift: bool, outputs: Tensor, teacher: Tensor, temperature: float, labels: Any = None) -> Tensor:
    if labels is not None:
        (outputs, labels), (teacher, _) = (_aligned(shift, logits, labels) for logits in (outputs, teacher))
    return _soft_steps(outputs, teacher, temperature, labels)


def _soft_steps(outputs: Tensor, teacher: Tensor, temperature: float, labels: Any = None) -> Tensor:
    return soft_targets(outputs.movedim(-1, 1), teacher.movedim(-1, 1), temperature, labels)


def _soft_frames(outputs: Tensor, teacher: Tensor, temperature: float, _: Any = None) -> Tensor:
    """As by step; labels stand for no frame."""
    return _soft_steps(outputs, teacher, temperature)


def _token_labels(where: str, labels: Any, inputs: int, outputs: Tensor | None) -> Tensor:
    if not isinstance(labels, Tensor) or labels.dim() != 2 or len(labels) != inputs:
        raise HpmlError(
            f"{where}: labels {shapes_of(labels)} for {inputs} inputs: must be token numbers (batch, tokens); "
            f"{OTHER_TASKS}"
        )
    if outputs is not None and (outputs.dim() != 3 or outputs.shape[:2] != labels.shape):
        raise HpmlError(
            f"{where}: outputs {tuple(outputs.shape)} do not fit labels {tuple(labels.shape)}: must be (batch, tokens, "
            f"vocabulary) and (batch, tokens); {OTHER_TASKS}"
        )
    return whole_numbers(where, labels, None if outputs is None else outputs.shape[-1], ignored=True)


# ---------------------------------------------------------------------------------------------------- transcription


def _transcription_loss(blank: int | None, outputs: Tensor, labels: Tensor) -> Tensor:
    if not outputs.is_floating_point():
        raise HpmlError(
            f"transcription: outputs {shapes_of(outputs)} are answers, which cannot be trained; give logits"
        )
    if blank is None:
        if outputs.shape[1] != labels.shape[1]:
            raise HpmlError(
                f"transcription: {outputs.shape[1]} steps for {labels.shape[1]} labels: with blank=None step i answers "
                "label i; pad the labels with -100, or give blank= for CTC"
            )
        return nn.functional.cross_entropy(outputs.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
    lengths = (labels != IGNORED).sum(1)
    _check_steps(outputs.shape[1], lengths, labels)
    steps = torch.full((len(outputs),), outputs.shape[1], dtype=torch.int64)
    return nn.functional.ctc_loss(
        outputs.log_softmax(-1).transpose(0, 1), labels.clamp(min=0), steps, lengths.cpu(), blank=blank
    )


def _check_steps(steps: int, lengths: Tensor, labels: Tensor) -> None:
    """CTC writes a label a step, and a blank between two equal ones; in fewer steps no answer is right."""
    equal = (labels[:, 1:] == labels[:, :-1]) & (labels[:, 1:] != IGNORED)
    needed = lengths + equal.sum(1)
    worst = int(needed.argmax()) if len(needed) else 0
    if len(needed) and int(needed[worst]) > steps:
        raise HpmlError(
            f"transcription: a sample has {int(lengths[worst])} labels, which take CTC {int(needed[worst])} steps, and "
            f"the outputs have {steps}; give more steps, or leave such samples out"
        )


def _answers(blank: int | None, end: int | None, outputs: Tensor) -> list[list[int]]:
    """The sequence that each sample is transcribed to."""
    found = (outputs.argmax(-1) if outputs.is_floating_point() else outputs).tolist()
    if blank is not None:
        found = [
            [one for one, before in zip(row, [None, *row], strict=False) if one not in (before, blank)] for row in found
        ]
    return [row[: row.index(end)] if end in row else row for row in found]


def _meant(end: int | None, labels: Tensor) -> list[list[int]]:
    rows = [[one for one in row if one != IGNORED] for row in labels.tolist()]
    return [row[: row.index(end)] if end in row else row for row in rows]


def _edits(blank: int | None, end: int | None, outputs: Tensor, labels: Tensor) -> Tensor:
    """Edit distance of each sample, and how many labels it has."""
    from torchmetrics.functional.text import edit_distance

    answers, meant = _answers(blank, end, outputs), _meant(end, labels)
    # a character for each label: the distance is that of the sequences
    texts = [["".join(chr(0x100 + token) for token in row) for row in rows] for rows in (answers, meant)]
    distances = edit_distance(texts[0], texts[1], reduction="none")
    counts = torch.tensor([len(row) for row in meant])
    return torch.stack([torch.as_tensor(distances).reshape(-1).double(), counts.double()], dim=1)


def _whole_sequences(blank: int | None, end: int | None, outputs: Tensor, labels: Tensor) -> Tensor:
    pairs = zip(_answers(blank, end, outputs), _meant(end, labels), strict=True)
    return torch.tensor([float(answer == meant) for answer, meant in pairs])


def _sequence_labels(blank: int | None, where: str, labels: Any, inputs: int, outputs: Tensor | None) -> Tensor:
    if not isinstance(labels, Tensor) or labels.dim() != 2 or len(labels) != inputs:
        raise HpmlError(
            f"{where}: labels {shapes_of(labels)} for {inputs} inputs: must be (batch, labels), padded with -100; "
            f"{OTHER_TASKS}"
        )
    if blank is not None and bool((labels == blank).any()):
        raise HpmlError(
            f"{where}: a label is {blank}, CTC's blank, which stands for no label; number the labels otherwise, or "
            "give task=hs.tasks.transcription(blank=...), or 'transcription_by_step' where step i answers label i"
        )
    if outputs is None or not outputs.is_floating_point():
        return whole_numbers(where, labels, None, ignored=True)
    if outputs.dim() != 3:
        raise HpmlError(f"{where}: outputs {tuple(outputs.shape)} must be (batch, steps, classes); {OTHER_TASKS}")
    return whole_numbers(where, labels, outputs.shape[-1], ignored=True)
