"""sql, which only reads, and what every command that reads makes of a registry in use, read-only or damaged."""

import csv
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchkit.store import database, open_store
from benchkit.store.migrations import VERSION

from .conftest import rows_of


def test_sql_answers_in_text_csv_json_and_markdown(cli, registry: Path) -> None:
    query = "SELECT run, model, value, peak_device_bytes FROM results WHERE run <= 2 ORDER BY run"
    with sqlite3.connect(registry) as db:
        wanted = db.execute(query).fetchall()

    def answer(format: str) -> str:
        return cli("sql", query, "--db", registry, "--format", format).out

    assert [tuple(r.values()) for r in json.loads(answer("json"))] == wanted
    assert list(csv.reader(io.StringIO(answer("csv"))))[1:] == [[str(a), b, str(c), ""] for a, b, c, _ in wanted]
    assert rows_of(answer("text")) == [[str(a), b, str(c), "NULL"] for a, b, c, _ in wanted]
    assert answer("markdown").splitlines()[2] == f"| 1 | bird-mae:large,layer=20 | {wanted[0][2]} | NULL |"
    assert json.loads(cli("sql", "SELECT 1 WHERE 0", "--db", registry, "--format", "json").out) == []


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM runs", "UPDATE runs SET value = 1", "INSERT INTO claims SELECT * FROM claims", "DROP VIEW results",
        "CREATE TEMP TABLE t (x)", "CREATE TABLE t (x)", "ALTER TABLE runs ADD COLUMN x", "PRAGMA user_version = 9",
        "PRAGMA journal_mode = DELETE", "PRAGMA writable_schema = 1", "PRAGMA wal_checkpoint", "VACUUM", "REINDEX",
        "ATTACH 'other.sqlite' AS o", "VACUUM INTO 'copy.sqlite'", "BEGIN IMMEDIATE", "ANALYZE",
        "SELECT load_extension('x')", "WITH x AS (SELECT 1) DELETE FROM runs", "DETACH main",
        "UPDATE sqlite_master SET sql = ''", "CREATE VIRTUAL TABLE t USING fts5(x)", "SAVEPOINT s",
    ],
)  # fmt: skip
def test_sql_cannot_change_anything(cli, registry: Path, query: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(registry.parent)
    before = {p: p.read_bytes() for p in registry.parent.rglob("*") if p.is_file()}
    ran = cli("sql", query, "--db", registry)
    assert ran.code == 1
    assert ran.err.count("\n") == 1
    assert "only reads" in ran.err or "may not be modified" in ran.err
    assert {p: p.read_bytes() for p in registry.parent.rglob("*") if p.is_file()} == before


def test_sql_reads_json_columns_and_the_schema(cli, registry: Path) -> None:
    def rows(query: str) -> Any:
        return json.loads(cli("sql", query, "--db", registry, "--format", "json").out)

    assert rows("SELECT json_extract(params, '$.classifier.lr') AS lr FROM runs LIMIT 1") == [{"lr": 0.001}]
    assert rows("SELECT value AS v FROM json_each('[1, 2]')") == [{"v": 1}, {"v": 2}]
    assert rows("PRAGMA user_version") == [{"user_version": VERSION}]
    assert "uuid" in {r["name"] for r in rows("PRAGMA table_info(runs)")}
    assert rows("WITH RECURSIVE n(i) AS (SELECT 1 UNION SELECT i + 1 FROM n WHERE i < 3) SELECT max(i) m FROM n") == [
        {"m": 3}
    ]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELECT * FROM result", "no such table: result; did you mean 'results'?"),
        ("SELECT valu FROM runs", "no such column: valu; did you mean 'value'?"),
        ("SELEC 1", 'near "SELEC": syntax error'),
        ("SELECT 1; SELECT 2", "one statement at a time"),
        ("  ", "this is no query"),
    ],
)
def test_a_mistake_in_sql_is_one_line(script, registry: Path, query: str, said: str) -> None:
    ran = script("sql", query, "--db", registry)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("error: ")
    assert ran.err.count("\n") == 1
    assert said in ran.err


def test_a_long_query_ends_at_ctrl_c(registry: Path) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    process = subprocess.Popen(
        [sys.executable, "-c", "import sys; from benchkit.cli import main; print('up', flush=True); main()",
         "sql", endless, "--db", str(registry)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    for _ in range(100):  # until it has got far enough to be in the query
        if registry.with_name(registry.name + "-wal").exists():
            break
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.1)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.3)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err.startswith("error: interrupted")


READING = [("ls",), ("show", "last"), ("table",), ("sql", "SELECT count(*) FROM runs")]


def test_every_reader_works_while_another_process_writes(script, registry: Path) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", f"""
import sys
from benchkit.store import open_store
with open_store({str(registry)!r}) as store, store.write():
    store.execute("UPDATE runs SET value = 0")
    print("writing", flush=True)
    sys.stdin.readline()
    raise SystemExit
"""],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert writer.stdout is not None
    assert writer.stdout.readline() == "writing\n"
    for words in READING:
        ran = script(*words, "--db", registry)
        assert ran.code == 0, ran.err
    assert "0.840" in script("table", "--db", registry).out
    writer.communicate("\n", timeout=30)


def test_every_reader_works_on_a_registry_that_cannot_be_written(
    cli, registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_store(registry) as store:
        store.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    names = sorted(registry.parent.iterdir())
    if os.getuid() == 0:  # root writes everywhere: benchkit must take it for one that cannot be written
        monkeypatch.setattr(database, "_writable", lambda path: False)
    registry.chmod(0o444)
    registry.parent.chmod(0o555)
    try:
        for words in READING:
            ran = cli(*words, "--db", registry)
            assert ran.code == 0, ran.err
        assert "cannot be written" in cli("rm", 1, "--yes", "--db", registry).err
        assert sorted(registry.parent.iterdir()) == names
    finally:
        registry.parent.chmod(0o755)


@pytest.mark.parametrize("words", READING)
def test_a_missing_damaged_or_newer_registry_is_one_line(script, tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / "text.sqlite").write_text("this is no database at all, and long enough to be looked at\n" * 50)
    with sqlite3.connect(tmp_path / "other.sqlite") as db:
        db.execute("CREATE TABLE t (x)")
    open_store(tmp_path / "newer.sqlite").close()
    with sqlite3.connect(tmp_path / "newer.sqlite") as db:
        db.execute("PRAGMA user_version = 999")
    for name, said in (
        ("missing.sqlite", "there is no registry at"),
        ("text.sqlite", "is no registry, or damaged"),
        ("other.sqlite", "no benchkit registry"),
        ("newer.sqlite", "newer than this benchkit"),
    ):
        ran = script(*words, "--db", tmp_path / name)
        assert (ran.code, ran.out) == (1, ""), name
        assert ran.err.startswith("error: ")
        assert ran.err.count("\n") == 1
        assert said in ran.err
