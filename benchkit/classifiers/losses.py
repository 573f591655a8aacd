"""Losses of many heads at once: one number for each stream S, head L and example B, from logits [S, L, C, B]."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, UInt8
from torch.nn import functional as F

from benchkit.classifiers.data import one_column_a_class
from benchkit.classifiers.params import TrainParams
from benchkit.errors import FitError
from benchkit.interfaces import Labels, Problem

Logits = Float[torch.Tensor, "S L C B"]
Targets = Int64[torch.Tensor, "S B"] | UInt8[torch.Tensor, "S B C"]
PerExample = Float[torch.Tensor, "S L B"]


@dataclass(frozen=True)
class Balance:
    """By how much an example that has a class counts there, and one that has not, [S, C]."""

    positive: torch.Tensor
    negative: torch.Tensor


@runtime_checkable
class LossFunction(Protocol):
    def __call__(
        self, logits: torch.Tensor, targets: torch.Tensor, balance: Balance | None = None, /
    ) -> torch.Tensor: ...


def make_loss(params: TrainParams, problem: Problem) -> LossFunction:
    """The loss that `params` ask for. Raises FitError where the problem has none of that name."""
    if name_of_loss(params, problem) == "cross-entropy":
        if problem.kind == "multilabel":
            raise FitError("loss=cross-entropy is for one label an example: give loss=bce or loss=asymmetric")
        return cross_entropy
    if name_of_loss(params, problem) == "bce":
        return binary_cross_entropy

    def loss(logits: torch.Tensor, targets: torch.Tensor, balance: Balance | None = None) -> torch.Tensor:
        return asymmetric(logits, targets, params.gamma_neg, params.gamma_pos, params.clip, balance)

    return loss


def balanced(params: TrainParams, labels: Labels, problem: Problem) -> Float32[np.ndarray, "2 C"] | None:
    """weights=balanced for one stream's training labels: of positives, and of negatives; None where that is not asked
    for.

    Of one label with cross-entropy n / (K n_c), K the classes that have examples; else, each class being a question of
    its own, n / (2 n_c) and n / (2 (n - n_c)), as scikit-learn's class_weight="balanced". The mean weight is 1.
    """
    if params.weights == "none":
        return None
    n, counts = len(labels), one_column_a_class(labels, problem).sum(axis=0)
    with np.errstate(divide="ignore"):
        if name_of_loss(params, problem) == "cross-entropy":
            weights = np.stack([n / (np.count_nonzero(counts) * counts), np.ones_like(counts)])
        else:
            weights = np.stack([n / (2 * counts), n / (2 * (n - counts))])
    return np.where(np.isfinite(weights), weights, 1.0).astype(np.float32)


def name_of_loss(params: TrainParams, problem: Problem) -> str:
    if params.loss == "auto":
        return "cross-entropy" if problem.kind == "multiclass" else params.loss_of_several
    return params.loss


def cross_entropy(logits_slcb: Logits, targets: Targets, balance: Balance | None = None) -> PerExample:
    """-log softmax of the right class."""
    chosen = targets[:, None, None, :].expand(-1, logits_slcb.shape[1], 1, -1)
    found = -F.log_softmax(logits_slcb, dim=2).gather(2, chosen).squeeze(2)
    return found if balance is None else found * balance.positive.gather(1, targets)[:, None]


def binary_cross_entropy(logits_slcb: Logits, targets: Targets, balance: Balance | None = None) -> PerExample:
    """Mean over classes of the cross-entropy between the label and the class's own sigmoid."""
    y_s1cb = _one_column_a_class(targets, logits_slcb)
    return _balanced(F.softplus(logits_slcb) - logits_slcb * y_s1cb, y_s1cb, balance).mean(dim=2)


def asymmetric(
    logits_slcb: Logits,
    targets: Targets,
    gamma_neg: float,
    gamma_pos: float,
    clip: float,
    balance: Balance | None = None,
) -> PerExample:
    """Asymmetric loss (Ridnik et al., arXiv 2009.14119, equations 4 to 7), mean over classes.

    With p the sigmoid and q = max(p - clip, 0), positives cost -(1 - p)^gamma_pos log p, and negatives
    -q^gamma_neg log(1 - q).
    """
    y_s1cb = _one_column_a_class(targets, logits_slcb)
    positive = -_power(torch.sigmoid(-logits_slcb), gamma_pos) * F.logsigmoid(logits_slcb)
    if clip > 0:
        q = (torch.sigmoid(logits_slcb) - clip).clamp(min=0)
        negative = -_power(q, gamma_neg) * torch.log1p(-q)
    else:
        negative = -_power(torch.sigmoid(logits_slcb), gamma_neg) * F.logsigmoid(-logits_slcb)
    return _balanced(torch.where(y_s1cb > 0, positive, negative), y_s1cb, balance).mean(dim=2)


def _balanced(loss_slcb: torch.Tensor, y_s1cb: torch.Tensor, balance: Balance | None) -> torch.Tensor:
    if balance is None:
        return loss_slcb
    positive, negative = (w[:, None, :, None] for w in (balance.positive, balance.negative))
    return loss_slcb * torch.where(y_s1cb > 0, positive, negative)


def _power(base: torch.Tensor, gamma: float) -> torch.Tensor:
    """base ** gamma, with a gradient that stays finite at 0 where gamma is below 1."""
    if gamma == 0:
        return torch.ones_like(base)
    return base.clamp(min=1e-8) ** gamma if gamma < 1 else base**gamma


def _one_column_a_class(targets: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """0 or 1 for each class, [S, 1, C, B]."""
    if targets.ndim == 2:
        targets = F.one_hot(targets, logits.shape[2])
    return targets.to(logits.dtype).transpose(1, 2)[:, None]
