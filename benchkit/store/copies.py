"""Copies of a registry's files that are checked on the way."""

import hashlib
import os
import shutil
import sqlite3
import tempfile
from pathlib import Path

from benchkit.errors import StoreError
from benchkit.files import fsync_folder
from benchkit.progress import Progress
from benchkit.store.database import Store, errors

PAGES = 2000
"""Pages of the registry that are copied between two signs of life."""


def copy_database(store: Store, target: Path, progress: Progress) -> None:
    """One state of the registry, that of now, while others go on writing."""
    source = store.db.connection()
    with errors(store.path), store.db.atomic():
        source.execute("SELECT count(*) FROM sqlite_master").fetchone()  # from here on the transaction sees one state
        made = sqlite3.connect(target)
        try:
            with progress.step(f"copy {store.path.name}", None, "pages") as step:
                source.backup(made, pages=PAGES, progress=lambda *_: step.advance(PAGES), sleep=0)
        finally:
            made.close()


def copy_file(source: Path, target: Path, sha256: str, *, link: bool = False) -> bool:
    """`source` as `target`, whole or not at all; False, and nothing, where its contents are not those of `sha256`.

    link: as a second name of the same file where the file system can. Raises StoreError where it cannot be written.
    """
    temporary: str | None = None
    try:
        with source.open("rb") as f:
            target.parent.mkdir(parents=True, exist_ok=True)
            if link:
                if hashlib.file_digest(f, "sha256").hexdigest() != sha256:
                    return False
                try:
                    os.link(source, target)
                    return True
                except OSError:
                    f.seek(0)  # another file system, or one without links: copied
            with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".", suffix=".part", delete=False) as made:
                temporary = made.name
                shutil.copyfileobj(f, made, 1 << 20)
                made.flush()
                os.fsync(made.fileno())
        with open(temporary, "rb") as again:
            whole = hashlib.file_digest(again, "sha256").hexdigest() == sha256
        if not whole:
            return False
        os.replace(temporary, target)
        fsync_folder(target.parent)
        temporary = None
        return True
    except FileNotFoundError:
        if source.exists():
            raise
        return False
    except OSError as e:
        raise StoreError(f"cannot write '{target}': {e.strerror}") from e
    finally:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
