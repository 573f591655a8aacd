"""ls, show, table, sql and rm: what is printed is what the registry holds, wherever it is printed to."""

import csv
import hashlib
import io
import json
import os
import re
import signal
import sqlite3
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchkit.report import Artifact, Cell, Check, ClassMetric, Report
from benchkit.sealing import seal
from benchkit.store import database, open_store, queries
from benchkit.store.migrations import VERSION
from benchkit.store.reports import load_reports

ESCAPE = "\033["


def rows_of(text: str) -> list[list[str]]:
    """The cells of a text table, below its rule."""
    lines = text.splitlines()
    rule = next(i for i, line in enumerate(lines) if set(line) <= {"-", " "} and "-" in line)
    ends = [m.span() for m in re.finditer("-+", lines[rule])]
    return [[line[a:b].strip() for a, b in ends] for line in lines[rule + 1 :] if line.strip()]


# ------------------------------------------------------------------------------------------------------------------- ls


def test_ls_lists_the_newest_first_and_says_how_many_more_there_are(cli, registry: Path) -> None:
    ran = cli("ls", "--db", registry, "--limit", 3)
    assert [row[0] for row in rows_of(ran.out)] == ["20", "19", "18"]
    assert ran.err == "17 more: --limit 0 lists all\n"
    assert len(rows_of(cli("ls", "--db", registry, "--limit", 0).out)) == 20


def test_ls_filters_by_glob_pattern_training_size_and_seed(cli, registry: Path) -> None:
    def found(*words: object) -> set[tuple[Any, ...]]:
        listed = json.loads(cli("ls", "--db", registry, "--json", "--limit", 0, *words).out)
        return {(r["task"], r["model"], r["classifier"], r["n_train"], r["seed"]) for r in listed}

    everything = found()
    assert len(everything) == 20
    assert found("--model", "bird-mae*") == {c for c in everything if c[1] == "bird-mae:large,layer=20"}
    assert found("--task", "hsn") == {c for c in everything if c[0] == "hsn"}
    assert found("--n-train", 5, "--seed", 1, "--seed", 2) == {c for c in everything if c[3] == 5 and c[4] in (1, 2)}
    assert found("--n-train", -1, "--classifier", "lin*") == {c for c in everything if c[3] == -1 and c[2] == "linear"}
    assert found("--model", "pixels", "--model", "*layer=2?") == everything


def test_ls_in_json_holds_the_numbers_in_full(cli, registry: Path) -> None:
    listed = {r["run"]: r for r in json.loads(cli("ls", "--db", registry, "--json", "--limit", 0).out)}
    with open_store(registry) as store:
        for run, row in listed.items():
            (report,) = load_reports(store, [run])
            assert (row["uuid"], row["value"], row["metric"]) == (report.uuid, report.value, report.primary)
            assert row["marks"] == sorted(f"{c.name}:{c.status}" for c in report.warnings)


def test_ls_shows_superseded_runs_in_brackets_and_only_when_asked(cli, tmp_path: Path, fill) -> None:
    fill(tmp_path / "r.sqlite", {"value": 0.1}, {"value": 0.2})
    assert [row[0] for row in rows_of(cli("ls", "--db", tmp_path / "r.sqlite").out)] == ["2"]
    assert [row[0] for row in rows_of(cli("ls", "--db", tmp_path / "r.sqlite", "--all").out)] == ["2", "(1)"]


def test_ls_marks_what_a_check_complains_of(cli, registry: Path) -> None:
    marks = {row[10] for row in rows_of(cli("ls", "--db", registry, "--limit", 0).out)}
    assert marks == {"ok", "leakage:fail", "features:warn"}


def test_ls_takes_in_what_waits_in_the_inbox(cli, registry: Path, make_report) -> None:
    with open_store(registry) as store:
        seal(make_report(cell=Cell("new", "pixels", "linear", -1, 0)), store.inbox)
    assert rows_of(cli("ls", "--db", registry, "--task", "new").out)[0][1] == "new"


