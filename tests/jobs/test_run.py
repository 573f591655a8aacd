"""Cells from a grid to the registry and back: computed once, continued after any death, refused in one line."""

import json
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import benchkit
from benchkit import resolve
from benchkit.api import Grid, RunFailed, Settings, launch, look
from benchkit.errors import BenchkitError, SpecError
from benchkit.media.hub import reach
from benchkit.planning.plan import make_plan
from benchkit.planning.sweep import read_sweep
from benchkit.progress import Silent

QUICK = {"task": "digits", "model": "pixels", "classifier": "centroid"}


def settings(db: Path, **more: Any) -> Settings:
    return Settings(db=db, replicates=50, **more)


def run(db: Path, **grid: Any) -> list[benchkit.Report]:
    return benchkit.run(**(QUICK | grid), settings=settings(db))


def cli(db: Path, *args: str, **more: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchkit", *args, "--db", str(db)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, **more)


CELL = ("run", "--task", "digits", "--model", "pixels", "--classifier", "centroid", "--replicates", "50")


def test_the_same_cell_is_computed_once_and_comes_back_equal(tmp_path: Path) -> None:
    first, second = run(tmp_path / "r.sqlite"), run(tmp_path / "r.sqlite")
    assert first == second
    (report,) = first
    assert report.cell == benchkit.Cell("digits", "pixels", "centroid@2", -1, 0)
    assert report.value > 0.8
    names = {"chance", "features", "labels", "leakage", "media", "plain", "precision", "repeatable"}
    assert {c.name for c in report.checks} == names
    assert not report.warnings


def test_two_spellings_of_one_cell_are_one_cell(tmp_path: Path) -> None:
    grid = Grid(("digits",), ("pixels",), ("knn,k=7", "knn,k=07", "knn,k=7,weights=softmax"))
    plan = make_plan([grid], None)
    assert len({p.cell for p in plan.cells}) == len(plan.cells)
    assert plan.cells[0].cell.classifier.startswith("knn@2,k=7")


def test_the_same_seed_gives_the_same_number_and_another_seed_another(tmp_path: Path) -> None:
    a = run(tmp_path / "a.sqlite", n_train=1, seed=[0, 1])
    b = run(tmp_path / "b.sqlite", n_train=1, seed=[0, 1])
    assert [r.metrics for r in a] == [r.metrics for r in b]
    assert a[0].value != a[1].value


def test_predictions_reproduce_the_metric(tmp_path: Path) -> None:
    db = tmp_path / "r.sqlite"
    (report,) = run(db)
    with benchkit.open(db) as results:
        predictions = results.predictions(1)
    assert (predictions.scores.argmax(axis=1) == predictions.labels).mean() == pytest.approx(report.value)
    assert len(predictions.ids) == report.n_test


def test_a_cell_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="the largest n_train that works is 116") as caught:
        run(tmp_path / "r.sqlite", n_train=[1, 500, 5])
    assert [r.cell.n_train for r in caught.value.reports] == [1, 5]
    with sqlite3.connect(tmp_path / "r.sqlite") as db:
        assert db.execute("SELECT count(*) FROM claims").fetchone() == (0,)


def test_force_computes_again_and_keeps_the_old_report(tmp_path: Path) -> None:
    db = tmp_path / "r.sqlite"
    run(db)
    grid = Grid(("digits",), ("pixels",), ("centroid",))
    launched = launch([grid], settings(db, force=True), Silent())
    assert [o.error for o in launched.outcomes] == [None]
    with sqlite3.connect(db) as store:
        assert store.execute("SELECT id, current FROM runs ORDER BY id").fetchall() == [(1, 0), (2, 1)]
        assert store.execute("SELECT count(*) FROM results").fetchone() == (1,)


