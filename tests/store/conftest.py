"""Registries with real files beside them."""

import hashlib
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchkit.records.others import Failure
from benchkit.records.report import Artifact, Cell, Metric, Report
from benchkit.records.sealing import seal
from benchkit.store import Store, open_store
from benchkit.store.insert import insert, insert_single, next_seq
from benchkit.store.opening import refresh

Add = Callable[..., Report]
Contents = Callable[[Path], dict[str, Any]]


@pytest.fixture
def add(make_report: Callable[..., Report]) -> Add:
    """Adds a run with predictions, as a job does: the file, the sealed report, taken in."""

    def make(store: Store, seed: int = 0, value: float = 0.9, **given: Any) -> Report:
        name = uuid.uuid4().hex
        path, data = f"predictions/{name}.parquet", f"scores of {name}".encode()
        (store.side / "predictions").mkdir(parents=True, exist_ok=True)
        (store.side / path).write_bytes(data)
        artifact = Artifact("predictions", path, hashlib.sha256(data).hexdigest(), len(data))
        report = make_report(**({
            "uuid": name, "cell": Cell("digits", "pixels", "linear", -1, seed), "artifacts": [artifact],
            "metrics": [Metric("macro_f1", value / 2), Metric("top1", value, value - 0.05, value + 0.05)],
        } | given))  # fmt: skip
        seal(report, store.inbox)
        refresh(store)
        return report

    return make


@pytest.fixture
def registry(tmp_path: Path, add: Add) -> Callable[..., Path]:
    """A registry with a run for each (seed, value)."""

    def make(name: str, *runs: tuple[int, float]) -> Path:
        with open_store(tmp_path / name) as store:
            for seed, value in runs:
                add(store, seed, value)
        return tmp_path / name

    return make


@pytest.fixture
def contents() -> Contents:
    """Every row and file of a registry, but for what differs between two copies."""

    def read(path: Path) -> dict[str, Any]:
        with open_store(path, create=False) as store:
            tables = (
                "runs",
                "metrics",
                "class_metrics",
                "checks",
                "artifacts",
                "environments",
                "trainings",
                "conflicts",
            )
            found: dict[str, Any] = {t: store.execute(f"SELECT * FROM {t} ORDER BY 1, 2").fetchall() for t in tables}
            files = {str(f.relative_to(store.side)): f.read_bytes() for f in store.side.rglob("*") if f.is_file()}
            return found | {"files": files}

    return read


@pytest.fixture
def with_the_rest() -> Callable[[Path], None]:
    """Puts a failure, a job that has ended and a conflict into a registry of two runs."""

    def make(path: Path) -> None:
        stamp = "2026-01-01T00:00:00.000000+00:00"
        cell = Cell("digits", "pixels", "linear", -1, 7)
        with open_store(path) as store, store.write():
            insert(store, Failure("f" * 32, cell, "error", "no weights", "n1", stamp, "a log"))
            job = ("7", f"{'0' * 32}-0", "digits", "pixels", 2, f"slurm/{'0' * 32}", "FAILED", "it was", stamp, stamp)
            insert_single(store, "submissions", *job, next_seq(store))
            insert_single(store, "conflicts", 1, 2, "top1 0.9 here, 0.8 there", "/b.sqlite", stamp)

    return make
