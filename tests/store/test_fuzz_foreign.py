"""Hostile registries, inboxes, caches, backup places and hub answers, made from valid ones by mutation: commands end in
time, in lines without escapes, and nothing around what they own changes."""

import hashlib
import json
import os
import random
import shutil
import signal
import sqlite3
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from benchkit.cli import main
from benchkit.errors import BenchkitError
from benchkit.features.cache import Entry, Writer
from benchkit.media import fetch
from benchkit.media import hub as remote
from benchkit.media.hub import Backoff, Hub
from benchkit.progress import Silent
from benchkit.records.others import Diagnosis, Failure, Training
from benchkit.records.report import Cell, Report
from benchkit.records.sealing import seal
from benchkit.store import open_store
from benchkit.store.columns import COLUMNS
from benchkit.testing.hub import FakeHub

EXAMPLES = int(os.environ.get("BENCHKIT_FUZZ", "10"))
"""Of each test: BENCHKIT_FUZZ=500 for a thorough look, other ones each time."""
SECONDS = 60
"""That one command may take; it takes a fraction of one."""
THOROUGH = settings(
    max_examples=EXAMPLES, deadline=None, derandomize="BENCHKIT_FUZZ" not in os.environ, database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
ESCAPE = "\x1b]52;c;aGk=\x07\x1b[31m\x9b2J\u202e\r"
BAD = set("\x1b\x07\x9b\u202e\r\u2066\0")
UUID = "0" * 32

texts = st.one_of(
    st.sampled_from([
        "", "../../home/precious", "/etc/passwd", "./..", "slurm/..", f"predictions/./{UUID}.parquet", "inbox/x.json",
        f"predictions/{UUID}.parquet", UUID, f"{UUID}-0", ESCAPE, f"digits{ESCAPE}", "=1+1", "{}", "[]", "null",
        "[" * 100_000, '{"a":' * 5_000, '{"x": NaN}', '{"a": 1e999}', '{"a": "\\ud800"}', "2999-01-01T00:00:00+00:00",
        "2026-02-30T00:00:00.000000+00:00", "9" * 30, "x" * 100_000, "a\nb", "\0", "%s%n", "'; DROP TABLE runs; --",
    ]),
    st.text(max_size=20),
)  # fmt: skip
numbers = st.sampled_from([0, 1, -1, 7, 2**31, 2**63 - 1, -(2**63), 0.5, -1.5, 1e308, float("inf"), float("-inf")])
values = st.one_of(texts, numbers, st.none(), st.binary(max_size=8))
jsons = st.one_of(texts, st.sampled_from([0, -1, 2**70, 1e308, True, None, [], {}, [[]], {"a": [1]}, [None] * 3, -1.5]))


def around(place: Path, *own: str) -> dict[str, Any]:
    """What lies around a command's own files: kind and mode, bytes, where a link leads to."""
    found = {}
    for path in sorted(place.rglob("*")):
        name = path.relative_to(place).as_posix()
        if not name.startswith(own):
            data = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
            found[name] = (path.lstat().st_mode, data)
    return found


def command(*words: object) -> tuple[int, str]:
    """Its exit code and all that it says. Whatever it raises but SystemExit is the test's; so is a hang."""

    def too_long(*_: object) -> None:
        raise AssertionError(f"{words} takes more than {SECONDS} s")

    before = [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGALRM)]
    argv, code = sys.argv, 0
    sys.argv = ["benchkit", *map(str, words)]
    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(SECONDS)
    with TemporaryFile("w+", encoding="utf-8", newline="") as said:
        try:
            with warnings.catch_warnings(), redirect_stdout(said), redirect_stderr(said):
                warnings.simplefilter("always", UserWarning)
                main()
        except SystemExit as e:
            code = int(e.code or 0)
        finally:
            signal.alarm(0)
            sys.argv = argv
            for number, handler in zip((signal.SIGTERM, signal.SIGALRM), before, strict=True):
                signal.signal(number, handler)
        said.seek(0)
        return code, said.read()


def run(place: Path, words: list[str], *own: str) -> None:
    """A command in `place`; own: what it may change, as the beginnings of names there."""
    before = around(place, *own)
    code, said = command(*words)
    assert code in (0, 1, 2), (words, said)
    assert not BAD & set(said), (words, said)
    assert "Traceback" not in said
    assert sum(line.startswith("error: ") for line in said.splitlines()) == (code != 0), (words, said)
    assert around(place, *own) == before, words


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {"place": tmp_path_factory.mktemp("valid")}