def test_a_dry_run_says_what_is_done_and_creates_nothing(tmp_path: Path) -> None:
    db = tmp_path / "r.sqlite"
    grid = Grid(("digits",), ("pixels",), ("centroid",), (1, 5))
    assert look([grid], settings(db)).by_state == {"done": 0, "claimed": 0, "failed": 0, "todo": 2}
    assert not db.exists()
    run(db, n_train=5)
    shown = cli(db, *CELL, "--n-train", "1", "--n-train", "5", "--dry-run")
    assert shown.returncode == 0
    first, second, summary = shown.stdout.splitlines()
    assert first.endswith("n_train=1 seed=0: to do")
    assert "n_train=5 seed=0: done since 20" in second
    assert "(run 1): top1 0." in second
    assert summary == "1 done, 0 claimed, 1 to do"


def test_shuffled_labels_fall_to_chance(tmp_path: Path) -> None:
    (report,) = benchkit.run(**QUICK, settings=settings(tmp_path / "r.sqlite", shuffled=True))
    (check,) = [c for c in report.checks if c.name == "shuffled"]
    assert check.status == "ok"
    assert check.details["value"] < 0.3


def test_an_error_that_many_cells_share_is_told_once_for_each_task_and_model(tmp_path: Path) -> None:
    grid = ("--n-train", "500", "--seed", "0", "--seed", "1", "--classifier", "knn", "--model", "random-vit")
    ran = cli(tmp_path / "r.sqlite", *CELL, *grid)
    probe = resolve("classifier", "centroid").canonical
    told = [line for line in ran.stderr.splitlines() if line.startswith("failed: ")]
    assert [line.split(": ")[1] for line in told] == [
        f"digits {model} {probe} n_train=500 seed=0 (and 3 others of this task and model)"
        for model in ("pixels", "random-vit")
    ]
    assert "error: 8 of 8 cells failed" in ran.stderr


def test_cells_that_were_computed_without_the_check_with_permuted_labels_say_so(tmp_path: Path) -> None:
    db = tmp_path / "r.sqlite"
    assert "without --shuffled" not in cli(db, *CELL, "--shuffled").stderr
    two = (*CELL, "--n-train", "1", "--n-train", "-1")
    assert "without --shuffled" not in cli(db, *two).stderr
    assert "without --shuffled were computed, before: 1 (--force" in cli(db, *two, "--shuffled").stderr
    assert "without --shuffled" not in cli(db, *two, "--shuffled", "--force").stderr


@pytest.mark.slow
def test_folds_test_every_recording_once(tmp_path: Path, shared: Path) -> None:
    (report,) = benchkit.run(
        task=f"esc50,root={shared / 'data' / 'esc10'}", model="logmel", classifier="centroid", n_train=5,
        settings=settings(tmp_path / "r.sqlite"),
    )  # fmt: skip
    assert report.n_test == 400
    assert report.record["n_train_per_fold"] == [50] * 5
    assert report.value > report.chance + 0.2
    with benchkit.open(tmp_path / "r.sqlite") as results:
        predictions = results.predictions(1)
    assert len(set(predictions.ids)) == 400
    assert np.bincount(predictions.folds).tolist() == [80] * 5


