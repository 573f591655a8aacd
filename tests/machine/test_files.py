"""Files are reached through a handle of their folder and never through a link; nothing but files.py changes files."""

import ast
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchkit.machine import files
from benchkit.machine.files import Strange

ROOT = Path(files.__file__).parents[2]
PACKAGES = [ROOT / "benchkit", *sorted(ROOT.glob("plugins/*/benchkit_*")), *sorted(ROOT.glob("tasks/*/benchkit_*"))]
ALONE = {"benchkit/machine/files.py"}
CHANGE = {
    "rmtree", "unlink", "remove", "rename", "renames", "rmdir", "removedirs", "truncate", "ftruncate", "symlink",
    "link", "mkdir", "makedirs", "mkdtemp", "mkstemp", "chmod", "fchmod", "copyfile", "copy2", "copytree", "write_text",
    "write_bytes", "touch", "symlink_to", "hardlink_to", "TemporaryDirectory", "NamedTemporaryFile", "TemporaryFile",
    "extractall", "unpack_archive", "mkfifo", "mknod", "tofile", "savez", "to_parquet", "to_csv", "to_file",
}  # fmt: skip
OF_OS = {"os", "shutil", "tempfile"}


def changes_files(call: ast.Call) -> bool:
    """Whether it may make, write, move or remove a file."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    of = call.func.value.id if isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Name) else ""
    if of == "files":
        return False
    if name in ("remove", "link", "copy"):  # of lists and sets too
        return of in OF_OS
    if name == "replace":  # of text with two arguments, of dataclasses with names
        return of == "os" or (isinstance(call.func, ast.Attribute) and len(call.args) == 1 and not call.keywords)
    if name in ("open", "FileIO", "fdopen"):
        words = [a.value for a in (*call.args, *(k.value for k in call.keywords)) if isinstance(a, ast.Constant)]
        names = {n.attr for a in call.args for n in ast.walk(a) if isinstance(n, ast.Attribute)}
        made = any(isinstance(w, str) and set(w) <= set("rwxab+t") and set(w) & set("wxa+") for w in words)
        return bool(names & {"O_CREAT", "O_WRONLY", "O_RDWR", "O_TRUNC", "O_APPEND"}) or (made and name == "open")
    return name in CHANGE


def test_nothing_but_files_py_makes_writes_moves_or_removes_files() -> None:
    found = []
    assert len(PACKAGES) > 10
    for path in sorted(path for package in PACKAGES for path in package.rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        if name in ALONE or name.startswith("benchkit/testing/"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and changes_files(node) and "os.devnull" not in ast.unparse(node):
                found.append(f"{name}:{node.lineno} {ast.unparse(node)[:80]}")
    assert found == []


def test_the_search_would_find_each_way(tmp_path: Path) -> None:
    for line in (
        "shutil.rmtree(x)", "p.unlink()", "os.remove(p)", "p.rename(q)", "p.replace(q)", "os.replace(p, q)",
        "open(p, 'w')", "p.open('ab')", "p.write_text('x')", "os.open(p, os.O_CREAT | os.O_RDWR)", "tempfile.mkdtemp()",
        "p.mkdir()",
    ):  # fmt: skip
        assert changes_files(ast.parse(line).body[0].value), line  # type: ignore[attr-defined]
    for line in ("text.replace('a', 'b')", "replace(job, cells=x)", "open(p)", "open(p, 'rb')", "names.remove(x)"):
        assert not changes_files(ast.parse(line).body[0].value), line  # type: ignore[attr-defined]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A folder of ours with a link to one that is not, which is the same at the end."""
    ours, others = tmp_path / "ours", tmp_path / "others"
    ours.mkdir()
    others.mkdir()
    (others / "precious").write_text("precious")
    (ours / "linked").symlink_to(others)
    (ours / "file").symlink_to(others / "precious")
    yield ours
    assert [p.name for p in others.iterdir()] == ["precious"]
    assert (others / "precious").read_text() == "precious"


def test_below_a_folder_no_link_is_followed(place: Path) -> None:
    through = place / "linked" / "precious"
    for act in (
        lambda: files.write_atomic(through, b"x", place),
        lambda: files.remove(through, place),
        lambda: files.move(through, place / "mine", place),
        lambda: files.move(place / "file", through, place),
        lambda: os.close(files.open_in_place(through, place, 0)),
        lambda: os.close(files.open_in_place(place / "file", place, 0)),
        lambda: files.make_folder(place / "linked" / "new", place),
        lambda: files.adding(place / "file", place).__enter__(),
        lambda: files.read(through, 100, place),
        lambda: files.listed(place / "linked", place),
    ):
        with pytest.raises((files.StoreError, OSError), match="it is a link"):
            act()
    files.remove_tree(place / "linked", place)
    files.remove_tree(through, place)
    assert files.remove(place / "file", place), "the link goes, and not what it leads to"
    assert not os.path.lexists(place / "file")


def test_what_is_written_over_a_link_takes_its_place(place: Path) -> None:
    files.write_atomic(place / "file", b"mine", place)
    assert (place / "file").read_bytes() == b"mine"
    assert not (place / "file").is_symlink()


def test_a_pipe_or_a_device_keeps_nobody_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("pipe", "zero"):
        with pytest.raises(Strange, match=r"it is a (pipe|device)"):
            files.reading(tmp_path / name)
    with pytest.raises(Strange, match="it is a pipe"):
        files.remove(tmp_path / "pipe")
    with pytest.raises(OSError, match=r"pipe|No such device"):
        files.open_in_place(tmp_path / "pipe", tmp_path)


def test_a_file_that_is_larger_than_its_kind_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"x" * 101)
    with pytest.raises(Strange, match="more than 100 bytes"):
        files.read(tmp_path / "large", 100)


def test_a_file_with_a_second_name_is_not_written_in_place(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("precious")
    os.link(tmp_path / "theirs", tmp_path / "ours")
    with pytest.raises(Strange, match="a second name"):
        files.open_in_place(tmp_path / "ours", tmp_path, 0)
    assert (tmp_path / "theirs").read_text() == "precious"


@pytest.mark.parametrize(
    ("folder", "umask", "file", "inner"),
    [(0o2775, 0o022, 0o664, 0o775), (0o2770, 0o077, 0o660, 0o770), (0o755, 0o022, 0o644, 0o755),
     (0o700, 0o077, 0o600, 0o700), (0o1777, 0o022, 0o644, 0o755), (0o755, 0o002, 0o664, 0o775)],
)  # fmt: skip
def test_what_is_made_in_a_groups_folder_is_for_the_group(
    tmp_path: Path, folder: int, umask: int, file: int, inner: int
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(folder)
    before = os.umask(umask)
    try:
        files.write_atomic(shared / "inner" / "written", b"", shared)
        assert files.make_new(shared / "new")
        os.close(files.open_in_place(shared / "inner" / "opened", shared))
    finally:
        os.umask(before)
    assert stat.S_IMODE((shared / "inner").stat().st_mode) & 0o777 == inner
    for name in ("inner/written", "new", "inner/opened"):
        assert stat.S_IMODE((shared / name).stat().st_mode) == file, name


def test_a_place_where_others_may_put_another_file_is_named(tmp_path: Path) -> None:
    mine = tmp_path / "mine" / "deep"
    mine.mkdir(parents=True)
    assert files.writable_by_others(mine) is None
    mine.parent.chmod(0o775)
    assert files.writable_by_others(mine) == mine.parent
