"""What is submitted to Slurm, without a Slurm."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchkit.store import open_store


@pytest.mark.parametrize(("mode", "who"), [(0o777, "everybody"), (0o770, "the group")])
@pytest.mark.parametrize("above", [False, True], ids=["the registry's folder", "a folder above it"])
def test_nothing_is_submitted_from_where_others_may_put_a_pickle(
    tmp_path: Path, mode: int, who: str, above: bool
) -> None:
    programs, lab = tmp_path / "bin", tmp_path / "lab"
    place = lab / "own" if above else lab
    programs.mkdir()
    place.mkdir(parents=True)
    lab.chmod(mode)
    for name, does in (
        ("scontrol", "printf 'ClusterName = big\\nMaxArraySize = 1001\\n'"),
        ("squeue", ":"),
        ("sacct", ":"),
        ("sbatch", f"touch '{tmp_path}/submitted'"),
    ):
        (programs / name).write_text(f"#!/bin/sh\n{does}\n")
        (programs / name).chmod(0o755)
    db = place / "r.sqlite"
    done = subprocess.run(
        [sys.executable, "-m", "benchkit", "run", "--task", "digits", "--model", "pixels", "--classifier", "centroid",
         "--executor", "slurm", "--db", str(db)],
        capture_output=True, text=True, check=False, timeout=120,
        env=os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"},
    )  # fmt: skip
    assert done.returncode == 1, who
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert f"others may write to '{lab}" in line
    assert "name a registry with --db in a folder of yours alone" in line
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "submitted").exists()
    assert not list(place.rglob("*.pkl")), "nothing was pickled"
    with open_store(db) as store:
        for table in ("claims", "submissions"):
            assert store.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)
