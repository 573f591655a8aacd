"""Copies of a registry's files that are checked on the way."""

import errno
import hashlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from benchkit.machine.files import writing
from benchkit.progress import Progress
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
        made = sqlite3.connect(target)
        try:
            with progress.step(f"copy {store.path.name}", None, "pages") as step:
                source.backup(made, pages=PAGES, progress=lambda *_: step.advance(PAGES), sleep=0)
        except sqlite3.OperationalError as e:
            if "is full" not in str(e):
                raise
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target)) from e  # not of the registry's disk
        finally:
            made.close()


def copy_file(source: Path, target: Path, sha256: str, *, link: bool = False) -> bool:
    """`source` as `target`, whole or not at all; False, and nothing, where it cannot be read or its contents are not
    those of `sha256`.

    link: as a second name of the same file where the file system can. Raises StoreError where it cannot be written.
    """
    try:
        with source.open("rb") as f:
            if link and _linked(f, source, target, sha256):
                return True
            with writing(target) as made:
                for chunk in _read(f):
                    made.write(chunk)
                made.seek(0)
                if hashlib.file_digest(made, "sha256").hexdigest() != sha256:
                    raise _Altered
    except (_Altered, OSError):  # of the source: what is wrong with the target is a StoreError
        return False
    return True


class _Altered(Exception):
    """The source is not what it should be."""


def _linked(f: BinaryIO, source: Path, target: Path, sha256: str) -> bool:
    """False where there are no links, as between two file systems."""
    digest = hashlib.sha256()
    for chunk in _read(f):
        digest.update(chunk)
    if digest.hexdigest() != sha256:
        raise _Altered
    f.seek(0)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(source, target)
    except OSError:
        return False
    return True


def _read(f: BinaryIO) -> Iterator[bytes]:
    try:
        while chunk := f.read(1 << 20):
            yield chunk
    except OSError as e:
        raise _Altered from e
