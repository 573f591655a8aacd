"""show: everything about one run, or why a cell failed."""

import json
import re
from pathlib import Path

from benchkit.records.gate import predictions_path
from benchkit.records.report import Artifact, Check, ClassMetric
from benchkit.records.sealing import seal
from benchkit.store import open_store
from benchkit.store.reports import load_reports

from .conftest import rows_of

A1, A2 = "aaaa1111" * 4, "aaaa2222" * 4


def test_show_finds_a_run_by_number_by_the_beginning_of_its_uuid_and_as_the_last(cli, tmp_path: Path, fill) -> None:
    path = tmp_path / "r.sqlite"
    fill(
        path,
        {"uuid": A1, "cell": ("a", "m", "c", 1, 0)},
        {"uuid": A2, "cell": ("b", "m", "c", 1, 0)},
        {"uuid": "12345678" + "0" * 24, "cell": ("c", "m", "c", 1, 0)},
    )

    def title(run: object) -> str:
        ran = cli("show", run, "--db", path)
        return ran.lines[0] if ran.code == 0 else ran.err

    assert title(1) == f"run 1 (current), {A1}"
    assert title("aaaa2") == title("AAAA2222") == title(2)
    assert title("last") == title("latest") == title(3)
    assert f"may be 1 ({A1}), 2 ({A2})" in title("aaaa")
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
        report.task_fingerprint, report.model_fingerprint, f"predictions/{report.uuid}.parquet", "missing",
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
        name = predictions_path("1" * 32)
        seal(make_report(uuid="1" * 32, artifacts=[Artifact("predictions", name, "0" * 64, 4)]), store.inbox)
        file = store.side / name

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
