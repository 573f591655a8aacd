"""What killed processes leave beside a registry goes; what a living one works on stays."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchkit.progress import Silent
from benchkit.records.report import Artifact, Cell
from benchkit.records.sealing import seal
from benchkit.store import Store, open_store
from benchkit.store.check import check, fix
from benchkit.store.claims import Owner, claim, heartbeat
from benchkit.store.leftovers import GRACE, leftovers, sweep
from benchkit.store.locks import lock_file

HOUR = 3600.0
CELL = Cell("digits", "pixels", "linear", 1, 0)


@pytest.fixture
def store(tmp_path: Path) -> Any:
    with open_store(tmp_path / "r.sqlite") as made:
        for folder in ("owners", "jobs", "inbox", "predictions"):
            (made.side / folder).mkdir(parents=True, exist_ok=True)
        yield made


def aged(path: Path, seconds: float) -> Path:
    moment = path.stat().st_mtime - seconds
    os.utime(path, (moment, moment))
    return path


def lock(store: Store, token: str, who: str) -> Path:
    path = lock_file(store.side, token)
    path.write_text(who)
    return path


def job(store: Store, token: str) -> Path:
    folder = store.side / "jobs" / f"{token}-{'1' * 32}"
    folder.mkdir()
    (folder / "job.json").write_text("{}")
    return folder


def test_locks_and_jobs_of_a_launcher_that_was_killed_after_its_reports_came_in_are_removed(store: Store) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        here = Owner.this_process().host
        dead = Owner("0d" * 16, here, process.pid, psutil.Process(process.pid).create_time(), None)
        path, folder = lock(store, dead.token, dead.process), job(store, dead.token)
        assert not leftovers(store), "it lives"
    found = leftovers(store)
    assert (found.locks, found.jobs) == ((path,), (folder,))
    (finding,) = [f for f in check(store, Silent()) if "launchers" in f.what]
    assert finding.fixable
    sweep(store)
    assert not path.exists()
    assert not folder.exists()
    assert not leftovers(store)


def test_a_launcher_that_works_keeps_its_lock_and_its_jobs(store: Store) -> None:
    mine = Owner.this_process()
    with heartbeat(store, mine):
        folder = job(store, mine.token)
        assert lock_file(store.side, mine.token).read_text() == mine.process
        sweep(store)
        assert folder.exists()
    sweep(store)
    assert not folder.exists()


def test_another_hosts_launcher_is_left_alone_until_its_lock_is_a_day_old_and_it_claims_nothing(store: Store) -> None:
    far = Owner("0f" * 16, "far.example.org", 77, 5.0, None)
    path = lock(store, far.token, far.process)
    claim(store, [CELL], far)
    aged(path, 48 * HOUR)
    assert not leftovers(store).locks, "it has claims"
    store.execute("DELETE FROM claims")
    assert leftovers(store).locks == (path,)
    os.utime(path)
    assert not leftovers(store).locks, "it may be about to claim"
    empty = aged(lock(store, "0a" * 16, ""), 48 * HOUR)
    assert leftovers(store).locks == (empty,), "one of an earlier benchkit"


def test_nothing_is_removed_by_a_name_that_is_not_ours(store: Store, tmp_path: Path) -> None:
    (store.side / "jobs" / "notes").mkdir()
    (store.side / "owners" / "readme.lock").write_text("mine")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "thesis").write_text("mine")
    (store.side / "jobs" / f"{'0d' * 16}-x").symlink_to(elsewhere)
    sweep(store)
    assert (elsewhere / "thesis").exists()
    assert (store.side / "jobs" / "notes").exists()
    assert (store.side / "owners" / "readme.lock").exists()


def test_unfinished_files_of_a_killed_merge_go_by_themselves_once_nobody_can_be_writing_them(store: Store) -> None:
    part = store.side / "predictions" / f".{'a' * 32}.part"
    part.write_bytes(b"half")
    sweep(store)
    assert part.exists()
    aged(part, GRACE + 60)
    assert [f.fixable for f in check(store, Silent())] == [True]
    sweep(store)
    assert not part.exists()


def test_predictions_that_no_run_names_are_removed_by_fix_and_those_that_a_report_will_name_stay(
    store: Store, make_report: Any
) -> None:
    def file(name: str) -> Path:
        path = store.side / "predictions" / f"{name}.parquet"
        path.write_bytes(b"x")
        return aged(path, GRACE + 60)

    orphan, young = file("b" * 32), file("c" * 32)
    os.utime(young)
    waits = make_report(
        artifacts=[Artifact("predictions", f"predictions/{'d' * 32}.parquet", "0" * 64, 1)], uuid="d" * 32
    )
    coming = file(waits.uuid)
    seal(waits, store.inbox)
    (finding,) = [f for f in check(store, Silent()) if "no run names" in f.what]
    assert orphan.name in finding.what
    assert finding.fixable
    assert any("1 files of predictions removed" in line for line in fix(store))
    assert not orphan.exists()
    assert young.exists()
    assert coming.exists()
