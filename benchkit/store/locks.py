"""A launcher's lock: held by it and by every worker process that it starts, as long as any of them lives.

So nobody on this host takes a dead launcher's cells while a worker that it left behind may still be sealing a report.
"""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

NO_LOCKS_HERE = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
"""What a file system without locks answers."""


@contextmanager
def locked(side: Path, token: str) -> Iterator[int]:
    """Holds the lock of the owner `token`; gives its file descriptor, for workers to inherit. side: of the store."""
    path = lock_file(side, token)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
    try:
        with suppress(OSError):  # a file system without locks: then the process's own life is all that is known
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def is_held(side: Path, token: str) -> bool | OSError:
    """Whether any process on this host still holds it; the reason where that cannot be found out.

    It is read, not written, and locked with others: it may be another user's, NFS grants an exclusive lock only on a
    file that is open for writing, and two who look at once must not take each other for the owner.
    """
    try:
        descriptor = os.open(lock_file(side, token), os.O_RDONLY)
    except FileNotFoundError:
        return False
    except OSError as e:
        return e
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError as e:
        return False if e.errno in NO_LOCKS_HERE else e
    finally:
        os.close(descriptor)
    return False


def lock_file(side: Path, token: str) -> Path:
    return side / "owners" / f"{token}.lock"
