"""The store at scale: a synthetic registry of a million runs, and what planning, reading and taking in cost on it.

    python bench/store.py                       # about three minutes and 2 GB of disk
    python bench/store.py --runs 100000         # smaller
    uv run --with mlflow bench/store.py         # with MLflow 3 on SQLite beside it, doing the same work

Every step runs in a process of its own, so that its memory is its own. Files are in the system's cache (they have just
been written); times are of the whole command, start-up included, where a command is named.
"""

import argparse
import itertools
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchkit.catalog.discovery import Catalog, Plugin
from benchkit.hookspecs import Entry
from benchkit.interfaces import Backbone, Classifier, Encoded, Example, Fitted, Labels, Problem, Task
from benchkit.planning.plan import Grid, make_plan
from benchkit.records.report import Artifact, Cell, Check, ClassMetric, Environment, Metric, Report
from benchkit.records.sealing import seal
from benchkit.store import open_store
from benchkit.store.ingest import ingest_inbox
from benchkit.store.insert import CELL

TASKS = tuple(f"task-{i:02d}" for i in range(20))
MODELS = tuple(f"model-{i:03d}" for i in range(100))
CLASSIFIERS = tuple(f"probe-{i}" for i in range(10))
SIZES = (1, 5, 20, 100, -1)
SEEDS = tuple(range(10))
CLASSES = 20
COMMANDS = (
    ["ls"],
    ["ls", "--task", "task-0*", "--seed", "3"],
    ["ls", "--model", "nobody*"],
    ["show", "500"],
    ["show", "last"],
    ["table"],
    ["table", "--task", "task-0[0-4]", "--format", "json"],
    ["table", "--task", "task-01", "--metric", "auroc"],
)
LIMITS = {"plan 100,000 cells": 2.0, "benchkit table": 1.0, "benchkit ls": 1.0, "benchkit show last": 1.0}


class SyntheticTask(Task):
    kind, modality, metrics = "multilabel", "audio", ("cmap",)
    classes = ()

    def ids(self, split: str) -> Sequence[str]:
        return ()

    def labels(self, split: str) -> Labels:
        return np.zeros((0, 0), np.uint8)

    def examples(self, split: str, indices: Sequence[int]) -> Iterator[Example]:
        return iter(())

    def fingerprint(self) -> str:
        return "f" * 16


class SyntheticModel(Backbone):
    modalities = ("audio",)
    dim = 1

    def preprocess(self, raw: Any) -> np.ndarray:
        return raw

    def encode(self, batch: np.ndarray, *, tokens: bool = False) -> Encoded:
        return Encoded(batch)

    def fingerprint(self) -> str:
        return "m" * 16


class SyntheticProbe(Classifier):
    def fit(self, features: Any, labels: Any, problem: Problem, *, seed: int, device: str = "cpu") -> Fitted:
        return Fitted()  # type: ignore[abstract]


def catalog() -> Catalog:
    """One plugin that provides every name of the synthetic registry."""
    provides = {
        kind: {name: Entry("synthetic", f"{__name__}:{cls.__name__}") for name in names}
        for kind, names, cls in (
            ("task", TASKS, SyntheticTask),
            ("model", MODELS, SyntheticModel),
            ("classifier", CLASSIFIERS, SyntheticProbe),
        )
    }
    return Catalog((Plugin("synthetic", "synthetic", "1", __name__, provides),))  # type: ignore[arg-type]


