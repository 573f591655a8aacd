"""Does a plain logistic regression on the same features do better than the probe? Then the probe hides what they say.

Above all where the probe normalises each example: what all features of an example share, and its length, is gone then,
and a class told by these looks like chance. numpy only.
"""

from typing import Any

import numpy as np
from jaxtyping import Float32, Float64

from benchkit.checks._conclude import Finding, conclude
from benchkit.interfaces import Labels, Problem
from benchkit.records.report import Check, Metric

_STEPS = 300
_WORK = 1e9
"""Multiplications of a fit, at most; fewer steps where there are many classes."""


def check_plain(
    ours: Metric, plain: Metric, layered: Metric | None, *, untrained: bool, n_train: int, n_test: int
) -> Check:
    """ours, plain, layered: the primary metric of the probe, of the regression, and of the regression behind LayerNorm,
    on the same `n_test` test examples; the last is None where it was not asked. n_train: examples a fold, at most, that
    the regression was fitted on. untrained: the probe is a rule without training, as nearest neighbours.

    warn: the interval of the regression lies above the probe's. A rule without training may lose to a regression
    honestly: there, only where the regression behind LayerNorm loses to the one without it, too.
    """
    shown = f"a plain logistic regression on {n_train:,} examples gets {_said(plain)}, the probe {_said(ours)}"
    lost = layered is not None and beats(plain, layered)
    findings = []
    if beats(plain, ours) and (lost or not untrained):
        why = (
            "LayerNorm takes away what features say by their size, or by what all of them share: give norm=standard"
            if lost
            else "its settings do not suit these features"
        )
        findings.append(Finding("warn", f"{shown}: {why}"))
    details: dict[str, Any] = {
        name: None if m is None else {"value": m.value, "low": m.low, "high": m.high}
        for name, m in (("probe", ours), ("plain", plain), ("layered", layered))
    }
    return conclude("plain", findings, shown, details | {"metric": ours.name, "n_train": n_train, "n_test": n_test})


def beats(a: Metric, b: Metric) -> bool:
    """Whether a's interval lies above b's."""
    low = a.value if a.low is None else a.low
    return low > (b.value if b.high is None else b.high)


def plain_scores(
    x: Float32[np.ndarray, "n D"],
    labels: Labels,
    test: Float32[np.ndarray, "m D"],
    problem: Problem,
    *,
    layer: bool = False,
) -> Float32[np.ndarray, "m C"]:
    """Logits of an L2-penalised logistic regression (scikit-learn's with C = 1: multinomial for one label, one for each
    class for several) on standardised features. layer: LayerNorm of each example before.

    Minimised by the quadratic bound of Böhning (1992), along the features' principal directions, where it is
    diagonal: each step is a few products, and none is tuned. Features that are constant are 0; a class without
    positives, or without negatives, has a constant logit.
    """
    n, m = len(x), len(test)
    both = np.concatenate([x, test])
    if layer:
        both = both - both.mean(axis=1, keepdims=True)
        both /= np.maximum(np.sqrt(np.square(both).mean(axis=1, keepdims=True)), np.finfo(np.float32).tiny)
    mean, std = both[:n].mean(axis=0, dtype=np.float64), both[:n].std(axis=0, dtype=np.float64)
    std = np.where(std > 1e-6 * np.abs(mean), std, np.inf)
    z = (both - mean.astype(np.float32)) / np.maximum(std, np.finfo(np.float32).tiny).astype(np.float32)
    main, rest = _principal(z[:n], z[n:])
    y = np.eye(problem.n_classes)[labels] if labels.ndim == 1 else labels.astype(np.float64)
    weights, bias = _fit(main, y, softmax=labels.ndim == 1)
    return (rest @ weights + bias).astype(np.float32).reshape(m, problem.n_classes)


def _principal(
    x: Float32[np.ndarray, "n D"], test: Float32[np.ndarray, "m D"]
) -> tuple[Float64[np.ndarray, "n r"], Float64[np.ndarray, "m r"]]:
    """Both along the principal directions of the first, which a regression with an L2 penalty cannot tell from them."""
    n, d = x.shape
    if n < d:
        values, left = np.linalg.eigh(x.astype(np.float64) @ x.T)
        keep = values > values[-1] * 1e-9
        root = np.sqrt(values[keep])
        return left[:, keep] * root, (test.astype(np.float64) @ x.T) @ (left[:, keep] / root)
    _, right = np.linalg.eigh(x.astype(np.float64).T @ x)
    return x @ right, test @ right


def _fit(
    x: Float64[np.ndarray, "n r"], y: Float64[np.ndarray, "n C"], softmax: bool
) -> tuple[Float64[np.ndarray, "r C"], Float64[np.ndarray, " C"]]:
    n, r = x.shape
    c = y.shape[1]
    share = 0.5 if softmax else 0.25
    step = 1.0 / (share * np.square(x).sum(axis=0) + 1.0)[:, None]
    known = (y.any(axis=0)) & (~y.all(axis=0) | softmax)
    weights, bias = np.zeros((r, c)), np.where(y.any(axis=0), 0.0, -30.0) if softmax else _certain(y)
    before, momentum = weights, 1.0
    for _ in range(int(np.clip(_WORK / (4.0 * n * max(r, 1) * c), 10, _STEPS))):
        after = (1.0 + np.sqrt(1.0 + 4.0 * momentum**2)) / 2.0
        at = weights + (momentum - 1.0) / after * (weights - before)
        before, momentum = weights, after
        logits = x @ at + bias
        if softmax:
            p = np.exp(logits - logits.max(axis=1, keepdims=True))
            p /= p.sum(axis=1, keepdims=True)
        else:
            p = 0.5 * (1.0 + np.tanh(0.5 * logits))
        residual = (p - y) * known
        weights = at - step * (x.T @ residual + at)
        bias = bias - residual.sum(axis=0) / (share * n)
    return weights, bias


def _certain(y: Float64[np.ndarray, "n C"]) -> Float64[np.ndarray, " C"]:
    return np.where(y.all(axis=0), 30.0, np.where(y.any(axis=0), 0.0, -30.0))


def _said(m: Metric) -> str:
    return f"{m.name} {m.value:.4f}" + ("" if m.low is None else f" ({m.low:.4f} to {m.high:.4f})")
