"""Files that are written whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedRandom
from pathlib import Path
from uuid import uuid4

from benchkit.errors import StoreError


def write_atomic(path: Path, data: bytes) -> None:
    """To a temporary name in the same folder, fsync, rename. Raises StoreError and leaves nothing half-written."""
    with writing(path) as f:
        f.write(data)


@contextmanager
def writing(path: Path) -> Iterator[BufferedRandom]:
    """As `write_atomic`, for what is too large to be made in memory first: a file that is in its place at the end.

    It can be read again, too. Raises StoreError where it cannot be written; whatever is raised, nothing is left of it.
    """
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        name = str(path.parent / f".{uuid4().hex}.part")
        # Not tempfile: it would keep the file from everybody else who may use the folder.
        with open(os.open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o666), "w+b") as f:
            temporary = name
            yield f
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
        fsync_folder(path.parent)
    except BaseException as e:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        if isinstance(e, OSError):
            raise StoreError(f"cannot write '{path}': {e.strerror}") from e
        raise


def fsync_folder(folder: Path) -> None:
    """Makes a rename in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
