"""Fingerprints: the same contents anywhere are one string, other contents another, and nothing is passed over."""

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchkit.errors import DataError
from benchkit.media import fingerprint as module
from benchkit.media.fingerprint import LENGTH, cache_dir, fingerprint, fingerprint_path, fingerprint_tensors


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


FILES = {"meta.csv": "a,b", "audio/1.wav": "one", "audio/deep/2.wav": "two", "README.md": "words"}


def matched(folder: Path, *patterns: str) -> set[str]:
    return {"/".join(parts) for parts, _ in module._matching(folder, {tuple(p.split("/")) for p in patterns})}


def test_a_copy_elsewhere_has_the_same_fingerprint(tmp_path: Path) -> None:
    one, two = write(tmp_path / "one", FILES), write(tmp_path / "two", dict(reversed(FILES.items())))
    assert fingerprint_path(one) == fingerprint_path(two)
    assert len(fingerprint_path(one)) == LENGTH


@pytest.mark.parametrize(
    "change",
    [{"meta.csv": "a,c"}, {"audio/deep/2.wav": "twO"}, {"audio/3.wav": ""}, {"x/meta.csv": "a,b"}],
    ids=["contents", "deep contents", "an empty file more", "a file more"],
)
def test_a_change_anywhere_in_a_folder_changes_its_fingerprint(tmp_path: Path, change: dict[str, str]) -> None:
    before = fingerprint_path(write(tmp_path, FILES))
    assert fingerprint_path(write(tmp_path, change)) != before


def test_names_count_in_a_folder(tmp_path: Path) -> None:
    before = fingerprint_path(write(tmp_path, FILES))
    (tmp_path / "audio" / "1.wav").rename(tmp_path / "audio" / "9.wav")
    assert fingerprint_path(tmp_path) != before


def test_two_files_that_swap_their_contents_change_the_fingerprint(tmp_path: Path) -> None:
    before = fingerprint_path(write(tmp_path, {"a": "1", "b": "2"}))
    assert fingerprint_path(write(tmp_path, {"a": "2", "b": "1"})) != before


def test_a_folder_of_one_file_is_not_that_file(tmp_path: Path) -> None:
    write(tmp_path, {"a": "1"})
    assert fingerprint_path(tmp_path) != fingerprint_path(tmp_path / "a")


def test_only_what_the_patterns_list_counts(tmp_path: Path) -> None:
    include = ("meta.csv", "audio/**/*.wav")
    before = fingerprint_path(write(tmp_path, FILES), include)
    assert (
        fingerprint_path(write(tmp_path, {"README.md": "other words", "notes/x.wav": "", "audio/t.txt": ""}), include)
        == before
    )
    assert fingerprint_path(write(tmp_path, {"audio/deep/deeper/3.wav": "three"}), include) != before


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (("**/*",), {"meta.csv", "audio/1.wav", "audio/deep/2.wav", "README.md"}),
        (("**",), {"meta.csv", "audio/1.wav", "audio/deep/2.wav", "README.md"}),
        (("*",), {"meta.csv", "README.md"}),
        (("*.csv", "*.csv"), {"meta.csv"}),
        (("audio/*.wav",), {"audio/1.wav"}),
        (("**/*.wav",), {"audio/1.wav", "audio/deep/2.wav"}),
        (("audio/**/*.wav",), {"audio/1.wav", "audio/deep/2.wav"}),
        (("*/**/[0-1].wav",), {"audio/1.wav"}),
        (("**/**/2.wav",), {"audio/deep/2.wav"}),
        (("**/deep/*",), {"audio/deep/2.wav"}),
        ((".git/*", ".hidden"), {".git/HEAD", ".hidden"}),
        (("**/.*",), {".hidden"}),
        (("audio",), set()),
    ],
)  # fmt: skip
def test_patterns_match_as_in_a_shell(tmp_path: Path, patterns: tuple[str, ...], names: set[str]) -> None:
    write(tmp_path, {**FILES, ".git/HEAD": "x", ".hidden": "y"})
    assert matched(tmp_path, *patterns) == names


@given(st.lists(st.sampled_from(["**", "*", "a", "b", "?", "[ab]"]), min_size=1, max_size=4))
def test_patterns_without_hidden_files_match_what_pathlib_matches(
    tmp_path_factory: pytest.TempPathFactory, parts: list[str]
) -> None:
    root = tmp_path_factory.getbasetemp() / "tree"
    if not root.exists():
        write(root, {f"{x}/{y}/{z}": "" for x in "abc" for y in "ab" for z in "ab"} | {"d": "", "aa/a": ""})
    if parts[-1] == "**":
        parts = [*parts, "*"]  # pathlib's final ** names folders alone
    pattern = "/".join(parts)
    expected = {p.relative_to(root).as_posix() for p in root.glob(pattern) if p.is_file()}
    assert matched(root, pattern) == expected


