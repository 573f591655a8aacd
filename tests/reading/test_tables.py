"""Tables of strings: aligned, folded to a terminal, escaped for what reads them."""

import csv
import io
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from benchkit.machine.times import shown
from benchkit.reading.tables import (
    Screen,
    ago,
    clean,
    columns_of,
    csv_table,
    escape_latex,
    escape_markdown,
    memory,
    text_table,
    training_size,
)

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=30)
TABLES = st.integers(1, 4).flatmap(lambda n: st.lists(st.lists(TEXT, min_size=n, max_size=n), min_size=2, max_size=6))


def test_columns_are_aligned_with_numbers_to_the_right() -> None:
    text = text_table([("name", "n")], [("a", "5"), ("longer", "10")], right=(1,))
    assert text.splitlines() == ["name     n", "------  --", "a        5", "longer  10"]


@given(TABLES)
def test_every_cell_begins_where_its_column_does(table: list[list[str]]) -> None:
    lines = text_table(table[:1], table[1:]).split("\n")
    assert len(lines) == len(table) + 1
    starts, at = [], 0
    for rule in lines[1].split("  "):
        starts.append(at)
        at += len(rule) + 2
    for row, line in zip(table, lines[:1] + lines[2:], strict=True):
        for cell, start in zip(row, starts, strict=True):
            skipped, i = 0, 0
            while skipped < start and i < len(line):
                skipped += columns_of(line[i])
                i += 1
            assert line[i:].startswith(clean(cell).rstrip()) or not clean(cell).strip()


@given(TABLES)
def test_cells_aligned_to_the_right_end_where_their_column_does(table: list[list[str]]) -> None:
    lines = text_table(table[:1], table[1:], right=range(len(table[0]))).split("\n")
    for row, line in zip(table, lines[:1] + lines[2:], strict=True):
        cut = clean(row[-1]).endswith(" ") or not row[-1]  # nothing is left blank at a line's end
        assert columns_of(line) == len(lines[1]) or (cut and columns_of(line) < len(lines[1]))


@given(TABLES, st.integers(30, 80))
def test_folding_loses_nothing_and_fits(table: list[list[str]], width: int) -> None:
    whole = text_table(table[:1], table[1:])
    folded = text_table(table[:1], table[1:], screen=Screen(width))
    count = lambda text: sorted("".join(text.split()).replace("-", ""))  # noqa: E731
    assert count(folded) == count(whole)
    assert all(columns_of(line) <= max(width, 4 * 9) for line in folded.split("\n"))


@given(TEXT)
def test_a_cell_takes_the_columns_that_a_terminal_gives_it(text: str) -> None:
    assert columns_of(clean(text)) == cell_len(clean(text))


@given(TEXT)
def test_what_is_shown_can_be_printed(text: str) -> None:
    assert clean(text).isprintable()
    assert clean(text) == text or not text.isprintable()


def test_bold_cells_are_bold_and_others_are_not() -> None:
    text = text_table([("h", "i")], [("a", "b"), ("c", "d")], bold={(1, 0)}, screen=Screen(80, color=True))
    assert text.splitlines()[2:] == ["a  b", "\033[1mc\033[0m  d"]


@given(st.lists(st.lists(TEXT, min_size=2, max_size=2), max_size=5))
def test_csv_reads_back_as_it_was(rows: list[list[str]]) -> None:
    text = csv_table(["a", "b"], rows)
    assert list(csv.reader(io.StringIO(text, newline="")))[1:] == [[str(c) for c in r] for r in rows]


@pytest.mark.parametrize(
    ("text", "markdown", "latex"),
    [
        ("a_b", r"a\_b", r"a\_b"),
        ("50%", "50%", r"50\%"),
        ("x|y", r"x\|y", r"x\textbar{}y"),
        ("<b>&amp;", "&lt;b&gt;&amp;amp;", r"\textless{}b\textgreater{}\&amp;"),
        ("\\", r"\\", r"\textbackslash{}"),
        ("two\nlines", r"two\\nlines", r"two\textbackslash{}nlines"),
        ("{~^}", r"{\~^}", r"\{\textasciitilde{}\textasciicircum{}\}"),
    ],
)
def test_what_means_something_elsewhere_is_escaped(text: str, markdown: str, latex: str) -> None:
    assert escape_markdown(text) == markdown
    assert escape_latex(text) == latex


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s ago"),
        (59, "59 s ago"),
        (60, "1 min ago"),
        (7199, "1 h ago"),
        (86400, "1 d ago"),
        (7 * 86400, "2026-03-03"),
    ],
)
def test_times_are_told_as_people_do(seconds: int, said: str) -> None:
    then = datetime(2026, 3, 3, 12, tzinfo=UTC)
    now = datetime.fromtimestamp(then.timestamp() + seconds, UTC)
    assert ago(then.isoformat(timespec="microseconds"), now) == said
    assert ago(now.isoformat(timespec="microseconds"), then) in (shown(now.isoformat()), "0 s ago")


def test_a_time_that_a_person_reads_is_local_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    stamp = "2026-03-01T23:05:09.123456+00:00"
    for zone, said in (("UTC", "2026-03-01 23:05:09 +00:00"), ("Asia/Kolkata", "2026-03-02 04:35:09 +05:30"),
                       ("America/St_Johns", "2026-03-01 19:35:09 -03:30")):  # fmt: skip
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        assert shown(stamp) == said
        assert shown(stamp.removesuffix("+00:00")) == said, "one without a zone is in UTC"
        assert ago(stamp, datetime(2026, 5, 1, tzinfo=UTC)) == said[:10]
    monkeypatch.undo()
    time.tzset()


def test_sizes_are_told_as_people_do() -> None:
    assert [memory(n) for n in (0, 999, 1000, 12_345_678, 3 * 10**9, 10**15)] == [
        "0 B", "999 B", "1.0 kB", "12.3 MB", "3.0 GB", "1000.0 TB",
    ]  # fmt: skip
    assert [training_size(n) for n in (-1, 5)] == ["all", "5"]