def test_ls_of_nothing_says_why_and_suggests(cli, registry: Path, tmp_path: Path) -> None:
    def said(*words: object) -> str:
        ran = cli("ls", "--db", registry, *words)
        assert (ran.code, ran.out) == (0, "")
        return ran.err

    assert said("--task", "digist") == "no run has task 'digist'; did you mean 'digits'?\n"
    assert said("--model", "bird-mae") == "no run has model 'bird-mae'; 'bird-mae*' matches some\n"
    assert said("--task", "hsn", "--n-train", 5) == "no run matches all of these filters together\n"
    open_store(tmp_path / "empty.sqlite").close()
    assert "has no runs yet" in cli("ls", "--db", tmp_path / "empty.sqlite").err


def test_nothing_is_cut_off_folded_or_coloured_in_a_pipe(script, tmp_path: Path, fill) -> None:
    long = "bird-mae:large," + ",".join(f"key{i}=value{i}" for i in range(30))
    fill(tmp_path / "r.sqlite", {"cell": ("digits", long, "linear", -1, 0)})
    for command in ("ls", "table", "show last", "sql SELECT~model~FROM~results"):
        words = [word.replace("~", " ") for word in command.split()]
        ran = script(*words, "--db", tmp_path / "r.sqlite", COLUMNS="40", FORCE_COLOR="1")
        assert ran.code == 0, ran.err
        assert long in ran.out
        assert "\033" not in ran.out


@pytest.mark.parametrize("width", [100, 120])
def test_in_a_terminal_lines_fit_its_width_and_nothing_is_lost(terminal, registry: Path, width: int) -> None:
    ran = terminal("ls", "--db", registry, width=width, NO_COLOR="1")
    assert ran.code == 0
    assert "\033" not in ran.out
    assert max(map(len, ran.lines)) <= width
    whole = terminal("ls", "--db", registry, width=999, NO_COLOR="1")
    rule = len(whole.lines[1])
    assert len(ran.lines[1]) < rule
    assert sorted(re.sub(r"[\s-]", "", ran.out)) == sorted(re.sub(r"[\s-]", "", whole.out))
    coloured = terminal("ls", "--db", registry, width=width, NO_COLOR="")
    assert ESCAPE in coloured.out
    assert [line.rstrip() for line in re.sub(r"\033\[\d*m", "", coloured.out).splitlines()] == ran.lines


def test_a_control_character_in_a_name_does_not_reach_the_terminal(cli, tmp_path: Path, fill) -> None:
    check = Check("chance", "warn", "a\033[2Jline\nand another")
    names = [ClassMetric("Turdus\033[31m\n merula", "recall", 0.5, 3, 3)]
    fill(tmp_path / "r.sqlite", {"checks": [check], "class_metrics": names})
    ran = cli("show", "last", "--db", tmp_path / "r.sqlite")
    assert "\033" not in ran.out
    assert r"Turdus\x1b[31m\n merula" in ran.out
    assert r"a\x1b[2Jline\nand another" in ran.out


def test_a_reader_that_stops_reading_is_no_error(registry: Path) -> None:
    command = f"{sys.executable} -m benchkit sql 'SELECT * FROM metrics a, metrics b' --format csv --db {registry}"
    done = subprocess.run(
        ["bash", "-c", f"{command} | head -1; echo ${{PIPESTATUS[0]}}"], capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1] == "0"
    assert done.stderr == ""


# ----------------------------------------------------------------------------------------------------------------- show


def test_show_finds_a_run_by_number_by_the_beginning_of_its_uuid_and_as_the_last(cli, tmp_path: Path, fill) -> None:
    path = tmp_path / "r.sqlite"
    fill(
        path,
        {"uuid": "aaaa1111", "cell": ("a", "m", "c", 1, 0)},
        {"uuid": "aaaa2222", "cell": ("b", "m", "c", 1, 0)},
        {"uuid": "12345678", "cell": ("c", "m", "c", 1, 0)},
    )

    def title(run: object) -> str:
        ran = cli("show", run, "--db", path)
        return ran.lines[0] if ran.code == 0 else ran.err

    assert title(1) == "run 1 (current), aaaa1111"
    assert title("aaaa2") == title("AAAA2222") == title(2)
    assert title("last") == title("latest") == title(3)
    assert "may be 1 (aaaa1111), 2 (aaaa2222)" in title("aaaa")
    for nobody in ("aaa", "bbbb", "4", "12345678", "-x", ""):  # digits are a number, never a uuid
        assert f"there is no run '{nobody}'" in cli("show", "--db", path, "--", nobody).err


