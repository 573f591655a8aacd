"""What Slurm 22.05 printed (recorded/), read; and what a job's end means."""

from pathlib import Path
from typing import Any

import pytest

from benchkit.dispatch.slurm.settle import judge
from benchkit.machine.scheduler import ENDED, Cluster, Seen, ask, parse_config, parse_sacct, parse_squeue

RECORDED = Path(__file__).parent / "recorded"
ARRAY = "benchkit-ab12"


def recorded(name: str) -> str:
    return (RECORDED / f"{name}.txt").read_text()


def test_squeue_shows_an_arrays_tasks_one_by_one() -> None:
    found = parse_squeue(recorded("squeue"))
    assert found["27"] == ("rq", Seen("PENDING", "BeginTime"))
    assert found["29_5"] == (ARRAY, Seen("PENDING", "JobArrayTaskLimit"))
    assert found["29_3"] == (ARRAY, Seen("RUNNING"))
    assert len(found) == 7


def test_sacct_tells_how_jobs_ended() -> None:
    found = parse_sacct(recorded("sacct"))
    assert found["1"] == ("wrap", Seen("COMPLETED"))
    assert found["4"] == ("tl", Seen("TIMEOUT"))
    assert found["20"] == ("rq", Seen("CANCELLED", "CANCELLED by 0"))
    assert found["25"] == ("oombatch", Seen("FAILED", "exit 0:9"))
    assert found["28"] == ("nodelost", Seen("NODE_FAIL"))
    assert {"29_2", "29_3"} <= {job for job, (_, seen) in found.items() if seen.state not in ENDED}


def test_tasks_that_never_began_are_a_range_in_sacct() -> None:
    found = parse_sacct("17_0|RUNNING|0:0|n\n17_[0-2,7,10-14:2%2]|CANCELLED by 0|0:0|n\n")
    assert found["17_0"][1].state == "RUNNING"
    assert {job for job, (_, seen) in found.items() if seen.state == "CANCELLED"} == {
        "17_1", "17_2", "17_7", "17_10", "17_12", "17_14",
    }  # fmt: skip


def test_a_job_that_is_queued_again_is_what_squeue_says_and_not_what_sacct_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After its node was lost, sacct has job 27 as NODE_FAIL, while it waits to begin again."""
    answer(tmp_path, "squeue", recorded("squeue"))
    answer(tmp_path, "sacct", recorded("sacct"))
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    found = ask({"27": "rq", "28": "nodelost", "29_2": ARRAY, "4711": "rq", "26": "another"}, ["root"])
    assert found == {
        "27": Seen("PENDING", "BeginTime"),
        "28": Seen("NODE_FAIL"),
        "29_2": Seen("RUNNING"),
    }


def test_a_cluster_without_accounts_is_asked_by_squeue_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(tmp_path, "squeue", recorded("squeue"))
    refusal = tmp_path / "sacct"
    refusal.write_text("#!/bin/sh\necho 'Slurm accounting storage is disabled' >&2\nexit 1\n")
    refusal.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert ask({"27": "rq", "28": "nodelost"}, ["root"]) == {"27": Seen("PENDING", "BeginTime")}


def answer(folder: Path, command: str, text: str) -> None:
    """A command that prints what the real one has printed."""
    (folder / f"{command}.txt").write_text(text)
    script = folder / command
    script.write_text(f"#!/bin/sh\ncat '{folder}/{command}.txt'\n")
    script.chmod(0o755)


def test_the_clusters_name_and_its_largest_array_are_in_its_configuration() -> None:
    assert parse_config(recorded("config")) == Cluster("bench", 1001)


LOG = "working\nslurmstepd-node1: error: StepId=3.0 exceeded memory limit (217816064 > 62914560), being killed\n"


@pytest.mark.parametrize(
    ("seen", "fate", "log", "reason", "words"),
    [
        (Seen("CANCELLED", "CANCELLED by 1000"), {"exit": 130}, "", "cancelled", "CANCELLED by 1000"),
        (Seen("TIMEOUT", "TimeLimit"), {}, "", "time limit", "TIMEOUT"),
        (Seen("FAILED"), {"reason": "time limit", "error": "too often"}, "", "time limit", "too often"),
        (Seen("OUT_OF_MEMORY"), {"exit": -9}, "", "out of memory", "OUT_OF_MEMORY"),
        (Seen("FAILED", "exit 9:0"), {}, LOG, "out of memory", "217816064 > 62914560"),
        (Seen("NODE_FAIL"), {}, "", "node lost", "NODE_FAIL"),
        (Seen("FAILED"), {"exit": -11}, "", "crash", "SIGSEGV"),
        (Seen("FAILED"), {"exit": -9}, "", "killed", "SIGKILL"),
        (Seen("FAILED", "exit 127:0"), {}, "", "killed", "exit 127:0"),
        (Seen("GONE"), {}, "", "killed", "gone"),
    ],
)
def test_each_end_has_its_reason(seen: Seen, fate: dict[str, Any], log: str, reason: str, words: str) -> None:
    found, error = judge(seen, fate, log)
    assert found == reason
    assert words in error
    assert "\n" not in error
