"""Files and folders of ours: whatever is made, overwritten, emptied, moved or removed goes through here.

Others may write where benchkit does, in a lab's shared folders, and a name may come from a file of theirs. So a file is
reached through a handle of its folder, in which no link is followed: `within` names the folder that the user chose, by
whatever links, and below it each step is a folder and the last one a plain file. Scratch names are random and made
exclusively. tests/machine/test_files.py holds that nothing else in benchkit removes, replaces or writes files.

What is made in a folder that its group may write to, the group may write to as well, whatever the umask says; not so in
one that all the world may write to (/tmp).
"""

import errno
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from io import BufferedRandom, BufferedReader
from pathlib import Path
from secrets import token_hex
from typing import Any, BinaryIO, cast

from benchkit.errors import StoreError

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_PLAIN = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
"""For the last step: a pipe does not keep us waiting, and is then refused."""


class Strange(OSError):
    """A link, a pipe, a device or a folder lies where a plain file of ours should, or a link where a folder should."""

    def __init__(self, path: str | Path, what: str) -> None:
        super().__init__(errno.ELOOP, f"it is {what}, and so no file or folder of benchkit's", str(path))


# ------------------------------------------------------------------------------------------------------------- writing


def write_atomic(path: Path, data: bytes, within: Path | None = None) -> None:
    """To a temporary name in the same folder, fsync, rename. Raises StoreError and leaves nothing half-written."""
    with writing(path, within) as f:
        f.write(data)


@contextmanager
def writing(path: Path, within: Path | None = None) -> Iterator[BufferedRandom]:
    """As `write_atomic`, for what is too large to be made in memory first: a file that is in its place at the end.

    It can be read again, too. Raises StoreError where it cannot be written; whatever is raised, nothing is left of it.
    """
    try:
        with _folder_of(path, within, make=True) as (folder, name):
            part = f".{token_hex(16)}.part"
            try:
                with open(_made(folder, part, os.O_RDWR), "w+b") as f:
                    yield f
                    f.flush()
                    os.fsync(f.fileno())
                os.replace(part, name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                with suppress(FileNotFoundError):
                    os.unlink(part, dir_fd=folder)
                raise
            os.fsync(folder)
    except OSError as e:
        raise StoreError(f"cannot write '{path}': {e.strerror}") from e


@contextmanager
def adding(path: Path, within: Path | None = None) -> Iterator[BufferedRandom]:
    """The file, made where it is missing, for writing at its end. Raises OSError."""
    with _folder_of(path, within, make=True) as (folder, name):
        descriptor = _opened(folder, name, path, os.O_RDWR | os.O_APPEND, make=True)
    with open(descriptor, "a+b") as f:
        yield f


def open_in_place(path: Path, within: Path | None = None, size: int | None = None) -> int:
    """A descriptor for reading and writing what is there, made where it is missing. size: it is given that.

    Raises OSError, also where it has a second name: what is written would be changed there too.
    """
    with _folder_of(path, within, make=True) as (folder, name):
        descriptor = _opened(folder, name, path, os.O_RDWR, make=True)
    found = os.fstat(descriptor)
    try:
        if found.st_nlink > 1:
            raise Strange(path, "a second name of another file")
        if size is not None and found.st_size != size:
            os.ftruncate(descriptor, size)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def empty(descriptor: int) -> None:
    """Of a file that `open_in_place` has opened. Raises OSError."""
    os.ftruncate(descriptor, 0)


def create(path: Path, within: Path | None = None) -> int:
    """A descriptor for reading and writing a file that was not there. Raises OSError."""
    with _folder_of(path, within, make=True) as (folder, name):
        return _made(folder, name, os.O_RDWR)


def nameless(folder: Path | None = None, *, buffered: bool = False) -> BinaryIO:
    """A file without a name in `folder`, else where temporary files go (TMPDIR): the system takes it back however the
    process ends. Raises OSError."""
    made: Any = tempfile.TemporaryFile(dir=folder, prefix="benchkit-", buffering=-1 if buffered else 0)  # noqa: SIM115
    return cast(BinaryIO, made)


def make_folder(path: Path, within: Path | None = None) -> None:
    """With those above it. Raises OSError."""
    with _folder(path, within or path, make=True):
        pass


def make_private(path: Path) -> None:
    """A folder for this user alone, where there is nothing of its name. Raises OSError."""
    with _folder_of(path, None) as (folder, name), suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=folder)


def make_new(path: Path) -> bool:
    """An empty file where there is none, as SQLite would make it, but for its mode: whether it was made. Raises
    OSError."""
    with _folder_of(path, None) as (folder, name):
        try:
            os.close(_made(folder, name, os.O_RDWR))
        except FileExistsError:
            return False
    return True


