"""The diagnosis as the registry keeps it."""

import math
from dataclasses import asdict
from typing import Any

from benchkit.diagnose.judge import RULE, Judged
from benchkit.diagnose.remedies import participation
from benchkit.diagnose.run import Looked
from benchkit.diagnose.weights import Layer, standouts
from benchkit.records.others import Diagnosis
from benchkit.records.report import Environment


def record(
    looked: Looked,
    against: Looked | None,
    uuid: str,
    page: str | None,
    environment: Environment,
    times: tuple[str, str],
) -> Diagnosis:
    """times: when it began and when it ended. The points are those of `looked`; `against` is in the details."""
    return Diagnosis(
        uuid, looked.task, looked.model, looked.data_fingerprint, looked.model_fingerprint, looked.healthy,
        looked.verdict, details(looked, against), page, environment, *times,
        points=[row for j in looked.judged for row in point_rows(j)],
    )  # fmt: skip


def details(looked: Looked, against: Looked | None) -> dict[str, Any]:
    """JSON of all that is no statistic of a place."""
    found: dict[str, Any] = {
        "rule": RULE,
        "inputs": looked.inputs,
        "n_examples": looked.n_examples,
        "findings": [asdict(f) for f in looked.findings],
        "remedy": looked.remedy,
        "outliers": [asdict(o) | {"writer": o.writer} for o in looked.origins],
        "effects": [asdict(e) for e in looked.effects],
        "chance": looked.chance,
        "other_inputs": [asdict(o) for o in looked.others],
        "weights": [_weights(layer) for layer in looked.layers],
        "standouts": standouts(looked.layers),
        "notes": list(looked.notes),
    }
    if against is not None:
        found["against"] = {"model": against.model, "task": against.task, "healthy": against.healthy,
                            "verdict": against.verdict, **details(against, None)}  # fmt: skip
    clean: dict[str, Any] = _finite(found)
    return clean


def point_rows(j: Judged) -> list[tuple[str, str, float | None]]:
    """(point, name of the statistic, value)."""
    s = j.stats
    values = {
        "healthy": float(j.healthy), "examples": float(s.n_examples), "tokens": float(s.tokens), "dim": float(s.dim),
        "mean": s.mean, "std": s.std, "usual_size": s.scale, "kurtosis": s.kurtosis,
        "gaussian_distance": s.gaussian_distance(), "nan": float(s.n_nan), "infinite": float(s.n_infinite),
        "constant": float(len(j.constant)), "zero": float(len(j.zero)), "outliers": float(len(j.outliers)),
        "largest_dimension": float(s.top_dim), "largest_ratio": s.top_ratio,
        "participation": participation(s.sample_nd.astype(float)),
    }  # fmt: skip
    if j.outliers:
        values |= {"outlier_dimension": float(j.outliers[0].dim), "outlier_value": j.outliers[0].value}
    return [(j.point, name, v if math.isfinite(v) else None) for name, v in values.items()]


def _weights(layer: Layer) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": layer.name, "role": layer.role, "block": layer.block, "n": layer.n, "not_finite": layer.n_nan,
        "std": layer.std, "kurtosis": layer.kurtosis, "peak": layer.peak, "norm": layer.norm,
    }  # fmt: skip
    if layer.spectrum is not None:
        found |= {"largest_singular_value": float(layer.spectrum.values[0]), "random_edge": layer.spectrum.edge,
                  "outside_random": layer.spectrum.outside}  # fmt: skip
    return found


def _finite(value: Any) -> Any:
    """Without NaN and infinity, which JSON does not hold."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    return [_finite(v) for v in value] if isinstance(value, list | tuple) else value
