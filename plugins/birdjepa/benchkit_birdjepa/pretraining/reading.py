"""Trainings in the registry, as tables."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchkit import BenchkitError, Pretraining, did_you_mean, pretrainings, training_curves

SHOWN = ("loss", "accuracy", "probe_accuracy", "test_accuracy", "test_probe_accuracy")


def pick(db: Path | None, words: Sequence[str]) -> list[Pretraining]:
    """By number, name, folder, or 'last'. Raises BenchkitError for what is not there."""
    known = pretrainings(db)
    found = []
    for word in words:
        if word == "last" and known:
            found.append(known[0])
            continue
        fits = [t for t in known if str(t.id) == word or t.params.get("name") == word]
        if not fits and Path(word).exists():
            place = str(Path(word).absolute())
            fits = [t for t in known if t.path == place or t.path.startswith(f"{place}/")]
        if not fits:
            names = [str(t.params.get("name")) for t in known]
            raise BenchkitError(f"no training '{word}'{did_you_mean(word, names)} (benchkit pretrain ls lists all)")
        found.append(fits[0])
    return found


def last_of(curves: dict[str, list[tuple[int, float]]], name: str) -> float | None:
    return curves[name][-1][1] if curves.get(name) else None


def summary(db: Path | None, t: Pretraining) -> dict[str, Any]:
    """A line of `ls`."""
    curves = training_curves(db, t.id)
    cells = {k: v[-1][1] for k, v in curves.items() if k.startswith("evaluate ")}
    return {
        "id": t.id, "name": t.params.get("name"), "state": t.params.get("state"), "step": t.params.get("step"),
        "steps": t.params.get("steps"), "task": t.task, "objective": t.params.get("objective.name"),
        **{k: last_of(curves, k) for k in SHOWN}, **cells, "path": str(Path(t.path).parent),
    }  # fmt: skip


def differing(several: Sequence[Pretraining]) -> list[str]:
    """Names of settings that are not the same in all."""
    names = {k for t in several for k in t.params} - {"name", "to", "step", "state", "identity", "undecodable"}
    return sorted(n for n in names if len({repr(t.params.get(n)) for t in several}) > 1)


def at_steps(curve: Sequence[tuple[int, float]], most: int) -> list[tuple[int, float]]:
    """Some of a curve, its first and last among them, evenly."""
    if len(curve) <= most:
        return list(curve)
    return [curve[round(i * (len(curve) - 1) / (most - 1))] for i in range(most)]
