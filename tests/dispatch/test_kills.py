"""kill -9 at random instants of launchers, workers and decoding workers (BENCHKIT_KILLS of each):
every cell exactly once, without any repair.

The instants are spread over whole runs: planning, claims, extraction, fits, seals, ingestion. What was killed is
started again with the same command, as a user or a scheduler would, until the sweep is complete; then a new one begins.
"""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

SWEEP = (
    "run", "--task", "digits", "--model", "pixels", "--model", "pixels,size=12", "--classifier", "centroid",
    "--n-train", "1", "--n-train", "5", "--n-train", "-1", "--replicates", "20", "--device", "cpu",
)  # fmt: skip
CELLS = 6

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


class Sweep:
    """One registry with one cache, until its sweep is complete."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.db, self.cache = folder / "r.sqlite", folder / "cache"
        self.words = [*SWEEP, "--db", str(self.db), "--cache", str(self.cache / "features")]

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


@dataclass
class Launcher:
    """A fork that runs the command of a sweep."""

    ask: Callable[..., str]
    errors: Path
    pid: int

    def wait(self) -> int:
        """Its exit code, negative for the signal that ended it."""
        return os.waitstatus_to_exitcode(int(self.ask(wait=self.pid)))

    def said(self) -> str:
        return self.errors.read_text()


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., Launcher]]:
    forker = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("forker.py"))], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True, env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip
    stdin, stdout = forker.stdin, forker.stdout
    assert stdin
    assert stdout

    def ask(**request: object) -> str:
        print(json.dumps(request), file=stdin, flush=True)
        return stdout.readline()

    def start(sweep: Sweep, *more: str) -> Launcher:
        errors = tmp_path / "errors"
        return Launcher(ask, errors, int(ask(words=[*sweep.words, *more], errors=str(errors))))

    assert ask(warm=[*SWEEP, "-j", "1"]) == "warm\n"
    yield start
    stdin.close()
    forker.wait(timeout=60)


def sweeps(tmp_path: Path) -> Iterator[Sweep]:
    number = 0
    while True:
        number += 1
        yield Sweep(tmp_path / f"sweep-{number}")


def duration(launcher: Launcher) -> float:
    """Of a run that nothing happens to."""
    began = time.monotonic()
    assert launcher.wait() == 0, launcher.said()
    assert "6 computed" in launcher.said()
    return time.monotonic() - began


@pytest.mark.parametrize(("jobs", "share"), [("1", 0.9), ("2", 0.1)])
def test_launchers_killed_at_random_instants_lose_nothing_and_repeat_nothing(
    tmp_path: Path, launch: Callable[..., Launcher], jobs: str, share: float, kills: int
) -> None:
    rng, left = random.Random(7), max(1, round(share * kills))
    typical = duration(launch(Sweep(tmp_path / "whole"), "-j", jobs))
    for sweep in sweeps(tmp_path):
        while True:
            launcher = launch(sweep, "-j", jobs)
            if left:
                time.sleep(rng.uniform(0.0, 1.0) * typical)
                os.kill(launcher.pid, signal.SIGKILL)
            code = launcher.wait()
            assert code in (0, -signal.SIGKILL), launcher.said()
            assert "Traceback" not in launcher.said(), launcher.said()
            left -= code == -signal.SIGKILL
            if code == 0:
                break
        sweep.verify()
        if not left:
            return


def test_workers_killed_at_random_instants_lose_nothing_and_repeat_nothing(
    tmp_path: Path, launch: Callable[..., Launcher], kills: int
) -> None:
    rng, killed = random.Random(8), 0
    typical = duration(launch(Sweep(tmp_path / "whole"), "-j", "2"))
    for sweep in sweeps(tmp_path):
        while True:
            launcher = launch(sweep, "-j", "2")
            while killed < kills and alive(launcher.pid):
                time.sleep(rng.uniform(0.0, 0.5) * typical)
                victims = workers_of(launcher.pid)
                if victims:
                    rng.choice(victims).kill()
                    killed += 1
            code = launcher.wait()
            assert "Traceback" not in launcher.said(), launcher.said()
            if code == 0:
                break
            assert "was ended by SIGKILL" in launcher.said(), launcher.said()
        sweep.verify()
        if killed >= kills:
            return


def test_decoding_workers_killed_at_random_instants_cost_a_repetition_of_the_command_at_most(
    tmp_path: Path, launch: Callable[..., Launcher], kills: int
) -> None:
    rng, killed = random.Random(9), 0
    typical = duration(launch(Sweep(tmp_path / "whole"), "-j", "1", "--workers", "2"))
    for sweep in sweeps(tmp_path):
        while True:
            launcher = launch(sweep, "-j", "1", "--workers", "2")
            while killed < kills and alive(launcher.pid):
                time.sleep(rng.uniform(0.0, 0.2) * typical)
                for victim in decoders_of(launcher.pid)[: rng.choice((1, 1, 2))]:
                    victim.kill()
                    killed += 1
            code = launcher.wait()
            assert "Traceback" not in launcher.said(), launcher.said()
            if code == 0:
                break
            assert "a decoding worker was ended by SIGKILL" in launcher.said(), launcher.said()
            assert "the same command tries again" in launcher.said()
        sweep.verify()
        if killed >= kills:
            return


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def decoders_of(pid: int) -> list[psutil.Process]:
    try:
        return [c for c in psutil.Process(pid).children() if any("features.worker" in word for word in c.cmdline())]
    except psutil.Error:
        return []


def workers_of(pid: int) -> list[psutil.Process]:
    try:
        return [c for c in psutil.Process(pid).children() if "job" in c.cmdline()]
    except psutil.Error:
        return []
