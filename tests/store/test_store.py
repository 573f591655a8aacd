"""The registry: created once by many, refused with a clear word, claims that end with their owner."""

import contextlib
import errno
import multiprocessing
import os
import platform
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchkit.errors import StoreError
from benchkit.machine.files import write_atomic
from benchkit.progress import Silent
from benchkit.records.report import Cell, Report
from benchkit.records.sealing import Sealed, seal, unsealed
from benchkit.store import Store, claims, ingest, open_store
from benchkit.store.backup import backup
from benchkit.store.claims import Owner, claim, claimed_by, heartbeat, release
from benchkit.store.insert import insert_report
from benchkit.store.migrations import VERSION
from benchkit.store.opening import refresh
from benchkit.store.queries import Filters, find_run, recent
from benchkit.store.reports import load_reports


def count(store: Store, table: str) -> int:
    return store.execute(f"SELECT count(*) FROM {table}").fetchone()[0]


def _open_and_count(path: str, gate: "multiprocessing.synchronize.Barrier", out: "multiprocessing.Queue[str]") -> None:
    gate.wait()
    try:
        with open_store(path) as store:
            out.put(str(count(store, "runs")))
    except Exception as e:  # noqa: BLE001  (the parent asserts on what went wrong)
        out.put(repr(e))