def link(source: Path, target: Path, within: Path | None = None, within_target: Path | None = None) -> None:
    """A second name of a plain file. Raises OSError, FileExistsError where there is something."""
    with _folder_of(source, within) as (of, old), _folder_of(target, within_target, make=True) as (folder, name):
        os.link(old, name, src_dir_fd=of, dst_dir_fd=folder, follow_symlinks=False)


def point(path: Path, to: Path, within: Path | None = None) -> None:
    """A symbolic link in the place of what link there was. Raises OSError."""
    with _folder_of(path, within, make=True) as (folder, name):
        part = f".{token_hex(16)}.part"
        os.symlink(to, part, dir_fd=folder)
        os.replace(part, name, src_dir_fd=folder, dst_dir_fd=folder)


@contextmanager
def scratch(beside: Path, prefix: str) -> Iterator[tuple[Path, int]]:
    """A new folder in the folder `beside`, of a name that nobody can have foreseen, and its handle; it is removed at
    the end. Raises OSError."""
    name = f"{prefix}{token_hex(16)}.part"
    with _folder(beside, beside) as folder:
        _make(folder, name, new=True)
        try:
            with _folder(beside / name, beside) as handle:
                yield beside / name, handle
        finally:
            shutil.rmtree(name, dir_fd=folder, ignore_errors=True)


def remains(beside: Path, prefix: str) -> Iterator[tuple[Path, int]]:
    """What `scratch` of a process of this user that is gone has left there: folders and their handles."""
    pattern = re.compile(re.escape(prefix) + r"[0-9a-f]{32}\.part")
    for name in sorted(filter(pattern.fullmatch, listed(beside))):
        with suppress(OSError), _folder(beside / name, beside) as handle:
            if os.fstat(handle).st_uid == os.geteuid():
                yield beside / name, handle


# ------------------------------------------------------------------------------------------------- removing and moving


def remove(path: Path, within: Path | None = None) -> bool:
    """Whether there was one: a plain file, or a link, of which only the link goes. Raises OSError."""
    return remove_all(path.parent, [path.name], within) == 1


def remove_all(folder: Path, names: Iterable[str], within: Path | None = None) -> int:
    """Likewise the files of these names in one folder: how many there were."""
    n = 0
    try:
        with _folder(folder, within or folder) as handle:
            for name in names:
                n += _remove(handle, name, folder)
    except FileNotFoundError:
        return n
    return n


def _remove(handle: int, name: str, folder: Path) -> bool:
    if name in ("", ".", "..") or "/" in name:
        raise Strange(folder / name, "no name")
    try:
        kind = os.stat(name, dir_fd=handle, follow_symlinks=False).st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISLNK(kind)):
            raise Strange(folder / name, _kind(kind))
        os.unlink(name, dir_fd=handle)
    except FileNotFoundError:
        return False
    return True


def remove_empty(path: Path, within: Path | None = None) -> None:
    """A folder in which nothing is. Raises OSError."""
    with _folder_of(path, within) as (folder, name):
        os.rmdir(name, dir_fd=folder)


def remove_tree(path: Path, within: Path | None = None) -> None:
    """A folder with all that is in it, as far as that may be removed; a link in it goes, not what it leads to."""
    with suppress(OSError), _folder_of(path, within) as (folder, name):
        shutil.rmtree(name, dir_fd=folder, ignore_errors=True)


def move(source: Path, target: Path, within: Path | None = None) -> None:
    """In the place of what file there was. Raises OSError."""
    with _folder_of(source, within) as (of, old), _folder_of(target, within, make=True) as (folder, name):
        os.replace(old, name, src_dir_fd=of, dst_dir_fd=folder)


def move_new(source: Path, target: Path, within: Path | None = None) -> None:
    """To where nothing is. Raises OSError, FileExistsError where there is something."""
    with _folder_of(source, within) as (of, old), _folder_of(target, within, make=True) as (folder, name):
        try:
            os.link(old, name, src_dir_fd=of, dst_dir_fd=folder, follow_symlinks=False)
            os.unlink(old, dir_fd=of)
        except FileExistsError:
            raise
        except OSError:  # a file system without second names
            if os.path.lexists(target):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from None
            os.rename(old, name, src_dir_fd=of, dst_dir_fd=folder)


def writable_by_others(path: Path) -> Path | None:
    """The folder, it or one above it, in which somebody else than this user and root may put another file in the place
    of one that is there; None where there is none."""
    place = path.resolve()
    for folder in (place, *place.parents):
        found = folder.stat()
        shared = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not found.st_mode & stat.S_ISVTX
        if shared or found.st_uid not in (0, os.geteuid()):
            return folder
    return None


def fsync_folder(path: Path) -> None:
    """Makes a rename in the folder survive a power cut."""
    with _folder(path, path) as folder:
        os.fsync(folder)


# ------------------------------------------------------------------------------------------------------------- reading


