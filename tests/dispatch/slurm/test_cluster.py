"""Sweeps on a real Slurm whose jobs, launchers and scheduler die: every cell gets one report, or the true reason."""

import os
import shutil
import signal

import pytest

from benchkit.machine.scheduler import job_ended

pytestmark = pytest.mark.slow


def test_a_sweep_runs_as_arrays_of_which_only_so_many_jobs_run_at_once(lab) -> None:
    """The largest array here is of three jobs: the fourth waits for the others."""
    launcher = lab.start(*lab.grid("gated", "gated,gate=a", models=4), "--max-running", "2")
    lab.until(lambda: lab.log.count("fit a") == 2, "two jobs wait at the gate")
    assert sorted(lab.states().values()) == ["PENDING", "PENDING", "RUNNING", "RUNNING"]
    shown = lab.status()
    assert [j["state"] for j in shown["jobs"]].count("RUNNING") == 2
    assert sum(j["left"] for j in shown["jobs"]) == 6
    lab.open("a")
    _out, err = launcher.communicate(timeout=120)
    assert launcher.returncode == 0, err
    assert "8 computed" in err
    lab.assert_one_report_a_cell(8)
    assert lab.log.count("fit a") == lab.log.count("fit ") == 4


def test_a_cancelled_job_keeps_what_it_sealed_and_says_cancelled_for_the_rest(lab, monkeypatch) -> None:
    lab.benchkit(*lab.grid("gated", "gated,gate=a"), "--detach")
    lab.until(lambda: "fit a" in lab.log, "the job waits at the gate")
    lab.cluster.call("scancel", lab.job())
    lab.until(lambda: lab.states().get(lab.job()) == "CANCELLED", "the job is cancelled")
    monkeypatch.setenv("SLURM_CONF", lab.env["SLURM_CONF"])
    assert job_ended(lab.job(), "node1.example.org")
    assert not job_ended(lab.job(), "another")
    shown = lab.status()
    assert [(j["state"], j["left"], j["failed"]) for j in shown["jobs"]] == [("CANCELLED", 0, 1)]
    assert lab.sql("SELECT classifier, reason, slurm_job FROM failures") == [("gated,gate=a", "cancelled", lab.job())]
    assert lab.sql("SELECT classifier FROM runs") == [("gated",)]


def test_a_job_out_of_memory_says_so(lab) -> None:
    done = lab.benchkit(*lab.grid("gated", "gated,gate=a,megabytes=1500"), "--slurm", "memory=900M", ok=False)
    assert "out of memory" in done.stderr
    ((reason, error),) = lab.sql("SELECT reason, error FROM failures")
    assert reason == "out of memory"
    assert "exceeded memory limit" in error
    assert lab.sql("SELECT classifier FROM runs") == [("gated",)]


def test_a_requeued_job_goes_on_from_cached_features_with_the_cells_it_has_left(lab) -> None:
    launcher = lab.start(*lab.grid("gated", "gated,gate=a"))
    lab.until(lambda: "fit a" in lab.log, "the job waits at the gate")
    encoded = lab.log.count("encode 0")
    lab.cluster.call("scontrol", "requeue", lab.job())
    lab.begin_again()
    lab.until(lambda: lab.log.count("fit a") == 2, "the job waits at the gate again")
    lab.open("a")
    _out, err = launcher.communicate(timeout=120)
    assert launcher.returncode == 0, err
    lab.assert_one_report_a_cell(2)
    assert lab.log.count("fit ") == 1
    assert lab.log.count("encode 0") == encoded + 5, "the check `repeatable` alone: four single examples and a batch"


def test_a_launcher_that_is_killed_is_replaced_by_one_that_submits_nothing(lab) -> None:
    command = lab.grid("gated", "gated,gate=a", models=2)
    launcher = lab.start(*command)
    lab.until(lambda: lab.log.count("fit a") == 2, "both jobs wait at the gate")
    launcher.send_signal(signal.SIGKILL)
    launcher.wait()
    second = lab.start(*command, "--wait")
    lab.open("a")
    _out, err = second.communicate(timeout=120)
    assert second.returncode == 0, err
    lab.assert_one_report_a_cell(4)
    assert lab.sql("SELECT count(*) FROM submissions") == [(2,)]
    assert lab.log.count("fit a") == 2


