"""Claims of jobs in a queue: they stand until their own scheduler has told the job's end, and no longer."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchkit.dispatch.slurm.folder import Submission, decide
from benchkit.dispatch.slurm.settle import settle
from benchkit.machine import scheduler
from benchkit.records.report import Cell
from benchkit.store import Store, open_store
from benchkit.store.claims import Owner, claim, release_dead
from benchkit.store.insert import insert

CELLS = [Cell("digits", "pixels", "centroid", -1, seed) for seed in range(2)]
NAME, TOKEN = "benchkit-00000000", "0" * 32


@pytest.fixture
def queued(tmp_path: Path) -> Path:
    """A registry with one job in the queue of the cluster `big`, number 7, that has two cells."""
    db = tmp_path / "r.sqlite"
    with open_store(db) as store:
        claim(store, CELLS, Owner(f"{TOKEN}-0", "login1", 0, 0.0, "7"))
        folder = store.side / "slurm" / TOKEN
        Submission("big", scheduler.user(), NAME).write(folder)
        decide(folder, "go")
        with store.write():
            store.execute(
                f"INSERT INTO submissions VALUES ('7', '{TOKEN}-0', 'digits', 'pixels', 2, 'slurm/{TOKEN}', 'PENDING', "
                "NULL, '2026-01-01T00:00:00.000000+00:00', '2026-01-01T00:00:00.000000+00:00', 1, NULL)"
            )
    return db


@pytest.fixture
def says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Puts a Slurm on the PATH that prints what it is told to."""
    scheduler.cluster.cache_clear()
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def says(squeue: str, sacct: str = "", cluster: str = "big") -> None:
        prints = {"squeue": squeue, "sacct": sacct, "scontrol": f"ClusterName = {cluster}\nMaxArraySize = 1001\n"}
        for command, text in prints.items():
            (tmp_path / command).write_text(f"#!/bin/sh\ncat <<'END'\n{text}END\n")
            (tmp_path / command).chmod(0o755)
        scheduler.cluster.cache_clear()

    yield says
    scheduler.cluster.cache_clear()


def claims(store: Store) -> int:
    return int(store.execute("SELECT count(*) FROM claims").fetchone()[0])


def test_a_claim_of_a_job_stands_while_no_scheduler_answers(queued: Path, monkeypatch, tmp_path: Path) -> None:
    scheduler.cluster.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    with open_store(queued) as store:
        assert "no Slurm on this machine" in str(settle(store).unreachable)
        assert release_dead(store) == 0
        assert claims(store) == 2


def test_another_clusters_scheduler_has_no_say(queued: Path, says) -> None:
    says(f"7|N/A|7|CANCELLED|None|{NAME}\n", cluster="small")
    with open_store(queued) as store:
        assert settle(store).ended == ()
        assert claims(store) == 2


def test_a_job_of_another_name_with_this_number_is_not_it(queued: Path, says) -> None:
    says("7|N/A|7|FAILED|None|somebody-elses\n")
    with open_store(queued) as store:
        settle(store)
        assert claims(store) == 2
        assert store.execute("SELECT state FROM submissions").fetchone() == ("GONE",)
        assert settle(store, grace_s=0.0).ended == ("7",)
        assert {r for (r,) in store.execute("SELECT reason FROM failures").fetchall()} == {"killed"}


def test_another_users_job_that_is_hidden_from_us_counts_as_alive(queued: Path, says) -> None:
    says("")
    with open_store(queued) as store:
        Submission("big", "somebody", NAME).write(store.side / "slurm" / TOKEN)
        settle(store)
        assert settle(store, grace_s=0.0).ended == ()
        assert claims(store) == 2


def test_a_job_that_completed_is_waited_for_until_its_reports_have_come(queued: Path, says, make_report) -> None:
    """A network file system may show a report later than the scheduler tells of the job's end."""
    says(f"7|N/A|7|COMPLETED|None|{NAME}\n")
    with open_store(queued) as store:
        assert settle(store).ended == ()
        with store.write():
            for cell in CELLS:
                insert(store, make_report(cell=cell))
        settle(store)
        assert claims(store) == 0
        assert store.execute("SELECT count(*) FROM failures").fetchone() == (0,)


def test_the_end_is_settled_once_whoever_asks(queued: Path, says) -> None:
    says("", f"7|OUT_OF_MEMORY|0:125|{NAME}\n")
    with open_store(queued) as store, open_store(queued) as other:
        assert settle(store).ended == ("7",)
        assert settle(other).ended == ()
        found = store.execute("SELECT reason, attempts, slurm_job FROM failures").fetchall()
        assert found == [("out of memory", 1, "7")] * 2
        assert claims(store) == 0


def test_a_job_that_nobody_will_ever_tell_of_can_be_dropped(queued: Path) -> None:
    command = [sys.executable, "-m", "benchkit", "status", "--db", str(queued), "--drop", "7", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "2 cells of Slurm job 7 are free" in done.stderr
    assert json.loads(done.stdout)["jobs"] == []
    wrong = subprocess.run([*command[:-2], "8"], capture_output=True, text=True, check=False)
    assert wrong.stderr.startswith("error: this registry has no Slurm job '8'")
