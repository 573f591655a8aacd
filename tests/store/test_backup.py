"""benchkit backup: a whole copy of a registry in use, or none."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchkit.errors import StoreError
from benchkit.progress import Silent
from benchkit.records.report import Cell, Report
from benchkit.records.sealing import seal
from benchkit.store import backup as module
from benchkit.store import open_store
from benchkit.store.backup import backup
from benchkit.store.check import check
from benchkit.store.claims import Owner, claim
from benchkit.store.remove import remove

from .conftest import Add, Contents


@pytest.fixture
def path(registry: Callable[..., Path]) -> Path:
    return registry("r.sqlite", (0, 0.9), (1, 0.9), (1, 0.9))


def copy(path: Path, target: Path, **given: Any) -> module.Copied:
    with open_store(path, create=False, ingest=False) as store:
        return backup(store, target, Silent(), **given)


@pytest.mark.parametrize("link", [False, True])
def test_a_backup_is_the_same_registry(path: Path, contents: Contents, link: bool) -> None:
    target = path.parent / "b.sqlite"
    assert copy(path, target, link=link) == module.Copied(3, 3, ())
    assert contents(target) == contents(path)
    names = {f.stat().st_nlink for f in (path.parent / "b.sqlite.d" / "predictions").iterdir()}
    assert names == {2 if link else 1}
    assert sorted(p.name for p in path.parent.iterdir()) == ["b.sqlite", "b.sqlite.d", "r.sqlite", "r.sqlite.d"]


def test_what_waits_in_the_inbox_comes_along_and_what_is_claimed_does_not(
    path: Path, make_report: Callable[..., Report]
) -> None:
    target = path.parent / "b.sqlite"
    with open_store(path) as store:
        claim(store, [Cell("digits", "pixels", "linear", 5, 0)], Owner.this_process())
        seal(make_report(cell=Cell("digits", "pixels", "linear", 1, 0), artifacts=[]), store.inbox)
    assert copy(path, target).runs == 3
    with open_store(target) as store:
        assert store.execute("SELECT count(*) FROM runs").fetchone() == (4,)
        assert store.execute("SELECT count(*) FROM claims").fetchone() == (0,)


def test_a_backup_overwrites_nothing(path: Path) -> None:
    target = path.parent / "b.sqlite"
    for taken in (target, path.parent / "b.sqlite.d"):
        taken.write_text("mine")
        with pytest.raises(StoreError, match="is there already"):
            copy(path, target)
        assert taken.read_text() == "mine"
        taken.unlink()
    with pytest.raises(StoreError, match="there is no folder"):
        copy(path, path.parent / "none" / "b.sqlite")


def test_altered_predictions_are_told_of_and_not_copied(path: Path) -> None:
    files = sorted((path.parent / "r.sqlite.d" / "predictions").iterdir())
    files[0].unlink()
    files[1].write_bytes(b"altered")
    made = copy(path, path.parent / "b.sqlite")
    assert (made.runs, made.files) == (3, 1)
    assert set(made.lacking) == {f"predictions/{f.name}" for f in files[:2]}


def test_a_backup_that_fails_leaves_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(path.parent.rglob("*"))
    for error in (OSError(28, "No space left on device"), KeyboardInterrupt()):

        def fails(*_: object, error: BaseException = error) -> None:
            raise error

        monkeypatch.setattr(module.files, "move", fails)
        with pytest.raises((StoreError, KeyboardInterrupt)):
            copy(path, path.parent / "b.sqlite")
        assert sorted(path.parent.rglob("*")) == before


KILLED = """
import os, sys
from benchkit.progress import Silent
from benchkit.store import backup as module, open_store
left = int(sys.argv[3])
def deadly(name):
    real = getattr(os, name)
    def act(*a, **k):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), 9)
        return real(*a, **k)
    return act
for name in ("rename", "replace", "link", "unlink", "fsync"):
    setattr(os, name, deadly(name))
with open_store(sys.argv[1], create=False) as store:
    module.backup(store, __import__("pathlib").Path(sys.argv[2]), Silent())
"""


def test_a_backup_killed_at_any_step_is_whole_or_not_there_and_the_next_succeeds(
    path: Path, contents: Contents
) -> None:
    target, killed = path.parent / "b.sqlite", 0
    for step in (0, 1, 3, 6, 9, 10, 11, 12, 13, 14):
        done = subprocess.run([sys.executable, "-c", KILLED, str(path), str(target), str(step)], check=False)
        killed += done.returncode == -signal.SIGKILL
        if not target.exists():
            copy(path, target)
        assert contents(target) == contents(path), f"killed at step {step}"
        target.unlink()
        shutil.rmtree(path.parent / "b.sqlite.d")
        shutil.rmtree(path.parent / ".b.sqlite.part", ignore_errors=True)
    assert killed >= 8, "both renames were among them"


WRITER = """
import hashlib, sys, uuid, dataclasses, json
from pathlib import Path
from benchkit.records.report import Artifact, Cell, Report
from benchkit.records.sealing import seal
from benchkit.store import open_store
from benchkit.store.opening import refresh
model = Report.from_json(Path(sys.argv[2]).read_text())
with open_store(sys.argv[1]) as store:
    seed = 100
    while True:
        seed += 1
        name = uuid.uuid4().hex
        file = store.side / "predictions" / f"{name}.parquet"
        data = name.encode() * 50
        file.write_bytes(data)
        artifact = Artifact("predictions", f"predictions/{name}.parquet", hashlib.sha256(data).hexdigest(), len(data))
        cell = Cell("digits", "pixels", "linear", -1, seed)
        seal(dataclasses.replace(model, uuid=name, cell=cell, artifacts=[artifact]), store.inbox)
        refresh(store)
        print(seed, flush=True)
