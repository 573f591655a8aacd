"""A launcher's lock: held by it and by every worker process that it starts, as long as any of them lives.

So nobody on this host takes a dead launcher's cells while a worker that it left behind may still be sealing a report.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def locked(side: Path, token: str) -> Iterator[int]:
    """Holds the lock of the owner `token`; gives its file descriptor, for workers to inherit. side: of the store."""
    path = lock_file(side, token)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR)
    try:
        with suppress(OSError):  # a file system without locks: then the process's own life is all that is known
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def is_held(side: Path, token: str) -> bool:
    """Whether any process on this host still holds it."""
    try:
        descriptor = os.open(lock_file(side, token), os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def lock_file(side: Path, token: str) -> Path:
    return side / "owners" / f"{token}.lock"
