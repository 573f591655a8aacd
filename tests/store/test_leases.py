"""Launchers on several hosts, whose clocks differ."""

import dataclasses
import fcntl
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from benchkit.planning.plan import Grid, make_plan
from benchkit.records.report import Cell, Environment, Report
from benchkit.records.sealing import seal
from benchkit.store import Store, claims, leases, open_store
from benchkit.store.claims import Owner, await_orphans, claim, owners, release, release_dead
from benchkit.store.locks import is_held, lock_file, locked
from benchkit.store.opening import refresh

CELLS = [Cell("digits", "pixels", "linear@2", n, 0) for n in (1, 5, -1)]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(tmp_path / "r.sqlite") as store:
        yield store


@dataclasses.dataclass
class Clock:
    """Seconds since this host was started, moved by hand."""

    seconds: float = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def uptime(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(leases, "uptime", clock)
    return clock


def beat(store: Store, minutes: float) -> None:
    """Heartbeats as a host writes them whose clock is wrong by so many minutes."""
    when = datetime.now(UTC) + timedelta(minutes=minutes)
    with store.write():
        store.execute("UPDATE claims SET heartbeat_at = ?", (when.isoformat(timespec="microseconds"),))


def far_away(store: Store) -> Owner:
    owner = Owner("fa" * 16, "another-host", 1, 0.0, None)
    assert claim(store, CELLS[:1], owner) == CELLS[:1]
    return owner


@pytest.mark.parametrize("minutes", [-45, -11, 0, 11, 45])
def test_a_claim_of_another_host_ends_when_its_heartbeat_stays_the_same_whatever_its_clock_says(
    store: Store, uptime: Clock, minutes: float
) -> None:
    far_away(store)
    mine = Owner.this_process()
    for _ in range(5):
        beat(store, minutes)
        assert claim(store, CELLS[:1], mine) == [], "it beats"
        uptime.seconds += leases.LEASE - 1
        assert claim(store, CELLS[:1], mine) == [], "it may yet"
    uptime.seconds += 2
    assert claim(store, CELLS[:1], mine) == CELLS[:1]
    assert {o.token for o, _ in owners(store)} == {mine.token}
    assert store.execute("SELECT count(*) FROM sightings").fetchone() == (0,)


def test_a_claim_that_is_renewed_while_it_is_given_up_stands(
    store: Store, uptime: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    far_away(store)
    release_dead(store)
    uptime.seconds += leases.LEASE + 1
    real = claims.alive

    def and_then_it_beats(*given: Any) -> bool:
        found = real(*given)
        beat(store, -60)  # by its own clock
        return found

    monkeypatch.setattr(claims, "alive", and_then_it_beats)
    assert release_dead(store) == 0
    monkeypatch.setattr(claims, "alive", real)
    assert release_dead(store) == 0, "another heartbeat, so its time begins anew"
    uptime.seconds += leases.LEASE + 1
    assert release_dead(store) == 1


def test_commands_that_look_for_a_moment_only_come_to_the_same_conclusion(
    store: Store, uptime: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    far_away(store)
    code = (
        "import sys\nfrom benchkit.store import leases, open_store\nfrom benchkit.store.claims import release_dead\n"
        "leases.uptime = lambda: float(sys.argv[2])\n"
        "with open_store(sys.argv[1]) as s:\n    print(release_dead(s))\n"
    )
    for moment, released in ((1000.0, 0), (1000.0 + leases.LEASE - 1, 0), (1000.0 + leases.LEASE, 1)):
        command = [sys.executable, "-c", code, str(store.path), str(moment)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout == f"{released}\n"


def test_what_another_host_saw_or_this_one_before_it_was_started_anew_counts_for_nothing(
    store: Store, uptime: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    far_away(store)
    assert release_dead(store) == 0
    uptime.seconds = 5.0  # started anew, and its name stayed the same
    assert release_dead(store) == 0
    monkeypatch.setattr(leases, "observer", lambda: "a third host")
    uptime.seconds = 1e6
    assert release_dead(store) == 0
    uptime.seconds += leases.LEASE
    assert release_dead(store) == 1


def test_the_plan_shows_a_claim_as_long_as_it_lives(store: Store, uptime: Clock) -> None:
    far_away(store)
    grid = [Grid(("digits",), ("pixels",), n_train=(1,))]
    release_dead(store)
    assert make_plan(grid, store).by_state["claimed"] == 1
    uptime.seconds += leases.LEASE
    assert make_plan(grid, store).by_state["todo"] == 1


@pytest.mark.parametrize("days", [-365, -2, 2, 365])
def test_a_clock_that_is_days_away_gives_up_no_claim_and_keeps_none(store: Store, uptime: Clock, days: int) -> None:
    far_away(store)
    beat(store, days * 24 * 60)
    assert release_dead(store) == 0
    uptime.seconds += leases.LEASE
    assert release_dead(store) == 1


def test_a_process_that_nobody_has_buried_is_dead(store: Store) -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    import psutil

    owner = Owner("0b" * 16, Owner.this_process().host, process.pid, psutil.Process(process.pid).create_time(), None)
    claim(store, CELLS, owner)
    assert release_dead(store) == 0
    os.kill(process.pid, 9)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and stays a zombie
    assert release_dead(store) == 3
    process.wait()


def test_a_launcher_whose_clock_was_set_while_it_runs_keeps_its_claims(store: Store, uptime: Clock) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        moved = Owner(
            "0e" * 16, Owner.this_process().host, process.pid, 12345.0, None
        )  # start times move with the clock
        claim(store, CELLS[:1], moved)
        assert release_dead(store) == 0
        uptime.seconds += leases.LEASE
        beat(store, 0)
        assert release_dead(store) == 0
        uptime.seconds += leases.LEASE
        assert release_dead(store) == 1, "or another process has its number"
    mine = dataclasses.replace(Owner.this_process(), token="f0" * 16, process_started=12345.0)
    claim(store, CELLS[:1], mine)
    assert release_dead(store) == 1, "this process knows that it is not the former owner of its number"


def test_a_forced_run_counts_whatever_the_clocks_say(store: Store, make_report: Callable[..., Report]) -> None:
    here: Environment = make_report().environment
    there = dataclasses.replace(here, host="behind")
    reports = [
        make_report(cell=CELLS[0], environment=here, finished_at="2026-01-01T00:10:00.000000+00:00"),
        make_report(cell=CELLS[0], environment=there, finished_at="2026-01-01T00:05:00.000000+00:00"),
        make_report(cell=CELLS[0], environment=there, finished_at="2027-01-01T00:04:00.000000+00:00"),
        make_report(cell=CELLS[0], environment=there, finished_at="2026-01-01T00:06:00.000000+00:00"),
    ]
    for report, current in zip(reports, (0, 1, 2, 3), strict=True):
        seal(report, store.inbox)
        refresh(store)
        found = store.execute("SELECT uuid FROM runs WHERE current").fetchall()
        assert found == [(reports[current].uuid,)]
    release(store, Owner.this_process())


AS_ANOTHER_USER = """
import os, sys
from pathlib import Path
from benchkit.store.locks import is_held
if os.geteuid() == 0:
    os.seteuid(65534)  # whom root's rights do not help
for _ in sys.stdin:
    print(is_held(Path("r.sqlite.d"), "de" * 16), flush=True)
"""


def test_a_lock_that_may_be_read_is_tested_and_one_that_may_not_is_not_free(tmp_path: Path) -> None:
    lock = lock_file(tmp_path / "r.sqlite.d", "de" * 16)
    tmp_path.chmod(0o755)
    other = subprocess.Popen(
        [sys.executable, "-c", AS_ANOTHER_USER], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdin is not None
    assert other.stdout is not None

    def found() -> str:
        other.stdin.write("\n")
        other.stdin.flush()
        return other.stdout.readline().strip()

    with other:
        assert found() == "False", "there is none"
        with locked(tmp_path / "r.sqlite.d", "de" * 16):
            lock.chmod(0o444)
            assert found() == "True"
            assert is_held(tmp_path / "r.sqlite.d", "de" * 16) is True
            lock.chmod(0)
            assert "Permission denied" in found()
        lock.touch(0o444)
        with lock.open() as beside:
            fcntl.flock(beside, fcntl.LOCK_SH)
            assert found() == "False", "somebody else looks at it, too"
        other.stdin.close()


def test_who_is_gone_keeps_cells_that_a_lock_says_nothing_of_until_the_heartbeat_has_stopped_for_long(
    store: Store, uptime: Clock
) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    assert process.wait() == 0
    gone, mine = Owner("90" * 16, platform.node(), process.pid, 0.0, None), Owner.this_process()
    lock = lock_file(store.side, gone.token)
    assert claim(store, CELLS[:1], gone) == CELLS[:1]
    lock.parent.mkdir(parents=True)
    lock.symlink_to(lock)  # what nobody can open
    assert claim(store, CELLS[:1], mine) == []
    (planned,) = make_plan([Grid(("digits",), ("pixels",), n_train=(1,))], store).cells
    assert planned.state == "claimed"
    assert planned.owner == (
        f"{gone} (which is gone; whether a worker of it goes on cannot be told, for its lock '{lock}' cannot be "
        "tested: it is a link, and so no file or folder of benchkit's)"
    )
    await_orphans(store, 60.0)  # which is for those that are known to hold it
    uptime.seconds += leases.LEASE + 1
    assert claim(store, CELLS[:1], mine) == CELLS[:1]
    assert not lock.is_symlink()