def fill(path: Path, n_runs: int) -> None:
    """A registry as years of sweeps would leave it: cells in no order, one in ten marked by a check."""
    rng = random.Random(0)
    cells = list(itertools.product(TASKS, MODELS, CLASSIFIERS, SIZES, SEEDS))
    rng.shuffle(cells)
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    params = json.dumps({
        "task": {"root": "/data/birds", "fold": None},
        "model": {"checkpoint": "base", "pool": "mean", "layer": -1, "mean": -7.2, "std": 4.43},
        "classifier": {"lr": 0.001, "epochs": 100, "weight_decay": 0.01, "batch_size": 256},
    })  # fmt: skip
    providers = json.dumps({"task": "birds 0.1.0", "model": "models 0.1.0", "classifier": "benchkit 0.1.0"})
    versions = json.dumps({"torch": "2.13.0", "numpy": "2.4.6", "python": "3.11.7"})

    def runs() -> Iterator[dict[str, Any]]:
        for i, cell in enumerate(cells[:n_runs], 1):
            value, marked = rng.random(), rng.random() < 0.1
            when = (begin + timedelta(seconds=20 * i)).isoformat(timespec="microseconds")
            yield {
                "id": i, "uuid": rng.randbytes(16).hex(), **Cell(*cell)._asdict(), "current": 1, "metric": "cmap",
                "value": value, "low": value - 0.02, "high": value + 0.02, "chance": 0.05, "warnings": int(marked),
                "marks": "features:warn" if marked else None, "n_train_used": 1000, "n_test": 12000, "n_skipped": 0,
                "n_classes": CLASSES, "task_fingerprint": "f" * 16, "model_fingerprint": "m" * 16, "params": params,
                "providers": providers, "record": '{"loss": 0.12}', "environment_id": 1 + i % 100,
                "started_at": when, "finished_at": when, "ingested_at": when, "wall_s": 12.3, "cpu_s": 20.1,
                "peak_rss_bytes": 10**9, "peak_device_bytes": None, "sealed": "0" * 64, "digest": "0" * 64,
            }  # fmt: skip

    with open_store(path) as store:
        connection = store.db.connection()
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA cache_size = -1000000")
        with store.write():
            store.many(
                "INSERT INTO environments VALUES (?, ?, '0.1.0', ?, 0, '[]', ?, ?, 'cpu')",
                ((i, f"{i:064x}", "a" * 40, versions, f"node{i % 7}") for i in range(1, 101)),
            )
            columns = [c[1] for c in store.execute("PRAGMA table_info(runs)").fetchall()]
            marks = ", ".join(f":{c}" for c in columns)
            store.many(f"INSERT INTO runs VALUES ({marks})", runs())
            for name, value in (("cmap", "value"), ("auroc", "value * 0.9"), ("top1", "value * 0.8")):
                store.execute(f"INSERT INTO metrics SELECT id, '{name}', {value}, low, high FROM runs")
            for name in ("chance", "features", "labels", "leakage"):
                status = "CASE WHEN warnings THEN 'warn' ELSE 'ok' END" if name == "features" else "'ok'"
                store.execute(
                    f"INSERT INTO checks SELECT id, '{name}', {status}, 'a line with the numbers', '{{}}' FROM runs"
                )
            store.execute(
                "INSERT INTO artifacts "
                "SELECT id, 'predictions', 'predictions/' || uuid || '.parquet', uuid || uuid, 9 FROM runs"
            )
            store.many(  # one run in a hundred keeps its classes: enough to see that nothing reads them needlessly
                "INSERT INTO class_metrics VALUES (?, ?, 'ap', 0.5, 50, 600)",
                ((run, f"class {c:02d}") for run in range(1, n_runs + 1, 100) for c in range(CLASSES)),
            )


