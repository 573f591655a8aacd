"""L2-regularised logistic regression, by scikit-learn."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32

from benchkit.catalog.spec import param
from benchkit.classifiers.data import check_subsets, class_name, hold_out, log_softmax
from benchkit.classifiers.normalise import Normaliser, NormParams, fit_normaliser
from benchkit.errors import FitError, require
from benchkit.interfaces import Classifier, Fitted, Labels, Problem, Subset


@dataclass(frozen=True)
class LogRegParams(NormParams):
    c: float | None = param(None, help="inverse strength of the L2 penalty; none chooses it on held-out rows", low=1e-9)
    grid: tuple[float, ...] = param((0.001, 0.01, 0.1, 1.0, 10.0), help="values of C to choose from", low=1e-9)
    val: float = param(0.2, help="part of each class's training rows held out to choose C", low=0.01, high=0.9)
    max_iter: int = param(1000, help="of L-BFGS", low=1)
    tol: float = param(1e-4, help="of L-BFGS", low=0)


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
        self.record = record

    def scores(self, x: Float32[np.ndarray, "N D"]) -> Float32[np.ndarray, "N C"]:
        logits_nc = self.normaliser(x) @ self.weights.T + self.bias
        return log_softmax(logits_nc) if self.softmax else logits_nc


class LogReg(Classifier):
    """Normalised features, L-BFGS; multinomial for one label, one model a class for several.

    C is chosen on a stratified part of the training rows by log-loss, then all of them are fitted again.
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
        c: float | None = self.params.c
        losses: dict[str, float] = {}
        if c is None:
            c, losses = self._choose(features, labels, problem, seed)
        normaliser = fit_normaliser(self.params, features)
        weights, bias, converged = self._solve(normaliser(features), labels, problem, c)
        record = {"c": c, "converged": converged} | ({"validation_loss": losses} if losses else {})
        return FittedLogReg(weights, bias, normaliser, problem.kind == "multiclass", record)

    def _choose(
        self, features: Float32[np.ndarray, "N D"], labels: Labels, problem: Problem, seed: int
    ) -> tuple[float, dict[str, float]]:
        """The C with the smallest log-loss on held-out rows; of equal ones the smallest, which is the plainest."""
        if labels.ndim == 1:
            values, counts = np.unique(labels, return_counts=True)
            if counts.min() < 2:
                only = class_name(problem, int(values[counts.argmin()]))
                raise FitError(
                    f"class {only} has a single training example, and logreg holds out a part of each class to choose "
                    "C: give C, as in logreg,c=1, or more examples"
                )
        split = hold_out("logreg", labels, problem, self.params.val, seed)
        if not len(split.val):
            raise FitError(
                f"no class has enough of the {len(labels)} training examples for logreg to hold out a part to choose C:"
                " give C, as in logreg,c=1, or more examples"
            )
        x, y = features[split.train], labels[split.train]
        normaliser = fit_normaliser(self.params, x)
        x, held = normaliser(x), normaliser(features[split.val])
        losses = {}
        for c in sorted(self.params.grid):
            weights, bias, _ = self._solve(x, y, problem, c)
            losses[c] = _log_loss(held @ weights.T + bias, labels[split.val])
        best = min(losses, key=lambda c: (losses[c], c))
        return best, {f"{c:g}": loss for c, loss in losses.items()}

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
            model = LogisticRegression(C=c, max_iter=self.params.max_iter, tol=self.params.tol).fit(x, y)
        return model, not any(issubclass(w.category, ConvergenceWarning) for w in caught)


def _log_loss(logits_nc: Float32[np.ndarray, "N C"], labels: Labels) -> float:
    """Mean cross-entropy (of several labels: binary, over all pairs), in nats."""
    z = logits_nc.astype(np.float64)
    if labels.ndim == 1:
        z -= z.max(axis=1, keepdims=True)
        return float((np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(z)), labels]).mean())
    return float((np.logaddexp(0, z) - z * labels).mean())
