"""`benchkit diagnose` end to end: what it prints, keeps and refuses."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchkit.store import open_store

Ran = subprocess.CompletedProcess[str]


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., Ran]:
    def run(*words: Any) -> Ran:
        return subprocess.run(
            [sys.executable, "-m", "benchkit", "diagnose", "--db", str(tmp_path / "r.sqlite"), *map(str, words)],
            capture_output=True, text=True, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    return run


def rows(path: Path, query: str) -> list[Any]:
    with open_store(path, create=False) as store:
        return store.execute(query).fetchall()


def test_a_diagnosis_is_printed_and_kept(
    command: Callable[..., Ran], tmp_path: Path, shared: Path, hsn: str, planted: Callable[..., str]
) -> None:
    model = f"bird-mae,path={shared / 'fixtures' / 'bird_mae_outlier'}"
    tiny = f"bird-mae,path={shared / 'fixtures' / 'bird_mae_tiny'}"
    done = command("--model", model, "--task", hsn, "--against", tiny, "--examples", 8, "--points", "--page",
                   tmp_path / "page.html")  # fmt: skip
    assert done.returncode == 0, done.stderr
    for words in ("UNHEALTHY", "Dimension 17 is", "block 0's MLP", "remedy: Record after norm2", "what helps", "rule: ",
                  "against bird-mae", "Healthy: all 20 places"):  # fmt: skip
        assert words in done.stdout, words
    (row,) = rows(tmp_path / "r.sqlite", "SELECT healthy, verdict, details, page, model, task FROM diagnoses")
    healthy, verdict, details, page, name, task = row
    assert (healthy, page) == (0, str(tmp_path / "page.html"))
    assert "Dimension 17" in verdict
    assert name.startswith("bird-mae@2,path=fp-")
    assert task.startswith("hsn,repo=fp-")
    found = json.loads(details)
    assert (found["outliers"][0]["dim"], found["outliers"][0]["layer"]) == (17, "blocks.0.mlp.fc2")
    assert found["against"]["healthy"] is True
    assert {e["name"] for e in found["effects"]} >= {"as it is", "record after norm2", "whiten"}
    points = dict(rows(tmp_path / "r.sqlite", "SELECT point, value FROM diagnosis_points WHERE name = 'healthy'"))
    assert points["blocks.3.resid_post"] == 0
    assert points["blocks.3.norm2"] == 1
    names = {n for (n,) in rows(tmp_path / "r.sqlite", "SELECT DISTINCT name FROM diagnosis_points")}
    assert names >= {"mean", "std", "kurtosis", "gaussian_distance", "nan", "constant", "zero", "outliers"}

    again = command("--model", tiny, "--task", hsn, "--examples", 4, "--fail")
    assert again.returncode == 0, again.stderr
    assert "Healthy" in again.stdout
    pages = [Path(p) for (p,) in rows(tmp_path / "r.sqlite", "SELECT page FROM diagnoses ORDER BY id")]
    assert len(pages) == 2
    assert pages[1].parent == tmp_path / "r.sqlite.d" / "diagnoses"
    assert all(p.read_text().startswith("<!doctype html>") for p in pages)


def test_fail_makes_an_unhealthy_model_an_error(
    command: Callable[..., Ran], hsn: str, planted: Callable[..., str]
) -> None:
    def change(weights: dict[str, Any]) -> None:
        weights["blocks.1.attn.proj.bias"][3] = float("nan")

    done = command("--model", planted(change), "--task", hsn, "--examples", 2, "--fail")
    assert done.returncode == 1
    assert "UNHEALTHY" in done.stdout
    assert "block 1's attention (blocks.1.attn_out)" in done.stdout
    assert done.stderr.splitlines()[-1].startswith("error: the activations of 'bird-mae@2,path=fp-")


def test_a_backbone_without_places_is_refused_in_a_line_that_says_what_can_be_done(command: Callable[..., Ran]) -> None:
    done = command("--model", "pixels", "--task", "digits")
    assert done.returncode == 1
    assert done.stderr == (
        "error: model 'pixels' shows no places inside it (points): --pooled looks at its pooled features alone\n"
    )
    pooled = command("--model", "pixels", "--task", "digits", "--pooled")
    assert pooled.returncode == 0, pooled.stderr
    assert "only the pooled features were looked at" in pooled.stdout
    assert "dead (zero in every token) at pooled" in pooled.stdout  # the corners of the digits are never inked


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("--model", "random-vit", "--task", "digitz"), "no task named 'digitz'"),
        (("--model", "logmel", "--task", "digits"), "model 'logmel' takes audio, and task 'digits' gives image"),
        (("--model", "random-vit", "--task", "digits", "--page", "/no/such/folder/x.html"), "there is no folder"),
        (("--model", "random-vit", "--task", "digits", "--page", "/tmp"), "'/tmp': that is a folder"),
        (("--model", "random-vit", "--task", "digits", "--against", "logmel"), "model 'logmel' takes audio"),
        (("--model", "random-vit", "--task", "digits", "--db", "/etc/hostname"), "file is not a database"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_computed(
    command: Callable[..., Ran], tmp_path: Path, words: tuple[str, ...], error: str
) -> None:
    done = command(*words)
    assert done.returncode == 1
    assert error in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "r.sqlite").exists()