def reading(path: Path, within: Path | None = None) -> BufferedReader:
    """A plain file for reading: no pipe, which might never end, no device. Raises OSError.

    within: no link is followed below that folder; where it is not given, any is.
    """
    if within is None:
        descriptor = os.open(path, os.O_RDONLY | (_PLAIN & ~os.O_NOFOLLOW))
        _refuse_strange(descriptor, path)
    else:
        with _folder_of(path, within) as (folder, name):
            descriptor = _opened(folder, name, path, os.O_RDONLY)
    return open(descriptor, "rb")


def listed(path: Path, within: Path | None = None) -> list[str]:
    """The names in a folder; none where it is not there. Raises OSError."""
    try:
        with _folder(path, within or path) as folder:
            return os.listdir(folder)
    except FileNotFoundError:
        return []


def read(path: Path, most: int, within: Path | None = None) -> bytes:
    """What is in a plain file. most: bytes that it may hold. Raises OSError."""
    with reading(path, within) as f:
        data = f.read(most + 1)
    if len(data) > most:
        raise Strange(path, f"of more than {most:,} bytes")
    return data


# ------------------------------------------------------------------------------------------------------------- handles


@contextmanager
def _folder_of(path: Path, within: Path | None, make: bool = False) -> Iterator[tuple[int, str]]:
    """The handle of the folder that a file lies in, and the file's name there."""
    name, parent = path.name, path.parent
    if name in ("", ".", ".."):
        raise Strange(path, "no name")
    with _folder(parent, within or parent, make) as folder:
        yield folder, name


@contextmanager
def _folder(path: Path, within: Path, make: bool = False) -> Iterator[int]:
    """The handle of a folder. Raises OSError."""
    if path.is_absolute() != within.is_absolute():
        path, within = path.absolute(), within.absolute()
    try:
        steps = () if path is within else path.relative_to(within).parts
    except ValueError:
        raise Strange(path, f"outside of '{within}'") from None
    if ".." in steps:
        raise Strange(path, "a way up")
    if make and not within.is_dir():
        _make_above(within)
    descriptor = os.open(within, _FOLDER)
    try:
        at = within
        for step in steps:
            at = at / step
            if make:
                _make(descriptor, step)
            try:
                inner = os.open(step, _FOLDER | os.O_NOFOLLOW, dir_fd=descriptor)
            except OSError as e:
                if e.errno in (errno.ELOOP, errno.ENOTDIR):
                    kind = os.stat(step, dir_fd=descriptor, follow_symlinks=False).st_mode
                    raise Strange(at, _kind(kind)) from e
                raise
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)


def _make_above(path: Path) -> None:
    """A folder that the user chose, with those above it."""
    if path.is_dir():
        return
    _make_above(path.parent)
    with _folder(path.parent, path.parent) as folder:
        _make(folder, path.name)


def _make(folder: int, name: str, new: bool = False) -> None:
    try:
        os.mkdir(name, dir_fd=folder)
    except FileExistsError:
        if new:
            raise
        return
    if _is_shared(folder):
        made = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
        try:
            os.fchmod(made, stat.S_IMODE(os.fstat(made).st_mode) | 0o070)
        finally:
            os.close(made)


def _made(folder: int, name: str, flags: int) -> int:
    """A new file."""
    descriptor = os.open(name, flags | os.O_CREAT | os.O_EXCL | _PLAIN, 0o666, dir_fd=folder)
    if _is_shared(folder):
        os.fchmod(descriptor, stat.S_IMODE(os.fstat(descriptor).st_mode) | 0o060)
    return descriptor


def _opened(folder: int, name: str, path: Path, flags: int, make: bool = False) -> int:
    for _ in range(100):
        try:
            descriptor = os.open(name, flags | _PLAIN, dir_fd=folder)
            break
        except FileNotFoundError:
            if not make:
                raise
            with suppress(FileExistsError):  # somebody else has just made it
                return _made(folder, name, flags)
        except OSError as e:
            if e.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
                kind = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
                raise Strange(path, _kind(kind)) from e
            raise
    else:
        raise OSError(errno.EAGAIN, "it is removed again and again", str(path))
    _refuse_strange(descriptor, path)
    return descriptor


def _refuse_strange(descriptor: int, path: Path) -> None:
    kind = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(kind):
        os.close(descriptor)
        raise Strange(path, _kind(kind))


def _is_shared(folder: int) -> bool:
    """Whether its group may write there, and not all the world."""
    mode = os.fstat(folder).st_mode
    return bool(mode & stat.S_IWGRP) and not mode & stat.S_IWOTH


def _kind(mode: int) -> str:
    kinds = ((stat.S_ISLNK, "a link"), (stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISREG, "a file"))
    return next((name for holds, name in kinds if holds(mode)), "a device")