@pytest.fixture
def place(valid: dict[str, Path], add: Callable[..., Report], make_report: Callable[..., Report]) -> Path:
    """A folder with two registries of every kind of record, one's own and theirs, sealed records, a cache, and a home
    that is nobody's concern. Made once."""
    made = valid["place"] / "made"
    if made.exists():
        return made
    made.mkdir()
    (made / "home").mkdir()
    (made / "home" / "precious").write_text("precious")
    environment = make_report().environment
    times = {"started_at": "2026-01-01T00:00:00+00:00", "finished_at": "2026-01-01T00:00:09+00:00"}
    for name, seed in (("mine", 0), ("theirs", 1)):
        with open_store(made / f"{name}.sqlite") as store:
            add(store, seed)
            add(store, 7, 0.5 + 0.1 * seed)
            cell = Cell("digits", "pixels", "knn", 5, seed)
            for record in (
                Failure(f"{seed}f" * 16, cell, "error", "no weights", "n1", times["started_at"], "log\n"),
                Training(f"{seed}a" * 16, "sae", "hsn", "bm", "b.1", "d", "m", {"width": 64}, "/x", "00ff" * 16,
                         environment, metrics=[(1, "mse", 0.5)], **times),
                Diagnosis(f"{seed}d" * 16, "hsn", "bm", "d", "m", True, "healthy", {"a": [7]}, None, environment,
                          points=[("b.1", "mean", None)], **times),
                make_report(uuid=f"{seed}e" * 16, cell=Cell("digits", "pixels", "linear", -1, 9 + seed), artifacts=[]),
            ):  # fmt: skip
                seal(record, made / f"sealed{seed}")
                seal(record, store.inbox)
        with open_store(made / f"{name}.sqlite") as store:
            store.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    entry = Entry.of(made / "cache", {"key": {"media": "m", "model": "pixels"}, "split": "all"}, 4)
    entry.folder.mkdir(parents=True)
    with Writer(entry) as writer:
        writer.write(np.arange(4), np.ones((4, 3), np.float32), np.arange(1, 5, dtype=np.uint64))
    return made


@pytest.fixture
def fresh(place: Path, tmp_path: Path) -> Iterator[Callable[[], Path]]:
    """A copy of it for each example."""
    made: list[Path] = []

    def copy() -> Path:
        while made:
            shutil.rmtree(made.pop())
        target = tmp_path / "place"
        shutil.copytree(place, target)
        made.append(target)
        return target

    return copy


def change(path: Path, table: str, column: str, value: Any) -> None:
    """In all rows, as far as SQLite lets it."""
    db = sqlite3.connect(path)
    try:
        db.execute("PRAGMA ignore_check_constraints = 1")
        db.execute(f"UPDATE {table} SET {column} = ?", (value,))
        db.commit()
    except (sqlite3.Error, OverflowError, UnicodeEncodeError):
        db.rollback()
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()


MERGED = ("mine.sqlite", "theirs.sqlite-")
"""What `merge` may change: SQLite keeps its notes of who reads beside a registry."""
COLUMN = st.sampled_from([(table, column) for table, columns in COLUMNS.items() for column in columns])
LOOKS = (["ls"], ["show", "1"], ["show", "failed"], ["table"], ["status"], ["check"], ["compare", "1", "2"],
         ["sql", "SELECT * FROM runs"])  # fmt: skip


@THOROUGH
@given(changes=st.lists(st.tuples(COLUMN, values), min_size=1, max_size=2),
       looks=st.sets(st.sampled_from(range(8)), min_size=2, max_size=2))  # fmt: skip
def test_a_registry_with_other_values(fresh: Callable[[], Path], changes: list[Any], looks: set[int]) -> None:
    where = fresh()
    for (table, column), value in changes:
        change(where / "theirs.sqlite", table, column, value)
    run(where, ["merge", str(where / "theirs.sqlite"), "--db", str(where / "mine.sqlite")], *MERGED)
    for number in looks:
        run(where, [*LOOKS[number], "--db", str(where / "theirs.sqlite")], "theirs.sqlite")
    run(where, ["check", "--fix", "--db", str(where / "theirs.sqlite")], "theirs.sqlite")


@THOROUGH
@given(seed=st.integers(0, 2**32), many=st.sampled_from([1, 3, 30]), look=st.sampled_from(LOOKS))
def test_a_registry_with_other_bytes(fresh: Callable[[], Path], seed: int, many: int, look: list[str]) -> None:
    where, rng = fresh(), random.Random(seed)
    path = where / "theirs.sqlite"
    data = bytearray(path.read_bytes())
    for _ in range(many):
        data[rng.randrange(len(data))] = rng.randrange(256)
    path.write_bytes(data)
    run(where, ["merge", str(path), "--db", str(where / "mine.sqlite")], *MERGED)
    run(where, [*look, "--db", str(path)], "theirs.sqlite")


