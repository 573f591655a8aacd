"""kill -9 at a hundred random instants each, of launchers and of workers: every cell exactly once, without any repair.

The instants are spread over whole runs: start-up, claims, extraction, fits, seals, ingestion. What was killed is
started again with the same command, as a user or a scheduler would, until the sweep is complete; then a new one begins.
"""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

KILLS = 100
SWEEP = (
    "run", "--task", "digits", "--model", "pixels", "--model", "pixels,size=12", "--classifier", "centroid",
    "--n-train", "1", "--n-train", "5", "--n-train", "-1", "--replicates", "20", "--device", "cpu",
)  # fmt: skip
CELLS = 6

pytestmark = pytest.mark.slow


class Sweep:
    """One registry with one cache, until its sweep is complete."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.db, self.cache = folder / "r.sqlite", folder / "cache"

    def start(self, *more: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "benchkit", *SWEEP, "--db", str(self.db), *more]
        return subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
            env=os.environ | {"BENCHKIT_CACHE": str(self.cache)},
        )  # fmt: skip

    def verify(self) -> None:
        with sqlite3.connect(self.db) as db:
            counts = db.execute("SELECT count(*), count(DISTINCT model || n_train), sum(current) FROM runs").fetchone()
            assert counts == (CELLS, CELLS, CELLS), "every cell exactly once"
            for table in ("claims", "failures"):
                assert db.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,), table
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        for command in (["cache", "verify"], ["check", "--db", str(self.db)]):
            done = subprocess.run(
                [sys.executable, "-m", "benchkit", *command], capture_output=True, text=True, check=False, timeout=60,
                env=os.environ | {"BENCHKIT_CACHE": str(self.cache)},
            )  # fmt: skip
            assert done.returncode == 0, done.stdout + done.stderr


def sweeps(tmp_path: Path) -> Iterator[Sweep]:
    number = 0
    while True:
        number += 1
        yield Sweep(tmp_path / f"sweep-{number}")


def ended(process: "subprocess.Popen[str]") -> str:
    _, err = process.communicate(timeout=120)
    assert "Traceback" not in err, err
    return err


def duration(sweep: Sweep, *more: str) -> float:
    began = time.monotonic()
    assert "6 computed" in ended(sweep.start(*more))
    return time.monotonic() - began


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_launchers_killed_at_random_instants_lose_nothing_and_repeat_nothing(tmp_path: Path, jobs: str) -> None:
    rng, kills = random.Random(7), 0
    typical = duration(Sweep(tmp_path / "whole"), "-j", jobs)
    for sweep in sweeps(tmp_path):
        while True:
            process = sweep.start("-j", jobs)
            if kills < KILLS // 2:
                try:
                    process.wait(timeout=rng.uniform(0.2, 1.2) * typical)
                except subprocess.TimeoutExpired:
                    process.kill()
                    kills += 1
            if "Traceback" in (err := ended(process)):
                raise AssertionError(err)
            if process.returncode == 0:
                break
            assert process.returncode == -signal.SIGKILL, err
        sweep.verify()
        if kills >= KILLS // 2:
            return


def test_workers_killed_at_random_instants_lose_nothing_and_repeat_nothing(tmp_path: Path) -> None:
    rng, kills = random.Random(8), 0
    typical = duration(Sweep(tmp_path / "whole"), "-j", "2")
    for sweep in sweeps(tmp_path):
        while True:
            process = sweep.start("-j", "2")
            while process.poll() is None and kills < KILLS:
                time.sleep(rng.uniform(0.0, 0.5) * typical)
                victims = workers_of(process.pid)
                if victims:
                    rng.choice(victims).kill()
                    kills += 1
            err = ended(process)
            if process.returncode == 0:
                break
            assert "was ended by SIGKILL" in err, err
        sweep.verify()
        if kills >= KILLS:
            return


def workers_of(pid: int) -> list[psutil.Process]:
    try:
        return [c for c in psutil.Process(pid).children() if "job" in c.cmdline()]
    except psutil.Error:
        return []
