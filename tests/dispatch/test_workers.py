"""Worker processes: several jobs at once, one that fails or is killed beside others, a launcher that dies."""

import json
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from benchkit.api import Grid, Settings, launch
from benchkit.dispatch import machine
from benchkit.dispatch import workers as local_workers
from benchkit.dispatch.events import Relay
from benchkit.dispatch.order import longest_first
from benchkit.dispatch.workers import Worker, Workers
from benchkit.jobs.job import Job, JobOptions
from benchkit.planning.plan import make_plan
from benchkit.progress import Silent
from benchkit.records.report import Cell, Report
from benchkit.store import open_store
from benchkit.store.insert import insert

MODELS = ("--model", "pixels", "--model", "pixels,size=16", "--model", "pixels,size=12")
SWEEP = ("run", "--task", "digits", *MODELS, "--classifier", "centroid", "--n-train", "1", "--n-train", "5")


def cli(db: Path, *args: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "benchkit", *args, "--db", str(db)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    out, err = process.communicate(timeout=120)
    assert "Traceback" not in err, err
    return process.returncode, out, err


def rows(db: Path, query: str) -> list[tuple[object, ...]]:
    with sqlite3.connect(db) as connection:
        return connection.execute(query).fetchall()


def workers_of(pid: int) -> list[psutil.Process]:
    try:
        return [c for c in psutil.Process(pid).children() if "job" in c.cmdline()]
    except psutil.Error:
        return []


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def leftovers(db: Path) -> list[Path]:
    side = db.with_name(db.name + ".d")
    return [f for name in ("inbox", "jobs", "owners") for f in (side / name).rglob("*") if f.is_file()]


def test_workers_give_what_one_process_gives_and_leave_nothing(tmp_path: Path) -> None:
    values = {}
    for jobs in ("1", "3"):
        db = tmp_path / f"{jobs}.sqlite"
        code, _, err = finished(cli(db, *SWEEP, "--jobs", jobs))
        assert code == 0, err
        assert re.search(r"\b6 computed\b", err)
        values[jobs] = rows(db, "SELECT model, n_train, value, low, high FROM results ORDER BY model, n_train")
        assert rows(db, "SELECT count(*) FROM claims") == [(0,)]
        assert leftovers(db) == []
    assert len(values["1"]) == 6
    assert values["1"] == values["3"]


def test_a_failing_cell_is_kept_with_its_error_and_tried_again_when_asked(tmp_path: Path) -> None:
    db = tmp_path / "r.sqlite"
    sweep = (*SWEEP, "--n-train", "500", "--jobs", "2")
    code, _, err = finished(cli(db, *sweep))
    assert code == 1
    assert "3 of 9 cells failed" in err
    assert rows(db, "SELECT count(*) FROM results") == [(6,)]
    assert rows(db, "SELECT n_train, reason, attempts FROM failures GROUP BY 1, 2, 3") == [(500, "error", 1)]
    code, _, err = finished(cli(db, *sweep))
    assert code == 1
    assert re.search(r"\b0 computed, 6 from the registry", err)
    assert err.count("the largest n_train that works is 116 (-1 uses all) (failed before: --retry-failed tries") == 3
    assert rows(db, "SELECT DISTINCT attempts FROM failures") == [(1,)]
    finished(cli(db, *sweep, "--retry-failed"))
    assert rows(db, "SELECT DISTINCT attempts FROM failures") == [(2,)]
    finished(cli(db, *sweep, "--skip-bad", "1"))
    assert rows(db, "SELECT DISTINCT attempts FROM failures") == [(3,)], "with other options it may work"
    code, out, _ = finished(cli(db, "show", "failed"))
    assert code == 0
    assert out.count(" n_train=500 seed=0") == 3
    assert "3 times" in out
    code, out, _ = finished(cli(db, "show", "failed", "--json"))
    assert [f["reason"] for f in json.loads(out)] == ["error"] * 3


def test_a_killed_worker_is_started_again_and_the_others_do_not_notice(tmp_path: Path) -> None:
    db = tmp_path / "r.sqlite"
    process = cli(db, *SWEEP, "--jobs", "2")
    until(lambda: workers_of(process.pid))
    workers_of(process.pid)[0].kill()
    code, _, err = finished(process)
    assert code == 0, err
    assert "was ended by SIGKILL (out of memory, or somebody's kill)" in err
    assert "starts again" in err
    assert rows(db, "SELECT count(*), sum(current) FROM runs") == [(6, 6)]
    assert rows(db, "SELECT count(*) FROM failures") == [(0,)]


def test_a_worker_that_is_killed_again_and_again_is_a_failure_that_the_next_run_tries(tmp_path: Path) -> None:
    db = tmp_path / "r.sqlite"
    process = cli(db, "run", "--task", "digits", "--model", "pixels", "--classifier", "centroid", "-j", "2")
    killed: set[int] = set()
    deadline = time.monotonic() + 120
    try:
        while process.poll() is None:
            for worker in workers_of(process.pid):
                if worker.pid not in killed:
                    killed.add(worker.pid)
                    worker.kill()
            assert time.monotonic() < deadline, f"{len(killed)} workers were started, and no end"
            time.sleep(0.005)
    finally:
        process.kill()
    _, err = process.communicate(timeout=60)
    assert len(killed) == 2
    assert process.returncode == 1, err
    assert "was ended by SIGKILL (out of memory, or somebody's kill), 2 times" in err
    assert rows(db, "SELECT reason, attempts FROM failures") == [("killed", 1)]
    code, _, err = finished(cli(db, "run", "--task", "digits", "--model", "pixels", "--classifier", "centroid"))
    assert code == 0, err
    assert rows(db, "SELECT count(*) FROM failures") == [(0,)]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_their_launcher_and_the_next_run_goes_on(tmp_path: Path, how: signal.Signals) -> None:
    db = tmp_path / "r.sqlite"
    process = cli(db, *SWEEP, "--jobs", "2")
    until(lambda: len(workers_of(process.pid)) == 2)
    workers = workers_of(process.pid)
    process.send_signal(how)
    process.communicate(timeout=60)
    if how != signal.SIGKILL:
        assert process.returncode == 130
        assert rows(db, "SELECT count(*) FROM claims") == [(0,)]
        assert not any(w.is_running() for w in workers)
        assert leftovers(db) == []
    else:
        assert leftovers(db)
    code, _, err = finished(cli(db, *SWEEP, "--jobs", "2"))
    assert code == 0, err
    assert rows(db, "SELECT count(*), sum(current) FROM runs") == [(6, 6)]
    assert rows(db, "SELECT count(*) FROM claims") == [(0,)]
    until(lambda: not any(w.is_running() for w in workers))
    assert leftovers(db) == []


def test_a_crash_is_kept_with_its_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchkit.dispatch.work.run_job", lambda *_: 1 / 0)
    grid = Grid(("digits",), ("pixels",), ("centroid",))
    launched = launch([grid], Settings(db=tmp_path / "r.sqlite"), Silent())
    assert [o.reason for o in launched.failures] == ["crash"]
    ((error, log),) = rows(tmp_path / "r.sqlite", "SELECT error, log FROM failures")
    assert "division by zero" in str(error)
    assert "ZeroDivisionError" in str(log)


@pytest.mark.parametrize("allocate", ["numpy.empty(1 << 55)", "torch.empty(1 << 55)"])
def test_memory_that_does_not_suffice_is_no_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allocate: str
) -> None:
    import numpy
    import torch

    monkeypatch.setattr("benchkit.dispatch.work.run_job", lambda *_: eval(allocate, {"numpy": numpy, "torch": torch}))
    launched = launch([Grid(("digits",), ("pixels",), ("centroid",))], Settings(db=tmp_path / "r.sqlite"), Silent())
    (failure,) = launched.failures
    assert failure.reason == "out of memory"
    assert str(failure.error).startswith("the job ran out of memory (")
    assert "\n" not in str(failure.error)


