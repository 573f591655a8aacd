"""benchkit sae, as a user types it."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest


def benchkit(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "benchkit", *map(str, words)], capture_output=True, text=True)


@pytest.mark.slow
def test_train_and_list(recorded: Path, tmp_path: Path) -> None:
    db, to = tmp_path / "r.sqlite", tmp_path / "t"
    words = ("sae", "train", "--on", recorded, "--to", to, "--width", 32, "--width", 48, "--k", 4, "--db", db,
             "--batch-size", 256, "--log-every", 3, "--held-out", 0.25)  # fmt: skip
    for ran in (benchkit(*words), benchkit(*words)):  # again: trained before, and in the registry once
        assert ran.returncode == 0, ran.stderr
    assert "was trained before" in ran.stderr
    with sqlite3.connect(db) as store:
        assert store.execute("SELECT count(*) FROM trainings").fetchone() == (2,)
        rows = store.execute(
            "SELECT params ->> 'width', point, count(*), count(DISTINCT name), max(step) FROM trainings "
            "JOIN training_metrics ON training_id = id GROUP BY id ORDER BY 1"
        ).fetchall()
        assert [(w, p, names, last) for w, p, _, names, last in rows] == [
            (32, "blocks.1.resid_post", 20, 6), (48, "blocks.1.resid_post", 20, 6),
        ]  # fmt: skip
        assert {n for _, _, n, _, _ in rows} == {9 * 2 + 4 + 7}
        for path, digest in store.execute("SELECT path, sha256 FROM trainings"):
            assert subprocess.check_output(["sha256sum", path], text=True).split()[0] == digest
    listed = benchkit("sae", "ls", "--db", db)
    assert listed.returncode == 0, listed.stderr
    assert "topk-w48-k4-dimension-lr0.0003-s0" in listed.stdout
    for column in ("held-out explained of x", "explained, pooled", "held-out L0", "held-out dead"):
        assert column in listed.stdout
    assert "2 autoencoders" in listed.stderr


def test_mistakes_are_one_line(recorded: Path, tmp_path: Path) -> None:
    for words, said in (
        (("--on", tmp_path, "--to", tmp_path / "t"), "is no recording"),
        (("--on", recorded, "--to", tmp_path / "t", "--activation", "relu"), "needs --l1"),
        (("--on", recorded, "--to", tmp_path / "t", "--point", "blocks.9"), "has no point 'blocks.9'"),
    ):
        ran = benchkit("sae", "train", *words, "--db", tmp_path / "r.sqlite")
        assert (ran.returncode, ran.stdout) == (1, "")
        assert said in ran.stderr
        assert ran.stderr.count("\n") == 1
    assert not (tmp_path / "t").exists()
