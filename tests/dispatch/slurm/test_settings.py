"""What jobs ask for: where it is said, which of it counts, and what is refused."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchkit.dispatch.slurm.settings import minutes, slurm_settings
from benchkit.errors import BenchkitError
from benchkit.planning.sweep import read_sweep

CONFIG = '[slurm]\npartition = "cpu"\naccount = "lab"\ntime = "2h"\nqos = "low"\nexclude = "node7"\n'
SWEEP = 'task = "digits"\nmodel = "pixels"\n[slurm]\npartition = "gpu"\ngpus = 1\ntime = "4h"\nconstraint = "a100"\n'


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "config.toml").write_text(CONFIG)
    (tmp_path / "sweep.toml").write_text(SWEEP)
    monkeypatch.setenv("BENCHKIT_CONFIG", str(tmp_path / "config.toml"))
    return tmp_path


def test_flags_count_before_the_sweep_file_and_that_before_the_configuration(files: Path) -> None:
    found = slurm_settings(["time=30m", "constraint=h100", "exclusive"], files / "sweep.toml")
    assert (found.partition, found.account, found.qos, found.gpus, found.time) == ("gpu", "lab", "low", "1", 30)
    assert found.extra == {"exclude": "node7", "constraint": "h100", "exclusive": ""}


def test_the_sweeps_grid_is_read_with_a_slurm_table_beside_it(files: Path) -> None:
    (grid,) = read_sweep(files / "sweep.toml")
    assert grid.task == ("digits",)


def test_setup_lines_are_gathered_from_flags_and_may_hold_equals_signs(files: Path) -> None:
    found = slurm_settings(["setup=module load cuda", "setup=export A=1"])
    assert found.setup == ("module load cuda", "export A=1")


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("time=soon", "--slurm: time = 'soon' is no time"),
        ("time=0", "no time to run in"),
        ("memory=32", "write it with its unit, as in 32G"),
        ("cpus=0", "1 or more"),
        ("cpus=2.5", "a whole number"),
        ("array=0-5", "set by benchkit itself"),
        ("a b=1", "no option of sbatch"),
    ],
)
def test_a_wrong_value_is_refused_in_one_line(files: Path, flag: str, words: str) -> None:
    with pytest.raises(BenchkitError, match=words) as caught:
        slurm_settings([flag])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[slrum]\n", r"did you mean 'slurm'\?"),
        ("slurm = 3\n", "no table"),
        ("[slurm\n", "is no TOML"),
        ("[slurm]\npartition = ['a']\n", "must be a string or a number"),
        ("[slurm]\nsetup = 5\n", "shell lines"),
    ],
)
def test_a_wrong_configuration_is_refused_and_named(files: Path, text: str, words: str) -> None:
    (files / "config.toml").write_text(text)
    with pytest.raises(BenchkitError, match=words) as caught:
        slurm_settings()
    assert "config" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90", 90), ("90m", 90), ("8h", 480), ("2d", 2880), ("30:00", 30), ("0:10", 1), ("12:00:00", 720),
        ("1-12", 2160), ("1-00:30", 1470), ("1-0:0:1", 1441), (60, 60),
    ],
)  # fmt: skip
def test_times_are_read_as_slurm_reads_them(text: str | int, expected: int) -> None:
    assert minutes(text) == expected


@given(st.text(alphabet="0123456789:-hdm .", max_size=12))
def test_any_time_is_a_positive_number_of_minutes_or_refused(text: str) -> None:
    try:
        found = minutes(text)
    except ValueError:
        return
    assert found >= 1


def test_without_a_scheduler_there_is_one_line_and_no_registry(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchkit", "run", "--task", "digits", "--model", "pixels", "--executor", "slurm"],
        capture_output=True, text=True, check=False, timeout=150, cwd=tmp_path,
        env=os.environ | {"SLURM_CONF": str(tmp_path / "none.conf")},
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