def test_what_lies_behind_a_link_counts(tmp_path: Path) -> None:
    elsewhere = write(tmp_path / "disk", {"1.wav": "one"})
    root = write(tmp_path / "root", {"meta.csv": "a"})
    (root / "audio").symlink_to(elsewhere)
    (root / "back").symlink_to(root)  # ends, though it leads round in a circle
    before = fingerprint_path(root)
    (elsewhere / "1.wav").write_text("two")
    assert fingerprint_path(root) != before
    assert fingerprint_path(root) == fingerprint_path(
        write(tmp_path / "plain", {"meta.csv": "a", "audio/1.wav": "two"})
    )


def test_a_change_is_seen_although_size_and_time_are_set_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "weights.bin"
    file.write_text("one")
    monkeypatch.setattr(module.time, "time", lambda: file.stat().st_mtime + 1000)  # so that digests are remembered
    before, status = fingerprint_path(file), file.stat()
    file.write_text("two")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert fingerprint_path(file) != before


def test_a_folder_is_read_once_and_then_only_what_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, FILES)
    read: list[str] = []
    digest = module._digest
    monkeypatch.setattr(module, "_digest", lambda path: read.append(path.name) or digest(path))
    monkeypatch.setattr(module.time, "time", lambda: (tmp_path / "meta.csv").stat().st_mtime + 1000)
    first = fingerprint_path(tmp_path)
    assert sorted(read) == ["1.wav", "2.wav", "README.md", "meta.csv"]
    assert fingerprint_path(tmp_path) == first
    assert len(read) == 4
    write(tmp_path, {"audio/1.wav": "changed"})
    assert fingerprint_path(tmp_path) != first
    assert read[4:] == ["1.wav"]


def test_a_file_that_was_just_written_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written again within the clock's resolution, with the same size, it would look the same."""
    file = tmp_path / "a"
    file.write_text("one")
    monkeypatch.setattr(module.time, "time", lambda: file.stat().st_mtime + 1)
    fingerprint_path(file)
    memos = list((cache_dir() / "digests").iterdir())
    assert [memo.read_text() for memo in memos] == ["{}"]


@pytest.mark.parametrize("damage", ["", "no json", "[]", '{"meta.csv": 3}', '{"meta.csv": [1]}'])
def test_a_damaged_memo_is_no_harm(tmp_path: Path, damage: str) -> None:
    before = fingerprint_path(write(tmp_path, FILES))
    for memo in (cache_dir() / "digests").iterdir():
        memo.write_text(damage)
    assert fingerprint_path(tmp_path) == before


def test_a_cache_folder_that_cannot_be_made_is_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint_path(write(tmp_path / "data", FILES))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BENCHKIT_CACHE", str(tmp_path / "file" / "cache"))
    assert fingerprint_path(tmp_path / "data") == before


def test_what_is_not_there_or_matches_nothing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read '.*nowhere': No such file"):
        fingerprint_path(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"holds nothing that matches \*.csv or \*.tsv"):
        fingerprint_path(write(tmp_path, {"a.txt": ""}), ("*.csv", "*.tsv"))


def test_a_folder_that_may_not_be_read_is_an_error_not_a_gap() -> None:
    program = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from benchkit.errors import DataError\n"
        "from benchkit.media.fingerprint import fingerprint_path\n"
        "if os.geteuid() == 0: os.seteuid(65534)  # root may read everything\n"
        "try: fingerprint_path(Path(sys.argv[1]))\n"
        "except DataError as e: print(e)\n"
    )
    with TemporaryDirectory() as name:  # pytest's own folders are closed to other users
        root = write(Path(name), FILES)
        root.chmod(0o755)
        (root / "audio").chmod(0)
        done = subprocess.run([sys.executable, "-c", program, name], capture_output=True, text=True)
        (root / "audio").chmod(0o755)
    assert "cannot read" in done.stdout, done.stderr
    assert "audio': Permission denied" in done.stdout


def test_a_record_has_one_fingerprint_in_every_process_and_order() -> None:
    record = {"b": [1, 2.5, None], "a": {"x": "ü"}}
    program = (
        "from benchkit.media.fingerprint import fingerprint; print(fingerprint({'a': {'x': 'ü'}, 'b': [1, 2.5, None]}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == fingerprint(record)
    assert fingerprint(record) != fingerprint({**record, "b": [1, 2.5, 0]})


def test_tensors_are_told_apart_by_name_type_shape_and_contents_but_not_by_their_layout() -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    first = fingerprint_tensors([("w", x), ("b", np.zeros((), np.float32))])
    assert first == fingerprint_tensors([("w", np.asfortranarray(x)), ("b", np.zeros((), np.float32))])
    others = [
        [("w", x)],
        [("v", x), ("b", np.zeros((), np.float32))],
        [("w", x.T), ("b", np.zeros((), np.float32))],
        [("w", x + 1), ("b", np.zeros((), np.float32))],
        [("w", x.view(np.int32)), ("b", np.zeros((), np.float32))],
        [("w", x), ("b", np.zeros(1, np.float32))],
        [("w", x), ("b", np.zeros((0, 3), np.float32))],
    ]
    assert len({first, *(fingerprint_tensors(pairs) for pairs in others)}) == 1 + len(others)
