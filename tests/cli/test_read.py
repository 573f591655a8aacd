"""ls and table: what is printed is what the registry holds, wherever it is printed to."""

import csv
import io
import json
import re
import sqlite3
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchkit.records.report import Cell, Check, ClassMetric
from benchkit.records.sealing import seal
from benchkit.store import open_store
from benchkit.store.reports import load_reports

from .conftest import rows_of

ESCAPE = "\033["


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
    assert said("--model", "bird-mea") == "no run has model 'bird-mea'; did you mean 'bird-mae'?\n"
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