def test_a_job_file_runs_from_a_shell_and_what_it_finished_is_not_done_again(tmp_path: Path) -> None:
    db = tmp_path / "r.sqlite"
    settings = Settings(db=db, replicates=10)
    planned = make_plan([Grid(("digits",), ("pixels",), ("centroid", "knn"))], None).cells
    file = tmp_path / "job" / "job.json"
    file.parent.mkdir()
    file.write_text(Job.of(planned, settings.options()).to_json())
    command = [sys.executable, "-m", "benchkit", "job", str(file)]
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        assert done.stdout.count(": done") == 2
        assert not db.exists()
        assert len(list((tmp_path / "r.sqlite.d" / "inbox").glob("*.json"))) == 2
    (file.parent / "done").unlink()  # killed between the seal and the note of it
    subprocess.run(command, capture_output=True, check=True, timeout=60)
    with open_store(db) as store:
        assert store.execute("SELECT count(*) FROM runs").fetchone() == (2,), "the same reports, by name"


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"task": "digits"}', "\xff"])
def test_what_is_no_job_file_is_one_line(tmp_path: Path, text: str) -> None:
    file = tmp_path / "job.json"
    file.write_text(text, encoding="latin-1")
    done = subprocess.run(
        [sys.executable, "-m", "benchkit", "job", str(file)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_each_worker_gets_one_gpu_and_its_share_of_the_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-5f")
    monkeypatch.setenv("BENCHKIT_CPUS", "9")
    monkeypatch.setenv("OMP_NUM_THREADS", "16")
    monkeypatch.setenv("MKL_NUM_THREADS", "2")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "4,2")
    given = [machine.environment(i, 3, "auto") for i in range(3)]
    assert [g["CUDA_VISIBLE_DEVICES"] for g in given] == ["2", "GPU-5f", "2"]
    for variable, n in (("BENCHKIT_CPUS", "3"), ("OMP_NUM_THREADS", "3"), ("MKL_NUM_THREADS", "2")):
        assert {g[variable] for g in given} == {n}, "its share, or fewer where the user says so"
    assert {g["OPENBLAS_NUM_THREADS"] for g in given} == {"3"}
    assert machine.default_jobs("auto") == 2
    assert machine.default_jobs("cpu") == 1
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert machine.gpus("auto") == []


def test_the_longest_jobs_start_first(tmp_path: Path, make_report: Callable[..., Report]) -> None:
    from dataclasses import replace

    environment = make_report().environment
    with open_store(tmp_path / "r.sqlite") as store:
        plan = make_plan([Grid(("digits",), ("pixels", "random-vit"), ("centroid",), (1,))], store)
        jobs = plan.jobs()
        assert longest_first(store, jobs) == jobs
        with store.write():
            for model, wall in (("pixels", 2.0), ("random-vit", 90.0), ("other", 5.0)):
                cell = Cell("digits", model, "knn", 1, 0)
                insert(store, make_report(cell=cell, environment=replace(environment, wall_s=wall)))
        assert [job[0].cell.model for job in longest_first(store, jobs)] == ["random-vit", "pixels"]


def test_a_worker_whose_launcher_is_gone_ends_within_seconds(tmp_path: Path) -> None:
    code = "import time; from benchkit.dispatch.workers import end_with_launcher; end_with_launcher(); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    assert process.stdin
    process.stdin.close()
    assert process.wait(timeout=30) == -signal.SIGTERM


STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if len(sys.argv) == 1:
    child = subprocess.Popen([sys.executable, __file__, "child"], stdout=subprocess.PIPE, text=True)
    child.stdout.readline()
    print(child.pid, flush=True)
else:
    print("here", flush=True)
time.sleep(600)
"""
TIDY = """
import signal, sys, time
def end(*_):
    time.sleep(1.0)
    open(sys.argv[1], "w").write("tidied up")
    sys.exit(130)
signal.signal(signal.SIGTERM, end)
print("ready", flush=True)
time.sleep(600)
"""


def hired(workers: Workers, number: int, program: Path, *words: str) -> "subprocess.Popen[bytes]":
    """A worker of another kind: a program in a session of its own, as `Workers.start` makes them."""
    process = subprocess.Popen(
        [sys.executable, str(program), *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    planned = make_plan([Grid(("digits",), ("pixels",), ("centroid",))], None).cells
    job = Job.of(planned, JobOptions(str(program.parent), str(program.parent)))
    workers.running[number] = Worker(number, job, program.parent, process, Relay("", Silent()))
    return process


def test_a_worker_that_does_not_hear_sigterm_is_killed_after_its_grace_with_all_that_it_has_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_workers, "GRACE", 1.0)
    program, workers = tmp_path / "stubborn.py", Workers(Silent())
    program.write_text(STUBBORN)
    process = hired(workers, 0, program)
    assert process.stdout is not None
    child = psutil.Process(int(process.stdout.readline()))
    began = time.monotonic()
    workers.stop()
    assert process.returncode == -signal.SIGKILL
    assert 0.9 < time.monotonic() - began < 30
    until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)
    assert workers.running == {}


def test_a_worker_that_hears_sigterm_has_the_time_to_tidy_up(tmp_path: Path) -> None:
    program, workers = tmp_path / "tidy.py", Workers(Silent())
    program.write_text(TIDY)
    made = [hired(workers, i, program, str(tmp_path / f"{i}.txt")) for i in range(2)]
    for process in made:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
    workers.stop()
    assert [p.returncode for p in made] == [130, 130]
    assert [(tmp_path / f"{i}.txt").read_text() for i in range(2)] == ["tidied up"] * 2


def test_a_worker_that_does_not_hear_sigterm_ends_after_its_grace_once_its_launcher_is_gone() -> None:
    code = (
        "import signal, time\nfrom benchkit.dispatch import workers\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "workers.GRACE = 1.0\nworkers.end_with_launcher()\ntime.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    assert process.stdin
    process.stdin.close()
    assert process.wait(timeout=40) == 130
