"""In which order a job's reports are sealed, how often it passes over the test split, and what a kill costs it."""

import re
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import benchkit
from benchkit.api import RunFailed, Settings
from benchkit.catalog.spec import Spec
from benchkit.classifiers.attentive import Attentive
from benchkit.classifiers.knn import KNN
from benchkit.interfaces import Classifier, Encoded, Fitted, Problem, Subset
from benchkit.jobs import run as job
from benchkit.jobs.data import JobData
from benchkit.jobs.evaluate import Outcome
from benchkit_baselines.random_vit import RandomViT

VIT = "random-vit,size=8,patch=4,width=16,depth=1,heads=2"
FEW = "min_steps=2,epochs=2"
PROTOTYPICAL, ATTENTIVE = f"prototypical,prototypes=2,{FEW}", f"attentive,depth=1,{FEW}"
N_TEST = 596
AGAIN = 16
"""Examples that a job encodes once more, for the check `repeatable`."""


def run(db: Path, *classifiers: str, **more: Any) -> list[benchkit.Report]:
    settings = Settings(db=db, replicates=20, workers=0, **more)
    return benchkit.run(task="digits", model=VIT, classifier=classifiers, n_train=2, settings=settings)


def sealed(db: Path) -> list[str]:
    """The classifiers' names, in the order in which their reports came."""
    with sqlite3.connect(db) as store:
        found = store.execute("SELECT classifier FROM runs ORDER BY id").fetchall()
    return [re.split("[@,]", classifier)[0] for (classifier,) in found]


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many examples were encoded, with their tokens and without."""
    count: Counter[str] = Counter()
    encode = RandomViT.encode

    def counting(self: RandomViT, batch: np.ndarray, *, tokens: bool = False) -> Encoded:
        count["tokens" if tokens else "pooled"] += len(batch)
        return encode(self, batch, tokens=tokens)

    monkeypatch.setattr(RandomViT, "encode", counting)
    return count


def passes_take(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(JobData, "pass_seconds", lambda self, needs: seconds)


def test_probes_on_pooled_features_come_first_where_a_pass_is_short(tmp_path: Path) -> None:
    run(tmp_path / "r.sqlite", PROTOTYPICAL, "centroid", ATTENTIVE, "knn")
    assert sealed(tmp_path / "r.sqlite")[:2] == ["centroid", "knn"]


def test_where_a_pass_is_long_there_is_one_for_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoded: Counter[str]
) -> None:
    passes_take(1e9, monkeypatch)
    run(tmp_path / "r.sqlite", PROTOTYPICAL, "centroid", ATTENTIVE)
    assert encoded == {"tokens": 20 + N_TEST, "pooled": AGAIN}
    assert set(sealed(tmp_path / "r.sqlite")) == {"prototypical", "centroid", "attentive"}


def test_where_features_are_cached_nobody_waits_for_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoded: Counter[str]
) -> None:
    run(tmp_path / "r.sqlite", "centroid")
    encoded.clear()
    passes_take(1e9, monkeypatch)
    run(tmp_path / "r.sqlite", ATTENTIVE, "knn")
    assert sealed(tmp_path / "r.sqlite") == ["centroid", "knn", "attentive"]
    assert encoded == {"tokens": 20 + N_TEST, "pooled": AGAIN}


def test_how_many_passes_there_are_changes_no_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoded: Counter[str]
) -> None:
    found = []
    for seconds, passes in ((0.0, 2), (1e9, 1)):
        encoded.clear()
        passes_take(seconds, monkeypatch)
        db = tmp_path / f"{passes}.sqlite"
        found.append(
            [(r.cell, r.metrics, r.n_test) for r in run(db, PROTOTYPICAL, ATTENTIVE, cache=tmp_path / db.stem)]
        )
        assert encoded["tokens"] == 20 + passes * N_TEST
        assert sealed(db) == ["prototypical", "attentive"]
    assert found[0] == found[1]


def test_a_job_that_is_killed_keeps_the_probes_that_were_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = tmp_path / "r.sqlite"
    killed = f"""
        import os, signal
        from pathlib import Path
        from benchkit.classifiers.attentive import Attentive
        from benchkit.jobs.data import JobData
        import benchkit
        from benchkit.api import Settings

        Attentive.fit_many = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
        JobData.pass_seconds = lambda *_: 0.0
        benchkit.run(task="digits", model="{VIT}", classifier=["{PROTOTYPICAL}", "{ATTENTIVE}", "centroid"], n_train=2,
                     settings=Settings(db=Path("{db}"), replicates=20, workers=0))
    """
    script = "\n".join(line[8:] for line in killed.splitlines())
    died = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True, timeout=120)
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert sealed(db) == ["centroid", "prototypical"]

    fitted = []
    fit_many = Attentive.fit_many
    monkeypatch.setattr(Attentive, "fit_many", lambda *a, **k: fitted.append(1) or fit_many(*a, **k))
    assert len(run(db, PROTOTYPICAL, ATTENTIVE, "centroid")) == 3
    assert sealed(db) == ["centroid", "prototypical", "attentive"]
    assert fitted == [1]


def test_a_probe_that_cannot_be_fitted_takes_no_other_with_it(tmp_path: Path) -> None:
    hopeless = "attentive,depth=1,lr=1e30,min_steps=20,epochs=2"
    with pytest.raises(RunFailed, match="diverged"):
        run(tmp_path / "r.sqlite", hopeless, PROTOTYPICAL, "centroid")
    assert sealed(tmp_path / "r.sqlite") == ["centroid", "prototypical"]


class TooLarge(Fitted):
    """What memory does not suffice for."""

    def scores(self, x: np.ndarray) -> np.ndarray:
        return torch.empty(1 << 55).numpy()


@pytest.mark.parametrize("stage", ["fit", "score", "evaluate"])
@pytest.mark.parametrize("probe", [KNN, Attentive])
def test_a_probe_that_memory_does_not_suffice_for_takes_no_other_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, probe: type[Classifier], stage: str
) -> None:
    name, evaluate = {KNN: "knn", Attentive: "attentive"}[probe], job.evaluate_cell

    def fit_many(self: Classifier, features: np.ndarray, labels: np.ndarray, problem: Problem,
                 subsets: Sequence[Subset], **_: Any) -> Iterator[Fitted]:  # fmt: skip
        yield from (TooLarge() for _ in subsets if stage == "score" or np.empty(1 << 55))

    def evaluated(spec: Spec, *rest: Any) -> Outcome:
        return evaluate(spec, *rest) if spec.name != name else np.empty(1 << 55)

    if stage == "evaluate":
        monkeypatch.setattr(job, "evaluate_cell", evaluated)
    else:
        monkeypatch.setattr(probe, "fit_many", fit_many)
    with pytest.raises(RunFailed, match="the memory of 'cpu' does not suffice") as failed:
        run(tmp_path / "r.sqlite", "knn", "centroid", PROTOTYPICAL, ATTENTIVE)
    ((cell, reason),) = [(o.cell, o.reason) for o in failed.value.failures]
    assert (cell.classifier.partition("@")[0], reason) == (name, "out of memory")
    assert sorted(sealed(tmp_path / "r.sqlite")) == sorted({"knn", "centroid", "prototypical", "attentive"} - {name})
