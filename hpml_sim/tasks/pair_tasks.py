"""Tasks whose outputs are compared with each other: how alike two things are, and which comes first."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hpml_sim.conversion.network_call import shapes_of
from hpml_sim.errors import HpmlError, check_whole
from hpml_sim.tasks.class_tasks import OTHER_TASKS, Outputs, whole_numbers
from hpml_sim.tasks.metric import Metric
from hpml_sim.tasks.number_tasks import number_labels
from hpml_sim.tasks.score import SHARE
from hpml_sim.tasks.task import Task, soft_targets


def similarity(*, metrics: Any = None, outputs: Outputs = None) -> Task:
    """How alike two inputs are: squared error of outputs (batch,) or (batch, 1) with labels on the same scale.

    Args:
        metrics: what is measured; None takes Spearman's and Pearson's correlation, of torchmetrics.
        outputs: how the similarity is read, see `hs.Task`.

    Example:
        >>> import hpml_sim as hs
        >>> hs.tasks.similarity()
        <Task similarity: Spearman correlation, Pearson correlation>
    """
    own = (
        Metric("Spearman correlation", "regression.SpearmanCorrCoef", bounds=(-1.0, 1.0)),
        Metric("Pearson correlation", "regression.PearsonCorrCoef", bounds=(-1.0, 1.0)),
    )
    return Task(
        loss=nn.functional.mse_loss,
        metrics=own if metrics is None else metrics,
        outputs=outputs,
        name="similarity",
        labels=_one_number,
        layout="(batch,)",
    )


def ranking(*, top: int = 10, metrics: Any = None, outputs: Outputs = None) -> Task:
    """Which of several candidates fits best: cross-entropy of scores (batch, candidates) with their relevance.

    Args:
        top: NDCG looks at so many candidates, >= 1.
        metrics: what is measured; None takes the mean reciprocal rank of the best candidate that is relevant, and NDCG,
            of torchmetrics.
        outputs: how the scores are read, see `hs.Task`.

    Raises:
        HpmlError: `top` is no whole number >= 1.

    Source: the loss is that of Z. Cao et al., "Learning to Rank: From Pairwise Approach to Listwise Approach", ICML
        2007 (ListNet), with the labels' shares as the distribution.

    Example:
        >>> import hpml_sim as hs
        >>> hs.tasks.ranking()
        <Task ranking: MRR, NDCG@10>
    """
    check_whole("ranking: top", top, low=1)
    own = (
        Metric("MRR", _reciprocal_ranks, unit=SHARE),
        Metric(f"NDCG@{top}", _Gains(top), unit=SHARE),
    )
    return Task(
        loss=_listwise,
        metrics=own if metrics is None else metrics,
        outputs=outputs,
        name="ranking",
        labels=_relevance,
        distillation=soft_targets,
        layout="(batch, candidates)",
    )


def _listwise(outputs: Tensor, labels: Tensor) -> Tensor:
    shares = labels / labels.sum(1, keepdim=True).clamp(min=torch.finfo(labels.dtype).tiny)
    return -(shares * outputs.log_softmax(1)).sum(1).mean()


def _reciprocal_ranks(outputs: Tensor, labels: Tensor) -> Tensor:
    from torchmetrics.functional.retrieval import retrieval_reciprocal_rank

    return torch.stack([retrieval_reciprocal_rank(y, t > 0) for y, t in zip(outputs, labels, strict=True)])


class _Gains:
    """NDCG of each row at a number of candidates."""

    def __init__(self, top: int):
        self._top = top

    def __call__(self, outputs: Tensor, labels: Tensor) -> Tensor:
        from torchmetrics.functional.retrieval import retrieval_normalized_dcg

        rows = zip(outputs, labels, strict=True)
        return torch.stack([retrieval_normalized_dcg(y, t, top_k=min(self._top, len(y))) for y, t in rows])


def _one_number(where: str, labels: Any, inputs: int, outputs: Tensor | None) -> Tensor:
    found = number_labels(where, labels, inputs, outputs)
    if found.numel() != inputs:
        raise HpmlError(f"{where}: labels {shapes_of(labels)}: must be one similarity a pair, (batch,); {OTHER_TASKS}")
    return found


def _relevance(where: str, labels: Any, inputs: int, outputs: Tensor | None) -> Tensor:
    """Relevance (batch, candidates) >= 0; labels (batch,) name the candidate that is right."""
    if not isinstance(labels, Tensor) or labels.dim() not in (1, 2) or len(labels) != inputs:
        raise HpmlError(
            f"{where}: labels {shapes_of(labels)} for {inputs} inputs: must be a relevance for each candidate, (batch, "
            f"candidates), or the number of the right one, (batch,); {OTHER_TASKS}"
        )
    if outputs is not None and outputs.dim() != 2:
        raise HpmlError(f"{where}: outputs {tuple(outputs.shape)} must be (batch, candidates); {OTHER_TASKS}")
    if labels.dim() == 1:
        chosen = whole_numbers(where, labels, None if outputs is None else outputs.shape[1])
        if outputs is None:
            return chosen
        return nn.functional.one_hot(chosen, outputs.shape[1]).to(outputs.dtype)
    if not bool((labels >= 0).all()):  # NaN as well
        raise HpmlError(f"{where}: labels {shapes_of(labels)} hold NaN or relevances below 0; they must be >= 0")
    if outputs is not None and outputs.shape != labels.shape:
        raise HpmlError(
            f"{where}: outputs {tuple(outputs.shape)} and labels {tuple(labels.shape)} must have the same shape, "
            f"(batch, candidates); {OTHER_TASKS}"
        )
    return labels.float() if outputs is None else labels.to(outputs.dtype)