def test_show_tells_everything_about_a_run(cli, tmp_path: Path, make_report) -> None:
    leak = Check("leakage", "fail", "3 of 597 are in train too", {"ids": ["img7", "img9"]})
    report = make_report(checks=[leak, Check("chance", "ok", "fine")], record={"C": 0.25}, n_skipped=2)
    path = tmp_path / "r.sqlite"
    with open_store(path) as store:
        seal(report, store.inbox)
    text = cli("show", 1, "--db", path, "--verbose").out
    e = report.environment
    for known in (
        report.uuid, *report.cell[:3], "1,200 examples used", "597 test examples", "2 skipped", "top1", "0.9000",
        "[0.8500, 0.9500]", "0.1000", "macro_f1", "leakage", "3 of 597 are in train too", '["img7", "img9"]', "lr",
        "0.001", "benchkit-digits 0.1.0", "C", "0.25", e.host, e.device, "c0ffee", "numpy 2.4.6", "2 s", "100.0 MB",
        report.task_fingerprint, report.model_fingerprint, "predictions/x.parquet", "missing",
    ):  # fmt: skip
        assert str(known) in text, known
    assert "img7" not in cli("show", 1, "--db", path).out


def test_show_in_json_is_the_whole_report(cli, registry: Path) -> None:
    shown = json.loads(cli("show", 5, "--db", registry, "--json").out)
    with open_store(registry) as store:
        (report,) = load_reports(store, [5])
    whole = json.loads(report.to_json())
    for artifact in shown["artifacts"]:
        assert artifact.pop("state") == "missing"
        assert Path(artifact.pop("file")).is_absolute()
    assert {k: shown[k] for k in whole} == whole
    assert (shown["run"], shown["current"], [h["run"] for h in shown["history"]]) == (5, True, [5])


def test_show_knows_a_files_state(cli, tmp_path: Path, make_report) -> None:
    path = tmp_path / "r.sqlite"
    with open_store(path) as store:
        seal(make_report(artifacts=[Artifact("predictions", "predictions/x.parquet", "00", 4)]), store.inbox)
        file = store.side / "predictions/x.parquet"

    def state() -> str:
        return json.loads(cli("show", "last", "--db", path, "--json").out)["artifacts"][0]["state"]

    assert state() == "missing"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"1234")
    assert state() == "there"
    file.write_bytes(b"123")
    assert state() == "altered"


def test_show_tells_the_history_of_a_cell(cli, tmp_path: Path, fill) -> None:
    fill(tmp_path / "r.sqlite", {"value": 0.25}, {"value": 0.5}, {"cell": ("other", "pixels", "linear", -1, 0)})
    text = cli("show", 1, "--db", tmp_path / "r.sqlite").out
    assert text.startswith("run 1 (superseded by run 2)")
    history = rows_of(text[text.index("history") :])
    assert [row[:1] + row[2:3] for row in history] == [["2", "0.500"], ["(1)", "0.250"]]


def test_show_shows_the_worst_and_best_classes_and_all_when_asked(cli, tmp_path: Path, fill) -> None:
    classes = [ClassMetric(f"c{i:02d}", "ap", i / 40, i, 2) for i in range(30)] + [
        ClassMetric("none", "ap", None, 0, 0)
    ]
    fill(tmp_path / "r.sqlite", {"class_metrics": classes})
    few = cli("show", 1, "--db", tmp_path / "r.sqlite").out
    assert re.findall(r"\bc\d\d\b", few) == [f"c{i:02d}" for i in (0, 1, 2, 3, 4, 25, 26, 27, 28, 29)]
    everything = cli("show", 1, "--db", tmp_path / "r.sqlite", "--classes").out
    assert len(set(re.findall(r"\bc\d\d\b", everything))) == 30
    assert re.search(r"none +0 +0 +-", everything)