def places(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in inner:
        yield (*way, key)
        yield from places(below, (*way, key))


@THOROUGH
@given(data=st.data())
def test_an_inbox_with_other_records(fresh: Callable[[], Path], data: st.DataObject) -> None:
    """Each with a checksum that is right."""
    where = fresh()
    inbox = where / "mine.sqlite.d" / "inbox"
    inbox.mkdir(exist_ok=True)
    for i, path in enumerate(sorted((where / "sealed1").iterdir())):
        head, _, body = path.read_text().partition("\n")
        record = json.loads(body)
        way = data.draw(st.sampled_from(list(places(record))))
        at = record
        for key in way[:-1]:
            at = at[key]
        if data.draw(st.integers(0, 5)) or isinstance(at, list):
            at[way[-1]] = data.draw(jsons)
        else:
            del at[way[-1]]
        body = json.dumps(record)
        magic, number, _ = head.split(" ")
        digest = hashlib.sha256(body.encode()).hexdigest()
        name = data.draw(st.sampled_from([path.name, f"{ESCAPE.replace('/', '')}{i}.json", f"{'x' * 200}{i}.json"]))
        (inbox / name).write_text(f"{magic} {number} {digest}\n{body}\n")
    for words in (["ls"], ["show", "last"], ["status"], ["check"]):
        run(where, [*words, "--db", str(where / "mine.sqlite")], "mine.sqlite")


PLANTS = st.sampled_from(["link to the precious", "link to home", "pipe", "device", "folder", "bytes", "nothing"])


def plant(path: Path, what: str, home: Path, seed: int) -> None:
    """Something else in a file's place."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    if what.startswith("link"):
        path.symlink_to(home / "precious" if what.endswith("precious") else home)
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "device":
        path.symlink_to("/dev/zero")
    elif what == "folder":
        path.mkdir()
    elif what == "bytes":
        path.write_bytes(random.Random(seed).randbytes(200))


@THOROUGH
@given(
    name=st.sampled_from(["meta.json", "pooled.f32", "index", "made.json", "lock", "", "x"]), what=PLANTS,
    seed=st.integers(0, 99), way=st.sampled_from(["plant", "json"]), value=jsons,
    key=st.sampled_from(["key", "n", "dim", "split"]),
)  # fmt: skip
@example(name="x", what="nothing", seed=0, way="json", value=2**70, key="n")
@example(name="x", what="nothing", seed=0, way="json", value=2**45, key="n")
@example(name="x", what="nothing", seed=0, way="json", value=2**70, key="dim")
def test_a_cache_with_other_files(
    fresh: Callable[[], Path], name: str, what: str, seed: int, way: str, value: Any, key: str
) -> None:
    where = fresh()
    (entry,) = (where / "cache").iterdir()
    if way == "plant":
        plant(entry / name if name else entry, what, where / "home", seed)
    else:
        meta = json.loads((entry / "meta.json").read_text())
        (meta["key"] if key == "split" else meta)[key] = value
        (entry / "meta.json").write_text(json.dumps(meta))
    for words in (["ls"], ["verify"], ["prune", "--keep", "0"]):
        run(where, ["cache", *words, "--cache", str(where / "cache")], "cache/")


@THOROUGH
@given(
    name=st.sampled_from(["b.sqlite", "b.sqlite.d", ".b.sqlite.part", f".b.sqlite.{UUID}.part", "b.sqlite-wal"]),
    what=PLANTS, inside=st.sampled_from(["inbox", "predictions", "slurm", "predictions/x", ""]),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_a_backups_place_and_a_registrys_folder_with_other_files(
    fresh: Callable[[], Path], name: str, what: str, inside: str, seed: int
) -> None:
    where = fresh()
    shared = where / "shared"
    shared.mkdir()
    plant(shared / name, what, where / "home", seed)
    if inside:
        plant(where / "mine.sqlite.d" / inside, what, where / "home", seed)
    for words in (["backup", str(shared / "b.sqlite")], ["check", "--fix"], ["ls"], ["rm", "1", "--yes"]):
        run(where, [*words, "--db", str(where / "mine.sqlite")], "mine.sqlite", "shared/")


class Forged(FakeHub):
    """A hub whose listing says what it likes."""

    forge: Callable[[dict[str, Any]], None]

    def tree(self, folder: str) -> list[dict[str, Any]]:
        entries = super().tree(folder)
        for entry in entries:
            self.forge(entry)
        return entries


@THOROUGH
@given(
    key=st.sampled_from(["type", "path", "size", "oid", "lfs", "lfs.oid", "lfs.size"]),
    value=st.one_of(jsons, st.sampled_from(
        ["data/../../home/precious", "data/a.parquet/../../../home/x", "/etc/x", f"data/{ESCAPE}"]
    )),
)  # fmt: skip
def test_a_hub_with_other_answers(
    fresh: Callable[[], Path], monkeypatch: pytest.MonkeyPatch, key: str, value: Any
) -> None:
    where = fresh()
    (where / "repository" / "data").mkdir(parents=True)
    (where / "repository" / "data" / "a.parquet").write_bytes(b"a" * 1000)
    (where / "copy").mkdir()

    def forge(entry: dict[str, Any]) -> None:
        at = entry["lfs"] if key.startswith("lfs.") else entry
        at[key.removeprefix("lfs.")] = value

    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    remote.reach.cache_clear()
    with Forged(where / "repository", "someone/data") as server:
        server.forge = forge
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        before = around(where, "copy/")
        hub = Hub("someone/data", "dataset", backoff=Backoff(attempts=2, first=0.01, longest=0.02))
        with suppress(BenchkitError):
            fetch.copy(hub, hub.files("data"), "data", where / "copy", Silent())
    assert around(where, "copy/") == before