"""


def test_a_registry_is_copied_whole_while_another_process_hammers_it(
    path: Path, make_report: Callable[..., Report]
) -> None:
    model = path.parent / "model.json"
    model.write_text(make_report().to_json())
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), str(model)], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        counts = []
        for i in range(4):
            for _ in range(15):
                writer.stdout.readline()
            target = path.parent / f"b{i}.sqlite"
            made = copy(path, target)
            assert made.lacking == ()
            counts.append(made.runs)
            with open_store(target) as store:
                assert check(store, Silent()) == []
        writer.kill()
    assert counts == sorted(set(counts)), "the writer went on meanwhile"


def test_runs_removed_meanwhile_are_not_in_the_copy(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = module._verified

    def and_then_one_goes(copied: Path) -> Any:
        found = real(copied)
        with open_store(path) as other:
            remove(other, [1])
        return found

    monkeypatch.setattr(module, "_verified", and_then_one_goes)
    made = copy(path, path.parent / "b.sqlite")
    assert made.lacking == ()
    with open_store(path.parent / "b.sqlite") as store:
        assert store.execute("SELECT count(*) FROM runs").fetchone() == (2,)
        assert check(store, Silent()) == []


def test_where_a_current_run_is_removed_meanwhile_the_copy_has_the_one_before(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_store(path) as store:
        ((file,),) = store.execute(
            "SELECT path FROM artifacts JOIN runs ON id = run_id WHERE current AND seed = 1"
        ).fetchall()
    real = module._verified

    def and_then_one_goes(copied: Path) -> Any:
        found = real(copied)
        with open_store(path) as other:
            remove(other, [3])
        return found

    monkeypatch.setattr(module, "_verified", and_then_one_goes)
    assert not (path.parent / "b.sqlite").exists()
    made = copy(path, path.parent / "b.sqlite")
    assert (made.runs, made.files, made.lacking) == (2, 2, ())
    assert not (path.parent / "b.sqlite.d" / file).exists()
    with open_store(path.parent / "b.sqlite") as store:
        assert store.execute("SELECT id, current FROM runs").fetchall() == [(1, 1), (2, 1)]
        assert check(store, Silent()) == []


def test_ctrl_c_between_the_two_renames_leaves_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, real = sorted(path.parent.rglob("*")), module.files.move

    def and_then_ctrl_c(*names: Any) -> None:
        real(*names)
        raise KeyboardInterrupt

    monkeypatch.setattr(module.files, "move", and_then_ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        copy(path, path.parent / "b.sqlite")
    assert sorted(path.parent.rglob("*")) == before


def test_a_folder_that_came_after_a_killed_backup_is_not_taken_for_its_own(path: Path) -> None:
    target, folder = path.parent / "b.sqlite", path.parent / "b.sqlite.d"
    for step in range(9):  # before its own folder is moved to its place
        done = subprocess.run([sys.executable, "-c", KILLED, str(path), str(target), str(step)], check=False)
        assert done.returncode == -signal.SIGKILL
        folder.mkdir()
        (folder / "mine").touch()
        with pytest.raises(StoreError, match="is there already"):
            copy(path, target)
        assert (folder / "mine").exists()
        shutil.rmtree(folder)


def test_copies_are_for_everybody_who_may_use_the_folder(path: Path) -> None:
    copy(path, path.parent / "b.sqlite")
    (path.parent / "other").touch()
    modes = {p.stat().st_mode for p in (path.parent / "b.sqlite.d" / "predictions").iterdir()}
    assert modes == {(path.parent / "other").stat().st_mode}


def test_a_file_that_cannot_be_read_is_lacking(path: Path) -> None:
    first = min((path.parent / "r.sqlite.d" / "predictions").iterdir())
    first.unlink()
    first.mkdir()
    for link in (False, True):
        made = copy(path, path.parent / f"b{link}.sqlite", link=link)
        assert (made.runs, made.files, made.lacking) == (3, 2, (f"predictions/{first.name}",))


def test_however_many_files_are_lacking_the_registry_is_asked_for_them_once(path: Path, add: Add) -> None:
    with open_store(path) as store:
        for seed in range(2, 12):
            add(store, seed)
        shutil.rmtree(store.side / "predictions")
        asked: list[str] = []
        store.db.connection().set_trace_callback(asked.append)
        assert len(backup(store, path.parent / "b.sqlite", Silent()).lacking) == 13
    assert sum("FROM artifacts" in sql for sql in asked) == 1


def test_an_open_copy_of_a_rollback_journal_registry_is_whole(path: Path, contents: Contents) -> None:
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA journal_mode = DELETE")
    db.close()
    copy(path, path.parent / "b.sqlite")
    assert contents(path.parent / "b.sqlite") == contents(path)
    assert os.path.getsize(path.parent / "b.sqlite")


def test_a_registry_that_lacks_a_table_is_one_line_and_no_backup_is_left(tmp_path: Path) -> None:
    with open_store(tmp_path / "r.sqlite") as store:
        store.execute("DROP TABLE sightings")
        with pytest.raises(StoreError, match="no such table: sightings"):
            backup(store, tmp_path / "b.sqlite", Silent())
    assert {f.name for f in tmp_path.iterdir()} <= {"r.sqlite", "r.sqlite.d", "r.sqlite-wal", "r.sqlite-shm"}
