"""Copies of a registry's files that are checked on the way."""

import errno
import hashlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from benchkit.machine import files
from benchkit.progress import Progress
from benchkit.store.connection import harden
from benchkit.store.database import Store, errors

PAGES = 2000
"""Pages of the registry that are copied between two signs of life."""


def copy_database(store: Store, target: Path, progress: Progress) -> None:
    """One state of the registry, that of now, while others go on writing. Raises StoreError where it cannot be read,
    OSError where the copy has no room.
    """
    source = store.db.connection()
    with errors(store.path), store.db.atomic():
        source.execute("SELECT count(*) FROM sqlite_master").fetchone()  # from here on the transaction sees one state
        files.make_new(target)
        made = sqlite3.connect(target)
        harden(made)
        try:
            with progress.step(f"copy {store.path.name}", None, "pages") as step:
                source.backup(made, pages=PAGES, progress=lambda *_: step.advance(PAGES), sleep=0)
        except sqlite3.OperationalError as e:
            if "is full" not in str(e):
                raise
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target)) from e  # not of the registry's disk
        finally:
            made.close()


def copy_file(
    source: Path, target: Path, sha256: str, size: int, *, within: Path, within_target: Path, link: bool = False
) -> bool:
    """`source` as `target`, whole or not at all; False, and nothing, where it cannot be read or its contents are not
    those of `sha256`.

    size: bytes that it has. within, within_target: the folders beside the registries, below which the target is reached
    through no link. link: as a second name of the same file where the file system can. Raises StoreError where it
    cannot be written.
    """
    try:
        with files.reading(source) as f:
            if link and _linked(f, source, target, sha256, size, within, within_target):
                return True
            with files.writing(target, within_target) as made:
                for chunk in _read(f, size):
                    made.write(chunk)
                made.seek(0)
                if hashlib.file_digest(made, "sha256").hexdigest() != sha256:
                    raise _Altered
    except (_Altered, OSError):  # of the source: what is wrong with the target is a StoreError
        return False
    return True


class _Altered(Exception):
    """The source is not what it should be."""


def _linked(f: BinaryIO, source: Path, target: Path, sha256: str, size: int, within: Path, within_target: Path) -> bool:
    """False where there are no links, as between two file systems."""
    digest = hashlib.sha256()
    for chunk in _read(f, size):
        digest.update(chunk)
    if digest.hexdigest() != sha256:
        raise _Altered
    f.seek(0)
    try:
        files.link(source, target, within, within_target)
    except OSError:
        return False
    return True


def _read(f: BinaryIO, size: int) -> Iterator[bytes]:
    """All of a file of `size` bytes. Raises _Altered where it has more, before they are read."""
    left = size
    try:
        while chunk := f.read(1 << 20):
            left -= len(chunk)
            if left < 0:
                raise _Altered
            yield chunk
    except OSError as e:
        raise _Altered from e