# ---------------------------------------------------------------------------------------------------------------- table


def entries(cli: Callable[..., Any], registry: Path, *words: object) -> list[dict[str, Any]]:
    return json.loads(cli("table", "--db", registry, "--format", "json", *words).out)["entries"]


def test_table_averages_seeds_and_gives_their_standard_deviation(cli, registry: Path) -> None:
    found = {(e["task"], e["model"], e["classifier"], e["n_train"]): e for e in entries(cli, registry)}
    assert len(found) == 12
    with sqlite3.connect(registry) as db:
        for cell, e in found.items():
            values = [
                r[0]
                for r in db.execute(
                    "SELECT value FROM runs WHERE task=? AND model=? AND classifier=? AND n_train=?", cell
                )
            ]
            assert e["n"] == len(values)
            assert e["value"] == pytest.approx(statistics.fmean(values), abs=1e-12)
            if len(values) > 1:
                assert e["sd"] == pytest.approx(statistics.stdev(values), abs=1e-9)
                assert (e["low"], e["high"]) == (None, None)
            else:
                assert (e["sd"], e["low"]) == (None, pytest.approx(values[0] - 0.02))


def test_table_puts_models_and_classifiers_down_and_tasks_across(cli, registry: Path) -> None:
    ran = cli("table", "--db", registry, "--n-train", -1)
    head = [line.split() for line in ran.lines[:4]]
    assert head == [["n_train", "all"], [], ["digits", "hsn"], ["model", "classifier", "top1", "cmap"]]
    assert rows_of(ran.out)[:5] == [
        ["bird-mae:large,layer=20", "knn,k=5", "0.500 [0.480, 0.520] !b", "0.600 [0.580, 0.620] !b"],
        ["bird-mae:large,layer=20", "linear", "0.540 [0.520, 0.560]", "0.640 [0.620, 0.660]"],
        ["pixels", "knn,k=5", "0.700 [0.680, 0.720]", "0.800 [0.780, 0.820]"],
        ["pixels", "linear", "*0.740 [0.720, 0.760] !a", "*0.840 [0.820, 0.860]"],
        ["chance", "", "0.100", "0.100"],
    ]
    assert "!a the check 'leakage' fails" in ran.lines
    assert "!b the check 'features' warns" in ran.lines
    assert ran.err == ""


def test_table_adds_training_sizes_where_they_differ_with_all_of_them_last(cli, registry: Path) -> None:
    ran = cli("table", "--db", registry, "--task", "digits")
    assert [line.split() for line in ran.lines[2:4]] == [
        ["digits", "digits"],
        ["model", "classifier", "n_train=5", "n_train=all"],
    ]
    assert ran.out.index("n_train=5") < ran.out.index("n_train=all")
    assert "0.650 ± 0.010 (3)" in ran.out


def test_a_dimension_nobody_asked_for_is_added_rather_than_averaged_away(cli, registry: Path) -> None:
    ran = cli("table", "--db", registry, "--rows", "model", "--task", "hsn")
    bird = "bird-mae:large,layer=20"
    assert [row[:2] for row in rows_of(ran.out)][:2] == [[bird, "knn,k=5"], [bird, "linear"]]
    assert "classifier differs" in ran.err


