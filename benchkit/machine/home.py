"""The user's home folder, and what is done for a user who has none, as in a container."""

import os
import stat
from pathlib import Path

from benchkit.errors import StoreError
from benchkit.machine.files import make_private


def has_home() -> bool:
    """In a container HOME may not be set, and the user's number have no name."""
    return os.path.isabs(os.path.expanduser("~"))


def expanded(path: str | Path) -> Path:
    """With `~` as the user's home folder. Raises StoreError where there is none."""
    try:
        return Path(path).expanduser()
    except RuntimeError as e:
        raise StoreError(
            f"there is no home folder for the ~ of '{path}' (HOME is not set, or there is no such user): write out the "
            "whole path"
        ) from e


def private_folder(name: str) -> Path:
    """A folder of this user's among the system's temporary files, made where it is not there. Raises StoreError where
    somebody else has one of its name."""
    import tempfile

    folder = Path(tempfile.gettempdir()) / f"{name}-{os.getuid()}"
    try:
        make_private(folder)
        found = folder.lstat()
    except OSError as e:
        raise StoreError(f"cannot make the folder '{folder}': {e.strerror}; set HOME, or BENCHKIT_CACHE") from e
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise StoreError(f"'{folder}' is not this user's own folder: set HOME, or BENCHKIT_CACHE")
    return folder