def reports(n: int) -> list[Report]:
    """New ones, each with a table of classes."""
    now = datetime.now(UTC).isoformat(timespec="microseconds")
    environment = Environment("0.1.0", "a" * 40, False, ["benchkit", "run"], {"numpy": "2"}, "node", "cpu", 1, 1, 10**9)
    return [
        Report(
            uuid=(name := uuid.uuid4().hex),
            cell=Cell(TASKS[i % 20], MODELS[i // 20 % 100], CLASSIFIERS[0], -1, 1000 + i),
            params={"task": {}, "model": {"pool": "mean"}, "classifier": {"lr": 0.001}},
            providers={"task": "birds 0.1.0", "model": "models 0.1.0", "classifier": "benchkit 0.1.0"},
            primary="cmap",
            metrics=[Metric("cmap", 0.4, 0.38, 0.42), Metric("auroc", 0.8), Metric("top1", 0.6)],
            chance=0.05, n_train_used=1000, n_test=12000, n_skipped=0, n_classes=CLASSES,
            task_fingerprint="f" * 16, model_fingerprint="m" * 16, started_at=now, finished_at=now,
            environment=environment,
            class_metrics=[ClassMetric(f"class {c:02d}", "ap", 0.5, 50, 600) for c in range(CLASSES)],
            checks=[Check(name, "ok", "a line") for name in ("chance", "features", "labels", "leakage")],
            artifacts=[Artifact("predictions", f"predictions/{name}.parquet", "0" * 64, 9)],
        )
        for i in range(n)
    ]  # fmt: skip


def step_plan(db: Path, n: int) -> dict[str, float]:
    """n cells, of which two in five may be done."""
    grid = Grid(TASKS, MODELS[: max(1, n // 1000)], CLASSIFIERS, (1,), tuple(range(8, 13)))
    with open_store(db, create=False) as store:
        before = _rss()
        start, processor = time.perf_counter(), time.process_time()
        plan = make_plan([grid], store, catalog())
        seconds, processor = time.perf_counter() - start, time.process_time() - processor
    return {
        "seconds": seconds,
        "processor_s": processor,
        "cells": len(plan.cells),
        "done": plan.by_state["done"],
        "grown_mb": _rss() - before,
    }


def step_ingest(db: Path, n: int) -> dict[str, float]:
    """Sealing n reports (with fsync, as a job does), and taking them in."""
    with open_store(db) as store:
        made = reports(n)
        start = time.perf_counter()
        for report in made:
            seal(report, store.inbox)
        sealed, processor = time.perf_counter(), time.process_time()
        notes = ingest_inbox(store)
        done, processor = time.perf_counter(), time.process_time() - processor
        assert not notes, notes
    return {
        "sealed_per_s": n / (sealed - start),
        "ingested_per_s": n / (done - sealed),
        "ingested_per_processor_s": n / processor,
    }


def step_lookup(db: Path, n: int) -> dict[str, float]:
    """One cell at a time: is it done, and what is its value?"""
    rng = random.Random(1)
    sql = f"SELECT id, value FROM runs WHERE current AND {CELL}"
    with open_store(db, create=False) as store:
        start = time.perf_counter()
        for _ in range(n):
            cell = tuple(map(rng.choice, (TASKS, MODELS, CLASSIFIERS, SIZES, SEEDS)))
            store.execute(sql, cell).fetchone()
        return {"per_s": n / (time.perf_counter() - start)}


def step_mlflow(db: Path, n: int) -> dict[str, float]:
    """What MLflow's users do: log a run with its tags, parameters and metrics in one batch; look
    up one cell by its tags.
    """
    os.environ["MLFLOW_ENABLE_ASYNC_LOGGING"] = "false"
    import mlflow
    from mlflow.entities import Metric as MlflowMetric
    from mlflow.entities import Param, RunTag

    client = mlflow.MlflowClient(f"sqlite:///{db}")
    experiment = client.create_experiment("bench")
    made = reports(n)
    start = time.perf_counter()
    for report in made:
        tags = {k: str(v) for k, v in report.cell._asdict().items()}
        run = client.create_run(experiment, tags=tags).info.run_id
        named = {f"{c.name}/{c.class_name}": c.value for c in report.class_metrics} | {
            m.name: m.value for m in report.metrics
        }
        client.log_batch(
            run,
            metrics=[MlflowMetric(k, v, 0, 0) for k, v in named.items() if v is not None],
            params=[Param(f"{of}.{k}", str(v)) for of, values in report.params.items() for k, v in values.items()],
            tags=[RunTag(f"check.{c.name}", c.status) for c in report.checks],
        )
        client.set_terminated(run)
    logged = time.perf_counter()
    for report in made:
        wanted = " and ".join(f"tags.{k} = '{v}'" for k, v in report.cell._asdict().items())
        assert len(client.search_runs([experiment], wanted, max_results=1)) == 1
    return {"version": mlflow.__version__, "logged_per_s": n / (logged - start),
            "lookups_per_s": n / (time.perf_counter() - logged)}  # fmt: skip


STEPS = {"plan": step_plan, "ingest": step_ingest, "lookup": step_lookup, "mlflow": step_mlflow}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1_000_000, help="in the synthetic registry, at most 1,000,000")
    parser.add_argument("--reports", type=int, default=3000, help="to seal and take in")
    parser.add_argument("--keep", type=Path, help="where the registry is made and kept; used again if it is there")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--db", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--n", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step:
        print(json.dumps(STEPS[args.step](args.db, args.n)))
        return
    with tempfile.TemporaryDirectory() as folder:
        db = args.keep or Path(folder) / "registry.sqlite"
        if not db.exists():
            start = time.perf_counter()
            fill(db, args.runs)
            seconds = time.perf_counter() - start
            print(f"registry of {args.runs:,} runs: {db.stat().st_size / 1e6:,.0f} MB, made in {seconds:.0f} s")
        measure(db, Path(folder), args.reports)


def measure(db: Path, folder: Path, n_reports: int) -> None:
    plan = _step("plan", db, 100_000)
    print(f"planning {plan['cells']:,} cells, {plan['done']:,} of them done: memory grows by {plan['grown_mb']:.0f} MB")
    _limited("plan 100,000 cells", plan["seconds"], plan["processor_s"])
    for command in COMMANDS:
        _limited(f"benchkit {' '.join(command)}", *min(_command(db, command) for _ in range(3)))
    big, small = _step("ingest", db, n_reports), _step("ingest", folder / "small.sqlite", n_reports)
    print(f"sealing: {big['sealed_per_s']:,.0f} reports a second, fsync included")
    rate, empty = big["ingested_per_s"], small["ingested_per_s"]
    alone = " and ".join(f"{step['ingested_per_processor_s']:,.0f}" for step in (big, small))
    print(
        f"taking in: {rate:,.0f} reports a second, {rate / 1000:.1f}x what it should be; {empty:,.0f} where it is "
        f"empty; a second of processor: {alone}"
    )
    lookup = _step("lookup", db, 20_000)
    print(f"looking up single cells: {lookup['per_s']:,.0f} a second")
    if find_spec("mlflow") is None:
        print("MLflow is not installed, so there is no comparison with it: uv run --with mlflow bench/store.py")
        return
    theirs = _step("mlflow", folder / "mlflow.sqlite", 300)
    whole = 1 / (1 / small["sealed_per_s"] + 1 / small["ingested_per_s"])
    print(f"MLflow {theirs['version']}, empty SQLite: {theirs['logged_per_s']:,.0f} runs a second logged, "
          f"{theirs['lookups_per_s']:,.0f} look-ups")  # fmt: skip
    print(f"benchkit, sealed and taken in: {whole:,.0f} a second, {whole / theirs['logged_per_s']:,.1f}x; "
          f"look-ups, among a million: {lookup['per_s'] / theirs['lookups_per_s']:,.0f}x")  # fmt: skip


def _step(name: str, db: Path, n: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--step", name, "--db", str(db), "--n", str(n)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{name} failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _command(db: Path, command: Sequence[str]) -> tuple[float, float]:
    """Wall and processor seconds of a whole command, its output thrown away."""
    start = time.perf_counter()
    whole = [sys.executable, "-m", "benchkit", *command, "--db", str(db)]
    process = subprocess.Popen(whole, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, command
    return seconds, usage.ru_utime + usage.ru_stime


def _limited(what: str, seconds: float, processor: float) -> None:
    limit = LIMITS.get(what)
    share = f", {seconds / limit:.2f} of the {limit:g} s it may take" if limit else ""
    print(f"{what}: {seconds:.2f} s{share} (processor {processor:.2f} s)")


def _rss() -> float:
    """The most memory that this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
