"""Jobs that the scheduler ends: time limits, a lost node, a scheduler without a memory."""

import pytest
from slurm_lab import Lab, make_lab

from benchkit.dispatch.slurm.settle import settle
from benchkit.machine import scheduler
from benchkit.store import open_store

pytestmark = pytest.mark.slow


def test_a_job_near_its_limit_is_queued_again_and_goes_on(lab) -> None:
    lab.benchkit(*lab.grid("gated", "gated,gate=a"), "--detach", "--slurm", "time=5", "--slurm", "max_timeouts=1")
    lab.until(lambda: "fit a" in lab.log, "the job waits at the gate")
    lab.cluster.call("scancel", "--signal=USR2", lab.job())  # what Slurm does when the limit is near
    lab.open("a")
    lab.begin_again()
    lab.benchkit(*lab.grid("gated", "gated,gate=a"), "--wait")
    lab.assert_one_report_a_cell(2)
    assert lab.log.count("fit ") == 1
    assert lab.sql("SELECT count(*) FROM failures") == [(0,)]
    assert lab.sql("SELECT count(*) FROM submissions") == [(1,)]


def test_a_job_that_may_not_be_queued_again_near_its_limit_says_time_limit(limited) -> None:
    lab = limited.told
    lab.until(lambda: lab.states().get(lab.job()) == "FAILED", "the job has given up")
    (job,) = lab.status()["jobs"]
    assert (job["state"], job["left"], job["failed"]) == ("FAILED", 0, 1)
    ((reason, error),) = lab.sql("SELECT reason, error FROM failures")
    assert reason == "time limit"
    assert "the time limit was met too often" in error


def test_a_job_that_the_scheduler_ends_at_its_limit_says_time_limit(limited) -> None:
    lab = limited.ended
    lab.until(lambda: lab.states().get(lab.job()) == "TIMEOUT", "the scheduler has ended the job")
    (job,) = lab.status()["jobs"]
    assert (job["state"], job["left"], job["failed"]) == ("TIMEOUT", 0, 1)
    ((reason, error),) = lab.sql("SELECT reason, error FROM failures")
    assert reason == "time limit"
    assert "TIMEOUT" in error


def test_a_job_whose_node_is_lost_says_so_and_the_next_run_finishes_it(lab) -> None:
    command = lab.grid("gated", "gated,gate=a")
    lab.benchkit(*command, "--detach", "--slurm", "no-requeue")
    lab.until(lambda: "fit a" in lab.log, "the job waits at the gate")
    lab.cluster.call("scontrol", "update", "nodename=node1", "state=down", "reason=test")
    lab.until(lambda: lab.states().get(lab.job()) == "NODE_FAIL", "the node is lost")
    lab.cluster.call("scontrol", "update", "nodename=node1", "state=resume")
    lab.status()
    assert lab.sql("SELECT classifier, reason FROM failures") == [("gated,gate=a", "node lost")]
    lab.open("a")
    lab.benchkit(*command)
    lab.assert_one_report_a_cell(2)
    assert lab.sql("SELECT count(*) FROM failures") == [(0,)]


def test_a_job_that_nobody_knows_any_more_counts_as_killed_only_after_a_while(lab, monkeypatch) -> None:
    lab.benchkit(*lab.grid("gated", "gated,gate=a"), "--detach")
    lab.until(lambda: "fit a" in lab.log, "the job waits at the gate")
    lab.cluster.stop_controller()
    lab.cluster.start_controller("-c")
    (job,) = lab.status()["jobs"]
    assert (job["state"], job["left"], job["failed"]) == ("GONE", 1, 0)
    monkeypatch.setenv("SLURM_CONF", lab.env["SLURM_CONF"])
    scheduler.cluster.cache_clear()
    with open_store(lab.db) as store:
        assert settle(store, grace_s=3600.0).ended == ()
        assert settle(store, grace_s=0.0).ended == (lab.job(),)
    assert lab.sql("SELECT classifier, reason FROM failures") == [("gated,gate=a", "killed")]
    assert lab.sql("SELECT classifier FROM runs") == [("gated",)]


def test_accounts_tell_of_jobs_that_the_scheduler_has_forgotten(cluster_with_accounts, site, tmp_path) -> None:
    lab = make_lab(tmp_path, site, cluster_with_accounts)
    lab.benchkit(*lab.grid("gated,gate=a", models=2), "--detach")
    lab.until(lambda: lab.log.count("fit a") == 2, "both jobs wait at the gate")
    first, second = (job for (job,) in lab.sql("SELECT job FROM submissions ORDER BY job"))
    lab.cluster.call("scancel", second)
    lab.open("a")
    ends = {first: "COMPLETED", second: "CANCELLED"}
    lab.until(lambda: ends.items() <= lab.states().items(), "both have ended")
    lab.until(lambda: ends.items() <= accounts(lab).items(), "the accounts have heard of it, which may take a moment")
    lab.cluster.stop_controller()
    lab.cluster.start_controller("-c")
    assert not lab.states()
    shown = {j["job"]: (j["state"], j["left"], j["failed"]) for j in lab.status()["jobs"]}
    assert shown == {first: ("COMPLETED", 0, 0), second: ("CANCELLED", 0, 1)}
    assert lab.sql("SELECT reason, error LIKE '%CANCELLED by%' FROM failures") == [("cancelled", 1)]
    assert lab.sql("SELECT count(*) FROM runs") == [(1,)]


def accounts(lab: Lab) -> dict[str, str]:
    """What sacct says of each job: the first word of its state."""
    told = lab.cluster.call("sacct", "--allusers", "--allocations", "--noheader", "--parsable2", "--format=JobID,State")
    rows = [line.split("|") for line in told.splitlines()]
    return {job: state.split()[0] for job, state in rows}
