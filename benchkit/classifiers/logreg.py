"""L2-regularised logistic regression, by scikit-learn."""

import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32

from benchkit.catalog.spec import param
from benchkit.classifiers.data import check_subsets, hold_out, log_softmax
from benchkit.classifiers.normalise import Normaliser, NormParams, fit_normaliser
from benchkit.errors import require
from benchkit.interfaces import Classifier, Fitted, Labels, Problem, Subset

PLAIN_C = 1.0
"""Where C cannot be chosen: scikit-learn's own."""


@dataclass(frozen=True)
class LogRegParams(NormParams):
    c: float | None = param(None, help="inverse strength of the L2 penalty; none chooses it on held-out rows", low=1e-9)
    grid: tuple[float, ...] = param((0.001, 0.01, 0.1, 1.0, 10.0), help="values of C to choose from", low=1e-9)
    val: float = param(0.2, help="part of each class's training rows held out to choose C", low=0.01, high=0.9)
    max_iter: int = param(1000, help="of L-BFGS", low=1)
    tol: float = param(1e-4, help="of L-BFGS", low=0)
    weights: Literal["none", "balanced"] = param(
        "none", help="balanced: each class (of several labels: its positives and negatives) counts alike, however rare"
    )


class FittedLogReg(Fitted):
    """Scores are log-probabilities for one label, logits for several; a class never seen scores below all others."""

    def __init__(
        self,
        weights: Float32[np.ndarray, "C D"],
        bias: Float32[np.ndarray, " C"],
        normaliser: Normaliser,
        softmax: bool,
        record: dict[str, Any],
    ) -> None:
        self.weights, self.bias, self.normaliser, self.softmax = weights, bias, normaliser, softmax
        self.record = record | normaliser.record

    def scores(self, x: Float32[np.ndarray, "N D"]) -> Float32[np.ndarray, "N C"]:
        logits_nc = self.normaliser(x) @ self.weights.T + self.bias
        return log_softmax(logits_nc) if self.softmax else logits_nc


class LogReg(Classifier):
    """Normalised features, L-BFGS; multinomial for one label, one model a class for several.

    C is chosen on a stratified part of the training rows by log-loss, then all of them are fitted again. An only
    example of its class stays in training; where no class has two, there is nothing to choose on, and C is 1.
    """

    Params = LogRegParams
    version = 2

    def fit(
        self, features: Float32[np.ndarray, "N D"], labels: Labels, problem: Problem, *, seed: int, device: str = "cpu"
    ) -> Fitted:
        require("sklearn", "benchkit-core[probes]")
        everything = [Subset(np.arange(len(labels)), seed)]
        (error,) = check_subsets("logreg", features, labels, problem, everything)
        if error:
            raise error
        c, chosen = (self.params.c, {}) if self.params.c is not None else self._choose(features, labels, problem, seed)
        normaliser = fit_normaliser(self.params, features)
        weights, bias, converged = self._solve(normaliser(features), labels, problem, c)
        record = {"c": c, "converged": converged} | chosen
        return FittedLogReg(weights, bias, normaliser, problem.kind == "multiclass", record)

    def _choose(
        self, features: Float32[np.ndarray, "N D"], labels: Labels, problem: Problem, seed: int
    ) -> tuple[float, dict[str, Any]]:
        """The C with the smallest log-loss on held-out rows, of equal ones the smallest, which is the plainest; and
        what the record says of it."""
        split = hold_out("logreg", labels, problem, self.params.val, seed, strict=False)
        if not len(split.val) or (labels.ndim == 2 and labels.sum(axis=0).max() < 2):
            return PLAIN_C, {"c_not_chosen": "no class has two training examples"}
        x, y = features[split.train], labels[split.train]
        normaliser = fit_normaliser(self.params, x)
        x, held = normaliser(x), normaliser(features[split.val])
        losses, failed = {}, []
        for c in sorted(self.params.grid):
            weights, bias, converged = self._solve(x, y, problem, c)
            failed += [] if converged else [c]
            losses[c] = _log_loss(held @ weights.T + bias, labels[split.val])
        best = min(losses, key=lambda c: (losses[c], c))
        record: dict[str, Any] = {"validation_loss": {f"{c:g}": loss for c, loss in losses.items()}}
        return best, record | ({"not_converged": failed} if failed else {})

    def _solve(
        self, x: Float32[np.ndarray, "N D"], labels: Labels, problem: Problem, c: float
    ) -> tuple[Float32[np.ndarray, "C D"], Float32[np.ndarray, " C"], bool]:
        """Weights and bias of every class. Those without positives, or without negatives, have a constant score."""
        weights = np.zeros((problem.n_classes, x.shape[1]), np.float32)
        bias = np.full(problem.n_classes, -30.0, np.float32)
        if labels.ndim == 1:
            model, converged = self._model(x, labels, c)
            known = model.classes_
            if len(known) == 2:  # scikit-learn keeps one row for two classes
                weights[known] = np.concatenate([-model.coef_, model.coef_]) / 2
                bias[known] = np.concatenate([-model.intercept_, model.intercept_]) / 2
            else:
                weights[known], bias[known] = model.coef_, model.intercept_
            return weights, bias, converged
        converged = True
        for k in range(problem.n_classes):
            positives = int(labels[:, k].sum())
            if positives == len(labels):
                bias[k] = 30.0
            elif positives:
                model, ok = self._model(x, labels[:, k], c)
                weights[k], bias[k], converged = model.coef_[0], model.intercept_[0], converged and ok
        return weights, bias, converged

    def _model(self, x: Float32[np.ndarray, "N D"], y: np.ndarray, c: float) -> tuple[Any, bool]:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            weights = "balanced" if self.params.weights == "balanced" else None
            model = LogisticRegression(
                C=c, max_iter=self.params.max_iter, tol=self.params.tol, class_weight=weights
            ).fit(x, y)
        return model, not any(issubclass(w.category, ConvergenceWarning) for w in caught)


def _log_loss(logits_nc: Float32[np.ndarray, "N C"], labels: Labels) -> float:
    """Mean cross-entropy (of several labels: binary, over all pairs), in nats."""
    z = logits_nc.astype(np.float64)
    if labels.ndim == 1:
        z -= z.max(axis=1, keepdims=True)
        return float((np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(z)), labels]).mean())
    return float((np.logaddexp(0, z) - z * labels).mean())
