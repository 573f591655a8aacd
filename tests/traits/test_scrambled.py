"""Labels that are read wrongly make a number that looks good, or is nothing: the checks mark both.

A published attempt at CUB-200-2011 reported a mean average precision of 0.86 from attributes that were read wrongly; a
constant scorer got 0.83 on them.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

import benchkit
from benchkit.api import Settings
from benchkit.records.report import Report

Line = list[str]
ANSWERS = "attributes/image_attribute_labels.txt"


def run(db: Path, root: Path) -> Report:
    (report,) = benchkit.run(
        task=f"cub200,root={root},partial=true",
        model="random-vit,size=32,patch=8,width=48,depth=1",
        classifier="random,k=64",
        seed=1,
        settings=Settings(db=db, cache=db.parent / "cache", replicates=200),
    )
    return report


def rewrite(root: Path, change: Callable[[list[Line]], list[Line]]) -> None:
    path = root / ANSWERS
    lines = change([line.split() for line in path.read_text().splitlines()])
    path.write_text("\n".join(map(" ".join, lines)) + "\n")


def status(report: Report) -> dict[str, str]:
    return {c.name: c.status for c in report.checks}


def test_right_labels_are_above_chance_and_no_check_complains(birds: Path, tmp_path: Path) -> None:
    report = run(tmp_path / "r.sqlite", birds)
    assert report.chance < 0.2
    assert report.value > report.chance + 0.15
    names = ("chance", "features", "labels", "leakage", "media", "precision", "repeatable")
    assert status(report) == dict.fromkeys(names, "ok")


def test_a_text_that_is_not_empty_taken_for_a_yes_gives_a_good_number_that_fails_the_chance_check(
    birds: Path, tmp_path: Path
) -> None:
    rewrite(birds, lambda lines: [[i, a, "1", sure, t] for i, a, _, sure, t in lines])
    report = run(tmp_path / "r.sqlite", birds)
    assert report.value > 0.85
    assert report.chance > 0.85
    assert status(report)["chance"] == "fail"
    assert status(report)["labels"] == "warn"
    (check,) = (c for c in report.checks if c.name == "chance")
    assert "a constant scorer already gets cmap 0.8" in check.summary or "cmap 0.9" in check.summary


def transposed(lines: list[Line]) -> list[Line]:
    """The table of images and attributes read down its columns instead of along its rows."""
    answers = {(int(i), int(a)): p for i, a, p, *_ in lines}
    n = max(i for i, _ in answers)
    flat = [answers[i, a] for a in range(1, 313) for i in range(1, n + 1)]
    return [[i, a, flat[(int(i) - 1) * 312 + int(a) - 1], sure, t] for i, a, _, sure, t in lines]


def of_other_images(lines: list[Line]) -> list[Line]:
    """Images numbered in another order than that of images.txt."""
    n = len(lines) // 312
    return [[str((int(i) * 37) % n + 1), *rest] for i, *rest in lines]


@pytest.mark.parametrize("scramble", [transposed, of_other_images])
def test_labels_of_other_rows_are_worth_nothing_and_the_chance_check_says_so(
    birds: Path, tmp_path: Path, scramble: Callable[[list[Line]], list[Line]]
) -> None:
    rewrite(birds, scramble)
    report = run(tmp_path / "r.sqlite", birds)
    assert report.value < report.chance + 0.15
    assert status(report)["chance"] == "warn"
    (check,) = (c for c in report.checks if c.name == "chance")
    assert "is not above" in check.summary