def test_rows_and_columns_are_chosen_freely_and_compared_within_a_task(cli, registry: Path) -> None:
    ran = cli("table", "--db", registry, "--rows", "task,classifier", "--cols", "model", "--n-train", -1)
    assert rows_of(ran.out)[:4] == [
        ["digits", "knn,k=5", "top1", "0.500 [0.480, 0.520] !b", "0.700 [0.680, 0.720]", "0.100"],
        ["digits", "linear", "top1", "0.540 [0.520, 0.560]", "*0.740 [0.720, 0.760] !a", "0.100"],
        ["hsn", "knn,k=5", "cmap", "0.600 [0.580, 0.620] !b", "0.800 [0.780, 0.820]", "0.100"],
        ["hsn", "linear", "cmap", "0.640 [0.620, 0.660]", "*0.840 [0.820, 0.860]", "0.100"],
    ]
    assert "*: the best of its task" in ran.lines
    by_seed = cli(
        "table", "--db", registry, "--n-train", 5, "--classifier", "linear", "--rows", "model", "--cols", "seed"
    )
    assert "seed=0" in by_seed.out
    assert "seed=2" in by_seed.out
    assert "±" not in by_seed.out


def test_table_shows_another_metric_than_the_primary_one(cli, registry: Path) -> None:
    found = entries(cli, registry, "--metric", "macro_f1", "--n-train", -1)
    assert {e["metric"] for e in found} == {"macro_f1"}
    assert {e["chance"] for e in found} == {None}
    primary = entries(cli, registry, "--n-train", -1)
    assert [e["value"] for e in found] == pytest.approx([e["value"] / 2 for e in primary])
    both = entries(cli, registry, "--metric", "macro_f1", "--metric", "top1", "--n-train", -1, "--task", "digits")
    assert {e["metric"] for e in both} == {"macro_f1", "top1"}
    ran = cli("table", "--db", registry, "--metric", "macrof1")
    assert ran.err == "none of these runs has the metric 'macrof1'; did you mean 'macro_f1'? (cmap, macro_f1, top1)\n"


def test_a_history_is_not_in_the_table(cli, tmp_path: Path, fill) -> None:
    fill(tmp_path / "r.sqlite", {"value": 0.1}, {"value": 0.5})
    assert [e["value"] for e in entries(cli, tmp_path / "r.sqlite")] == [0.5]


def test_table_in_csv_has_every_number_in_full_and_a_field_for_each_thing(cli, registry: Path) -> None:
    ran = cli("table", "--db", registry, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(ran.out)))
    assert len(rows) == 4
    wanted = {(e["model"], e["classifier"]): e for e in entries(cli, registry, "--task", "digits", "--n-train", 5)}
    for row in rows:
        e = wanted[row["model"], row["classifier"]]
        assert float(row["digits n_train=5 top1"]) == e["value"]
        assert float(row["digits n_train=5 top1 sd"]) == e["sd"]
        assert row["digits n_train=5 top1 n"] == "3"
        assert float(row["hsn n_train=-1 cmap high"]) - float(row["hsn n_train=-1 cmap low"]) == pytest.approx(0.04)
    assert [row["digits n_train=-1 top1 checks"] for row in rows] == ["features:warn", "", "", "leakage:fail"]


NASTY = "odd_name|50%&{x}[1]*~#$"


def test_table_in_markdown_survives_special_characters(cli, tmp_path: Path, fill) -> None:
    fill(
        tmp_path / "r.sqlite",
        {"cell": ("digits", NASTY, "linear", -1, 0), "value": 0.25, "checks": [Check("leakage", "fail", "some")]},
        {"cell": ("digits", "plain", "linear", -1, 0), "value": 0.5},
    )
    lines = cli("table", "--db", tmp_path / "r.sqlite", "--format", "markdown").lines
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines[:5]]
    assert [len(c) for c in cells] == [3] * 5
    assert cells[1] == [" --- ", " --- ", " ---: "]
    assert cells[2][0].strip() == r"odd\_name\|50%&amp;{x}\[1\]\*\~\#\$"
    assert cells[2][2].strip() == "0.250 [0.230, 0.270] <sup>a</sup>"
    assert cells[3][2].strip() == "**0.500** [0.480, 0.520]"
    assert "<sup>a</sup> the check 'leakage' fails" in lines


