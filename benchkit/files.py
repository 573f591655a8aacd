"""Files that are written whole or not at all."""

import os
import tempfile
from pathlib import Path

from benchkit.errors import StoreError


def write_atomic(path: Path, data: bytes) -> None:
    """To a temporary name in the same folder, fsync, rename. Raises StoreError and leaves nothing half-written."""
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", suffix=".part", delete=False) as f:
            temporary = f.name
            f.write(data)
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