# ------------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--task", "digit", "--model", "pixels"), "no task named 'digit'; did you mean 'digits'?"),
        (("--task", "digits", "--model", "pixel"), "did you mean 'pixels'?"),
        (("--task", "digits", "--model", "pixels", "--classifier", "knn,k=many"), "parameter 'k' is 'many'"),
        (("--task", "digits", "--model", "pixels", "--classifier", "knn,q=5"), "no parameter 'q'"),
        (("--task", "digits", "--model", "logmel"), "takes audio, and task 'digits' gives image"),
        (("--task", "esc50,root=/no/such/folder", "--model", "logmel"), "'/no/such/folder': there is no such"),
        (("--task", "digits", "--model", "pixels", "--n-train", "0"), "n_train=0"),
        (("--task", "digits"), "--model missing"),
        (("--sweep", "/no/such/sweep.toml"), "cannot read the sweep file"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_no_registry(tmp_path: Path, args: tuple[str, ...], words: str) -> None:
    done = cli(tmp_path / "r.sqlite", "run", *args)
    assert done.returncode != 0
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_an_audio_file_that_does_not_decode_is_named_and_can_be_skipped(tmp_path: Path, shared: Path) -> None:
    root = small_esc10(shared, tmp_path)
    victim = next(iter(sorted((root / "audio").iterdir())))
    victim.write_bytes(b"no audio at all")
    db = tmp_path / "r.sqlite"
    arguments = ("run", "--task", f"esc50,root={root}", "--model", "logmel", "--classifier", "centroid")
    failed = cli(db, *arguments)
    assert failed.returncode != 0
    assert victim.name in failed.stderr
    assert "--skip-bad" in failed.stderr
    skipped = cli(db, *arguments, "--skip-bad", "1")
    assert skipped.returncode == 0, skipped.stderr
    with sqlite3.connect(db) as store:
        assert store.execute("SELECT n_skipped, n_test FROM results").fetchone() == (1, 49)
        (record,) = store.execute("SELECT record FROM runs").fetchone()
    assert victim.stem in str(json.loads(record)["skipped"])


def small_esc10(shared: Path, tmp_path: Path) -> Path:
    """ESC-10 with one recording for each class and fold."""
    source, root = shared / "data" / "esc10", tmp_path / "esc"
    (root / "meta").mkdir(parents=True)
    (root / "audio").mkdir()
    head, *rows = (source / "meta" / "esc50.csv").read_text().splitlines()
    kept: dict[tuple[str, str], str] = {}
    for row in rows:
        name, fold, target, *_ = row.split(",")
        if (fold, target) not in kept:
            kept[fold, target] = row
            (root / "audio" / name).write_bytes((source / "audio" / name).read_bytes())
    (root / "meta" / "esc50.csv").write_text("\n".join([head, *kept.values()]) + "\n")
    return root


# --------------------------------------------------------------------------------------------------------------- sweeps


def test_a_sweep_file_holds_several_grids(tmp_path: Path) -> None:
    file = tmp_path / "sweep.toml"
    file.write_text("""
        [[grid]]
        task = "digits"
        model = ["pixels"]
        classifier = ["centroid", "knn"]
        n_train = [1, 5]
        [[grid]]
        task = "digits"
        model = "pixels"
        seed = [0, 1]
        classifier = "centroid"
    """)
    done = cli(tmp_path / "r.sqlite", "run", "--sweep", str(file), "--replicates", "50")
    assert done.returncode == 0, done.stderr
    assert n_computed(done.stderr) == 6


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("task = ", "is no TOML"),
        ("task = 'digits'", "model missing"),
        ("task = 'digits'\nmodel = 'pixels'\nclasifier = 'knn'", "did you mean 'classifier'?"),
        ("task = 'digits'\nmodel = 'pixels'\nn_train = '5'", "must be one or a list of whole numbers"),
        ("task = 'digits'\nmodel = 'pixels'\nn_train = [true]", "must be one or a list of whole numbers"),
        ("task = 'digits'\nmodel = 'pixels'\nseed = -1", "seed=-1 is out of range"),
        ("task = []\nmodel = 'pixels'", "must be one or a list of strings"),
        ("model = 'pixels'\n[[grid]]\ntask = 'digits'", "stands outside of"),
        ("grid = 3", "write each grid as"),
    ],
)
def test_a_wrong_sweep_file_is_one_line(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "sweep.toml"
    file.write_text(text)
    with pytest.raises(BenchkitError, match=words) as caught:
        read_sweep(file)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------------------------------------- two and the dead


def start(db: Path, *args: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "benchkit", *args, "--db", str(db)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


GRID = (*CELL, "--n-train", "1", "--n-train", "2", "--n-train", "5", "--seed", "0", "--seed", "1", "--seed", "2")


def test_the_same_sweep_started_twice_computes_every_cell_once(tmp_path: Path) -> None:
    db = tmp_path / "r.sqlite"
    both = [start(db, *GRID, "--wait") for _ in range(2)]
    computed = []
    for process in both:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        computed.append(n_computed(err))
    assert sum(computed) == 9, "whether they overlapped or one came after the other"
    with sqlite3.connect(db) as store:
        assert store.execute("SELECT count(*), count(DISTINCT n_train || ' ' || seed) FROM runs").fetchone() == (9, 9)
        assert store.execute("SELECT count(*) FROM claims").fetchone() == (0,)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_killed_run_is_continued_by_the_next(tmp_path: Path, how: signal.Signals) -> None:
    db = tmp_path / "r.sqlite"
    process = start(db, *GRID, "--shuffled")
    await_true(lambda: done_cells(db) >= 2 or process.poll() is not None)
    process.send_signal(how)
    process.communicate(timeout=60)
    if how != signal.SIGKILL:  # whoever may still clean up does
        with sqlite3.connect(db) as store:
            assert store.execute("SELECT count(*) FROM claims").fetchone() == (0,)
    before = done_cells(db)
    again = cli(db, *GRID)
    assert again.returncode == 0, again.stderr
    with sqlite3.connect(db) as store:
        assert store.execute("SELECT count(*), sum(current) FROM runs").fetchone() == (9, 9)
        assert store.execute("SELECT count(*) FROM claims").fetchone() == (0,)
    assert n_computed(again.stderr) <= 9 - before


def n_computed(err: str) -> int:
    """As the last line of a run tells."""
    (found,) = re.findall(r"\b(\d+) computed\b", err)
    return int(found)


def done_cells(db: Path) -> int:
    if not db.exists():
        return 0
    try:
        with sqlite3.connect(f"file:{db}?mode=ro", uri=True) as store:
            return int(store.execute("SELECT count(*) FROM runs").fetchone()[0])
    except sqlite3.OperationalError:  # not migrated yet
        return 0


def await_true(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_full_disk_is_one_line_and_with_more_room_the_next_run_goes_on(small_disk: Callable[[str], Path]) -> None:
    disk = small_disk("400k")
    done = cli(disk / "r.sqlite", *GRID)
    assert done.returncode != 0
    assert "No space left" in done.stderr or "disk is full" in done.stderr
    assert "Traceback" not in done.stderr
    side = disk / "r.sqlite.d"
    assert not list(side.rglob("*.part"))
    small_disk("8m")
    again = cli(disk / "r.sqlite", *GRID)  # what was sealed meanwhile is taken in, the others are computed
    assert again.returncode == 0, again.stderr
    assert not list(side.glob("inbox/*.json"))
    with sqlite3.connect(disk / "r.sqlite") as store:
        assert store.execute("SELECT count(*), sum(current) FROM runs").fetchone() == (9, 9)


def test_an_unknown_name_in_python_is_a_spec_error(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="no model named 'pixel'"):
        run(tmp_path / "r.sqlite", model="pixel")


def test_what_failed_for_the_disk_alone_is_tried_again_by_the_same_command(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.touch()
    grid, settings = [Grid(("digits",), ("pixels",), ("centroid",))], Settings(db=tmp_path / "r.sqlite", cache=cache)
    (failure,) = launch(grid, settings, Silent()).failures
    assert (failure.reason, "cannot write" in str(failure.error)) == ("disk", True)
    cache.unlink()
    assert not launch(grid, settings, Silent()).failures


def test_a_cache_on_a_disk_that_is_not_there_is_named(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.symlink_to(tmp_path / "unmounted")
    settings = Settings(db=tmp_path / "r.sqlite", cache=cache, jobs=1)
    (failure,) = launch([Grid(("digits",), ("pixels",), ("centroid",))], settings, Silent()).failures
    assert f"'{cache}' is a link to '{tmp_path / 'unmounted'}', which is not there" in str(failure.error)
    (tmp_path / "unmounted").mkdir()
    assert not launch([Grid(("digits",), ("pixels",), ("centroid",))], settings, Silent()).failures


def test_what_failed_for_want_of_a_network_is_tried_again_by_the_same_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(db=tmp_path / "r.sqlite", jobs=1)
    with monkeypatch.context() as offline:
        offline.setattr("benchkit_baselines.pixels.Pixels.setup", lambda *_: reach("http://127.0.0.1:9"))
        (failure,) = launch([Grid(("digits",), ("pixels",), ("centroid",))], settings, Silent()).failures
    assert (failure.reason, "does not reach http://127.0.0.1:9" in str(failure.error)) == ("network", True)
    assert not launch([Grid(("digits",), ("pixels",), ("centroid",))], settings, Silent()).failures