def test_table_in_latex_survives_special_characters(cli, tmp_path: Path, fill) -> None:
    fill(
        tmp_path / "r.sqlite",
        {"cell": ("digits", NASTY + "\\^", "linear", -1, 0), "value": 0.25},
        {"cell": ("digits", "plain", "linear", -1, 0), "value": 0.5},
        {"cell": ("digits", "plain", "linear", 5, 0), "value": 0.3},
        {"cell": ("digits", "plain", "linear", 5, 1), "value": 0.4},
    )
    text = cli("table", "--db", tmp_path / "r.sqlite", "--format", "latex").out
    assert r"odd\_name\textbar{}50\%\&\{x\}{[}1{]}*\textasciitilde{}\#\$\textbackslash{}\textasciicircum{}" in text
    assert r"\textbf{0.500} {\scriptsize [0.480, 0.520]} \\" in text
    assert r"0.350 {\scriptsize $\pm$ 0.071 (2)}" in text
    body = text[text.index(r"\midrule") : text.index(r"\bottomrule")]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in body.splitlines()[1:]} == {3}
    assert text.count("{") == text.count("}")


def test_intervals_chance_and_digits_are_options(cli, registry: Path) -> None:
    words = ("table", "--db", registry, "--no-intervals", "--no-chance", "--digits", 1)
    ran = cli(*words, "--task", "hsn")
    assert rows_of(ran.out)[3] == ["pixels", "linear", "*0.8"]
    assert "[" not in ran.out
    assert "chance" not in ran.out


def test_a_wrong_dimension_is_one_line(cli, registry: Path) -> None:
    assert (
        "'modle' is nothing to arrange by; did you mean 'model'?"
        in cli("table", "--db", registry, "--rows", "modle").err
    )
    assert (
        "'task' cannot be in rows and columns" in cli("table", "--db", registry, "--rows", "task", "--cols", "task").err
    )


# ------------------------------------------------------------------------------------------------------------------ sql


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
        ("text.sqlite", "no registry ("),
        ("other.sqlite", "no benchkit registry"),
        ("newer.sqlite", "newer than this benchkit"),
    ):
        ran = script(*words, "--db", tmp_path / name)
        assert (ran.code, ran.out) == (1, ""), name
        assert ran.err.startswith("error: ")
        assert ran.err.count("\n") == 1
        assert said in ran.err


# ------------------------------------------------------------------------------------------------------------------- rm


def stored(registry: Path) -> list[int]:
    with open_store(registry) as store:
        return [r[0] for r in store.execute("SELECT id FROM runs ORDER BY id").fetchall()]


def with_predictions(path: Path, report: Callable[..., Report], *cells: tuple[Any, ...]) -> list[Path]:
    """A run with a file for each cell, one second apart."""
    files = []
    with open_store(path) as store:
        (store.side / "predictions").mkdir(parents=True)
        for i, cell in enumerate(cells):
            file = store.side / f"predictions/{i}.parquet"
            file.write_bytes(f"file {i}".encode())
            artifact = Artifact(
                "predictions", f"predictions/{i}.parquet", hashlib.sha256(file.read_bytes()).hexdigest(), 6
            )
            stamp = f"2026-01-01T00:00:{i:02d}.000000+00:00"
            seal(report(cell=Cell(*cell), artifacts=[artifact], finished_at=stamp), store.inbox)
            store.refresh()
            files.append(file)
    return files


def test_rm_removes_runs_with_everything_that_belongs_to_them(cli, tmp_path: Path, make_report) -> None:
    path = tmp_path / "r.sqlite"
    files = with_predictions(path, make_report, ("a", "m", "c", 1, 0), ("b", "m", "c", 1, 0))
    ran = cli("rm", 1, "--yes", "--db", path)
    assert (ran.code, ran.out) == (0, "removed: 1 run, files: 1\n")
    assert [f.exists() for f in files] == [False, True]
    with open_store(path) as store:
        for table in ("metrics", "class_metrics", "checks", "artifacts"):
            assert {r[0] for r in store.execute(f"SELECT run_id FROM {table}").fetchall()} == {2}
        assert store.execute("SELECT count(*) FROM environments").fetchone()[0] == 1
    assert cli("rm", 2, "--yes", "--db", path).code == 0
    with open_store(path) as store:
        assert store.execute("SELECT count(*) FROM environments").fetchone()[0] == 0