def test_eight_processes_create_one_store_at_the_same_moment(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    gate, out = context.Barrier(8), context.Queue()
    processes = [
        context.Process(target=_open_and_count, args=(str(tmp_path / "r.sqlite"), gate, out)) for _ in range(8)
    ]
    for p in processes:
        p.start()
    assert [out.get(timeout=60) for _ in processes] == ["0"] * 8
    for p in processes:
        p.join(timeout=60)
        assert p.exitcode == 0


def test_a_report_goes_through_the_inbox_and_comes_back_equal(tmp_path: Path, make_report) -> None:
    report = make_report()
    with open_store(tmp_path / "r.sqlite") as store:
        seal(report, store.inbox)
    with open_store(tmp_path / "r.sqlite") as store:
        assert load_reports(store, [1]) == [report]
        assert not list(store.inbox.glob("*.json"))


def test_a_report_sealed_twice_is_taken_in_once(tmp_path: Path, make_report) -> None:
    report = make_report()
    with open_store(tmp_path / "r.sqlite") as store:
        for _ in range(2):
            seal(report, store.inbox)
            refresh(store)
        assert count(store, "runs") == 1


def test_an_inbox_of_more_than_one_transaction_is_taken_in_whole(
    tmp_path: Path, make_report, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "BATCH", 2)
    with open_store(tmp_path / "r.sqlite") as store:
        for seed in range(5):
            seal(make_report(cell=Cell("digits", "pixels", "linear", -1, seed)), store.inbox)
        refresh(store)
        assert count(store, "runs") == 5
        assert not list(store.inbox.glob("*.json"))


def test_a_report_ends_the_claim_of_its_cell_and_one_of_history_does_not(tmp_path: Path, make_report) -> None:
    ours, theirs = Cell("digits", "pixels", "linear", -1, 0), Cell("digits", "pixels", "linear", -1, 1)
    with open_store(tmp_path / "r.sqlite") as store:
        owner = Owner.this_process()
        claim(store, [ours, theirs], owner)
        with store.write():
            insert_report(store, make_report(cell=ours))
            insert_report(store, make_report(cell=theirs), current=False)
        assert claimed_by(store, owner, [ours, theirs]) == [theirs]
        assert store.execute("SELECT current FROM runs ORDER BY id").fetchall() == [
            (1,), (0,)
        ]  # fmt: skip


def test_the_last_report_of_a_cell_to_come_is_current_whatever_its_clock_says(tmp_path: Path, make_report) -> None:
    old, new = (make_report(finished_at=f"2026-01-0{day}T00:00:00.000000+00:00") for day in (1, 2))
    for order in ([old, new], [new, old]):
        path = tmp_path / f"{order[0].uuid}.sqlite"
        with open_store(path) as store:
            for report in order:
                seal(report, store.inbox)
                refresh(store)
            rows = store.execute("SELECT uuid FROM runs WHERE current").fetchall()
            assert rows == [(order[1].uuid,)]
            assert find_run(store, "last") == 2
            assert [run.uuid for run in recent(store, Filters(history=True))] == [r.uuid for r in order[::-1]]
            assert count(store, "runs") == 2
            assert count(store, "results") == 1


def test_a_damaged_report_is_set_aside_and_named_and_the_others_go_in(tmp_path: Path, make_report) -> None:
    with open_store(tmp_path / "r.sqlite") as store:
        bad = seal(make_report(), store.inbox)
        good = seal(make_report(), store.inbox)
        text = bad.read_text()
        bad.write_text(text.replace("0.9", "0.99", 1))
        with pytest.warns(UserWarning, match=bad.name):
            refresh(store)
        assert count(store, "runs") == 1
        assert not good.exists()
        assert (store.inbox / "damaged" / bad.name).read_text() != text


def test_a_report_that_cannot_be_read_is_named_and_holds_up_no_other(
    tmp_path: Path, make_report, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_store(tmp_path / "r.sqlite") as store:
        another = store.inbox / "another-users.json"
        write_atomic(another, b"")

        def kept_from_us(path: Path) -> tuple[Sealed, str]:  # as the tests' user may be root, whom no permission stops
            if path == another:
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return unsealed(path)

        for reader in ("ingest", "backup"):
            monkeypatch.setattr(f"benchkit.store.{reader}.unsealed", kept_from_us)
        seal(make_report(), store.inbox)
        with pytest.warns(UserWarning, match=r"another-users.json' cannot be read: .*; it waits where it is"):
            refresh(store)
        assert count(store, "runs") == 1
        assert [p.name for p in store.inbox.iterdir()] == ["another-users.json"]
        with pytest.raises(StoreError, match=r"the report '.*another-users.json' cannot be read"):
            backup(store, tmp_path / "b.sqlite", Silent())
    assert not list(tmp_path.glob("*b.sqlite*"))


def test_other_weights_under_the_same_name_are_flagged(tmp_path: Path, make_report) -> None:
    with open_store(tmp_path / "r.sqlite") as store:
        seal(make_report(model_fingerprint="aaaa"), store.inbox)
        refresh(store)
        seal(make_report(model_fingerprint="bbbb", cell=Cell("digits", "pixels", "knn", -1, 0)), store.inbox)
        refresh(store)
        name, status, summary = store.execute(
            "SELECT name, status, summary FROM checks WHERE run_id = 2 AND status = 'warn'"
        ).fetchone()
        assert (name, status) == ("fingerprint", "warn")
        assert "run 1" in summary
        assert store.execute("SELECT warnings, marks FROM results WHERE run = 2").fetchone() == (1, "fingerprint:warn")


def test_a_newer_store_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    open_store(path).close()
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version = {VERSION + 1}")
    with pytest.raises(
        StoreError, match=f"schema {VERSION + 1}, newer than this benchkit's {VERSION}: update benchkit"
    ):
        open_store(path)


def test_what_is_no_registry_is_refused_and_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as db:
        db.execute("CREATE TABLE mine (x)")
    text = tmp_path / "notes.txt"
    text.write_text("no database at all, but long enough to be read as one" * 100)
    for path, word in (
        (other, "no benchkit registry"),
        (text, "no registry, or damaged"),
        (tmp_path, "is a folder"),
    ):
        before = path.read_bytes() if path.is_file() else b""
        with pytest.raises(StoreError, match=word):
            open_store(path)
        assert (path.read_bytes() if path.is_file() else b"") == before


def test_a_truncated_store_is_named(tmp_path: Path, make_report) -> None:
    path = tmp_path / "r.sqlite"
    with open_store(path) as store:
        seal(make_report(), store.inbox)
        refresh(store)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(StoreError, match=r"r\.sqlite"), open_store(path) as store:
        load_reports(store, [1])


def test_a_reader_never_creates_a_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no registry"):
        open_store(tmp_path / "r.sqlite", create=False)
    assert not list(tmp_path.iterdir())


def test_a_read_only_registry_is_read_and_not_written(tmp_path: Path, make_report) -> None:
    folder = tmp_path / "published"
    folder.mkdir()
    path = folder / "r.sqlite"
    with open_store(path) as store:
        seal(make_report(), store.inbox)
        refresh(store)
        store.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    path.chmod(0o444)
    folder.chmod(0o555)
    try:
        if os.getuid() == 0:  # root writes everywhere, so ask access() nothing: make the folder look read-only
            from benchkit.store import database

            original, database._writable = database._writable, lambda _: False
        with open_store(path, create=False) as store:
            assert count(store, "runs") == 1
            with pytest.raises(StoreError, match="cannot be written"), store.write():
                pass
        with pytest.raises(StoreError, match="read-only"):
            open_store(path)
    finally:
        if os.getuid() == 0:
            database._writable = original
        folder.chmod(0o755)


CELLS = [Cell("digits", "pixels", "linear", n, 0) for n in (1, 5, -1)]


def test_a_cell_is_claimed_once(tmp_path: Path) -> None:
    with open_store(tmp_path / "r.sqlite") as store:
        mine, other = Owner.this_process(), Owner.this_process()
        assert claim(store, CELLS[:2], mine) == CELLS[:2]
        assert claim(store, CELLS, other) == CELLS[2:]
        release(store, mine)
        assert claim(store, CELLS, other) == CELLS[:2]


def test_a_done_cell_is_claimed_only_by_force(tmp_path: Path, make_report) -> None:
    with open_store(tmp_path / "r.sqlite") as store:
        seal(make_report(cell=CELLS[0]), store.inbox)
        assert claim(store, CELLS[:1], Owner.this_process()) == []
        assert claim(store, CELLS[:1], Owner.this_process(), force=True) == CELLS[:1]


CLAIM_AND_SLEEP = """
import sys, time
from benchkit.records.report import Cell
from benchkit.store import open_store
from benchkit.store.claims import Owner, claim, heartbeat
with open_store(sys.argv[1]) as store:
    owner = Owner.this_process()
    with heartbeat(store, owner):
        assert claim(store, [Cell("digits", "pixels", "linear", 1, 0)], owner)
        print("claimed", flush=True)
        time.sleep(60)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_the_claim_of_a_killed_process_ends_with_it(tmp_path: Path, how: signal.Signals) -> None:
    path = tmp_path / "r.sqlite"
    with subprocess.Popen(
        [sys.executable, "-c", CLAIM_AND_SLEEP, str(path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"claimed\n"
        with open_store(path) as store:
            assert claim(store, CELLS[:1], Owner.this_process()) == []
            process.send_signal(how)
            process.wait(timeout=30)
            assert claim(store, CELLS[:1], Owner.this_process()) == CELLS[:1]


def gone() -> Owner:
    """An owner on this host that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait(timeout=30)
    return Owner("90" * 16, platform.node(), process.pid, 0.0, None)


def test_cells_of_the_dead_are_claimed_by_the_call_that_finds_them_dead(tmp_path: Path) -> None:
    with open_store(tmp_path / "r.sqlite") as store:
        dead, mine, other = gone(), Owner.this_process(), Owner.this_process()
        assert claim(store, CELLS[:1], other) == CELLS[:1]
        assert claim(store, CELLS[1:], dead) == CELLS[1:]
        free = CELLS[0]._replace(n_train=7)
        assert set(claim(store, [*CELLS, free], mine)) == {*CELLS[1:], free}, "at once, and not those of the living"
        held = store.execute("SELECT n_train, owner FROM claims ORDER BY n_train").fetchall()
        assert held == [(-1, mine.token), (1, other.token), (5, mine.token), (7, mine.token)]


def test_what_the_dead_have_sealed_is_taken_in_before_their_cells_are_claimed_again(
    tmp_path: Path, make_report, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker seals its last report between our first look and the end of its claim: that cell is done."""
    real = claims.release_dead

    def and_before_that_it_seals(store: Store) -> int:
        seal(make_report(cell=CELLS[0]), store.inbox)
        return real(store)

    with open_store(tmp_path / "r.sqlite") as store:
        assert claim(store, CELLS, gone()) == CELLS
        monkeypatch.setattr(claims, "release_dead", and_before_that_it_seals)
        assert claim(store, CELLS, Owner.this_process()) == CELLS[1:]
        assert store.execute("SELECT n_train FROM runs").fetchall() == [(1,)]


def test_what_was_sealed_is_taken_in_before_a_claim_is_given_up(tmp_path: Path, make_report) -> None:
    """A cell without a claim and without a report would be computed twice."""
    for cells in (None, CELLS[:1]):
        with open_store(tmp_path / f"{cells}.sqlite") as store:
            mine = Owner.this_process()
            claim(store, CELLS, mine)
            seal(make_report(cell=CELLS[0]), store.inbox)
            release(store, mine, cells)
            assert count(store, "runs") == 1
            assert count(store, "claims") == (0 if cells is None else 2)


def test_an_owner_gives_up_its_own_claims_alone(tmp_path: Path) -> None:
    with open_store(tmp_path / "r.sqlite") as store:
        mine, other = Owner.this_process(), Owner.this_process()
        claim(store, CELLS[:1], mine)
        claim(store, CELLS[1:], other)
        release(store, mine, CELLS)
        assert claimed_by(store, other, CELLS) == CELLS[1:]
        assert claimed_by(store, mine, CELLS) == []
        release(store, mine)
        assert count(store, "claims") == 2


def test_a_heartbeat_renews_and_releases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchkit.store.leases.HEARTBEAT", 0.05)
    with open_store(tmp_path / "r.sqlite") as store:
        owner = Owner.this_process()
        with heartbeat(store, owner):
            claim(store, CELLS, owner)
            (first,) = store.execute("SELECT max(heartbeat_at) FROM claims").fetchone()
            deadline = time.monotonic() + 20
            while store.execute("SELECT max(heartbeat_at) FROM claims").fetchone()[0] == first:
                assert time.monotonic() < deadline
                time.sleep(0.02)
        assert count(store, "claims") == 0


def _claim_all(path: str, gate: "multiprocessing.synchronize.Barrier", out: "multiprocessing.Queue[int]") -> None:
    cells = [Cell("t", "m", "c", -1, seed) for seed in range(200)]
    with open_store(path) as store:
        gate.wait()
        owner = Owner.this_process()
        got = sum(len(claim(store, cells[i : i + 10], owner)) for i in range(0, 200, 10))
        gate.wait()  # all keep theirs until everyone has tried
        out.put(got)


def test_four_launchers_share_two_hundred_cells_without_overlap(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    gate, out = context.Barrier(4), context.Queue()
    processes = [context.Process(target=_claim_all, args=(str(tmp_path / "r.sqlite"), gate, out)) for _ in range(4)]
    for p in processes:
        p.start()
    assert sum(out.get(timeout=60) for _ in processes) == 200
    for p in processes:
        p.join(timeout=60)
        assert p.exitcode == 0


def fill(path: Path) -> None:
    """Writes until the disk is full."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as f:
        while True:
            f.write(b"x" * 4096)


def test_a_full_disk_is_named_and_nothing_is_half_written(small_disk, make_report) -> None:
    disk = small_disk("400k")
    with open_store(disk / "r.sqlite") as store:
        seal(make_report(), store.inbox)
        refresh(store)
        (disk / "filler").write_bytes(b"")
        fill(disk / "filler")
        with pytest.raises(StoreError, match="No space left on device"):
            seal(make_report(), store.inbox)
        assert not [p for p in store.inbox.iterdir() if p.is_file()]
        (disk / "filler").unlink()
        refresh(store)
        assert count(store, "runs") == 1


def test_reports_are_equal_after_json(make_report) -> None:
    report = make_report()
    assert Report.from_json(report.to_json()) == report
