"""What a launcher and its jobs say to each other through a submission's folder."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchkit.dispatch.slurm.folder import Submission, await_verdict, decide, read_fate, verdict_of, write_fate
from benchkit.dispatch.slurm.task import JobFile
from benchkit.errors import StoreError

RACE = """
import sys
from pathlib import Path
from benchkit.dispatch.slurm.folder import decide
sys.stdin.readline()
print(decide(Path(sys.argv[1]), sys.argv[2]))
"""


def test_of_many_who_speak_at_once_the_first_is_right_for_all(tmp_path: Path) -> None:
    said = ["go", "void"] * 4
    racing = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, str(tmp_path), verdict],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for verdict in said
    ]  # fmt: skip
    for process in racing:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    held = {process.communicate(timeout=60)[0].strip() for process in racing}
    assert held == {verdict_of(tmp_path)}
    assert [p.name for p in tmp_path.iterdir()] == ["verdict"]


def test_a_job_that_waits_in_vain_is_void_for_good(tmp_path: Path) -> None:
    assert await_verdict(tmp_path, wait_s=0.0) == "void"
    assert decide(tmp_path, "go") == "void"


def test_a_void_job_does_not_even_look_for_its_file(tmp_path: Path) -> None:
    decide(tmp_path, "void")
    JobFile(str(tmp_path), 0)()
    assert read_fate(tmp_path, 0) == {}


def test_a_job_says_how_it_ended(tmp_path: Path) -> None:
    decide(tmp_path, "go")
    (tmp_path / "0").mkdir()
    with pytest.raises(SystemExit) as caught:
        JobFile(str(tmp_path), 0)()  # there is no job.json: `benchkit job` fails
    assert caught.value.code == 1
    assert read_fate(tmp_path, 0) == {"exit": 1}


def test_a_fate_that_is_cut_off_is_none(tmp_path: Path) -> None:
    write_fate(tmp_path, 3, exit=0)
    (tmp_path / "3" / "fate").write_text('{"exit"')
    assert read_fate(tmp_path, 3) == {}


def test_a_submission_is_read_as_it_was_written(tmp_path: Path) -> None:
    submission = Submission("big", "ada", "benchkit-0123abcd")
    submission.write(tmp_path)
    assert Submission.read(tmp_path) == submission
    with pytest.raises(StoreError, match="cannot be read"):
        Submission.read(tmp_path / "elsewhere")