def test_the_newest_of_the_history_becomes_current_when_the_current_run_goes(cli, tmp_path: Path, fill) -> None:
    path = tmp_path / "r.sqlite"
    fill(path, {"value": 0.1}, {"value": 0.2}, {"value": 0.3}, {"cell": ("x", "pixels", "linear", -1, 0)})
    ran = cli("rm", 3, "--yes", "--db", path)
    assert ran.out == "removed: 1 run, files: 0; superseded runs that are current now: 1\n"
    with open_store(path) as store:
        assert store.execute("SELECT run, value FROM results ORDER BY run").fetchall() == [(2, 0.2), (4, 0.9)]
    assert cli("rm", 1, "--yes", "--db", path).out == "removed: 1 run, files: 0\n"
    assert cli("rm", 2, 4, "--yes", "--db", path).code == 0
    assert stored(path) == []


def test_rm_by_filter_takes_the_history_along(cli, tmp_path: Path, fill) -> None:
    path = tmp_path / "r.sqlite"
    fill(path, {}, {}, {"cell": ("other", "pixels", "linear", -1, 0)})
    assert cli("rm", "--task", "digits", "--yes", "--db", path).code == 0
    assert stored(path) == [3]


def test_a_file_that_another_run_names_or_that_lies_elsewhere_stays(cli, tmp_path: Path, make_report) -> None:
    path, outside = tmp_path / "r.sqlite", tmp_path / "precious.txt"
    outside.write_text("mine")
    (file,) = with_predictions(path, make_report, ("a", "m", "c", 1, 0))
    with open_store(path) as store:
        store.execute("INSERT INTO artifacts VALUES (1, 'other', '../precious.txt', '', 4)")
        same = make_report(
            cell=Cell("b", "m", "c", 1, 0), artifacts=[Artifact("predictions", "predictions/0.parquet", "", 6)]
        )
        seal(same, store.inbox)
    ran = cli("rm", 1, "--yes", "--db", path)
    assert file.exists()
    assert outside.read_text() == "mine"
    assert "could not be deleted" in ran.err


def test_nothing_is_removed_where_there_is_nobody_to_ask(script, registry: Path) -> None:
    ran = script("rm", 1, "--db", registry)
    assert ran.code == 1
    assert "--yes" in ran.err
    assert len(stored(registry)) == 20


def test_nothing_is_removed_without_a_name_or_a_filter(cli, registry: Path) -> None:
    assert "name either runs" in cli("rm", "--yes", "--db", registry).err
    assert "name either runs" in cli("rm", 1, "--task", "hsn", "--yes", "--db", registry).err
    assert "there is no run '99'" in cli("rm", 1, 99, "--yes", "--db", registry).err
    assert "did you mean 'digits'" in cli("rm", "--task", "digist", "--yes", "--db", registry).err
    assert len(stored(registry)) == 20


@pytest.mark.parametrize(("answer", "left"), [("n\n", 20), ("\n", 20), ("\x04", 20), ("\x03", 20), ("y\n", 16)])
def test_rm_shows_what_would_go_and_asks(terminal, registry: Path, answer: str, left: int) -> None:
    ran = terminal("rm", "--task", "hsn", "--db", registry, width=200, type_in=answer)
    assert ran.out.count("hsn") >= 4
    assert "these 4 runs" in ran.out
    assert (ran.code == 0) == (left == 16)
    assert len(stored(registry)) == left


def test_rm_deletes_what_it_has_shown_and_not_what_came_meanwhile(
    registry: Path, make_report, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_store(registry) as store:
        shown = queries.recent(store, queries.Filters(task=("hsn",), history=True))
        seal(make_report(cell=Cell("hsn", "late", "linear", -1, 0)), store.inbox)
        store.refresh()
        from benchkit.store.remove import remove

        assert remove(store, [r.run for r in shown]).runs == 4
        assert [r.model for r in queries.recent(store, queries.Filters(task=("hsn",)))] == ["late"]
