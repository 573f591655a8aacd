"""A registry on a cluster, and what tests do with it."""

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slurm_cluster import Cluster

LIB = Path(__file__).parent


@dataclass
class Lab:
    """A registry, the folder that the sample plugin talks through, and a cluster to run on."""

    folder: Path
    cluster: Cluster
    env: dict[str, str]
    started: list["subprocess.Popen[str]"]

    @property
    def db(self) -> Path:
        return self.folder / "r.sqlite"

    def benchkit(self, *args: str, ok: bool = True, **env: str) -> subprocess.CompletedProcess[str]:
        """A command, to its end."""
        command = [sys.executable, "-m", "benchkit", *args, "--db", str(self.db)]
        done = subprocess.run(command, env=self.env | env, capture_output=True, text=True, timeout=180, check=False)
        assert (done.returncode == 0) == ok, done.stdout + done.stderr
        return done

    def start(self, *args: str) -> "subprocess.Popen[str]":
        """A command under way."""
        command = [sys.executable, "-m", "benchkit", *args, "--db", str(self.db)]
        pipe = subprocess.PIPE
        self.started.append(subprocess.Popen(command, env=self.env, stdout=pipe, stderr=pipe, text=True))
        return self.started[-1]

    def grid(self, *classifiers: str, models: int = 1) -> list[str]:
        """`run` with so many jobs, each with these probes."""
        made = ["run", "--task", "stripes", "--replicates", "20", "--executor", "slurm"]
        for classifier in classifiers:
            made += ["--classifier", classifier]
        for shift in range(models):
            made += ["--model", f"seen,shift={shift}"]
        return made

    def open(self, gate: str) -> None:
        (self.folder / gate).touch()

    @property
    def log(self) -> list[str]:
        path = self.folder / "log"
        return path.read_text().splitlines() if path.exists() else []

    def status(self, *options: str) -> Any:
        return json.loads(self.benchkit("status", "--json", *options).stdout)

    def job(self) -> str:
        """The number of the only job."""
        ((number,),) = self.sql("SELECT job FROM submissions")
        return str(number)

    def states(self) -> dict[str, str]:
        """Of this registry's jobs, as the scheduler shows them now."""
        mine = {job for (job,) in self.sql("SELECT job FROM submissions")}
        lines = self.cluster.call("squeue", "-h", "-r", "-t", "all", "-o", "%F_%K %A %T").splitlines()
        found = {}
        for line in lines:
            array, number, state = line.split()
            found[number if array.endswith("_N/A") else array] = state
        return {job: state for job, state in found.items() if job in mine}

    def sql(self, query: str) -> list[Any]:
        db = sqlite3.connect(f"file:{self.db}?mode=ro", uri=True)
        try:
            return db.execute(query).fetchall()
        finally:
            db.close()

    def begin_again(self) -> None:
        """Has the only job, which is queued again, begin in seconds instead of in two minutes: but not at once, as the
        node would take its new credential for the one that was just revoked."""
        number = self.job()
        self.until(lambda: self.states().get(number) == "PENDING", "the job is in the queue again")
        self.until(lambda: not self.cluster.steps(number), "its steps are gone")
        self.cluster.call("scontrol", "update", f"jobid={number}", "StartTime=now+10")

    def until(self, true: Callable[[], Any], what: str, within_s: float = 120.0) -> None:
        deadline = time.monotonic() + within_s
        while not true():
            assert time.monotonic() < deadline, f"after {within_s:.0f} s not yet: {what}"
            time.sleep(0.1)

    def end(self) -> None:
        """Ends its processes and jobs."""
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.communicate()
        if self.db.exists():
            for (job,) in self.sql("SELECT job FROM submissions"):
                self.cluster.call("scancel", "--quiet", str(job))

    def assert_one_report_a_cell(self, cells: int) -> None:
        assert self.sql(
            "SELECT count(*), count(DISTINCT task || model || classifier || n_train || seed) FROM runs"
        ) == [(cells, cells)]
        assert self.sql("SELECT count(*) FROM claims") == [(0,)]
        assert not list((self.db.with_name("r.sqlite.d") / "inbox").glob("*.json"))


def make_lab(folder: Path, site: Path, cluster: Cluster) -> Lab:
    folder.mkdir(exist_ok=True)
    env = os.environ | cluster.env | {
        "PYTHONPATH": os.pathsep.join([str(site), str(LIB)]),
        "BENCHKIT_SAMPLES": str(folder),
        "BENCHKIT_CONFIG": str(folder / "config.toml"),
        "BENCHKIT_CACHE": str(folder / "cache"),
    }  # fmt: skip
    return Lab(folder, cluster, env, [])