def test_a_scheduler_that_is_restarted_in_between_makes_no_difference(lab) -> None:
    launcher = lab.start(*lab.grid("gated,gate=a", "gated,gate=b"))
    lab.until(lambda: "fit a" in lab.log, "the job waits at the first gate")
    lab.cluster.stop_controller()
    lab.open("a")
    lab.until(lambda: "fit b" in lab.log, "the job waits at the second gate")
    shown = lab.benchkit("status")
    assert "does not answer" in shown.stderr
    assert lab.sql("SELECT count(*) FROM claims") == [(1,)]
    lab.open("b")
    lab.cluster.start_controller()
    _out, err = launcher.communicate(timeout=120)
    assert launcher.returncode == 0, err
    lab.assert_one_report_a_cell(2)


def test_ctrl_c_cancels_the_jobs_and_frees_their_cells(lab) -> None:
    launcher = lab.start(*lab.grid("gated", "gated,gate=a"))
    lab.until(lambda: "fit a" in lab.log, "the job waits at the gate")
    launcher.send_signal(signal.SIGINT)
    _out, err = launcher.communicate(timeout=60)
    assert launcher.returncode == 130
    assert "cancelled 1 Slurm jobs" in err
    assert lab.states()[lab.job()] == "CANCELLED"
    assert lab.sql("SELECT count(*) FROM claims") == [(0,)]
    assert lab.sql("SELECT count(*) FROM failures") == [(0,)]


def test_what_the_scheduler_refuses_is_one_line_and_leaves_nothing_claimed(lab) -> None:
    done = lab.benchkit(*lab.grid("gated"), "--slurm", "partition=nowhere", ok=False)
    assert done.stderr.splitlines()[-1].startswith(
        "error: Slurm refused the jobs: invalid partition specified: nowhere"
    )
    assert lab.sql("SELECT count(*) FROM claims") == [(0,)]
    assert lab.sql("SELECT count(*) FROM submissions") == [(0,)]


def test_a_job_whose_launcher_died_while_submitting_it_computes_nothing(lab) -> None:
    fatal = lab.folder / "bin" / "sbatch"
    fatal.parent.mkdir()
    fatal.write_text(f'#!/bin/sh\n{shutil.which("sbatch")} "$@"\nkill -9 $PPID\n')
    fatal.chmod(0o755)
    command = lab.grid("gated")
    lab.benchkit(*command, ok=False, PATH=f"{fatal.parent}:{os.environ['PATH']}")
    assert len(lab.sql("SELECT owner FROM claims")) == 1
    lab.benchkit(*command)
    lab.assert_one_report_a_cell(1)
    assert lab.log.count("fit ") == 1
    assert lab.sql("SELECT count(*) FROM submissions") == [(1,)]


def test_a_job_that_is_preempted_for_good_is_submitted_again(lab) -> None:
    launcher = lab.start(*lab.grid("gated", "gated,gate=a"), "--slurm", "partition=low", "--slurm", "memory=8G")
    lab.until(lambda: "fit a" in lab.log, "the job waits at the gate")
    lab.cluster.call("sbatch", "--partition=high", "--mem=12G", "--output=/dev/null", "--wrap=sleep 1")
    lab.until(lambda: "PREEMPTED" in lab.states().values(), "the job made room")
    lab.until(lambda: lab.log.count("fit a") == 2, "another waits at the gate")
    lab.open("a")
    _out, err = launcher.communicate(timeout=120)
    assert launcher.returncode == 0, err
    lab.assert_one_report_a_cell(2)
    assert lab.sql("SELECT state FROM submissions ORDER BY submitted_at")[0] == ("PREEMPTED",)
    assert lab.sql("SELECT count(*) FROM failures") == [(0,)]
